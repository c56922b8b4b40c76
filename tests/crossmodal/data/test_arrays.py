"""Arrays that lie in files: the same rows as in memory, in any order, without being read whole."""

from __future__ import annotations

import pickle
import resource

import h5py
import numpy as np
import pytest
import torch

from crossmodal import tasks
from crossmodal.data import arrays
from crossmodal.data.arrays import Hdf5Array, RowFiles, Rows, free_memory, in_memory, manifest, with_channel
from crossmodal.data.dataset import ArrayDataset, take
from crossmodal.data.numeric import require_finite
from crossmodal.data.readers import npy
from crossmodal.data.readers.csv import read_labels
from crossmodal.data.readers.hdf5 import read_hdf5
from crossmodal.errors import UserError
from tests.crossmodal.tasks.conftest import arrays as toy

ROWS = np.array([5, 0, 5, 3])


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(7, 3, 4)).astype(np.float32)


@pytest.fixture(params=["npy", "npz", "npz, Fortran order", "hdf5", "files"])
def stored(request, values, tmp_path, monkeypatch):
    """The values in a file, opened without being read."""
    monkeypatch.setattr(npy, "free_memory", lambda: 10)
    if request.param == "npy":
        np.save(tmp_path / "x.npy", values)
        return npy.read_npy(tmp_path / "x.npy")
    if request.param.startswith("npz"):
        order = np.asfortranarray(values) if "Fortran" in request.param else values
        np.savez(tmp_path / "all.npz", a=np.arange(3), x=order)
        return npy.read_npz(tmp_path / "all.npz", lambda names: ["x"])["x"]
    if request.param == "hdf5":
        with h5py.File(tmp_path / "all.h5", "w") as file:
            file["x"] = values
        return read_hdf5(tmp_path / "all.h5", lambda names: ["x"])["x"]
    paths = [tmp_path / f"{row}.npy" for row in range(len(values))]
    for path, row in zip(paths, values, strict=True):
        np.save(path, row)
    return RowFiles(paths, np.load)


def test_rows_are_those_in_memory(stored, values):
    assert not in_memory(stored)
    assert (tuple(stored.shape), stored.dtype, stored.ndim, len(stored)) == (values.shape, values.dtype, 3, 7)
    assert np.array_equal(take(stored, ROWS), values[ROWS])
    assert np.array_equal(np.asarray(stored[2:4]), values[2:4])
    again = pickle.loads(pickle.dumps(stored)) if isinstance(stored, Hdf5Array) else stored  # as for a loader's worker
    assert np.array_equal(take(again, ROWS), values[ROWS])
    assert manifest(stored) == manifest(values)
    assert manifest(stored) != manifest(values + (np.arange(7) == 6)[:, None, None].astype(np.float32))
    split = ArrayDataset(stored, values[:, 0, 0], rows=np.array([6, 5, 4]))
    batch = split.read(torch.tensor([2, 0]))
    assert np.array_equal(batch.x.numpy(), values[[4, 6]])
    assert batch.index.tolist() == [2, 0]
    assert np.array_equal(split.x.numpy(), values[[6, 5, 4]])


def test_a_channel_is_added_without_reading(stored, values):
    wider = with_channel(stored)
    assert tuple(wider.shape) == (7, 1, 3, 4)
    assert not in_memory(wider)
    assert np.array_equal(take(wider, ROWS), values[ROWS][:, None])


def test_compressed_members_that_do_not_fit_are_refused(values, tmp_path, monkeypatch):
    monkeypatch.setattr(npy, "free_memory", lambda: 10)
    np.savez_compressed(tmp_path / "all.npz", x=values)
    with pytest.raises(UserError, match=r"all.npz: x cannot be read: .* of memory are free; saved uncompressed"):
        npy.read_npz(tmp_path / "all.npz", lambda names: names)


def test_a_file_of_another_shape_is_named(values, tmp_path):
    paths = [tmp_path / f"{row}.npy" for row in range(2)]
    np.save(paths[0], values[0])
    np.save(paths[1], values[1, :2])
    with pytest.raises(UserError, match=r"1.npy: expected float32 of shape \(3, 4\) like 0.npy, got .* \(2, 4\)"):
        RowFiles(paths, np.load)[:]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: file.create_dataset("x", data=[b"gr\xf6n"]), "x is not text in UTF-8"),
        (lambda file: file.create_dataset("x", data=1.0), r"x: expected text, or numbers with rows, got float64 \(\)"),
        (
            lambda file: file.create_dataset("x", (4,), "f4", external=[("elsewhere.raw", 0, 16)]),
            "x refers to other files, which are not opened",
        ),
    ],
)
def test_hdf5_that_is_not_numbers_of_its_own_is_refused(tmp_path, make, message):
    with h5py.File(tmp_path / "bad.h5", "w") as file:
        make(file)
    with pytest.raises(UserError, match=f"bad.h5: {message}"):
        read_hdf5(tmp_path / "bad.h5", lambda names: names)
    (tmp_path / "bad.h5").write_bytes(b"no")
    with pytest.raises(UserError, match=r"bad.h5 cannot be read"):
        read_hdf5(tmp_path / "bad.h5", lambda names: names)


@pytest.mark.parametrize("form", ["hdf5", "csv", "csv of pandas"])
def test_classes_and_groups_by_name_are_those_of_an_npz(tmp_path, form):
    data = toy((6,), lambda n: np.array(["cat", "dog"])[np.arange(n) % 2])
    data |= {"group_train": np.array([f"p{i // 4}" for i in range(20)]), "group_test": np.array(list("qqqrrr"))}
    np.savez(tmp_path / "all.npz", **data)
    expected, place = tasks.load("arrays", data=tmp_path / "all.npz"), tmp_path / "data"
    if form == "hdf5":
        with h5py.File(place := tmp_path / "data.h5", "w") as file:
            for name, values in data.items():
                file[name] = values.astype(h5py.string_dtype()) if values.dtype.kind == "U" else values
    else:
        place.mkdir()
        for name, values in data.items():
            table = values.reshape(len(values), -1).tolist()
            lines = [",".join(map(repr if name[0] == "x" else str, row)) for row in table]
            if form == "csv of pandas":
                head = ",".join(["", *(name * (i + 1) for i in range(len(table[0])))])
                lines = [head, *(f"{row},{line}" for row, line in enumerate(lines))]
            elif name == "y_test":
                lines = ["animal", *lines]
            (place / f"{name}.csv").write_text("\n".join(lines))
    found = tasks.load("arrays", data=place)
    assert torch.equal(found.train.x, expected.train.x)
    assert torch.equal(found.validation.y, expected.validation.y)
    assert found.class_values == ("cat", "dog")
    rows = torch.arange(3)
    assert torch.equal(found.test.read(rows).extras["group"], expected.test.read(rows).extras["group"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat,tame\ndog,tame\n", "line 1: expected one column of text, got 2 columns"),
        ("cat\ndog\n3\n", "line 2: column 0: 'dog' is not a number"),
    ],
)
def test_labels_that_are_neither_text_nor_numbers(tmp_path, text, message):
    (tmp_path / "y.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_labels(tmp_path / "y.csv", 2)


def test_free_memory_minds_limits(monkeypatch):
    plenty = free_memory()
    used = arrays.psutil.Process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (used + 2**20 if kind == resource.RLIMIT_AS else -1, -1))
    assert free_memory() <= min(plenty, 2**20)


@pytest.mark.parametrize("kind", ["classification", "dense"])
@pytest.mark.parametrize("form", ["folder", "hdf5", "files"])
def test_a_task_from_files_equals_the_task_in_memory(tmp_path, monkeypatch, form, kind):
    data = toy((2, 6), (lambda n: np.random.default_rng(n).normal(size=(n, 1, 6))) if kind == "dense" else None)
    np.savez(tmp_path / "all.npz", **data)
    expected = tasks.load("arrays", data=tmp_path / "all.npz")
    place = tmp_path / "data"
    if form == "hdf5":
        place = tmp_path / "data.h5"
        with h5py.File(place, "w") as file:
            for name, values in data.items():
                file[name] = values
    else:
        place.mkdir()
        for name, values in data.items():
            if form == "files" and name.startswith("x"):
                (place / name).mkdir()
                for row, one in enumerate(values):
                    np.save(place / name / f"{row:03}.npy", one)
            else:
                np.save(place / f"{name}.npy", values)
        monkeypatch.setattr(npy, "free_memory", lambda: 1000 if form == "folder" else 10**9)
    found = tasks.load("arrays", data=place)
    assert not in_memory(found.train._x)
    for part in ("train", "validation", "test"):
        one, other = getattr(found, part), getattr(expected, part)
        rows = torch.tensor([3, 0, 1])
        assert torch.equal(one.read(rows).x, other.read(rows).x)
        assert torch.equal(one.read(rows).y, other.read(rows).y)
        assert torch.equal(one.y, other.y)


def test_rows_are_made_when_asked_for_in_any_order_and_changed_by_their_own_number():
    """Also where a split is a choice of them; what they are made of stands for them."""
    made = []

    def row(number: int) -> np.ndarray:
        made.append(number)
        return np.full((1, 3), number, np.float32)

    rows = Rows(9, row, (1, 3), np.float32, "of numbers")
    assert (len(rows), rows.shape, rows.dtype) == (9, (9, 1, 3), np.float32)
    require_finite(rows, "rows")
    assert manifest(rows) == "float32 (9, 1, 3) of numbers"
    assert not in_memory(rows)
    assert made == []
    assert rows[2:4].tolist() == [[[2] * 3], [[3] * 3]]
    split = ArrayDataset(
        rows,
        np.arange(9),
        rows=np.array([8, 4, 6]),
        vary=lambda x, number, generator: x + 10 * number + generator.random(),
    )
    plain, one, same, other = (
        split.read(torch.tensor([2, 0, 2]), seeds) for seeds in (None, *torch.tensor([[1] * 3, [1] * 3, [2] * 3]))
    )
    assert plain.x[:, 0, 0].tolist() == [6, 8, 6]
    assert one.x[:, 0, 0].floor().tolist() == [66, 88, 66]
    assert torch.equal(one.x, same.x)
    assert not torch.equal(one.x, other.x)
    assert one.y.tolist() == [6, 8, 6]
