"""Small data sets that the tests write to disk."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pooch
import pytest

from crossmodal import cli, tasks

RNG_SEED = 7


def arrays(x_shape=(3, 8), y=None, n_train=20, n_test=6) -> dict[str, np.ndarray]:
    """``x_*`` normally distributed with samples of ``x_shape``; ``y`` makes the targets of ``n`` samples, or two classes."""
    rng = np.random.default_rng(RNG_SEED)
    y = y or (lambda n: np.arange(n) % 2)
    return {
        "x_train": rng.normal(3.0, 2.0, (n_train, *x_shape)),
        "y_train": y(n_train),
        "x_test": rng.normal(3.0, 2.0, (n_test, *x_shape)),
        "y_test": y(n_test),
    }


@pytest.fixture
def save(tmp_path):
    """Write arrays to an .npz file; returns its path."""

    def write(data: dict[str, np.ndarray], name: str = "my.npz") -> Path:
        np.savez(tmp_path / name, **data)
        return tmp_path / name

    return write


@pytest.fixture
def write_ts(tmp_path):
    """Write one .ts file, or the two of a pair; returns the path of the (training) file."""

    def write(text: str, test: str | None = None) -> Path:
        (tmp_path / "Toy_TRAIN.ts").write_text(text)
        if test is not None:
            (tmp_path / "Toy_TEST.ts").write_text(test)
        return tmp_path / "Toy_TRAIN.ts"

    return write


@pytest.fixture
def downloaded(tmp_path, monkeypatch, capsys):
    """Runs `--download TASK` where each public address has what a folder holds; returns the folder that it filled."""

    def bring(task: str, folder: Path) -> Path:
        files, to = tasks.base.entry(task).files, tmp_path / "downloaded"

        def retrieve(url: str, known_hash: str | None, name: str, place: Path, downloader: object) -> None:
            of_it = [file for file in files if file.url == url]
            if of_it[0].unpack is None:
                shutil.copy(folder / of_it[0].path, place / name)
                return
            root = folder / of_it[0].unpack
            held = {(folder / file.path).relative_to(root).parts[0] for file in of_it}
            with tarfile.open(place / name, "w") as packed:
                for one in held:
                    packed.add(root / one, one)

        monkeypatch.setattr(pooch, "retrieve", retrieve)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**40))  # as the real files need
        assert cli.train(["--download", task, "--data_dir", str(to)]) == 0
        assert f"{task} is complete: --task {task} --data_dir {to}" in capsys.readouterr().out
        return to

    return bring
