"""Reader of MATLAB's files: version 5 (to 7) by scipy, 7.3, which is HDF5, by h5py."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from crossmodal.data.arrays import free_memory
from crossmodal.data.readers.damage import explained
from crossmodal.data.readers.hdf5 import read_hdf5
from crossmodal.errors import UserError

HDF5 = b"\x89HDF\r\n\x1a\n"
USER_BLOCK = 512  # bytes before HDF5 begins
BYTES = {"double": 8, "single": 4, "logical": 1} | {
    f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def read_mat(path: Path, name: str, index: tuple[slice, ...]) -> np.ndarray:
    """A part of an array of real numbers, its axes as MATLAB has them.

    Args:
        path: the file.
        name: of the array.
        index: one slice for each of its axes.

    Raises:
        UserError: no such file, a damaged one, one without an array of that name and as many axes, or one that does not fit into
            memory.
    """
    with open(path, "rb") as file:
        start = file.read(USER_BLOCK + len(HDF5))
    if HDF5 in (start[: len(HDF5)], start[USER_BLOCK:]):
        return _read_73(path, name, index)
    from scipy.io import loadmat, whosmat

    with explained(path, "a MATLAB file"):
        held = {held: (shape, kind) for held, shape, kind in whosmat(path)}
        shape, kind = held.get(name, ((), "nothing"))
        if kind not in BYTES or len(shape) != len(index):
            raise UserError(_other(path, name, index, f"{kind} of shape {shape}" if name in held else ", ".join(held)))
        _require_room(path, name, math.prod(shape) * BYTES[kind])  # the whole is read, whatever part is asked for
        return np.ascontiguousarray(loadmat(path, variable_names=[name])[name][index])


def _read_73(path: Path, name: str, index: tuple[slice, ...]) -> np.ndarray:
    def choose(names: list[str]) -> list[str]:
        if name not in names:
            raise UserError(_other(path, name, index, ", ".join(names)))
        return [name]

    array = read_hdf5(path, choose)[name]
    if len(array.shape) != len(index):
        raise UserError(_other(path, name, index, f"{array.dtype} of shape {array.shape}"))
    index = index[::-1]  # in HDF5 axes are reversed
    shape = [len(range(*part.indices(length))) for part, length in zip(index, array.shape, strict=True)]
    _require_room(path, name, math.prod(shape) * array.dtype.itemsize)
    return np.ascontiguousarray(np.asarray(array[index]).T)


def _require_room(path: Path, name: str, needed: int) -> None:
    free = free_memory()
    if needed > free:
        raise UserError(f"{path}: {name} takes {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB of memory are free")


def _other(path: Path, name: str, index: tuple[slice, ...], found: str) -> str:
    return f"{path}: expected {name}, an array of real numbers with {len(index)} axes; found {found or 'nothing'}"
