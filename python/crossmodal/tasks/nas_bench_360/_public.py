"""What the readers of public files have in common: the checks of what a file holds, and of the released protocol its pieces."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.data.derived import New, derived
from crossmodal.data.download import Remote
from crossmodal.errors import UserError
from crossmodal.tasks.base import RawTask

BASE = "https://pde-xd.s3.amazonaws.com"
CHUNK = 1000  # samples that the public code gathers, in whole batches, before it computes a metric
PROTOCOLS = ("default", "released")
TEST_VALIDATES = "released: the test samples validate, and validation samples are learned from where there are any."


def measured(path: Path, files: Sequence[Path], measure: Callable[[New], None]) -> np.ndarray:
    """What is kept in `path` of the content of files below its folder; made anew where one of them has changed."""
    folder, stats = path.parent, [one.stat() for one in files]
    known = [
        [str(one.relative_to(folder)), stat.st_size, stat.st_mtime_ns] for one, stat in zip(files, stats, strict=True)
    ]
    return derived(path, {"files": known, "version": 1}, measure)


def chunked(metric: str, batch_size: int) -> tuple[str, str]:
    """The name of a metric as the public code computes it with batches of that size, and a sentence that says so."""
    size = -(-CHUNK // batch_size) * batch_size
    return (
        f"{metric}_per_{size}",
        f"released: {metric} is the mean over pieces of {size} samples, not that of the split.",
    )


def remote(path: str, address: str, size: int | None = None, unpack: str | None = None, how: str = "") -> Remote:
    """A file where the authors of NAS-Bench-360 have put it."""
    how = how or "NAS-Bench-360 links its data sets in its README"
    return Remote(path, f"{BASE}/{address}", size, unpack=unpack, how=how)


def parts(**found: tuple) -> dict[str, Any]:
    """Fields of a `RawTask`: samples, targets and, where there are any, groups of each of its parts."""
    names = ("x", "y", "group")
    return {f"{name}_{part}": values for part, all_ in found.items() for name, values in zip(names, all_, strict=False)}


def released(raw: RawTask, metrics: Sequence[str], *notes: str, batch_size: int, **changes: Any) -> RawTask:
    """The task as the public code evaluates it: by the test samples, the first metric in pieces.

    Args:
        raw: by the default protocol.
        metrics: what is computed.
        notes: sentences on what else differs, without "released:".
        batch_size: of the public settings, which decides where the test samples are cut into pieces.
        changes: other fields of the task.
    """
    test = {f"{name}_val": getattr(raw, f"{name}_test") for name in ("x", "y", "group", "mask")}
    name, said = chunked(metrics[0], batch_size)
    said = (*raw.notes, TEST_VALIDATES, said, *(f"released: {note}" for note in notes))
    return replace(raw, **test | {"metrics": (name, *metrics), "notes": said} | changes)


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
