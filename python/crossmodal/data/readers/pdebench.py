"""Reader of PDEBench's HDF5 files (Takamoto et al., NeurIPS 2022), by h5py: solutions are opened, and read as they are needed.

There are two layouts: one data set for all samples (`tensor`, or one per channel), `(n, frames, *grid)`; and a group per sample,
`0000/data`, `(frames, *grid, channels)`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.data.arrays import Hdf5Array
from crossmodal.data.dataset import ArrayLike
from crossmodal.data.readers.hdf5 import opened
from crossmodal.errors import UserError


class Solutions:
    """Solutions of one equation, in time and space, that lie in a file.

    Args:
        arrays: one for each channel, `(n, frames, *grid)`, or `(n, *grid)` where there is one frame; or one `Groups`.
        every: along each axis every n-th point is read; this n.
        timed: whether the arrays have an axis of frames.

    Attributes:
        shape: `(n, frames, channels, *grid)` of what is read.
    """

    def __init__(self, arrays: list[ArrayLike], every: int, *, timed: bool = True) -> None:
        self._arrays, self._every, self._timed = arrays, every, timed
        first = arrays[0]
        self._grouped = isinstance(first, Groups)
        frames = first.shape[1] if timed else 1
        *grid, channels = first.shape[2:] if self._grouped else (*first.shape[1 + timed :], len(arrays))
        self.shape = (len(first), frames, channels, *(math.ceil(size / every) for size in grid))
        self.dtype = first.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, rows: np.ndarray, frames: slice) -> np.ndarray:
        """Some frames of some samples, `(rows, frames, channels, *grid)`.

        Args:
            rows: int64, ascending.
        """
        if len(rows) == rows[-1] - rows[0] + 1:
            rows = slice(rows[0], rows[-1] + 1)  # which HDF5 reads in one go
        if self._grouped:
            values = np.moveaxis(self._arrays[0][rows, frames], -1, 2)
        elif self._timed:
            values = np.stack([array[rows, frames] for array in self._arrays], axis=2)
        else:
            values = np.stack([array[rows] for array in self._arrays], axis=1)[:, None]
        return values[(..., *[slice(None, None, self._every)] * (len(self.shape) - 3))]


class Groups(Hdf5Array):
    """The data set `name` of every group, as rows of one array.

    Raises:
        UserError: when rows are read: a group lacks it, or it is of another shape; file and group are named.
    """

    def __init__(self, path: Path, keys: list[str], name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        super().__init__(path, name, (len(keys), *shape), dtype)
        self.keys = keys

    def __getitem__(self, place: Any) -> np.ndarray:
        rows, *rest = place
        file = self.opened()
        found = []
        for key in self.keys[rows] if isinstance(rows, slice) else [self.keys[row] for row in rows]:
            data = dataset(file, f"{key}/{self.name}", self.path)
            if data.shape != self.shape[1:]:
                raise UserError(
                    f"{self.path}: {key}/{self.name} is of shape {data.shape}, expected {self.shape[1:]} as in {self.keys[0]}"
                )
            found.append(data[tuple(rest)])
        return np.stack(found)


def dataset(file: Any, name: str, path: Path) -> Any:
    """The data set of that name: numbers that lie in this very file.

    Raises:
        UserError: there is none.
    """
    import h5py

    place = file
    for part in name.split("/"):
        if not isinstance(place, h5py.Group) or part not in place:
            raise UserError(f"{path}: no data set {name}; found: {', '.join(list(file)[:8]) or 'nothing'}")
        if not isinstance(place.get(part, getlink=True), h5py.HardLink):
            raise UserError(f"{path}: {name} is a link, which is not followed")
        place = place[part]
    if not isinstance(place, h5py.Dataset) or place.dtype.kind not in "fiu":
        raise UserError(f"{path}: {name}: expected a data set of numbers, got {place}")
    if place.external or place.is_virtual:
        raise UserError(f"{path}: {name} refers to other files, which are not opened")
    return place


def read_arrays(path: Path, names: tuple[str, ...], shape: tuple[int | None, ...]) -> list[Hdf5Array]:
    """Data sets `(n, *shape)` at the root of a file, all with as many samples.

    Args:
        shape: of a sample; None: any size.

    Raises:
        UserError: it is no such file; the file, the data set, what it is and what was expected are named.
    """
    with opened(path) as file:
        found = [dataset(file, name, path) for name in names]
        for name, data in zip(names, found, strict=True):
            _check_shape(f"{path}: {name}", data.shape, (None, *shape))
            if data.shape != found[0].shape:
                raise UserError(f"{path}: {name} is of shape {data.shape}, but {names[0]} of shape {found[0].shape}")
        return [Hdf5Array(path, name, data.shape, data.dtype) for name, data in zip(names, found, strict=True)]


def read_groups(path: Path, shape: tuple[int | None, ...]) -> Groups:
    """The data sets `0000/data`, `0001/data`, ... of a file, each of that shape (None: any size), in the order of their numbers.

    Raises:
        UserError: as `read_arrays`.
    """
    with opened(path) as file:
        keys = sorted((key for key in file if key.isdecimal()), key=int)  # of five digits beside four
        if not keys:
            raise UserError(f"{path}: no groups 0000, 0001, ...; found: {', '.join(list(file)[:8]) or 'nothing'}")
        data = dataset(file, f"{keys[0]}/data", path)
        _check_shape(f"{path}: {keys[0]}/data", data.shape, shape)
        return Groups(path, keys, "data", data.shape, data.dtype)


def _check_shape(name: str, shape: tuple[int, ...], expected: tuple[int | None, ...]) -> None:
    fits = len(shape) == len(expected) and all(want in (None, size) for size, want in zip(shape, expected, strict=True))
    if not fits or 0 in shape:
        told = ", ".join("any" if size is None else str(size) for size in expected)
        raise UserError(f"{name}: expected shape ({told}), got {shape}")
