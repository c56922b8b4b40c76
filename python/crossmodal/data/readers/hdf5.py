"""Reader of HDF5 files, by h5py: data sets are opened, and their rows read as they are needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.data.arrays import Hdf5Array
from crossmodal.data.dataset import ArrayLike
from crossmodal.errors import UserError


def read_hdf5(path: Path, choose: Callable[[list[str]], list[str]]) -> dict[str, ArrayLike]:
    """Some data sets at the root of an HDF5 file; text, names of classes and groups, is read at once.

    Args:
        path: the file.
        choose: from the names of all data sets to those wanted.

    Raises:
        UserError: h5py is not installed, no HDF5 file, or a data set that holds anything but text or numbers in rows.
    """
    found = {}
    with opened(path) as file:
        import h5py

        own = [name for name in file if not isinstance(file.get(name, getlink=True), h5py.ExternalLink)]
        for name in choose([name for name in own if isinstance(file.get(name), h5py.Dataset)]):
            data = file[name]
            if data.external or data.is_virtual:
                raise UserError(f"{path}: {name} refers to other files, which are not opened")
            if h5py.check_string_dtype(data.dtype):
                found[name] = _text(data, f"{path}: {name}")
            elif data.dtype.kind in "biuf" and data.shape:
                found[name] = Hdf5Array(path, name, data.shape, data.dtype)
            else:
                raise UserError(f"{path}: {name}: expected text, or numbers with rows, got {data.dtype} {data.shape}")
    return found


def opened(path: Path) -> Any:
    """The file, `h5py.File`.

    Raises:
        UserError: h5py is not installed, or this is no HDF5 file, or a damaged one.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(f"{path}: HDF5 files need h5py (pip install pare-kernels[hdf5])") from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _text(data: Any, name: str) -> np.ndarray:
    try:
        return np.array(data.asstr()[()], dtype=str)
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not text in UTF-8 ({error.reason})") from None
