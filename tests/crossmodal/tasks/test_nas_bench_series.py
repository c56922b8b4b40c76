"""NAS-Bench-360's tasks of series: small folders in the public formats, from reading to prediction, and files that are wrong."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import wavfile
from sklearn import metrics as sk
from sklearn.model_selection import train_test_split

import crossmodal
from crossmodal import cli, miniature, parsing, tasks
from crossmodal.data import derived
from crossmodal.errors import UserError
from crossmodal.files import digest
from crossmodal.miniature import fsd50k
from crossmodal.models import encoders
from crossmodal.tasks.nas_bench_360 import _public

CHUNK = 100  # instead of 1000 samples: the sets are small here


@contextlib.contextmanager
def small_sets() -> Iterator[None]:
    """Miniatures that are made here are smaller still."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fsd50k, "CLIPS", {"tr": 24, "val": 8, "eval": 16})
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Callable[[str], Path]:
    """A folder with the miniature of a task."""
    made: dict[str, Path] = {}

    def folder(task: str) -> Path:
        if task not in made:
            made[task] = tmp_path_factory.mktemp(task)
            with small_sets():
                miniature.make(task, made[task])
        return made[task]

    return folder


def pieces(score: Callable, truth: np.ndarray, output: np.ndarray, batch: int) -> float:
    """What the public code reports: batches are gathered until they hold `CHUNK` samples; the mean of the scores of such pieces."""
    scores, first = [], 0
    while first < len(truth):
        last = first
        while last - first < CHUNK and last < len(truth):
            last += batch
        scores.append(score(truth[first:last], output[first:last]))
        first = last
    return float(np.mean(scores))


def accuracy(truth: np.ndarray, output: np.ndarray) -> float:
    return float(np.mean(output.argmax(1) == truth))


def f1(truth: np.ndarray, output: np.ndarray) -> float:
    """The mean over the classes that occur in the labels or among those found."""
    return float(sk.f1_score(truth, output.argmax(1), average="macro", zero_division=0))


def auroc(truth: np.ndarray, output: np.ndarray) -> float:
    """The mean over the labels that are there and not there."""
    labels = [label for label in truth.T.astype(int) if 0 < label.mean() < 1]
    columns = [column for label, column in zip(truth.T, output.T, strict=True) if 0 < label.mean() < 1]
    return float(np.mean([sk.roc_auc_score(*pair) for pair in zip(labels, columns, strict=True)]))


def map_of_clips(split, output: np.ndarray) -> float:
    """The public code's figure of FSD50K: average precision by the sigmoid of each clip's mean logits, mean over labels.

    Of those that occur, as all do in the public files.
    """
    clips = split.extras["group"].numpy()
    present = np.unique(clips)
    mean = np.stack([output[clips == one].astype(np.float64).mean(0) for one in present])
    truth = np.stack([split.y[np.flatnonzero(clips == one)[0]].numpy() for one in present])
    occurs = truth.any(0)
    return float(sk.average_precision_score(truth[:, occurs], 1 / (1 + np.exp(-mean[:, occurs])), average="macro"))


# task: (shape of a sample, more options of the run, the public code's score of (targets, logits), its batches)
WALK = {
    "satellite": ((1, 46), {}, accuracy, 64),
    "ninapro": ((1, 16, 52), {}, accuracy, 16),
    "ecg": ((1, 1000), {}, f1, 64),
    "deepsea": ((4, 1000), {"model.patch_size": 20}, auroc, 16),
    "fsd50k": ((1, 96, 102), {}, None, 32),
}


def train(task: str, folder: Path, output: Path, **changes) -> dict:
    """A run of one epoch through the command line, by the released protocol."""
    settings = {
        "task": task,
        "method": "nft",
        "data_dir": folder,
        "protocol": "released",
        "output_dir": output,
        "epochs": 1,
        "device": "cpu",
        "threads": 1,
        "loader.eval_batch_size": 100,
    } | changes
    assert cli.train([word for key, value in settings.items() for word in (f"--{key}", str(value))]) == 0
    return json.loads((output / "results.json").read_text())


@pytest.mark.parametrize("task", WALK)
def test_a_task_from_its_public_files_to_predictions(task, folders, tmp_path, request, capsys, monkeypatch):
    monkeypatch.setattr(_public, "CHUNK", CHUNK)
    monkeypatch.setattr("crossmodal.scoring.metric.RESAMPLES", 20)
    shape, changes, score, batch = WALK[task]
    changes = {"encoder": request.getfixturevalue("tiny_swin" if len(shape) == 3 else "tiny_roberta")} | changes
    folder, run = folders(task), tmp_path / "run"
    found = train(task, folder, run, **changes)
    assert found["input_shape"] == list(shape)
    assert min(found["samples"].values()) > 0
    assert found["samples"]["validation"] == found["samples"]["test"]  # released: the same samples
    loaded = tasks.load(task, data_dir=folder, protocol="released")
    split = loaded.test.read(torch.arange(len(loaded.test)))
    predictor = crossmodal.load(run)
    outputs = predictor.outputs(split.x).numpy()
    if task == "fsd50k":
        assert found["test"] == pytest.approx(map_of_clips(split, outputs), abs=1e-6)
    else:
        assert found["test"] == pytest.approx(pieces(score, split.y.numpy(), outputs, batch), abs=1e-6)
    assert "released: " in capsys.readouterr().out

    assert cli.evaluate([str(run)]) == 0
    assert f"(stored: {found['test']!r})" in capsys.readouterr().out
    raw = loaded.normalizer.x_mean + split.x[:5] * loaded.normalizer.x_std  # as the reader gives them
    np.save(tmp_path / "new.npy", raw.numpy())
    assert cli.predict([str(run), str(tmp_path / "new.npy"), "-o", str(tmp_path / "out.npz")]) == 0
    with np.load(tmp_path / "out.npz") as written:
        assert written["predictions"].shape[0] == 5
        if loaded.kind == "classification":
            assert set(written["predictions"].tolist()) <= set(loaded.class_values)


@pytest.mark.parametrize("task", WALK)
def test_by_default_no_test_sample_validates_and_all_files_must_be_there(task, folders, downloaded, tmp_path):
    loaded = tasks.load(task, data_dir=downloaded(task, folders(task)))
    assert len(loaded.train) > 0
    assert loaded.validation is not loaded.test
    assert "released" not in loaded.description
    with pytest.raises(UserError, match=f"--download {task}"):
        tasks.load(task, data_dir=tmp_path)


@pytest.mark.parametrize("task", WALK)
def test_one_seed_gives_the_same_bytes_and_another_other_ones(task, folders, tmp_path):
    def hashes(folder: Path) -> dict[str, str]:
        made = [
            path
            for path in folder.rglob("*")
            if path.is_file() and ".rows." not in path.name and ".log_mel." not in path.name
        ]
        return {str(path.relative_to(folder)): digest(path) for path in made}

    with small_sets():
        miniature.make(task, tmp_path / "same")
        miniature.make(task, tmp_path / "other", seed=1)
    assert hashes(tmp_path / "same") == hashes(folders(task))
    assert hashes(tmp_path / "other") != hashes(folders(task))


def refused(task: str, folder: Path, match: str) -> None:
    """Reading ends with that message, and leaves nothing behind."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError, match=match):
        tasks.load(task, data_dir=folder)
    assert sorted(folder.rglob("*")) == before


# ----- Satellite ------------------------------------------------------------------------------------------------------------


class Malicious:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d.pop("label"), r"satellite_train.npy: lacks the key 'label'; it holds 'data'"),
        (
            lambda d: d.update(data=d["data"][:, :45]),
            r"expected numbers of shape \(n, 46\), got float64 of shape \(960, 45\)",
        ),
        (lambda d: d.update(label=d["label"][:-1]), r"960 rows in data, but 959 in label"),
        (lambda d: d.update(label=d["label"] - 1), r"expected labels from 1 to 24, but the one at index \d+ is 0"),
        (lambda d: d.update(label=np.minimum(d["label"], 23)), r"no sample has the labels \[24\]"),
        (lambda d: d.update(data=Malicious()), r"refused: it asks for posix.system"),
    ],
)
def test_satellite_files_that_are_wrong(folders, tmp_path, change, match):
    whole = np.load(folders("satellite") / "satellite_train.npy", allow_pickle=True).item()
    change(whole)
    np.save(tmp_path / "satellite_train.npy", whole, allow_pickle=True)
    np.save(tmp_path / "satellite_test.npy", whole, allow_pickle=True)
    refused("satellite", tmp_path, match)


def test_truncated_satellite(folders, tmp_path):
    for part in ("train", "test"):
        content = (folders("satellite") / f"satellite_{part}.npy").read_bytes()
        (tmp_path / f"satellite_{part}.npy").write_bytes(content[: len(content) // 2])
    refused("satellite", tmp_path, "satellite_train.npy: not a pickled file, or a damaged one")


def test_rows_are_made_once_and_again_when_damaged_or_of_another_file(folders, tmp_path, monkeypatch, capsys):
    for part in ("train", "test"):
        (tmp_path / f"satellite_{part}.npy").write_bytes((folders("satellite") / f"satellite_{part}.npy").read_bytes())
    first = tasks.load("satellite", data_dir=tmp_path).fingerprint
    assert capsys.readouterr().out.count("making") == 2
    assert tasks.load("satellite", data_dir=tmp_path).fingerprint == first
    assert "making" not in capsys.readouterr().out
    rows = tmp_path / "satellite_train.rows.npy"
    rows.write_bytes(rows.read_bytes()[:-8] + b"damaged!")
    assert tasks.load("satellite", data_dir=tmp_path).fingerprint == first
    assert capsys.readouterr().out.count("making") == 1
    # A folder that cannot be written: they go to the cache.
    monkeypatch.setattr(derived.os, "access", lambda *_: False)
    monkeypatch.setenv("PARE_CACHE_DIR", str(tmp_path / "cache"))
    assert tasks.load("satellite", data_dir=tmp_path).fingerprint == first
    assert len(list((tmp_path / "cache").glob("satellite_t*.rows-*.npy"))) == 2


# ----- NinaPro --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        (
            "ninapro_val",
            lambda x: x.swapaxes(1, 2),
            r"expected numbers of shape \(n, 52, 16\), got float64 of shape \(144, 16, 52\)",
        ),
        (
            "label_train",
            lambda y: y + 1,
            r"label_train.npy: expected labels from 0 to 17, but the one at index \d+ is 18",
        ),
        ("label_test", lambda y: y[1:], r"216 rows in ninapro_test.npy, but 215 in label_test.npy"),
        ("ninapro_test", lambda x: x.astype(object), r"ninapro_test.npy: cannot be read: it holds Python objects"),
        (
            "ninapro_train",
            lambda x: np.where(x == x[3, 2, 1], np.nan, x),
            r"x_train: value nan at index \(3, 0, 1, 2\)",
        ),
    ],
)
def test_ninapro_files_that_are_wrong(folders, tmp_path, name, change, match):
    (tmp_path / "ninaPro").mkdir()
    for path in (folders("ninapro") / "ninaPro").iterdir():
        values = np.load(path)
        np.save(tmp_path / "ninaPro" / path.name, change(values) if path.stem == name else values)
    refused("ninapro", tmp_path, match)
    (tmp_path / "ninaPro" / "ninapro_train.npy").write_bytes(path.read_bytes()[:200])
    refused("ninapro", tmp_path, "ninapro_train.npy: cannot be read")


# ----- ECG ------------------------------------------------------------------------------------------------------------------


def test_windows_and_parts_of_ecg(folders):
    """Against the split of scikit-learn and windows cut one by one."""
    whole = pickle.loads((folders("ecg") / "challenge2017.pkl").read_bytes())
    recordings, rhythms = list(whole["data"]), list(whole["label"])
    assert len({len(one) for one in recordings}) > 100
    learned, tested = train_test_split(np.arange(len(rhythms)), test_size=0.1, random_state=0)
    released = tasks.load("ecg", data_dir=folders("ecg"), protocol="released")
    for part, chosen in ((released.train, learned), (released.test, tested)):
        expected, labels = [], []
        for one in chosen:
            series = (recordings[one] - recordings[one].mean()) / recordings[one].std()
            for start in range(0, len(series) - 1000, {"N": 500, "A": 83, "O": 250, "~": 25}[rhythms[one]]):
                expected.append(series[start : start + 1000])
                labels.append("NAO~".index(rhythms[one]))
        assert part.y.tolist() == labels
        np.testing.assert_allclose(part.x[:, 0], np.array(expected), rtol=0, atol=1e-5)
    default = tasks.load("ecg", data_dir=folders("ecg"))
    groups = [
        set(part.read(torch.arange(len(part))).extras["group"].tolist()) for part in (default.train, default.validation)
    ]
    assert groups[0].isdisjoint(groups[1])
    assert len(groups[0] | groups[1]) == len(learned)
    assert len(default.test) == sum(len(range(0, len(recordings[one]) - 1000, 500)) for one in tested)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d.pop("label"), r"lacks the key 'label'; it holds 'data'"),
        (lambda d: d["label"].__setitem__(3, "X"), r"label 'X' at index 3; expected one of N, A, O, ~"),
        (lambda d: d.update(label=d["label"][1:]), r"160 recordings in data, but 159 labels"),
        (lambda d: d.update(data=5), r"data: expected one entry per recording, got int"),
        (lambda d: d["data"].__setitem__(2, [[1.0], 2.0]), r"data\[2\]: expected numbers"),
        (lambda d: d["data"].__setitem__(2, np.array([1.0, np.inf])), r"data\[2\] holds inf"),
        (lambda d: d["data"].__setitem__(2, np.array(["a"])), r"data\[2\]: expected numbers of shape \(n\), got <U1"),
        (
            lambda d: d.update(data=[one[:1000] for one in d["data"]]),
            r"no recording of the train part is longer than 1000",
        ),
        (
            lambda d: d.update(data=d["data"][:1], label=d["label"][:1]),
            r"no recording of the train part is longer than 1000",
        ),
        (lambda d: d.update(data=[Malicious()] * 160), r"refused: it asks for posix.system"),
    ],
)
def test_ecg_files_that_are_wrong(folders, tmp_path, change, match):
    whole = pickle.loads((folders("ecg") / "challenge2017.pkl").read_bytes())
    change(whole)
    (tmp_path / "challenge2017.pkl").write_bytes(pickle.dumps(whole))
    refused("ecg", tmp_path, match)
    (tmp_path / "challenge2017.pkl").write_bytes(pickle.dumps(whole)[:-100])
    refused("ecg", tmp_path, "challenge2017.pkl: ")


# ----- DeepSEA --------------------------------------------------------------------------------------------------------------


def read_deepsea(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "deepsea_filtered.npz") as file:
        return dict(file)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_rows_of_deepsea_are_those_of_the_file(folders, tmp_path, save):
    arrays = {
        name: values[:40].astype(bool if name[0] == "x" else float)
        for name, values in read_deepsea(folders("deepsea")).items()
    }
    save(tmp_path / "deepsea_filtered.npz", **arrays)
    default, released = (tasks.load("deepsea", data_dir=tmp_path, protocol=one) for one in ("default", "released"))
    for part, name in ((default.train, "train"), (default.validation, "val"), (default.test, "test")):
        np.testing.assert_array_equal(part.x, arrays[f"x_{name}"].swapaxes(1, 2))
        np.testing.assert_array_equal(part.y, arrays[f"y_{name}"])
    assert torch.equal(released.train.x, torch.cat([default.train.x, default.validation.x]))
    order = [np.lexsort(one.test.x.flatten(1).T.numpy()) for one in (default, released)]
    assert not torch.equal(default.test.x, released.test.x)  # shuffled
    assert torch.equal(default.test.x[order[0]], released.test.x[order[1]])
    assert torch.equal(default.test.y[order[0]], released.test.y[order[1]])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d.pop("y_val"), r"lacks the array 'y_val'; it holds x_train, y_train, x_val, x_test, y_test"),
        (
            lambda d: d.update(x_val=d["x_val"].swapaxes(1, 2)),
            r"x_val: expected numbers of shape \(n, 1000, 4\), got uint8",
        ),
        (lambda d: d.update(y_test=d["y_test"][1:]), r"240 samples in x_test, but 239 in y_test"),
        (
            lambda d: d["y_train"].__setitem__((3, 2), 7),
            r"expected zeros and ones, but y_train holds 7 from sample 0 on",
        ),
        (
            lambda d: d["x_test"].__setitem__((7, 300), 1),
            r"expected one base at each place, but x_test has 4 at place 300 of sample 7",
        ),
        (lambda d: d.update(y_train=np.array([{}])), r"y_train cannot be read: it holds Python objects"),
    ],
)
def test_deepsea_files_that_are_wrong(folders, tmp_path, change, match):
    arrays = read_deepsea(folders("deepsea"))
    change(arrays)
    path = tmp_path / "deepsea_filtered.npz"
    np.savez(path, **arrays)
    refused("deepsea", tmp_path, match)
    path.write_bytes(path.read_bytes()[:100_000])
    refused("deepsea", tmp_path, "not an .npz file")


# ----- FSD50K ---------------------------------------------------------------------------------------------------------------


def test_an_epoch_takes_one_piece_of_each_clip_and_another_the_next_time(folders):
    loaded = tasks.load("fsd50k", data_dir=folders("fsd50k"), augment=("spec_augment", "background"))
    with open(folders("fsd50k") / "audio" / "chunks" / "tr.csv") as file:
        clips = [row["ext"] for row in csv.DictReader(file)]
    rows = torch.arange(len(loaded.train))
    assert len(loaded.train) == len(set(clips)) == 24 < len(clips)
    plain, first, again, next_time = (
        loaded.train.read(rows, seed and torch.full_like(rows, seed)) for seed in (None, 1, 1, 2)
    )
    assert torch.equal(first.x, again.x)
    assert torch.equal(
        loaded.train.read(rows[5:9], torch.ones(4, dtype=torch.int64)).x, first.x[5:9]
    )  # whatever the batch
    assert first.extras["group"].tolist() == next_time.extras["group"].tolist() == plain.extras["group"].tolist()
    assert torch.equal(first.y, next_time.y)
    assert torch.equal(first.y, loaded.train.y)
    pieces = tasks.load("fsd50k", data_dir=folders("fsd50k"))
    drawn = [pieces.train.read(rows, torch.full_like(rows, seed)).x for seed in range(4)]
    changed = [(one != plain.x).flatten(1).any(1) for one in drawn]
    several = torch.tensor([clips.count(clip) > 1 for clip in sorted(set(clips))])
    assert torch.stack(changed).any(0).sum() > 0.5 * several.sum()
    assert not torch.stack(changed).any(0)[~several].any()
    assert (next_time.x != pieces.train.read(rows, torch.full_like(rows, 2)).x).flatten(1).any(
        1
    ).float().mean() > 0.7  # augmented
    assert plain.x[..., -1].abs().max() == 0
    assert plain.x[..., :-1].mean((1, 2, 3)).abs().max() < 0.01  # each less its mean


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("chunks/tr.csv", lambda t: t.replace(b"ext", b"clip", 1), r"tr.csv: lacks the columns ext"),
        (
            "chunks/val.csv",
            lambda t: t.replace(b"nine", b"Motor"),
            r"val.csv, line \d+: the label 'Motor' is not in lbl_map",
        ),
        (
            "chunks/eval.csv",
            lambda t: t.replace(b"_0000.wav", b"_9000.wav", 1),
            r"eval.csv, line 2: no file \d+_9000.wav below",
        ),
        ("chunks/eval.csv", lambda t: t + b"a,b", r"eval.csv, line \d+: expected 3 columns"),
        (
            "chunks/eval.csv",
            lambda t: t + b"\xe9",
            r"eval.csv: not a CSV file in UTF-8, or a damaged one: 'utf-8' codec",
        ),
        ("chunks/eval.csv", lambda t: t + b'"' + b"x" * 200_000, r"eval.csv: not a CSV file .*: field larger than"),
        ("chunks/lbl_map.json", lambda t: b"[" * 100_000, r"lbl_map.json: not readable JSON"),
        ("chunks/lbl_map.json", lambda t: t.replace(b": 3", b": 30"), r"expected every label with a number of its own"),
        ("chunks/dev/1001_0000.wav", lambda t: t[:1000], r"1001_0000.wav: not a WAV file, or a damaged one"),
        ("chunks/dev/1001_0000.wav", lambda t: b"", r"1001_0000.wav: not a WAV file, or a damaged one"),
        (
            "chunks/dev/1001_0000.wav",
            lambda t: wav(np.zeros(22050), 16000),
            r"at 22050 Hz in one channel, got 22050 at 16000 Hz",
        ),
        ("chunks/dev/1001_0000.wav", lambda t: wav(np.zeros((22050, 2)), 22050), r"got 22050 at 22050 Hz in 2"),
        ("chunks/dev/1001_0000.wav", lambda t: wav(np.zeros(100), 22050), r"expected 22050 samples, a second, got 100"),
    ],
)
def test_fsd50k_files_that_are_wrong(folders, tmp_path, name, change, match):
    whole = folders("fsd50k") / "audio"
    shutil.copytree(whole, tmp_path / "audio", copy_function=os.symlink)
    for made in (tmp_path / "audio").rglob("*.log_mel.npy*"):
        made.unlink()
    content = (whole / name).read_bytes()
    (tmp_path / "audio" / name).unlink()
    (tmp_path / "audio" / name).write_bytes(change(content))
    refused("fsd50k", tmp_path / "audio" / "..", match)


def wav(samples: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    wavfile.write(file, rate, samples.astype(np.int16))
    return file.getvalue()


# ----- configurations -------------------------------------------------------------------------------------------------------

# task: (encoder, (epochs, batch x accumulated), optimizer, learning rate, weight decay, clip, tokens, first and last k)
PAPER = {
    "satellite": ("roberta-base", (60, 64), "adamw", 3e-5, 3e-6, 0, 46, (32, 0)),
    "ninapro": ("swin-base", (60, 32), "adam", 1e-4, 5e-6, 0.5, 3136, (2000, 525)),
    "fsd50k": ("swin-base", (100, 32), "adam", 3e-5, 5e-5, 0, 3136, (2000, 515)),
    "ecg": ("roberta-base", (15, 64), "adamw", 3e-5, 0.1, 0, 50, (32, 2)),
    "deepsea": ("roberta-base", (25, 16), "adam", 1e-5, 0, 1, 500, (32, 1)),
}


@pytest.mark.parametrize("task", PAPER)
def test_settings_are_the_paper_s_and_k_runs_through_its_schedule(task, monkeypatch):
    encoder, (epochs, batch), optimizer, lr, decay, clip, tokens, (first, last) = PAPER[task]
    monkeypatch.setattr(
        encoders, "modality", lambda name: "image" if "swin" in name else "text"
    )  # the hub is not asked
    config = parsing.parse(["--task", task, "--method", "pare"])
    assert (config.encoder, config.epochs, config.batch_size * config.accumulate) == (encoder, epochs, batch)
    chosen = config.optimizer
    assert (chosen.name, chosen.lr, chosen.new_lr, chosen.layer_decay) == (optimizer, lr, lr, 1)
    assert (chosen.weight_decay, chosen.clip) == (decay, clip)
    schedule = config.options.k_over_time()
    ks = [schedule(epoch / epochs, tokens) for epoch in range(epochs)]
    assert (ks[0], ks[-1]) == (first, last)
    end = first - epochs * (first - last) // (epochs - 1) if first > 32 else 0
    assert ks == [int(first - (first - end) * epoch / epochs) for epoch in range(epochs)]
    # For another image encoder what suits it goes before the settings made for Swin.
    other = parsing.parse(["--task", task, "--method", "nft", "--encoder", "another-swin"])
    assert other.optimizer.lr == 1e-5
