"""What the ten tasks have in common: where their files lie, and what the released protocol changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.data.derived import New, derived
from crossmodal.data.download import Remote
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


def remote(path: str, address: str, size: int | None = None, unpack: str | None = None, how: str = "") -> Remote:
    """A file where the authors of NAS-Bench-360 have put it."""
    how = how or "NAS-Bench-360 links its data sets in its README"
    return Remote(path, f"{BASE}/{address}", size, unpack=unpack, how=how)


def parts(**found: Iterable[Any]) -> dict[str, Any]:
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
    size = -(-CHUNK // batch_size) * batch_size
    said = (f"{metrics[0]} is the mean over pieces of {size} samples, not that of the split.", *notes)
    all_notes = (*raw.notes, TEST_VALIDATES, *(f"released: {note}" for note in said))
    return replace(raw, **test | {"metrics": (f"{metrics[0]}_per_{size}", *metrics), "notes": all_notes} | changes)
