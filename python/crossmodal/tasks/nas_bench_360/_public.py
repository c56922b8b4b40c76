"""What the readers of public files have in common: the checks of what a file holds, and of the released protocol its pieces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.data.dataset import ArrayLike
from crossmodal.errors import UserError

CHUNK = 1000  # samples that the public code gathers, in whole batches, before it computes a metric
PROTOCOLS = ("default", "released")
TEST_VALIDATES = "released: the test samples validate, and validation samples are learned from where there are any."


def chunked(metric: str, batch_size: int) -> tuple[str, str]:
    """The name of a metric as the public code computes it with batches of that size, and a sentence that says so."""
    size = -(-CHUNK // batch_size) * batch_size
    return (
        f"{metric}_per_{size}",
        f"released: {metric} is the mean over pieces of {size} samples, not that of the split.",
    )


def released(x_test: ArrayLike, y_test: ArrayLike, metric: str, batch_size: int) -> dict[str, Any]:
    """Fields of a `RawTask` that is evaluated as the public code does: by the test samples, and in pieces."""
    name, said = chunked(metric, batch_size)
    return {"x_val": x_test, "y_val": y_test, "metrics": (name, metric), "notes": (TEST_VALIDATES, said)}


def arrays(found: Any, path: Path | str, shapes: Mapping[str, tuple[int | None, ...]]) -> list[np.ndarray]:
    """Arrays of real numbers with as many rows, by name, of what a file holds.

    Args:
        found: what was read.
        path: the file, for errors.
        shapes: of each array that is wanted; None is any length.

    Raises:
        UserError: it is no mapping, lacks a key, or an array has another shape or no numbers.
    """
    if not isinstance(found, Mapping):
        raise UserError(f"{path}: expected a mapping with {', '.join(shapes)}, got {type(found).__name__}")
    chosen = []
    for key, shape in shapes.items():
        if key not in found:
            raise UserError(f"{path}: lacks the key {key!r}; it holds {', '.join(map(repr, found)) or 'nothing'}")
        chosen.append(array(found[key], f"{path}: {key}", shape))
    for key, one in zip(shapes, chosen, strict=True):
        if len(one) != len(chosen[0]):
            first = next(iter(shapes))
            raise UserError(f"{path}: {len(chosen[0])} rows in {first}, but {len(one)} in {key}")
    return chosen


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
