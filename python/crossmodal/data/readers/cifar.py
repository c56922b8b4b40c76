"""Reader of CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) in their python versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossmodal.data.readers import contents
from crossmodal.data.readers.pickles import read_pickle
from crossmodal.errors import UserError

SIDE = 32


def read_batch(path: Path, key: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, 3, 32, 32) and labels int64 (n,), which lie under `key`, from 0 to `classes` - 1.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    data, label = contents.arrays(read_pickle(path), path, {"data": (None, 3 * SIDE * SIDE), key: (None,)})
    if data.dtype != np.uint8:
        raise UserError(f"{path}: data: expected uint8, got {data.dtype}")
    return data.reshape(-1, 3, SIDE, SIDE), contents.labels(label, f"{path}: {key}", 0, classes - 1)


def read_names(path: Path, key: str) -> tuple[str, ...]:
    """Names of the classes, which lie under `key`.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    names = contents.entries(read_pickle(path), path, (key,))[key]
    if not isinstance(names, list) or {*map(type, names)} - {str, bytes} or len(set(names)) < len(names):
        raise UserError(f"{path}: expected {key}, a list of different names")
    return tuple(name.decode("latin1") if isinstance(name, bytes) else name for name in names)
