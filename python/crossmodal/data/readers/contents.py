"""Checks of what a file from outside holds: keys, numbers of a shape, labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.errors import UserError


def arrays(found: Any, path: Path | str, shapes: Mapping[str, tuple[int | None, ...]]) -> list[np.ndarray]:
    """Arrays of real numbers with as many rows, by name, of what a file holds.

    Args:
        found: what was read.
        path: the file, for errors.
        shapes: of each array that is wanted; None is any length.

    Raises:
        UserError: it is no mapping, lacks a key, or an array has another shape or no numbers.
    """
    values = entries(found, path, shapes)
    chosen = [array(value, f"{path}: {key}", shapes[key]) for key, value in values.items()]
    for key, one in zip(shapes, chosen, strict=True):
        if len(one) != len(chosen[0]):
            first = next(iter(shapes))
            raise UserError(f"{path}: {len(chosen[0])} rows in {first}, but {len(one)} in {key}")
    return chosen


def entries(found: Any, path: Path | str, keys: Collection[str]) -> dict[str, Any]:
    """What a file holds under those keys.

    Raises:
        UserError: it is no mapping, or lacks one.
    """
    if not isinstance(found, Mapping):
        raise UserError(f"{path}: expected a mapping with {', '.join(keys)}, got {type(found).__name__}")
    for key in keys:
        if key not in found:
            raise UserError(f"{path}: lacks the key {key!r}; it holds {', '.join(map(repr, found)) or 'nothing'}")
    return {key: found[key] for key in keys}


def array(value: Any, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """An array of real numbers and of that shape (None: any length).

    Raises:
        UserError: it is another, or empty.
    """
    try:
        value = np.asanyarray(value)
    except ValueError:  # lists of unequal lengths
        value = np.empty(len(value), object)
    fits = value.ndim == len(shape) and all(e in (None, n) for e, n in zip(shape, value.shape, strict=True))
    if value.dtype.kind not in "biuf" or not fits or 0 in value.shape:
        wanted = ", ".join("n" if length is None else str(length) for length in shape)
        raise UserError(f"{name}: expected numbers of shape ({wanted}), got {value.dtype} of shape {value.shape}")
    return value


def labels(y: np.ndarray, name: str, low: int, high: int, *, all_of_them: bool = False) -> np.ndarray:
    """Labels from `low` to `high` as int64.

    Args:
        all_of_them: whether every one has to occur.

    Raises:
        UserError: another label; the first is named. Or one that does not occur.
    """
    wrong = (y != np.floor(y)) | (y < low) | (y > high)
    if wrong.any():
        first = int(wrong.argmax())
        raise UserError(f"{name}: expected labels from {low} to {high}, but the one at index {first} is {y[first]}")
    absent = np.setdiff1d(np.arange(low, high + 1), y)
    if all_of_them and len(absent):
        raise UserError(
            f"{name}: no sample has the labels {absent.tolist()}; all from {low} to {high} occur in the public file"
        )
    return y.astype(np.int64)
