"""Real numbers in arrays, large ones read in pieces: their types, and checks whose errors name array, place and value."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from crossmodal.data.dataset import ArrayLike, take
from crossmodal.errors import UserError

CHUNK_VALUES = 2**20  # 8 MiB in float64


def chunks(values: ArrayLike, rows: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """The samples of ``values`` in order, or those that ``rows`` names, about a million values at a time."""
    total, size = len(values) if rows is None else len(rows), max(math.prod(values.shape[1:]), 1)
    step = max(CHUNK_VALUES // size, 1)
    for start in range(0, total, step):
        part = slice(start, start + step)
        yield np.asarray(values[part]) if rows is None else take(values, rows[part])


def float_dtype(dtype: np.dtype) -> np.dtype:
    """The floating point type that real numbers are read as: float32 where that is exact, else float64."""
    exact_in_float32 = dtype.itemsize <= 2 or (dtype.kind == "f" and dtype.itemsize == 4)
    return np.dtype(np.float32 if exact_in_float32 else np.float64)


def require_real(values: ArrayLike, name: str) -> ArrayLike:
    """``values`` as they are.

    Raises:
        UserError: anything but real numbers or booleans.
    """
    if values.dtype.kind not in "biuf":
        raise UserError(f"{name}: expected real numbers, got dtype {values.dtype}")
    return values


def real_array(values: np.ndarray, name: str) -> np.ndarray:
    """``values`` in their :func:`float_dtype`.

    Raises:
        UserError: anything but real numbers or booleans.
    """
    return np.asarray(require_real(values, name), float_dtype(values.dtype))


def require_finite(values: ArrayLike, name: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        UserError: names the first bad value, its place and how many samples have one.
    """
    if values.dtype.kind in "biu":
        return
    done, samples, place = 0, 0, None
    for chunk in chunks(values):
        finite = np.isfinite(chunk)
        if not finite.all():
            samples += int((~finite.reshape(len(chunk), -1)).any(axis=1).sum())
            if place is None:
                first, *rest = (int(i) for i in np.argwhere(~finite)[0])
                place = (done + first, *rest)
        done += len(chunk)
    if place is not None:
        raise UserError(f"{name}: value {values[place]} at index {place} ({samples} sample(s) with NaN or infinity)")
