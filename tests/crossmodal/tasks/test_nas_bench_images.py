"""NAS-Bench-360's tasks of images and fields: small folders in the public formats, from reading to prediction, and bad files."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat

import crossmodal
from crossmodal import cli, miniature, parsing, tasks
from crossmodal.errors import UserError
from crossmodal.files import read_yaml

Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Folders:
    """A folder with the miniature of a task, through the command line."""
    made: dict[str, Path] = {}

    def folder(task: str) -> Path:
        if task not in made:
            made[task] = tmp_path_factory.mktemp(task)
            assert cli.miniature([task, "-o", str(made[task])]) == 0
        return made[task]

    return folder


@pytest.fixture
def copied(folders, tmp_path) -> Folders:
    """A copy of that folder, to damage."""

    def copy(task: str) -> Path:
        shutil.copytree(folders(task), tmp_path / "copy", ignore=shutil.ignore_patterns("*.rows.npy*"))
        return tmp_path / "copy"

    return copy


def accuracy(outputs: torch.Tensor, batch, normalizer) -> float:
    """What the public code reports of a piece: the share of the right classes."""
    return (outputs.argmax(1) == batch.y).double().mean().item()


def relative_l2(outputs: torch.Tensor, batch, normalizer) -> float:
    """Outputs and targets are decoded by the mean and deviation of each point, and compared by their Euclidean norms."""
    found, true = (values.double() * normalizer.y_std + normalizer.y_mean for values in (outputs, batch.y))
    return ((found - true).flatten(1).norm(dim=1) / true.flatten(1).norm(dim=1)).mean().item()


# task: (shape of a sample, the public code's score of a piece of the test split)
WALK = {
    "cifar100": ((3, 32, 32), accuracy),
    "spherical": ((3, 60, 60), accuracy),
    "darcy_flow": ((3, 85, 85), relative_l2),
}


K = {"cifar100": (2000, 525), "spherical": (2000, 525), "darcy_flow": (1000, 505)}


@pytest.mark.parametrize("task", WALK)
def test_a_task_from_its_public_files_to_predictions(task, folders, tmp_path, tiny_swin, capsys):
    shape, score = WALK[task]
    run, size = tmp_path / "run", 100 if score is accuracy else 4
    settings = {
        "task": task,
        "method": "nft",
        "encoder": tiny_swin,
        "data_dir": folders(task),
        "protocol": "released",
        "output_dir": run,
        "steps": 1,
        "split.train_size": size,
        "device": "cpu",
        "threads": 1,
    }
    assert cli.train([word for key, value in settings.items() for word in (f"--{key}", str(value))]) == 0
    out = capsys.readouterr().out
    assert "released: " in out
    assert f"{task} is a miniature" in out
    found = json.loads((run / "results.json").read_text())
    assert (found["input_shape"], found["miniature"]) == (list(shape), True)
    assert found["samples"]["validation"] == found["samples"]["test"]  # released: the same samples
    loaded = tasks.load(task, data_dir=folders(task), protocol="released", train_size=size)
    batch = loaded.test.read(torch.arange(len(loaded.test)))
    predictor = crossmodal.load(run)
    outputs = predictor.outputs(batch.x)
    assert found["test"] == pytest.approx(score(outputs, batch, loaded.normalizer), abs=1e-6)

    assert cli.evaluate([str(run)]) == 0
    assert f"(stored: {found['test']!r})" in capsys.readouterr().out
    raw = loaded.normalizer.x_mean + batch.x[:2] * loaded.normalizer.x_std
    np.save(tmp_path / "new.npy", raw.float().numpy())
    assert cli.predict([str(run), str(tmp_path / "new.npy"), "-o", str(tmp_path / "out.npy")]) == 0
    written = np.load(tmp_path / "out.npy")
    if loaded.kind == "classification":
        assert written.tolist() == outputs[:2].argmax(1).tolist()
    else:
        assert written == pytest.approx(loaded.normalizer.decode(outputs[:2]).numpy(), abs=1e-3)


@pytest.mark.parametrize("task", WALK)
def test_by_default_no_test_sample_validates_and_all_files_must_be_there(task, folders, tmp_path):
    loaded = tasks.load(task, data_dir=folders(task))
    assert loaded.validation is not loaded.test
    assert "released" not in loaded.description
    assert "a miniature: no result" in loaded.description
    with pytest.raises(UserError, match=rf"--download {task} .*miniature\.py {task} -o"):
        tasks.load(task, data_dir=tmp_path)


@pytest.mark.parametrize("task", [pytest.param(one, marks=[pytest.mark.slow] * (one != "cifar100")) for one in WALK])
def test_a_miniature_is_made_of_its_seed_whole_or_not_at_all(task, folders, tmp_path):
    miniature.make(task, tmp_path)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (folders(task) / path.relative_to(tmp_path)).read_bytes(), path
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(UserError, match="holds a miniature of"):
        miniature.make(task, tmp_path, seed=1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}.keys() == before.keys()
    with pytest.raises(UserError, match=r"holds a miniature of"):
        cli._download(["--download", task, "--data_dir", str(tmp_path)])


@pytest.mark.parametrize("task", WALK)
def test_the_settings_of_the_paper_are_whole(task):
    """Every key is known, and k is what it was at the first epoch and the last."""
    config = parsing.from_dict(read_yaml(parsing.TASK_CONFIGS / f"{task}.yaml") | {"task": task})
    schedule = config.options.k_over_time()
    k = [schedule(epoch / config.epochs, 3136) for epoch in range(config.epochs)]
    assert (k[0], k[-1]) == K[task]
    assert k == sorted(k, reverse=True)


def test_a_miniature_of_what_has_none(capsys, tmp_path):
    assert cli.miniature(["cifar10", "-o", str(tmp_path / "no")]) == 2
    assert "did you mean 'cifar100'" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def refused(task: str, folder: Path, match: str) -> None:
    """Reading ends with that message, and leaves nothing behind."""
    before = sorted(os.listdir(folder))
    with pytest.raises(UserError, match=match):
        tasks.load(task, data_dir=folder)
    assert sorted(os.listdir(folder)) == before


class Malicious:
    def __reduce__(self):
        return os.system, ("touch /tmp/should-not-be",)


# ----- CIFAR-100 and its projection -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("train", lambda d: d.pop("fine_labels"), r"train: lacks the key 'fine_labels'; it holds 'filenames'"),
        ("train", lambda d: d.update(data=d["data"][:, :3000]), r"shape \(n, 3072\), got uint8 of shape \(600, 3000\)"),
        ("train", lambda d: d.update(data=d["data"] / 255), r"data: expected uint8, got float64"),
        ("test", lambda d: d["fine_labels"].__setitem__(7, 100), r"from 0 to 99, but the one at index 7 is 100"),
        ("test", lambda d: d["fine_labels"].pop(), r"200 rows in data, but 199 in fine_labels"),
        (
            "meta",
            lambda d: d["fine_label_names"].pop(),
            r"meta: expected fine_label_names, a list of 100 different names",
        ),
        ("train", lambda d: d.update(data=Malicious()), r"train: refused: it asks for posix\.system"),
    ],
)
def test_cifar_files_that_are_wrong(copied, name, change, match):
    folder = copied("cifar100")
    path = folder / "cifar-100-python" / name
    content = pickle.loads(path.read_bytes())
    change(content)
    path.write_bytes(pickle.dumps(content, 2))
    refused("cifar100", folder, match)


def test_cifar_as_python_2_wrote_it(copied, folders):
    """Keys are bytes there, or what Python 3 makes of them."""
    folder = copied("cifar100")
    for name in ("train", "test", "meta"):
        path = folder / "cifar-100-python" / name
        content = {key.encode(): value for key, value in pickle.loads(path.read_bytes()).items()}
        path.write_bytes(pickle.dumps(content, 2))
    one, other = (tasks.load("cifar100", data_dir=place) for place in (folder, folders("cifar100")))
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d.pop("test"), "expected a dictionary with 'train' and 'test'"),
        (lambda d: d["train"].pop("images"), r"train: lacks the key 'images'; it holds 'labels'"),
        (lambda d: d["test"].update(images=d["test"]["images"][:, 0]), r"shape \(n, 3, 60, 60\), got uint8"),
        (lambda d: d["test"].update(images=d["test"]["images"] - 3.0), r"from 0 to 255, got -3\.0 to"),
        (lambda d: d["train"].update(labels=d["train"]["labels"] + 1), r"train: labels: expected labels from 0 to 99"),
        (lambda d: d.update(train=Malicious()), r"refused: it asks for posix\.system"),
    ],
)
def test_spherical_files_that_are_wrong(copied, change, match):
    folder = copied("spherical")
    path = folder / "s2_cifar100.gz"
    content = pickle.loads(gzip.decompress(path.read_bytes()))
    change(content)
    path.write_bytes(gzip.compress(pickle.dumps(content), 1))
    refused("spherical", folder, match)


def test_a_truncated_spherical_file(copied):
    path = copied("spherical") / "s2_cifar100.gz"
    path.write_bytes(path.read_bytes()[:-1000])
    refused("spherical", path.parent, "not a pickled file, or a damaged one")


# ----- Darcy flow -----------------------------------------------------------------------------------------------------------


def as_73(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """MATLAB's version 7.3: HDF5 behind 512 bytes, axes reversed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            file[name] = values.T


def test_darcy_files_of_either_version_of_matlab_are_the_same(copied, folders):
    folder = copied("darcy_flow")
    for path in folder.glob("*.mat"):
        as_73(path, {name: loadmat(path)[name] for name in ("coeff", "sol")})
    one, other = (tasks.load("darcy_flow", data_dir=place) for place in (folder, folders("darcy_flow")))
    assert one.fingerprint == other.fingerprint
    assert [len(part) for part in (one.train, one.validation, one.test)] == [18, 2, 6]
    batch = one.train.read(torch.arange(3))
    axis = torch.linspace(0, 1, 85)
    assert torch.allclose(batch.x[2, 1], axis.expand(85, 85))
    assert torch.allclose(batch.x[2, 2], axis[:, None].expand(85, 85))
    media = one.normalizer.x_mean[0] + batch.x[:, 0] * one.normalizer.x_std[0]
    assert media.round(decimals=3).unique().tolist() == [3, 12]


@pytest.mark.parametrize("write", [savemat, as_73])
@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"coeff": (4, 421, 421)}, r"smooth1\.mat: expected sol, an array of real numbers with 3 axes; found coeff"),
        ({"coeff": (4, 421, 421), "sol": (421, 421)}, r"expected sol, .* with 3 axes; found \w+ of shape \(421, 421\)"),
        (
            {"coeff": (4, 421, 421), "sol": (4, 64, 64)},
            r"every 5th point of sol: .* \(n, 85, 85\), got \w+ of shape \(4, 13, 13\)",
        ),
        ({"coeff": (4, 421, 421), "sol": (3, 421, 421)}, "4 samples in coeff, but 3 in sol"),
    ],
)
def test_darcy_files_that_are_wrong(tmp_path, write, arrays, match):
    for number in (1, 2):
        path = tmp_path / f"piececonst_r421_N1024_smooth{number}.mat"
        write(path, {name: np.ones(shape, np.float32) for name, shape in arrays.items()})
    refused("darcy_flow", tmp_path, match)


@pytest.mark.parametrize("content", [lambda whole: whole[: len(whole) // 2], lambda whole: b"hello" * 200])
def test_darcy_files_that_are_damaged(copied, content):
    path = copied("darcy_flow") / "piececonst_r421_N1024_smooth1.mat"
    path.write_bytes(content(path.read_bytes()))
    refused("darcy_flow", path.parent, "smooth1.mat: not a MATLAB file, or a damaged one")
