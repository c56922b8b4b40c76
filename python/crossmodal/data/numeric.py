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
EXACT = 2**53  # float64 holds every whole number up to it


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
    """``values`` as they are: numbers that float64, in which all is computed, holds exactly (NaN and infinity are some).

    Raises:
        UserError: anything but real numbers of at most 64 bits or booleans.
        UserError: a whole number beyond 2**53, or masked values; names index and value.
    """
    if values.dtype.kind not in "biuf":
        raise UserError(f"{name}: expected real numbers, got dtype {values.dtype}")
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        raise UserError(f"{name}: {values.dtype} is wider than float64, in which all is computed; astype rounds it")
    require_unmasked(values, name)
    if values.dtype.kind in "iu" and values.dtype.itemsize == 8:
        done = 0
        for chunk in chunks(values):
            large = (chunk > EXACT) | (chunk < -EXACT)
            if large.any():
                first, *rest = (int(i) for i in np.argwhere(large)[0])
                place = (done + first, *rest)
                raise UserError(
                    f"{name}: value {values[place]} at index {place} is beyond 2**53, where float64 leaves out whole "
                    "numbers; subtract an offset, or convert to float64 where rounding does no harm"
                )
            done += len(chunk)
    return values


def require_unmasked(values: np.ndarray, name: str) -> None:
    """Refuse masked values, whose mask every computation here would drop.

    Raises:
        UserError: there are some.
    """
    if np.ma.is_masked(values):
        raise UserError(f"{name}: holds masked values; drop or fill them")


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


def real_array(values: np.ndarray, name: str) -> np.ndarray:
    """``values`` in their :func:`float_dtype`; errors as those of :func:`require_real`."""
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
