"""Pickled files: what plain ones hold, and that others run nothing."""

import gzip
import io
import os
import pickle
import pickletools

import numpy as np
import pytest

from crossmodal.data.readers import pickles
from crossmodal.data.readers.pickles import read_pickle
from crossmodal.errors import UserError

RNG = np.random.default_rng(0)
PLAIN = {
    "data": RNG.integers(0, 255, (3, 2, 4)).astype(np.uint8),
    "big endian": RNG.standard_normal((2, 3)).astype(">f8"),
    "columns first": np.asfortranarray(RNG.standard_normal((2, 3)).astype(np.float32)),
    "text": np.array(["A", "~"]),
    "bytes": np.array([b"N", b"OO"]),
    "ragged": pickles._objects([np.arange(3), np.arange(5.0), "x"]),
    "alike": pickles._objects([np.arange(3), np.arange(3)]),
    "empty": np.zeros((0, 3)),
    "scalar": np.float64(0.1),
    "plain": [1, 2.5, 1j, True, None, ("a", b"\xff", ""), b"", {3: [2**70]}],
}


def alike(one, other):
    if isinstance(other, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        for a, b in zip(one.ravel(), other.ravel(), strict=True):
            alike(a, b)
    elif isinstance(other, dict):
        assert one.keys() == other.keys()
        for key in other:
            alike(one[key], other[key])
    else:
        assert type(one) is type(other)
        assert one == other


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("opener", [open, gzip.open])
def test_arrays_and_plain_containers_are_read(tmp_path, protocol, opener):
    with opener(tmp_path / "it", "wb") as file:
        pickle.dump(PLAIN, file, protocol)
    alike(read_pickle(tmp_path / "it"), PLAIN)


def test_npy_files_of_objects_are_read(tmp_path):
    np.save(tmp_path / "it.npy", PLAIN, allow_pickle=True)
    alike(read_pickle(tmp_path / "it.npy"), PLAIN)
    np.save(tmp_path / "it.npy", PLAIN["ragged"], allow_pickle=True)
    alike(read_pickle(tmp_path / "it.npy"), PLAIN["ragged"])


def test_what_python_2_and_numpy_1_wrote_is_read(tmp_path):
    """CIFAR's files are of that kind: protocol 2, keys and array bytes as the str of Python 2."""
    written = (
        b"\x80\x02}q\x00U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01bq\x04\x87Rq\x05"
        b"(K\x01K\x01K\x03\x86cnumpy\ndtype\nq\x06U\x02u1q\x07K\x00K\x01\x87Rq\x08(K\x03U\x01|q\tNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89U\x03\x00\x80\xfftbs."
    )
    (tmp_path / "it").write_bytes(written)
    alike(read_pickle(tmp_path / "it"), {"data": np.array([[0, 128, 255]], np.uint8)})


class Call:
    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def with_state(dtype: np.dtype, shape: tuple, data: object) -> bytes:
    """An array whose state is what one likes."""
    file = io.BytesIO()
    pickle._Pickler(file, 2).dump(np.zeros(1, dtype))
    honest = file.getvalue()
    assert pickletools.dis(honest, io.StringIO()) is None
    make = Call(np._core.multiarray._reconstruct, np.ndarray, (0,), b"b")
    make.called = (*make.called, (1, shape, dtype, False, data))
    return pickle.dumps([make], 2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps({"x": Call(os.system, "touch touched")}), r"it asks for (posix|nt)\.system; only numpy arrays"),
        (b"c__builtin__\neval\n(S'1'\ntR.", r"it asks for __builtin__\.eval"),
        (pickle.dumps([Call(np.load, "x")]), "it asks for numpy.load"),
        (pickle.dumps({1, 2}), "it holds a set"),
        (pickle.dumps(np.dtype("f4")), "it holds a Dtype"),
        (pickle.dumps(np.zeros(2, "M8[s]")), r"the dtype datetime64"),
        (pickle.dumps(np.zeros(2, "f4,i4")), "dtype"),
        (with_state(np.dtype("f8"), (4,), b"\0" * 8), r"shape \(4,\) with other bytes than these take"),
        (with_state(np.dtype("f8"), (-1,), b"\0" * 8), r"shape \(-1,\)"),
        (with_state(np.dtype("O"), (3,), b"\0" * 24), "array of objects"),
        (pickle.dumps(Call(np._core.multiarray._reconstruct, np.ndarray, (0,), b"b")), "without content"),
        (b"\x80\x04\x8e" + (2**60).to_bytes(8, "little"), "does not fit into the memory"),
        (pickle.dumps(PLAIN)[:-40], "not a pickled file, or a damaged one"),
        (b"hello", "not a pickled file"),
        (b"", "not a pickled file"),
        (b"\x80\x04" + b"]" * 300 + b"a" * 299 + b".", "nested more than"),
    ],
)
def test_anything_else_is_refused_by_name(tmp_path, monkeypatch, content, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it.pkl").write_bytes(content)
    with pytest.raises(UserError, match=rf"it\.pkl: .*{said}"):
        read_pickle(tmp_path / "it.pkl")
    assert not (tmp_path / "touched").exists()


def test_a_numeric_npy_and_a_missing_file_are_told(tmp_path):
    np.save(tmp_path / "it.npy", np.zeros(3))
    with pytest.raises(UserError, match="an array of float64, which is not pickled"):
        read_pickle(tmp_path / "it.npy")
    with pytest.raises(UserError, match="no such file"):
        read_pickle(tmp_path / "no.pkl")


def test_what_occurs_often_is_kept_once(tmp_path):
    """Thirty lists, each ten times in the next: ten to the thirtieth, written out."""
    inner = [0]
    for _ in range(30):
        inner = [inner] * 10
    (tmp_path / "it.pkl").write_bytes(pickle.dumps(inner))
    found = read_pickle(tmp_path / "it.pkl")
    assert found[0] is found[9]


def test_what_unpacks_to_more_than_memory_is_refused(tmp_path, monkeypatch):
    (tmp_path / "it.gz").write_bytes(gzip.compress(pickle.dumps(np.zeros(10**6))))
    monkeypatch.setattr(pickles, "free_memory", lambda: 10**6)
    with pytest.raises(UserError, match=r"does not fit into the memory"):
        read_pickle(tmp_path / "it.gz")
