"""Checks of arrays that come from outside; errors name the array, the place and the value."""

from __future__ import annotations

import numpy as np


def real_array(values: np.ndarray, name: str) -> np.ndarray:
    """``values`` as floating point: float32 where that is exact, else float64.

    Raises:
        TypeError: anything but real numbers or booleans.
    """
    if values.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected real numbers, got dtype {values.dtype}")
    if values.dtype in (np.float32, np.float64):
        return values
    exact_in_float32 = (values.dtype.kind != "f" and values.dtype.itemsize <= 2) or values.dtype == np.float16
    return values.astype(np.float32 if exact_in_float32 else np.float64)


def require_finite(values: np.ndarray, name: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        ValueError: names the first bad value, its place and how many samples have one.
    """
    finite = np.isfinite(values)
    if finite.all():
        return
    place = tuple(int(i) for i in np.argwhere(~finite)[0])
    samples = int((~finite.reshape(len(values), -1)).any(axis=1).sum())
    raise ValueError(f"{name}: value {values[place]} at index {place} ({samples} sample(s) with NaN or infinity)")
