"""Reader of .npz and .npy files from outside: nothing is unpickled, and no header is believed before it is checked.

An array that does not fit into the memory at hand is mapped, and its rows are read as they are needed.
"""

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

from crossmodal.data.arrays import free_memory
from crossmodal.errors import UserError

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
        UserError: not an array of numbers or strings, damaged, or larger than its file or the free memory.
    """
    with _explained(f"{path}:"), path.open("rb") as file:
        return _read_array(file, path.stat().st_size, reserved, (path, 0))


def read_npz(path: Path, choose: Callable[[list[str]], list[str]]) -> dict[str, np.ndarray]:
    """Some arrays of an .npz file.

    Args:
        path: the file.
        choose: from the names of all arrays to those wanted.

    Raises:
        UserError: not an archive, two arrays of one name, or an array that cannot be read; file and array are named.
    """
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: not an .npz file (not a zip archive, or a truncated one)")
    found = {}
    with _explained(f"{path}:"):
        archive = zipfile.ZipFile(path)
    with archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        names = [member.filename.removesuffix(".npy") for member in members]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{path}: {name} is there {names.count(name)} times, which one is meant?")
        for name in choose(names):
            member = members[names.index(name)]
            with _explained(f"{path}: {name}"), archive.open(member) as file:
                reserved = sum(normalised_bytes(array.shape, array.dtype) for array in found.values())
                place = (path, _data_offset(path, member)) if member.compress_type == zipfile.ZIP_STORED else None
                found[name] = _read_array(file, member.file_size, reserved, place)
    return found


def _data_offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member begin: behind its local header, whose length the table of contents does not tell."""
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(30)
    return member.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


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
        raise UserError(f"{what} cannot be read: {str(error) or type(error).__name__}") from None


def _read_array(file: BinaryIO, size: int, reserved: int, place: tuple[Path, int] | None) -> np.ndarray:
    """Reads an array in .npy format from the start of `file`, which holds `size` bytes; maps it where memory is short.

    place: file on the disk and offset in it where the same bytes lie; None where they lie nowhere as they are.
    """
    start = file.read(len(np.lib.format.MAGIC_PREFIX) + 2)
    if start[:-2] != np.lib.format.MAGIC_PREFIX:
        raise UserError("not an array in .npy format")
    read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}.get(start[-2])
    if read_header is None:
        raise UserError(f"version {start[-2]}.{start[-1]} of the .npy format is not for numbers and strings")
    # The length is looked at first: numpy's message about a long header advises to trust the file.
    length_bytes = 2 if start[-2] == 1 else 4
    length = int.from_bytes(file.read(length_bytes), "little")
    if length > MOST_HEADER_BYTES:
        raise UserError(f"its header has {length} bytes, at most {MOST_HEADER_BYTES} are read")
    file.seek(len(start))
    shape, fortran, dtype = read_header(file, max_header_size=MOST_HEADER_BYTES)
    if dtype.hasobject:
        raise UserError(f"it holds Python objects (dtype {dtype}), which are never unpickled; save numbers or strings")
    if any(length < 0 for length in shape):
        raise UserError(f"its header says shape {shape}")
    claimed, stored = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed != stored:
        raise UserError(f"its header says shape {shape} of {dtype}, {claimed} bytes, but {stored} bytes follow")
    free = free_memory() - reserved
    needed = claimed + normalised_bytes(shape, dtype)
    if needed > free and place is not None:
        path, offset = place
        return np.memmap(path, dtype, "r", offset + file.tell(), shape, "F" if fortran else "C")
    if needed > free:
        raise UserError(
            f"shape {shape} of {dtype} takes {needed / 2**30:.1f} GiB with its normalised copy, and {free / 2**30:.1f} GiB "
            "of memory are free"
            + (f", {reserved / 2**30:.1f} GiB set aside for the arrays before it" if reserved else "")
            + "; saved uncompressed (np.save, np.savez) it is read row by row"
        )
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False, max_header_size=MOST_HEADER_BYTES)
