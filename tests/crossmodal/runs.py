"""Tiny runs for the tests of the training code: synthetic data on disk, a tiny encoder, settings that take seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from accelerate.state import AcceleratorState
from PIL import Image

from crossmodal.data.dataset import ArrayDataset
from crossmodal.data.normalizer import Normalizer
from crossmodal.tasks import Task
from crossmodal.training.folder import RunFolder
from crossmodal.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
LENGTH, SIDE = 16, 8
TIMES = ("seconds", "samples_per_second", "data_share", "memory_mib")


def write_data(folder: Path, kind: str = "classification", ndim: int = 1, samples: int = 26, seed: int = 0) -> Path:
    """Data that can be learned: channel 0 lies high or low by class, each by its label, or by value; or the input itself."""
    rng = np.random.default_rng(seed)
    n = samples + 10
    shape = (n, 2, LENGTH) if ndim == 1 else (n, 2, SIDE, SIDE)
    x = 0.3 * rng.standard_normal(shape)
    labels = rng.integers(0, 2, (n, 2))
    labels[:4] = [[0, 1], [1, 0], [1, 1], [0, 0]]
    if kind == "dense":
        y = (2 * x[:, :1] + 1).astype(np.float32)
    elif kind == "regression":
        y = 3 * rng.standard_normal((n, 2)).astype(np.float32) + 5
        levels = y / 3
    else:
        y = labels[:, 0] if kind == "classification" else labels.astype(np.float32)
        levels = 2 * labels - 1
    if kind != "dense":
        x += levels.reshape(n, 2, *[1] * ndim)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}{ndim}.npz"
    x = x.astype(np.float32)
    np.savez(path, x_train=x[:samples], y_train=y[:samples], x_test=x[samples:], y_test=y[samples:])
    return path


def write_source(folder: Path) -> Path:
    """A text source of two classes with enough texts for a batch."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "source.csv"
    lines = [
        f'"{"apple pear plum" if i % 2 else "ship boat raft"} {i}",{"fruit" if i % 2 else "vessel"}' for i in range(12)
    ]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    return path


def write_voc(folder: Path, images: int = 4) -> Path:
    """PASCAL's layout: images 9 x 8 whose left half is a cat (8), with a border (255) beside it; but of the second nothing."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    names = [f"2007_{number}" for number in range(images)]
    for number, name in enumerate(names):
        Image.new("RGB", (8, 9), (60 * number, 0, 0)).save(folder / "JPEGImages" / f"{name}.jpg")
        mask = np.zeros((9, 8), np.uint8)
        if number != 1:
            mask[:, :4], mask[:, 4:5] = 8, 255
        write_mask(folder / "SegmentationClass" / f"{name}.png", mask)
    (folder / "ImageSets/Segmentation/trainval.txt").write_text("\n".join(names))
    return folder


def write_mask(path: Path, values: np.ndarray) -> None:
    """A PNG of numbers that stand for colours of a palette."""
    image = Image.fromarray(values, "P")
    image.putpalette(bytes(range(256)) * 3)
    image.save(path)


def settings(folder: Path, encoder: str, kind: str = "classification", ndim: int = 1, **changes) -> dict:
    """Settings of a tiny run in `folder`; dotted changes are written with two underscores."""
    values = {
        "task": "arrays",
        "data": str(write_data(folder / "data", kind, ndim)),
        "kind": kind,
        "encoder": encoder,
        "epochs": 3,
        "batch_size": 8,
        "output_dir": str(folder / "run"),
        "device": "cpu",
        "threads": 1,
        "select": "metric",
        "pictures": None,
        "model": {"patch_size": 2, "layers": 1},
        "source": {"name": str(write_source(folder / "data"))},
        "optimizer": {"lr": 5e-3, "new_lr": 2e-2},
    }
    if changes.get("method", "pare") == "pare":
        values["pare"] = {"gumbel_epochs": 1}
    for key, value in changes.items():
        group, _, name = key.partition("__")
        if name:
            values.setdefault(group, {})[name] = value
        else:
            values[key] = value
    return values


def toy_task(kind: str = "classification", classes: int = 3, **changes) -> Task:
    """A task without data, for what asks a task for its loss and shapes."""
    nothing = ArrayDataset(torch.zeros(0, 2, LENGTH), torch.zeros(0, dtype=torch.int64))
    one = torch.ones(2, 1, dtype=torch.float64)
    values = {
        "name": "toy",
        "title": "toy",
        "kind": kind,
        "train": nothing,
        "validation": nothing,
        "test": nothing,
        "input_shape": (2, LENGTH),
        "output_shape": (classes,),
        "class_names": tuple("abc"[:classes]) if kind == "classification" else (),
        "loss": "cross_entropy" if kind == "classification" else "mse",
        "metrics": ("accuracy",) if kind == "classification" else ("rmse",),
        "normalizer": Normalizer((2, LENGTH), torch.zeros_like(one), one),
        "description": "",
    }
    return Task(**values | changes)


def write_settings(folder: Path, values: dict) -> Path:
    """The settings as a file for `--config`."""
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def environment() -> dict[str, str]:
    """Environment of a fresh process that finds both packages and no GPU."""
    own = {"PYTHONPATH": os.pathsep.join([str(ROOT / "python"), str(ROOT)]), "CUDA_VISIBLE_DEVICES": ""}
    return os.environ | own | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def script(name: str | Path, *arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
    """Starts python/<name>, or any script by its absolute path, in a fresh process."""
    command = [sys.executable, *launcher, str(ROOT / "python" / name), *map(str, arguments)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen, seconds: float = 120) -> str:
    """Waits for a process and returns what it printed; fails unless it ended well."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, f"exit code {process.returncode}\n{output}"
    return output


def numbers(folder: Path) -> list[dict]:
    """Records of the epochs without what depends on the clock."""
    records = RunFolder(folder).read_metrics()
    return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


def fresh_accelerator() -> None:
    """Lets the next run of this process differ in precision, shards or processes: accelerate settles them once for all."""
    AcceleratorState._reset_state(True)


def stop_at(monkeypatch, step: int, how, stage: str | None = None) -> None:
    """Makes training meet `how` right before it would end optimizer step `step` (of a stage)."""
    original = Trainer._optimizer_step

    def patched(self, *arguments):
        if self.state.step == step and stage in (None, self.stage):
            how()
        original(self, *arguments)

    monkeypatch.setattr(Trainer, "_optimizer_step", patched)
