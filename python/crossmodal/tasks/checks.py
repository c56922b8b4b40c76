"""Checks of arrays that come from outside; errors name the array, the place and the value."""

from __future__ import annotations

import numpy as np


def real_array(values: np.ndarray, name: str) -> np.ndarray:
    """``values`` as floating point (float32 where that is exact, else float64), contiguous and writable, as torch likes it.

    Raises:
        TypeError: anything but real numbers or booleans.
    """
    if values.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected real numbers, got dtype {values.dtype}")
    exact_in_float32 = values.dtype.itemsize <= 2 or (values.dtype.kind == "f" and values.dtype.itemsize == 4)
    return np.require(values, np.float32 if exact_in_float32 else np.float64, ["C", "W"])


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
