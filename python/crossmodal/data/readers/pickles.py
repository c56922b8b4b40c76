"""Reader of pickled files from outside: numpy arrays and plain containers, and nothing else.

A pickle is a program that names functions to call. Here it may name those alone that numpy's arrays and bytes are made with, and
what it gets for them are stand-ins that check what they are called with: numpy's own take a state from the file at its word.
"""

from __future__ import annotations

import codecs
import gzip
import math
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from crossmodal.data.arrays import free_memory
from crossmodal.data.readers.damage import explained
from crossmodal.errors import UserError

KINDS = "biufcSUO"  # of dtypes: numbers, strings and objects, which are plain again
LEAF = (str, bytes, bool, int, float, complex, np.generic, type(None))
GZIP = b"\x1f\x8b"
BLOCK = 1 << 16
DEEPEST = 100  # containers within containers


def read_pickle(path: Path) -> Any:
    """What a pickled file holds: a plain one, one compressed by gzip, or a .npy file of objects.

    Text that Python 2 wrote as bytes comes as str, and so do keys of dictionaries that are bytes. Of an array without axes, which
    is how np.save keeps a dictionary, it is what the array holds.

    Raises:
        UserError: no such file, a damaged one, one that takes more memory than is free, or one that asks for anything but numpy
            arrays, dict, list, tuple, str, bytes and numbers; what it asked for is named.
    """
    try:
        with explained(path, "a pickled file"):
            with open(path, "rb") as file:
                packed = file.peek(len(GZIP))[: len(GZIP)] == GZIP
            with (gzip.open if packed else open)(path, "rb") as file:
                _skip_header(file)
                limited = _Limited(file, free_memory())
                found = _plain(_Unpickler(limited, encoding="latin1").load(), {})
                while limited.read(BLOCK):  # to its end, where gzip has its checksum
                    pass
    except _Refused as error:
        raise UserError(f"{path}: refused: {error}") from None
    return found.item() if isinstance(found, np.ndarray) and found.shape == () else found


class _Refused(UserError):
    """What a file asked for, in words."""


class _Limited:
    """A stream that ends with an error after so many bytes, which are about what its content takes in memory."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self.file, self.most = file, most

    def read(self, size: int = -1) -> bytes:
        return self._counted(self.file.read(min(size, self.most + 1)), size)

    def readline(self) -> bytes:
        return self._counted(self.file.readline(self.most + 1), 0)

    def _counted(self, found: bytes, asked: int) -> bytes:
        if max(asked, len(found)) > self.most:
            raise _Refused("its content does not fit into the memory that is free")
        self.most -= len(found)
        return found


def _skip_header(file: BinaryIO) -> None:
    """Goes to where the pickle begins in a .npy file; in another that is its start."""
    if file.peek(len(np.lib.format.MAGIC_PREFIX))[:6] != np.lib.format.MAGIC_PREFIX:
        return
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    dtype = read(file)[2]
    if not dtype.hasobject:
        raise _Refused(f"an array of {dtype}, which is not pickled")


class _Dtype:
    """Stand-in for numpy.dtype: a plain one, and only the byte order of its state counts."""

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str) or len(name) > 20:
            raise _Refused(f"a dtype made of {name!r:.80}")
        self.dtype = np.dtype(name)
        if self.dtype.kind not in KINDS or self.dtype.subdtype is not None:
            raise _Refused(f"the dtype {self.dtype}")

    def __setstate__(self, state: tuple) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise _Refused(f"a dtype with the state {state!r:.80}")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stand-in for an array that is being made; `array` is there once it has its state."""

    array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _array(data, dtype, shape, "F" if fortran else "C")


def _array(data: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray:
    if not isinstance(dtype, _Dtype) or order not in ("C", "F"):
        raise _Refused(f"an array of {dtype!r:.80}")
    if not isinstance(shape, tuple) or not all(isinstance(axis, int) and axis >= 0 for axis in shape):
        raise _Refused(f"an array of shape {shape!r:.80}")
    size = math.prod(shape)
    if dtype.dtype.kind == "O":
        if not isinstance(data, list) or len(data) != size:
            raise _Refused(f"an array of objects of shape {shape} without as many of them")
        values = _objects(data)
    else:
        data = data.encode("latin1") if isinstance(data, str) else data  # bytes of Python 2
        if not isinstance(data, bytes | bytearray) or len(data) != size * dtype.dtype.itemsize:
            raise _Refused(f"an array of {dtype.dtype} and shape {shape} with other bytes than these take")
        values = np.frombuffer(data, dtype.dtype) if size else np.empty(0, dtype.dtype)
    return values.reshape(shape, order=order)


def _objects(values: Iterable[Any]) -> np.ndarray:
    """An array of those objects, one by one: numpy would make axes of arrays and lists of one length."""
    values = list(values)
    found = np.empty(len(values), object)
    for index, value in enumerate(values):
        found[index] = value
    return found


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _Array:
        raise _Refused(f"an array of the class {kind!r:.80}")
    return _Array()


def _scalar(dtype: Any, data: Any) -> Any:
    return _array(data, dtype, ())[()]


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> np.ndarray:
    return _array(data, dtype, shape, order)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused(f"a text encoded as {encoding!r:.80}")
    return codecs.encode(text, "latin1")


def _empty(*given: Any) -> bytes:
    if given:
        raise _Refused(f"bytes made of {given!r:.80}")
    return b""


def _bytearray(data: Any = b"", encoding: Any = "latin1") -> bytes:
    return data if isinstance(data, bytes) else _encode(data, encoding)


def _complex(*parts: Any) -> complex:
    return complex(*(float(part) for part in parts))


# Names under which numpy 1 and 2 and Python 2 and 3 write an array.
ALLOWED = {
    **{
        (f"{module}.multiarray", name): made
        for module in ("numpy.core", "numpy._core")
        for name, made in (("_reconstruct", _reconstruct), ("scalar", _scalar))
    },
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    **{
        (module, name): made
        for module in ("builtins", "__builtin__")
        for name, made in (("bytes", _empty), ("complex", _complex), ("bytearray", _bytearray))
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise _Refused(f"it asks for {module}.{name}; only numpy arrays and plain containers are read")
        return ALLOWED[module, name]


def _plain(value: Any, done: dict[int, Any], depth: int = 0) -> Any:
    """The value with arrays in the place of their stand-ins; what occurs in several places is looked at once.

    Raises:
        _Refused: something that is neither an array nor plain.
    """
    if isinstance(value, LEAF):
        return value
    if id(value) in done:
        return done[id(value)]
    if depth > DEEPEST:
        raise _Refused(f"containers nested more than {DEEPEST} deep")
    array = value.array if isinstance(value, _Array) else value
    if array is None:
        raise _Refused("an array without content")

    def each(values: Iterable[Any]) -> Iterator[Any]:
        return (_plain(one, done, depth + 1) for one in values)

    if isinstance(array, np.ndarray):
        found = _objects(each(array.ravel())).reshape(array.shape) if array.dtype.kind == "O" else array
    elif type(value) is dict:
        keys = (key.decode("latin1") if isinstance(key, bytes) else key for key in each(value.keys()))
        found = dict(zip(keys, each(value.values()), strict=True))
    elif type(value) in (list, tuple):
        found = type(value)(each(value))
    elif isinstance(value, bytearray):
        found = bytes(value)
    else:
        raise _Refused(f"it holds a {type(value).__name__.strip('_')}; only numpy arrays and plain containers are read")
    done[id(value)] = found
    return found
