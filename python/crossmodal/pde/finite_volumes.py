"""What the compressible and the shallow-water solvers share: limited slopes, and time steps that are each sample's own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np


def limited(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Slope of each cell, `(...)`, from the differences to its two neighbours, by van Leer's harmonic mean: 0 at an extremum."""
    product = left * right
    return np.where(product > 0, 2 * product / np.where(product > 0, left + right, 1), 0)


def faces(cells: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Values on the two sides of every inner face, from cells with two ghost cells at either end of the axis.

    Args:
        cells: `(..., N + 4, ...)`.

    Returns:
        Left and right of the face, `(..., N + 1, ...)` each.
    """
    cells = np.moveaxis(cells, axis, -1)
    difference = np.diff(cells)
    half = 0.5 * limited(difference[..., :-1], difference[..., 1:])  # of all cells but the outermost
    inner = cells[..., 1:-1]
    left, right = (inner + half)[..., :-1], (inner - half)[..., 1:]
    return np.moveaxis(left, -1, axis), np.moveaxis(right, -1, axis)


def march(
    state: np.ndarray,
    times: np.ndarray,
    step: Callable[[np.ndarray, np.ndarray], np.ndarray],
    largest: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Frames of a batch in which every sample takes steps of its own length, so that it does not depend on its neighbours.

    Args:
        state: initial state, `(n, ...)`.
        times: of the frames.
        step: state and step lengths `(n,)` to the next state; a sample with length 0 stays as it is.
        largest: the step length that each sample may take, `(n,)`.

    Returns:
        `(frames, n, ...)`.
    """
    frames = [state]
    for start, end in pairwise(times):
        left = np.full(len(state), end - start)
        while np.any(left > 0):
            dt = np.minimum(largest(state), left)
            left = left - dt
            state = step(state, dt)
        frames.append(state)
    return np.stack(frames)
