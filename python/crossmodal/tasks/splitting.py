"""Seeded choice of samples: plain, or stratified with at least one sample of every class."""

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
