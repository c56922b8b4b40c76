"""One module per format of file, for training and for prediction alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from crossmodal.data.arrays import HDF5_SUFFIXES
from crossmodal.data.dataset import ArrayLike
from crossmodal.data.readers.csv import read_csv
from crossmodal.data.readers.hdf5 import read_hdf5
from crossmodal.data.readers.npy import read_npy, read_npz
from crossmodal.data.readers.ts import read_ts
from crossmodal.errors import UserError

ARCHIVES = (".npz", *HDF5_SUFFIXES)  # of several arrays by name
FORMATS = (*ARCHIVES, ".npy", ".csv", ".ts")


def read_archive(path: Path, choose: Callable[[list[str]], list[str]]) -> dict[str, ArrayLike]:
    """Some arrays of an .npz or HDF5 file.

    Args:
        path: the file.
        choose: from the names of all arrays to those wanted.
    """
    return (read_npz if path.suffix.lower() == ".npz" else read_hdf5)(path, choose)


def read_samples(
    path: Path, key: str | None = None, length: int | None = None, header: bool | None = None
) -> np.ndarray | Sequence[np.ndarray]:
    """Samples from a file; prints what was taken for them.

    Args:
        path: .npy (one array), .npz or .h5 (the array `key`, or `x`, or the only one), .csv (a sample of one channel per row; see
            `csv.read_csv`) or .ts (series, whose labels are passed over).
        key: name of the array in an archive.
        length: values in a row of a .csv file, where it is known.
        header: whether the first line of a .csv file is names of columns; None to find out.

    Returns:
        An array of samples, or a list of series (C, L_i).

    Raises:
        UserError: no such file, another kind of file, no such array, or content that is not numbers; line and column are
            named. Or a first line of numbers that may be names or a sample.
    """
    if not path.is_file():
        raise UserError(f"input: no such file: {path}")
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(f"input: expected a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file, got {path}")
    if header is not None and suffix != ".csv":
        raise UserError(f"header: only a .csv file has a line of names, got {path}")
    if suffix in ARCHIVES:
        ((name, array),) = read_archive(path, lambda names: [_array_name(path, names, key)]).items()
        found, said = np.asarray(array[...]), f"{path}: array {name!r} of shape {array.shape}"
    elif suffix == ".npy":
        found = read_npy(path)
        said = f"{path}: array of shape {found.shape}"
    elif suffix == ".csv":
        found, said = read_csv(path, length, header)
    else:
        found = read_ts(path).series
        said = f"{path}: {len(found)} series of {found[0].shape[0]} channel(s)"
    print(said)
    return found


def _array_name(path: Path, names: list[str], key: str | None) -> str:
    wanted = key or (names[0] if len(names) == 1 else "x")
    if not names:
        raise UserError(f"input: {path} holds no array at its root")
    if wanted not in names:
        raise UserError(f"input: {path} holds no array {wanted!r} but {', '.join(names)}; name one with --key")
    return wanted
