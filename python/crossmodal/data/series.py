"""Series of unequal length and with holes: linear interpolation and linear resampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossmodal.errors import UserError


def fill_missing(series: np.ndarray, name: str) -> np.ndarray:
    """Replace NaN by linear interpolation along the last axis; before the first and after the last value, repeat it.

    Args:
        series: float ``(C, L)``.
        name: what errors call it.

    Raises:
        UserError: a channel has no value at all.
    """
    missing = np.isnan(series)
    if not missing.any():
        return series
    filled = series.copy()
    positions = np.arange(series.shape[1])
    for channel, holes in enumerate(missing):
        if holes.all():
            raise UserError(f"{name}: channel {channel} has no value, all {len(holes)} are missing")
        filled[channel, holes] = np.interp(positions[holes], positions[~holes], series[channel, ~holes])
    return filled


def resample(series: np.ndarray, length: int) -> np.ndarray:
    """Stretch or shrink ``(C, L)`` to ``(C, length)`` by linear interpolation, first and last value kept."""
    if series.shape[1] == length:
        return series
    old = np.arange(series.shape[1])
    new = np.linspace(0, series.shape[1] - 1, length)
    return np.stack([np.interp(new, old, channel) for channel in series])


def stack_series(series: Sequence[np.ndarray], length: int, name: str) -> np.ndarray:
    """Fill, resample and stack ``(C, L_i)`` series to ``(n, C, length)``; ``name`` is what errors call them."""
    return np.stack([resample(fill_missing(one, f"{name}: sample {i}"), length) for i, one in enumerate(series)])
