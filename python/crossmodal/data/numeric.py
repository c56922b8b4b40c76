"""Real numbers in arrays and files: what is taken for one without a loss, and checks whose errors name place and value.

Arrays are read in pieces, for they may fill half the memory.
"""

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


def require_numbers(values: ArrayLike, name: str, *, missing: bool = False) -> None:
    """Refuses what are not real numbers, masked ones, infinity, and NaN unless values may be ``missing``.

    Raises:
        UserError: names the first bad value, its place and how many samples have one.
    """
    if values.dtype.kind not in "biuf":
        raise UserError(f"{name}: expected real numbers, got dtype {values.dtype}")
    if np.ma.is_masked(values):  # every computation here would drop the mask
        raise UserError(f"{name}: holds masked values; drop or fill them")
    require_finite(values, name, missing=missing)


def parse_number(text: str) -> float:
    """A decimal number as files have it, "nan" and "inf" included.

    Raises:
        UserError: it is none, or one that Python reads otherwise than it stands there: an underscore, a number that
            overflows, a whole number that float64 does not hold.
    """
    try:
        value = float(text.replace("_", "?"))
    except ValueError:
        raise UserError(f"{text[:40]!r} is not a number") from None
    digits = text.strip().lstrip("+-")
    if math.isinf(value) and not digits[0].isalpha():
        raise UserError(f"{text[:40]!r} is beyond float64")
    if digits.isdecimal() and len(digits) > 15 and int(value) != int(text):
        raise UserError(f"{text[:40]!r} is a whole number that float64 does not hold")
    return value


def is_number(text: str) -> bool:
    """Whether `parse_number` takes it for one."""
    try:
        parse_number(text)
    except UserError:
        return False
    return True


def require_finite(values: ArrayLike, name: str, *, missing: bool = False) -> None:
    """Refuse infinity, and NaN unless values may be ``missing``; errors as those of :func:`require_numbers`."""
    if values.dtype.kind in "biu" or getattr(values, "checked", False):
        return
    done, samples, place = 0, 0, None
    for chunk in chunks(values):
        bad = np.isinf(chunk) if missing else ~np.isfinite(chunk)
        if bad.any():
            samples += int(bad.reshape(len(chunk), -1).any(axis=1).sum())
            if place is None:
                first, *rest = (int(i) for i in np.argwhere(bad)[0])
                place = (done + first, *rest)
        done += len(chunk)
    if place is not None:
        raise UserError(f"{name}: value {values[place]} at index {place} ({samples} sample(s) with NaN or infinity)")
