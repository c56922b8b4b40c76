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
from sklearn.metrics import roc_auc_score

import crossmodal
from crossmodal import cli, miniature, parsing, tasks
from crossmodal.data.readers.pickles import read_pickle
from crossmodal.errors import UserError
from crossmodal.files import read_yaml
from crossmodal.settings import SplitConfig

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
        shutil.copytree(
            folders(task),
            tmp_path / "copy",
            ignore=shutil.ignore_patterns("*.rows.npy*", "*.lengths.npy*", "*.pictures.npy*"),
        )
        return tmp_path / "copy"

    return copy


def accuracy(outputs: torch.Tensor, batch, normalizer) -> float:
    """What the public code reports of a piece: the share of the right classes."""
    return (outputs.argmax(1) == batch.y).double().mean().item()


def relative_l2(outputs: torch.Tensor, batch, normalizer) -> float:
    """Outputs and targets are decoded by the mean and deviation of each point, and compared by their Euclidean norms."""
    found, true = (values.double() * normalizer.y_std + normalizer.y_mean for values in (outputs, batch.y))
    return ((found - true).flatten(1).norm(dim=1) / true.flatten(1).norm(dim=1)).mean().item()


def mae_8(outputs: torch.Tensor, batch, normalizer) -> float:
    """As published, pair by pair: predictions symmetrised twice, in place; every protein cut to the length of the first."""
    length = int(batch.extras["mask"][0, 0].any(0).sum())
    scores = []
    for predicted, true in zip(outputs[:, 0].double().numpy(), batch.y[:, 0].double().numpy(), strict=True):
        for j in range(512):
            predicted[j, j:] = (predicted[j:, j] + predicted[j, j:]) / 2
        predicted[predicted < 0.01] = 0.01
        true[true < 1] = 100  # padding
        errors = []
        for p in range(length):
            for q in range(p + 24, length):
                if true[5 + p, 5 + q] <= 8:
                    both = (predicted[5 + q, 5 + p] + predicted[5 + p, 5 + q]) / 2
                    errors.append(abs(both - true[5 + p, 5 + q]))
        scores.append(np.mean(errors) if errors else np.nan)
    return float(np.nanmean(scores))


def thresholded_auroc(outputs: torch.Tensor, batch, normalizer) -> float:
    """As published: logits above 0 are what is ranked, and what is to be ignored is 0 in both."""
    counts = batch.extras["mask"]
    return roc_auc_score((batch.y * counts).flatten().numpy(), (outputs * counts > 0).flatten().numpy())


# task: (shape of a sample, the public code's score of a piece of the test split)
WALK = {
    "cifar100": ((3, 32, 32), accuracy),
    "spherical": ((3, 60, 60), accuracy),
    "darcy_flow": ((3, 85, 85), relative_l2),
    "psicov": ((57, 512, 512), mae_8),
    "cosmic": ((1, 128, 128), thresholded_auroc),
}


K = {
    "cifar100": (2000, 525),
    "spherical": (2000, 525),
    "darcy_flow": (1000, 505),
    "psicov": (1000, 550),
    "cosmic": (500, 8),
}


@pytest.mark.parametrize("task", [pytest.param(one, marks=[pytest.mark.slow] * (one == "psicov")) for one in WALK])
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
    loaded = tasks.load(task, data_dir=folders(task), protocol="released", split=SplitConfig(train_size=size))
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
def test_by_default_no_test_sample_validates_and_all_files_must_be_there(task, folders, downloaded, tmp_path):
    loaded = tasks.load(task, data_dir=downloaded(task, folders(task)))
    assert loaded.validation is not loaded.test
    assert "released" not in loaded.description
    with pytest.raises(UserError, match=rf"--download {task} .*miniature\.py {task} -o"):
        tasks.load(task, data_dir=tmp_path)


@pytest.mark.parametrize("task", [pytest.param(one, marks=[pytest.mark.slow] * (one != "cifar100")) for one in WALK])
def test_a_miniature_is_made_of_its_seed_whole_or_not_at_all(task, folders, tmp_path):
    miniature.make(task, tmp_path)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (folders(task) / path.relative_to(tmp_path)).read_bytes(), path
    before = set(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="holds a miniature of"):
        miniature.make(task, tmp_path, seed=1)
    assert set(tmp_path.rglob("*")) == before
    with pytest.raises(UserError, match=r"holds a miniature of"):
        cli._download(["--download", task, "--data_dir", str(tmp_path)])


@pytest.mark.parametrize("task", WALK)
def test_the_settings_of_the_paper_are_whole(task):
    """Every key is known, and k is what it was at the first epoch and the last."""
    values = read_yaml(parsing.TASK_CONFIGS / f"{task}.yaml") | {"task": task}
    values.pop("pare_released", None)
    config = parsing.from_dict(values)
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
        return os.system, ("true",)


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
            r"meta: expected 100 names of classes, got 99",
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
        (lambda d: d.pop("test"), r"s2_cifar100\.gz: lacks the key 'test'; it holds 'train'"),
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


@pytest.mark.parametrize("change", [lambda t: t[:-1000], lambda t: t[:-8] + bytes(8)], ids=["truncated", "checksum"])
def test_a_damaged_spherical_file(copied, change):
    path = copied("spherical") / "s2_cifar100.gz"
    path.write_bytes(change(path.read_bytes()))
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


def test_a_darcy_file_that_would_fill_the_memory(tmp_path):
    for number in (1, 2):
        with h5py.File(tmp_path / f"piececonst_r421_N1024_smooth{number}.mat", "w") as file:
            file.create_dataset("coeff", (1 << 20, 1 << 20, 1024), "f8", chunks=(64, 64, 64))
    refused("darcy_flow", tmp_path, r"smooth1\.mat: coeff takes 3\d{5}\.\d GiB, and .* GiB of memory are free")


@pytest.mark.parametrize("content", [lambda whole: whole[: len(whole) // 2], lambda whole: b"hello" * 200])
def test_darcy_files_that_are_damaged(copied, content):
    path = copied("darcy_flow") / "piececonst_r421_N1024_smooth1.mat"
    path.write_bytes(content(path.read_bytes()))
    refused("darcy_flow", path.parent, "smooth1.mat: not a MATLAB file, or a damaged one")


# ----- PSICOV ---------------------------------------------------------------------------------------------------------------


def protein(folder: Path, part: str = "deepcov", number: int = 0) -> tuple[Path, Path]:
    """The two files of a protein."""
    name = (folder / "protein" / f"{part}.lst").read_text().split()[2 * number]
    return tuple(folder / "protein" / part / place for place in (f"features/{name}.pkl", f"distance/{name}-cb.npy"))


def test_maps_of_a_protein(folders):
    """Channels in their order, zeros around them, distances as they are tested and as they are learned from."""
    loaded = tasks.load("psicov", data_dir=folders("psicov"))
    assert [len(part) for part in (loaded.train, loaded.validation, loaded.test)] == [36, 4, 12]
    features, (length, _, distances) = map(read_pickle, protein(folders("psicov"), "psicov", 1))
    batch = loaded.test.read(torch.tensor([1]))
    x, y, mask = batch.x[0], batch.y[0, 0], batch.extras["mask"][0, 0]
    inner = slice(5, 5 + length)
    assert mask.sum() == mask[inner, inner].sum() == length**2
    assert (x[:, ~mask] == 0).all()
    x = x[:, inner, inner].numpy()
    for channel, row in ((0, features["ss"][0]), (4, features["ss"][2]), (6, features["pssm"][:, 0])):
        assert (x[channel] == row[None, :]).all()
        assert (x[channel + 1] == row[:, None]).all()
    assert (x[50] == features["sa"][None, :]).all()
    assert (x[53] == features["entropy"][:, None]).all()
    assert (x[54:] == np.stack([features[name] for name in ("ccmpred", "freecon", "potential")])).all()
    y = y[inner, inner].numpy()
    apart = ~np.eye(length, dtype=bool)
    assert (y[apart] == np.maximum(distances, 1)[apart]).all()
    assert y[3, 3] == pytest.approx((distances[3, 2] + distances[3, 4]) / 2)
    assert (y[0, 0], y[-1, -1]) == pytest.approx((distances[0, 1], distances[-2, -1]))
    assert max(loaded.train.read(torch.tensor([row])).y.max().item() for row in range(3)) == 16


def test_a_protein_longer_than_the_map_is_cut_and_other_forms_of_the_file_are_read(copied):
    folder = copied("psicov")
    features, distances = protein(folder, "psicov")
    rng, length = np.random.default_rng(0), 600
    shapes = {"ss": (3, length), "pssm": (length, 22), "sa": (length,), "entropy": (length,)}
    shapes |= dict.fromkeys(("ccmpred", "freecon", "potential"), (length, length))
    content = {"seq": "A" * length} | {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    features.write_bytes(pickle.dumps(content, 2))
    known = np.empty(3, object)
    known[:] = [length, content["seq"], np.full((length, length), 20.0)]
    with open(distances, "wb") as file:
        np.save(file, known, allow_pickle=True)
    batch = tasks.load("psicov", data_dir=folder).test.read(torch.tensor([0]))
    assert batch.extras["mask"].sum() == 502**2
    assert batch.x[0, 54, 5, 506].item() == pytest.approx(content["ccmpred"][0, 501])


@pytest.mark.parametrize(
    ("which", "change", "match"),
    [
        (0, lambda d: d.pop("sa"), r"features/de00A\.pkl: lacks the key 'sa'"),
        (0, lambda d: d.pop("seq"), "expected a dictionary with a sequence under 'seq'"),
        (0, lambda d: d.update(pssm=d["pssm"][:, :21]), r"pssm: expected numbers of shape \(\d+, 22\)"),
        (0, lambda d: d["ccmpred"].__setitem__((0, 0), np.nan), "ccmpred: holds NaN or infinity"),
        (0, lambda d: d.update(sa=1e300 * d["sa"].astype(float)), "sa: holds NaN or infinity, or what is"),
        (0, lambda d: d.update(sa=Malicious()), r"refused: it asks for posix\.system"),
        (1, lambda d: d.pop(0), "distance/de00A-cb.npy: expected a length, a sequence and a map"),
        (1, lambda d: d.__setitem__(2, d[2][:-1]), r"map: expected numbers of shape"),
    ],
)
def test_protein_files_that_are_wrong(copied, which, change, match):
    folder = copied("psicov")
    path = protein(folder)[which]
    content = pickle.loads(path.read_bytes())
    content = list(content) if which else content
    change(content)
    path.write_bytes(pickle.dumps(tuple(content) if which else content))
    refused("psicov", folder, match)


def test_a_protein_that_is_listed_twice_is_taken_once(copied):
    """It would be learned from and validate otherwise."""
    folder = copied("psicov")
    (folder / "protein/deepcov.lst").write_text("de01A 1\nde02A 2\nde01A 3\nde02A\n")
    loaded = tasks.load("psicov", data_dir=folder)
    assert (len(loaded.train), len(loaded.validation)) == (1, 1)
    assert "deepcov.lst lists 2 of its proteins again, and each is taken once." in loaded.description


def test_a_list_of_proteins_that_are_not_there(copied):
    folder = copied("psicov")
    protein(folder)[1].unlink()
    refused("psicov", folder, r"deepcov\.lst lists 'de00A', but there is no file .*de00A-cb\.npy")
    (folder / "protein/deepcov.lst").write_text("../../x\nb\n")
    refused("psicov", folder, r"deepcov\.lst lists '\.\./\.\./x'")
    (folder / "protein/deepcov.lst").write_text("")
    refused("psicov", folder, r"expected at least 2 proteins, got 0")


# ----- Cosmic ---------------------------------------------------------------------------------------------------------------

VISIT = Path("cosmic/npy_train/f435w/10760/2")


def test_pictures_with_more_or_less_sky(folders):
    """Learned from are pictures with another level of the sky in every epoch; validated and tested ones are as they are."""
    loaded = tasks.load("cosmic", data_dir=folders("cosmic"), split=SplitConfig(validation_fraction=0.3))
    assert [len(part) for part in (loaded.train, loaded.validation, loaded.test)] in ([9, 5, 6], [10, 4, 6])
    assert len(set(loaded.validation.read(torch.arange(4)).extras["group"].tolist())) == 1
    rows, scale = torch.arange(len(loaded.train)), loaded.normalizer.x_std.item()
    plain, one, same, other = (
        loaded.train.read(rows, seed and torch.full_like(rows, seed)).x for seed in (None, 1, 1, 2)
    )
    assert torch.equal(one, same)
    added = (one - plain) * scale
    assert added.std(dim=(1, 2, 3)).max() < 0.01  # one level for a picture
    levels = added.mean(dim=(1, 2, 3))
    assert (levels.abs() > 0.1).sum() >= 5
    assert -0.9 * 60 < levels.min() < levels.max() < 3 * 60
    assert not torch.equal(one, other)
    part = loaded.train.read(rows[3:5], torch.ones(2, dtype=torch.int64))
    assert torch.equal(part.x, one[3:5])  # whatever the batch
    planes = np.load(folders("cosmic") / "cosmic/npy_test/f435w/10260/5/2_0.npy")[:, 64:192, 64:192]
    batch = loaded.test.read(torch.tensor([1]))
    assert (batch.x[0, 0] * scale + loaded.normalizer.x_mean.item()).numpy() == pytest.approx(planes[0], abs=1e-2)
    assert (batch.y[0, 0].numpy() == planes[1]).all()
    assert (batch.extras["mask"][0, 0].numpy() == (planes[2] == 0)).all()
    assert not batch.extras["mask"].all()


def test_two_planes_and_other_visits(copied):
    """Without a third plane every pixel counts; visits to something else than galaxies are left alone."""
    folder = copied("cosmic")
    path = folder / VISIT / "1_0.npy"
    np.save(path, np.load(path)[:2])
    (folder / "cosmic/npy_train/f435w/10595/2").mkdir(parents=True)
    (folder / "cosmic/npy_train/f435w/10595/2/1_0.npy").write_bytes(b"anything")
    loaded = tasks.load("cosmic", data_dir=folder, protocol="released")
    batch = loaded.train.read(torch.arange(len(loaded.train)))
    assert batch.extras["mask"].flatten(1).all(1).tolist() == [True] + [False] * 13


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        (
            "1_0.npy",
            lambda a: a[:, :180],
            r"1_0\.npy: expected 2 or 3 planes of at least 192 x 192 .* got float32 of shape",
        ),
        ("1_0.npy", lambda a: a[0], r"expected 2 or 3 planes"),
        ("2_0.npy", lambda a: a + 0.5, "zeros and ones in the mask"),
        ("2_0.npy", lambda a: a * np.inf, "NaN or infinity"),
        (
            "sky.npy",
            lambda a: a[:3],
            r"4_0\.npy: expected a name that begins with the number of its sky, from 1 to the 3",
        ),
        ("sky.npy", lambda a: a[None], r"sky\.npy: expected numbers of shape \(n\)"),
        ("3_0.npy", lambda a: np.array([Malicious()]), "never unpickled"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_pictures_that_are_wrong(copied, name, change, match):
    folder = copied("cosmic")
    np.save(folder / VISIT / name, change(np.load(folder / VISIT / name)))
    refused("cosmic", folder, match)


def test_truncated_and_missing_pictures(copied):
    folder = copied("cosmic")
    path = folder / VISIT / "1_0.npy"
    path.write_bytes(path.read_bytes()[:1000])
    refused("cosmic", folder, r"1_0\.npy: cannot be read: .* bytes follow")
    shutil.rmtree(folder / "cosmic/npy_train/f435w")
    (folder / "cosmic/npy_train/f435w/10595/2").mkdir(parents=True)
    refused("cosmic", folder, "expected pictures of galaxies")
