"""Seeded choice of samples: plain, or stratified by class or by labels."""

from __future__ import annotations

import numpy as np


def plain_sample(total: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """``size`` of ``total`` indices at random, ascending."""
    return np.sort(rng.permutation(total)[:size])


def stratified_sample(labels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of ``size`` samples, ascending, in which classes have their share of ``labels`` and at least one sample.

    Shares are rounded by the largest remainder. ``size`` lies between the number of classes and ``len(labels)``.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if not len(classes) <= size <= len(labels):
        raise ValueError(f"size: expected {len(classes)} to {len(labels)}, got {size}")
    quota = size * counts / len(labels)
    taken = np.clip(np.floor(quota).astype(int), 1, counts)
    while taken.sum() != size:
        # At most one step per class: floors fall short of the size, raised minima overshoot it.
        if taken.sum() < size:
            taken[np.argmax(np.where(taken < counts, quota - taken, -np.inf))] += 1
        else:
            taken[np.argmax(np.where(taken > 1, taken - quota, -np.inf))] -= 1
    chosen = [
        rng.permutation(np.flatnonzero(labels == label))[:count] for label, count in zip(classes, taken, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def multilabel_sample(labels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of ``size`` samples, ascending, in which labels have their share of ``labels``, zeros and ones ``(n, K)``.

    The rarer value of a label, where two samples or more have it, comes to lie on both sides of the cut, unless other
    labels of the same samples stand against it. Iterative stratification (Sechidis et al., 2011): label by label, the one
    with the fewest samples left first, each sample goes to the side that lacks that label most.
    """
    total = len(labels)
    rare = labels > 0.5
    rare ^= rare.mean(axis=0) > 0.5
    left = rare.sum(axis=0)
    lacking = np.outer([size / total, 1 - size / total], left)
    lacking[:, left > 1] = lacking[:, left > 1].clip(1, left[left > 1] - 1)
    room = np.array([size, total - size])
    side = np.full(total, -1)
    order = rng.permutation(total)
    while left.any():
        label = np.where(left > 0, left, total + 1).argmin()
        for sample in order[(side[order] < 0) & rare[order, label]]:
            need = np.where(room > 0, lacking[:, label], -np.inf)
            chosen = int((need[1], room[1]) > (need[0], room[0]))
            side[sample] = chosen
            room[chosen] -= 1
            lacking[chosen] -= rare[sample]
            left -= rare[sample]
    rest = order[side[order] < 0]
    side[rest[: room[0]]] = 0
    return np.flatnonzero(side == 0)
