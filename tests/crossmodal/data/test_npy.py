"""Files that are damaged, that lie about their size, or that would not fit into memory."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest

from crossmodal.data.readers import npy as array_files
from crossmodal.data.readers.npy import read_npy, read_npz


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def long_header() -> bytes:
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }" + b" " * 20_000 + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text + bytes(4)


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return file.getvalue()


CASES = {
    "claims more than follows": (
        header((40, 10**10)),
        r"its header says shape \(40, 10000000000\) of float32, 1600000000000 bytes, but 0 bytes follow",
    ),
    "claims long strings": (header((2,), "<U100000000"), r"800000000 bytes, but 0 bytes follow"),
    "truncated": (header((4,)) + bytes(12), "16 bytes, but 12 bytes follow"),
    "a second array behind it": (2 * (header((4,)) + bytes(16)), "16 bytes, but 160 bytes follow"),
    "negative shape": (header((4, -5)) + bytes(80), r"its header says shape \(4, -5\)"),
    "long header": (long_header(), r"its header has 20058 bytes, at most 10000 are read"),
    "pickle": (pickled(), r"holds Python objects \(dtype object\), which are never unpickled"),
    "later version": (b"\x93NUMPY\x03\x00" + bytes(20), r"version 3.0 of the .npy format"),
    "text": (b"hello world", r"not an array in \.npy format"),
    "nothing": (b"", r"not an array in \.npy format"),
    "unfinished header": (b"\x93NUMPY\x01\x00\x04\x00{'a'", ""),
    "broken header": (b"\x93NUMPY\x01\x00\x04\x00abcd", ""),
}


@pytest.mark.parametrize(("content", "message"), CASES.values(), ids=CASES)
def test_bad_arrays(tmp_path, content, message):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npy: cannot be read: .*" + message):
        read_npy(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(ValueError, match=r"a\.npz: x cannot be read: .*" + message):
        read_npz(tmp_path / "a.npz", lambda names: names)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    """4 MiB of zeros in 4 KiB, on a machine with 1 MiB left."""
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1024, 1024), np.float32))
    monkeypatch.setattr(array_files, "free_memory", lambda: 2**20)
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(
        ValueError,
        match=r"x cannot be read: shape \(1024, 1024\) of float32 takes 0\.0 GiB with its normalised copy, and 0\.0 GiB",
    ):
        read_npz(tmp_path / "a.npz", lambda names: names)


def test_the_normalised_copies_are_counted(tmp_path, monkeypatch):
    """1 MiB of uint8 needs 5 MiB with its float32 copy; a second array must leave 4 MiB for the copy of the first."""
    values = np.zeros((1024, 1024), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", x=values, y=values, z=np.array(["a"] * 100))
    for available, message in ((4, "x cannot be read: shape"), (8, "y cannot be read: .* set aside"), (9, None)):
        monkeypatch.setattr(array_files, "free_memory", lambda mib=available: mib * 2**20)
        if message is None:
            assert len(read_npz(tmp_path / "a.npz", lambda names: names)) == 3
        else:
            with pytest.raises(ValueError, match=message):
                read_npz(tmp_path / "a.npz", lambda names: names)


def test_a_name_given_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", header((0,)))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x.npy", header((0,)))
    with pytest.raises(ValueError, match=r"a\.npz: x is there 2 times"):
        read_npz(tmp_path / "a.npz", lambda names: names)


@pytest.mark.parametrize("values", [np.arange(6).reshape(2, 3), np.array(["a", "ü"]), np.float64(3), np.zeros((0, 4))])
def test_arrays_come_back(tmp_path, values):
    np.save(tmp_path / "a.npy", np.asfortranarray(values) if values.ndim else values)
    np.savez_compressed(tmp_path / "a.npz", x=values, other=1)
    assert np.array_equal(read_npy(tmp_path / "a.npy"), values)
    found = read_npz(tmp_path / "a.npz", lambda names: [name for name in names if name == "x"])
    assert list(found) == ["x"]
    assert np.array_equal(found["x"], values)
    assert found["x"].dtype == values.dtype


def test_random_damage_is_a_value_error(tmp_path):
    """Flipped bytes of header and archive: read, or refused, but never another error."""
    rng = np.random.default_rng(0)
    file, archive = io.BytesIO(), io.BytesIO()
    np.save(file, np.arange(12.0))
    np.savez(archive, x=np.arange(12.0))
    refused = 0
    for name, content, read in (
        ("a.npy", file.getvalue(), read_npy),
        ("a.npz", archive.getvalue(), lambda path: read_npz(path, lambda names: names)),
    ):
        for _ in range(400):
            damaged = bytearray(content)
            for place in rng.integers(0, len(content), 3):
                damaged[place] = rng.choice(bytearray(b"(){}[],'0OUV\x00\xff"))
            (tmp_path / name).write_bytes(damaged)
            try:
                read(tmp_path / name)
            except ValueError:
                refused += 1
    assert 400 < refused < 800
