"""The core's numerical parts once more, in plain float64 numpy loops that follow the formulas word by word."""

from __future__ import annotations

import numpy as np


def order(scores: np.ndarray) -> np.ndarray:
    """Indices from best to worst: NaN last, equal scores by index."""
    return np.array(
        sorted(range(len(scores)), key=lambda i: (np.isnan(scores[i]), -scores[i] if scores[i] == scores[i] else 0, i)),
        int,
    )


def best(scores: np.ndarray, n: int) -> np.ndarray:
    return np.sort(order(scores)[:n])


def one_minus(p: np.ndarray) -> np.ndarray:
    rest = 1 - p
    top = int(np.argmax(p))
    rest[top] = p.sum() - p[top]
    return rest


def steps(scores: np.ndarray, tau: float, count: int) -> list[np.ndarray]:
    """p_1 .. p_{count + 1} of one row."""
    s = np.where(np.isnan(scores), -np.inf, scores).astype(np.float64)
    top = s.max()
    if top == -np.inf:
        return [np.zeros_like(s)] * (count + 1)
    p = np.exp((s - top) / tau)
    p /= p.sum()
    path = [p]
    for _ in range(count):
        weight = p * one_minus(p) ** (1 / tau)
        total = weight.sum()
        p = weight / total if total > 0 else np.zeros_like(p)
        path.append(p)
    return path


def log_growth(p: np.ndarray, remaining: float, tau: float) -> np.ndarray:
    """log(T p / tau) with sum tau log(1 + T p / tau) = remaining, by bisection on log T."""
    with np.errstate(divide="ignore"):
        log_p = np.log(p) - np.log(tau)
    low, high = np.log(remaining) - 1, np.log(remaining) + remaining / tau + 800
    for _ in range(200):
        middle = (low + high) / 2
        if tau * np.logaddexp(0, middle + log_p).sum() < remaining:
            low = middle
        else:
            high = middle
    return low + log_p


def relaxed(scores: np.ndarray, n: int, tau: float, exact_steps: int) -> np.ndarray:
    m = n if exact_steps < 0 else min(exact_steps, n)
    path = steps(scores, tau, m)
    h = sum(path[:m], np.zeros(len(scores)))
    if n > m and path[m].any():
        h = h + tau * np.logaddexp(0, log_growth(path[m], n - m, tau))
    return h


def relaxed_adjoint(c: np.ndarray, scores: np.ndarray, n: int, tau: float, exact_steps: int) -> np.ndarray:
    """J(h)^T c of one row."""
    if n == 0:
        return np.zeros(len(scores))
    m = n if exact_steps < 0 else min(exact_steps, n)
    path = steps(scores, tau, m)
    if not path[0].any():
        return np.zeros(len(scores))
    c = c.astype(np.float64)
    a = np.zeros(len(scores))
    if n > m and path[m].any():
        q = 1 / (1 + np.exp(-log_growth(path[m], n - m, tau)))
        a = tau * q * (c - (q * c).sum() / q.sum())
    for i in reversed(range(m)):
        p, rest = path[i], one_minus(path[i])
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.where(rest > 0, 1 - p / (tau * rest), 0.0)
        a = c * p + (a - path[i + 1] * a.sum()) * slope
    return (a - path[0] * a.sum()) / tau


def choose(noisy_target, noisy_source, k, highest, by_score):
    """(target_index, source_index) of one sample."""
    targets = len(noisy_target)
    kept = set(order(-noisy_target if highest else noisy_target)[: targets - k].tolist())
    slots = [n for n in range(targets) if n not in kept]
    patches = best(noisy_source, k).tolist()
    if by_score:
        rank = {int(patch): place for place, patch in enumerate(order(noisy_source))}
        patches.sort(key=rank.__getitem__)
        rank = {int(slot): place for place, slot in enumerate(order(noisy_target))}
        pairs = sorted(zip(sorted(slots, key=rank.__getitem__, reverse=True), patches, strict=True))
        slots, patches = [slot for slot, _ in pairs], [patch for _, patch in pairs]
    return slots, patches


def replace_gradient(y, target, source, weight, forward, tau, exact_steps, highest):
    """(dtarget, dsource, dweight, dbias) with the gradient through the gate, (B, N, D) float64 arrays."""
    y, target, source, weight = (x.astype(np.float64) for x in (y, target, source, weight))
    dtarget, dsource = np.zeros_like(target), np.zeros_like(source)
    dweight, dbias = np.zeros(target.shape[2]), 0.0
    for b in range(len(target)):
        slots, patches = forward["target_index"][b], forward["source_index"][b]
        c_target = (y[b] * target[b]).sum(-1)
        c_target[slots] = 0
        c_source = np.zeros(source.shape[1])
        c_source[patches] = (y[b][slots] * source[b][patches]).sum(-1)
        dtarget[b] = y[b]
        dtarget[b][slots] = 0
        dsource[b][patches] = y[b][slots]
        sign, k = (-1 if highest else 1), len(slots)
        s_target, s_source = (
            forward["noisy_target"][b].astype(np.float64),
            forward["noisy_source"][b].astype(np.float64),
        )
        ds_target = sign * relaxed_adjoint(c_target, sign * s_target, target.shape[1] - k, tau, exact_steps)
        ds_source = relaxed_adjoint(c_source, s_source, k, tau, exact_steps)
        for ds, name, tokens, out in (
            (ds_target, "gate_target", target[b], dtarget[b]),
            (ds_source, "gate_source", source[b], dsource[b]),
        ):
            g = forward[name][b].astype(np.float64)
            dz = ds * g * (1 - g)
            out += dz[:, None] * weight
            dweight += dz @ tokens
            dbias += dz.sum()
    return dtarget, dsource, dweight, dbias
