"""Arrays that are made once of a task's files and then mapped: spectrograms, rows out of a pickled file.

They lie beside the files that they are made of, or in the cache folder where nothing can be written there. A file says how and of
what it was made; one that is damaged, or was made otherwise or of other files, is made anew. Of several processes that ask for one,
as those of a run on several devices do, one makes it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal import cache
from crossmodal.data.arrays import manifest
from crossmodal.files import alone, replacing, write_json

New = Callable[[tuple[int, ...], Any], np.ndarray]  # shape and dtype to an empty array on the disk


def derived(path: Path, recipe: dict[str, Any], make: Callable[[New], None]) -> np.ndarray:
    """The array in the .npy file `path`, mapped; made first where it is not there as the recipe has it.

    Args:
        path: where it is kept, beside what it is made of.
        recipe: all that it depends on, as JSON takes it: hashes of files, settings, the version of the rules.
        make: asks for the array by its shape and dtype and fills it.

    Raises:
        OSError: neither that folder nor the cache can be written, or the disk is full.
    """
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    if not os.access(path.parent, os.W_OK):
        path = cache.folder() / f"{path.stem}-{key[:16]}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
    record = path.with_name(f"{path.name}.json")
    found = _intact(path, record, key)
    if found is not None:
        return found
    with alone(path):
        found = _intact(path, record, key)  # another process may have made it meanwhile
        if found is not None:
            return found
        print(f"making {path}")
        record.unlink(missing_ok=True)
        with replacing(path) as aside:

            def new(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
                return np.lib.format.open_memmap(aside, "w+", np.dtype(dtype), shape)

            make(new)
        found = np.load(path, mmap_mode="r")
        write_json(record, {"recipe": key, "content": manifest(found)})
    return found


def _intact(path: Path, record: Path, key: str) -> np.ndarray | None:
    """The array, if it was made by that recipe and still is what it was then."""
    try:
        said = json.loads(record.read_text(encoding="utf-8"))
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        return found if said == {"recipe": key, "content": manifest(found)} else None
    except (OSError, ValueError, EOFError):
        return None
