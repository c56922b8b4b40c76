"""Seeded choice of samples: plain, stratified by class or by labels, or in whole groups."""

from __future__ import annotations

import warnings

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


TRIES = 200  # random choices of groups, of which the one is taken that has the shares of the classes best


def grouped_sample(groups: np.ndarray, strata: np.ndarray, size: float, rng: np.random.Generator) -> np.ndarray:
    """Which samples, bool ``(n,)``, whole groups choose that hold about ``size`` samples and the classes in their shares.

    Of many random choices the best: first that the rest keeps every class, then that the choice has every class, then that
    samples and classes are near the shares that are asked for.

    Args:
        groups: whole numbers ``(n,)``, of two groups or more.
        strata: ``(n, K)``, how much each sample counts for each class or label; K may be 0.
    """
    _, member = np.unique(groups, return_inverse=True)
    sizes = np.bincount(member)
    table = np.stack([np.bincount(member, weights=column) for column in strata.T] or [np.zeros(len(sizes))], axis=1)
    total, share = table.sum(0), size / len(groups)
    best: tuple[tuple[float, ...], np.ndarray] | None = None
    for _ in range(TRIES):
        order = rng.permutation(len(sizes))
        count = int(np.abs(np.cumsum(sizes[order])[:-1] - size).argmin()) + 1
        taken = np.sort(order[:count])
        found = table[taken].sum(0)
        without = [int(((part == 0) & (total > 0)).sum()) for part in (total - found, found)]
        off = abs(sizes[taken].sum() - size) / size + np.abs(found - share * total).sum() / max(
            share * total.sum(), 1e-9
        )
        if best is None or (*without, off) < best[0]:
            best = (*without, float(off)), taken
    return np.isin(member, best[1])


def assign_folds(
    folds: int, labels: np.ndarray | None, groups: np.ndarray | None, total: int, rng: np.random.Generator
) -> np.ndarray:
    """The fold, from 0, of each of ``total`` samples, int64 ``(n,)``: whole groups, and classes in their shares, as well as can be.

    Args:
        labels: classes ``(n,)``, labels as zeros and ones ``(n, K)``, or None.
        groups: whole numbers ``(n,)``, or None; no fewer groups than folds.
    """
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    found = np.zeros(total, np.int64)
    if labels is not None and labels.ndim == 2 and groups is None:
        left = rng.permutation(total)
        for fold in range(folds - 1, 0, -1):
            chosen = multilabel_sample(labels[left], round(len(left) / (fold + 1)), rng)
            found[left[chosen]] = fold
            left = np.delete(left, chosen)
        return found
    if labels is not None and labels.ndim == 1:
        kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    else:
        labels, kind = None, KFold if groups is None else GroupKFold
    splitter = kind(folds, shuffle=True, random_state=int(rng.integers(2**31)))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # of classes with fewer samples than folds, which the caller looks at
        for fold, (_, held) in enumerate(splitter.split(np.zeros((total, 1)), labels, groups)):
            found[held] = fold
    return found
