"""Random initial states as PDEBench draws them (Takamoto et al., NeurIPS 2022, appendix D, and its generators)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from crossmodal.pde.base import Generators

FOLDED = 0.1  # probability of the absolute value
EDGE = 0.01  # width of a window's edges


def column(values, ndim: int) -> np.ndarray:
    """One value for each sample, `(n,)`, shaped to broadcast over `(n, ...)` with so many axes in all."""
    return np.reshape(np.asarray(values), (-1, *[1] * (ndim - 1)))


def waves(
    rngs: Generators, *, modes: int = 4, windowed: float = 0.1, length: float = 1.0
) -> Callable[[np.ndarray], np.ndarray]:
    """Superposed sine waves, now and then folded by the absolute value or cut out by a window.

        u0(x) = sum_i A_i sin(2 pi i s_i x / length + phi_i),    A_i ~ U(0, 1),  phi_i ~ U(0, 2 pi)

    where s counts two draws, with replacement, from the modes: a mode that is drawn twice has twice its wave number, one that is
    not drawn adds a constant. Then |u0| with probability 0.1, a random sign, and with probability `windowed` a window of width
    0.45 that starts at 0.1 + 0.35 w, where w < `windowed` is also what decided about it. PDEBench divides by the length less one
    cell, so that its waves do not quite close; these are periodic.

    Returns:
        Positions, broadcastable to `(n, ...)`, to values of that shape.
    """
    amplitude = np.stack([rng.uniform(0, 1, modes) for rng in rngs])
    phase = np.stack([rng.uniform(0, 2 * np.pi, modes) for rng in rngs])
    drawn = np.stack([np.bincount(rng.integers(modes, size=2), minlength=modes) for rng in rngs])
    number = drawn * np.arange(1, modes + 1)
    folded = np.array([rng.random() < FOLDED for rng in rngs])
    sign = np.array([rng.choice((-1.0, 1.0)) for rng in rngs])
    place = np.array([rng.random() for rng in rngs])

    def states(x: np.ndarray) -> np.ndarray:
        def each(values):
            return column(values, x.ndim)

        u = sum(
            each(amplitude[:, i]) * np.sin(2 * np.pi / length * each(number[:, i]) * x + each(phase[:, i]))
            for i in range(modes)
        )
        u = each(sign) * np.where(each(folded), np.abs(u), u)
        left, right = 0.1 + 0.35 * each(place), 0.55 + 0.35 * each(place)
        window = 0.5 * (np.tanh((x - left) / EDGE) - np.tanh((x - right) / EDGE))
        return np.where(each(place < windowed), window * u, u)

    return states


def unit_range(states: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """States shifted and scaled so that each sample runs from 0 to 1 over the points `x`, `(1, points)`."""
    on_grid = states(x)
    low, high = on_grid.min(axis=1), on_grid.max(axis=1)
    return lambda x: (states(x) - column(low, x.ndim)) / column(high - low, x.ndim)
