"""Reader of .npz and .npy files from outside: nothing is unpickled, and no header is believed before it is checked."""

from __future__ import annotations

import contextlib
import math
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import psutil

MOST_HEADER_BYTES = 10_000  # numpy's own limit: a header is Python source that has to be parsed
# What numpy and zipfile raise for files that are damaged, lie about their content, or ask for a password.
_READ_ERRORS = (
    ValueError,
    OSError,
    EOFError,
    SyntaxError,
    tokenize.TokenError,
    MemoryError,
    OverflowError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npy(path: Path, reserved: int = 0) -> np.ndarray:
    """The array of a .npy file.

    Args:
        path: the file.
        reserved: bytes of the free memory that something else will need (see `normalised_bytes`).

    Raises:
        ValueError: not an array of numbers or strings, damaged, or larger than its file or the free memory.
    """
    with _explained(f"{path}:"), path.open("rb") as file:
        return _read_array(file, path.stat().st_size, reserved)


def read_npz(path: Path, choose: Callable[[list[str]], list[str]]) -> dict[str, np.ndarray]:
    """Some arrays of an .npz file.

    Args:
        path: the file.
        choose: from the names of all arrays to those wanted.

    Raises:
        ValueError: not an archive, two arrays of one name, or an array that cannot be read; file and array are named.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not an .npz file (not a zip archive, or a truncated one)")
    found = {}
    with _explained(f"{path}:"):
        archive = zipfile.ZipFile(path)
    with archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        names = [member.filename.removesuffix(".npy") for member in members]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{path}: {name} is there {names.count(name)} times, which one is meant?")
        for name in choose(names):
            member = members[names.index(name)]
            with _explained(f"{path}: {name}"), archive.open(member) as file:
                reserved = sum(normalised_bytes(array.shape, array.dtype) for array in found.values())
                found[name] = _read_array(file, member.file_size, reserved)
    return found


def normalised_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Bytes of the float32 copy that is made of numbers while the array itself is still there."""
    return 4 * math.prod(shape) if dtype.kind in "biuf" else 0


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except _READ_ERRORS as error:
        raise ValueError(f"{what} cannot be read: {error or type(error).__name__}") from None


def _read_array(file: BinaryIO, size: int, reserved: int = 0) -> np.ndarray:
    """Reads an array in .npy format from the start of `file`, which holds `size` bytes."""
    start = file.read(len(np.lib.format.MAGIC_PREFIX) + 2)
    if start[:-2] != np.lib.format.MAGIC_PREFIX:
        raise ValueError("not an array in .npy format")
    read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}.get(start[-2])
    if read_header is None:
        raise ValueError(f"version {start[-2]}.{start[-1]} of the .npy format is not for numbers and strings")
    # The length is looked at first: numpy's message about a long header advises to trust the file.
    length_bytes = 2 if start[-2] == 1 else 4
    length = int.from_bytes(file.read(length_bytes), "little")
    if length > MOST_HEADER_BYTES:
        raise ValueError(f"its header has {length} bytes, at most {MOST_HEADER_BYTES} are read")
    file.seek(len(start))
    shape, _, dtype = read_header(file, max_header_size=MOST_HEADER_BYTES)
    if dtype.hasobject:
        raise ValueError(f"it holds Python objects (dtype {dtype}), which are never unpickled; save numbers or strings")
    if any(length < 0 for length in shape):
        raise ValueError(f"its header says shape {shape}")
    claimed, stored = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed != stored:
        raise ValueError(f"its header says shape {shape} of {dtype}, {claimed} bytes, but {stored} bytes follow")
    free = psutil.virtual_memory().available - reserved
    needed = claimed + normalised_bytes(shape, dtype)
    if needed > free:
        raise ValueError(
            f"shape {shape} of {dtype} takes {needed / 2**30:.1f} GiB with its normalised copy, and {free / 2**30:.1f} GiB "
            "of memory are free"
            + (f", {reserved / 2**30:.1f} GiB set aside for the arrays before it" if reserved else "")
        )
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False, max_header_size=MOST_HEADER_BYTES)
