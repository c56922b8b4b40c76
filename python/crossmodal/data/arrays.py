"""Arrays that need not be in memory: what is known of them without reading them whole, and forms beside NumPy's own."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from crossmodal.data.dataset import ArrayLike, take
from crossmodal.errors import UserError

HDF5_SUFFIXES = (".h5", ".hdf5")
SAMPLED = 64  # rows of an array that its manifest hashes


def in_memory(values: ArrayLike) -> bool:
    """Whether an array lies in memory, and not in a file that is read as it is needed."""
    return isinstance(values, np.ndarray) and not _mapped(values)


def _mapped(values: np.ndarray) -> bool:
    while isinstance(values, np.ndarray):
        if isinstance(values, np.memmap):
            return True
        values = values.base
    return False


def manifest(values: ArrayLike) -> str:
    """What stands for an array too large to hash: its type and shape, and the bytes of rows spread over it, or its own word."""
    if isinstance(values, Rows):
        return f"{values.dtype} {values.shape} {values.fingerprint}"
    rows = np.unique(np.linspace(0, len(values) - 1, SAMPLED).astype(np.int64))
    sha = hashlib.sha256(np.ascontiguousarray(take(values, rows)))
    return f"{values.dtype} {values.shape} {sha.hexdigest()}"


def free_memory() -> int:
    """Bytes that this process can still take: what the machine has free, or what limits leave (`ulimit -v`, `-d`)."""
    free, memory = psutil.virtual_memory().available, psutil.Process().memory_info()
    for limit, used in ((resource.RLIMIT_AS, memory.vms), (resource.RLIMIT_DATA, getattr(memory, "data", memory.rss))):
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            free = min(free, most - used)
    return max(free, 0)


class Rows:
    """An array whose rows are made when they are asked for, by what knows how, and checks what it makes.

    Args:
        count: of rows.
        read: from the number of a row to the array of it; for processes that load data, one that can be pickled.
        shape, dtype: of a row.
        fingerprint: hash of what the rows are made of.
    """

    checked = True  # so that nobody goes through all of it beforehand

    def __init__(
        self, count: int, read: Callable[[int], np.ndarray], shape: tuple[int, ...], dtype: Any, fingerprint: str
    ) -> None:
        self._count, self._read, self.fingerprint = count, read, fingerprint
        self.shape, self.dtype, self.ndim = (count, *shape), np.dtype(dtype), len(shape) + 1

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: Any) -> np.ndarray:
        chosen = np.atleast_1d(np.arange(self._count)[rows])
        found = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        for place, row in zip(found, chosen.tolist(), strict=True):
            place[...] = self._read(row)
        return found


class RowFiles:
    """An array whose rows are files of one shape and type.

    Args:
        paths: one per row.
        read: from a path to the array of a row.

    Raises:
        UserError: when rows are read: a file of another shape or type than the first; the file is named.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[Path], np.ndarray]) -> None:
        self.paths, self._read = list(paths), read
        first = read(self.paths[0])
        self.shape, self.dtype, self.ndim = (len(self.paths), *first.shape), first.dtype, first.ndim + 1

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Any) -> np.ndarray:
        chosen = np.arange(len(self.paths))[rows]
        return np.stack([self._row(self.paths[row]) for row in np.atleast_1d(chosen)])

    def _row(self, path: Path) -> np.ndarray:
        values = self._read(path)
        if values.shape != self.shape[1:] or values.dtype != self.dtype:
            raise UserError(
                f"{path}: expected {self.dtype} of shape {self.shape[1:]} like {self.paths[0].name}, "
                f"got {values.dtype} of shape {values.shape}"
            )
        return values


class Hdf5Array:
    """A data set of an HDF5 file, opened when it is first read, in each process anew."""

    def __init__(self, path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.path, self.name = path, name
        self.shape, self.dtype, self.ndim = tuple(shape), np.dtype(dtype), len(shape)
        self._file: Any = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.opened()[self.name][rows]

    def opened(self) -> Any:
        """The file."""
        if self._file is None:
            import h5py

            self._file = h5py.File(self.path, "r")
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}


class Chosen:
    """Rows of an array that need not be in memory, in an order of their own.

    Args:
        values: the array.
        rows: which of its rows, int64 `(n,)`.
    """

    def __init__(self, values: ArrayLike, rows: np.ndarray) -> None:
        self.values, self.rows = values, rows
        self.checked = getattr(values, "checked", False)
        self.shape, self.dtype, self.ndim = (len(rows), *values.shape[1:]), values.dtype, values.ndim

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return take(self.values, self.rows[rows])


class Windows:
    """Pieces of one long series, which may overlap, `(n, 1, length)`.

    Args:
        values: the series `(total,)`.
        starts: int64 `(n,)`, where each piece begins.
        length: values of a piece.
    """

    ndim = 3

    def __init__(self, values: np.ndarray, starts: np.ndarray, length: int) -> None:
        self.values, self.starts, self.dtype = values, starts, values.dtype
        self.shape = (len(starts), 1, length)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.values[self.starts[rows][:, None, None] + np.arange(self.shape[2])]


class WithChannel:
    """An array ``(n, ...)`` that is no NumPy array, as one of one channel, ``(n, 1, ...)``."""

    def __init__(self, values: ArrayLike) -> None:
        self.values, self.dtype = values, values.dtype
        self.shape, self.ndim = (len(values), 1, *values.shape[1:]), len(values.shape) + 1

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.asarray(self.values[rows])[:, None]


def with_channel(values: ArrayLike) -> ArrayLike:
    """``(n, ...)`` as ``(n, 1, ...)``, without reading what is not in memory."""
    return values[:, None] if isinstance(values, np.ndarray) else WithChannel(values)
