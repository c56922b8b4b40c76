"""NAS-Bench-360's large sets are read as they are needed: a hundred steps take no more memory than twenty."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from benchmarks.heap import give_back
from crossmodal import cli, miniature
from tests.crossmodal.runs import stop_at

MIB = 2**20


def anonymous() -> int:
    """Bytes of this process that no file stands behind."""
    gc.collect()
    give_back()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * 1024


def proteins(folder: Path) -> None:
    """200 to learn from: the files of a few, each under five names."""
    miniature.make("psicov", folder)
    listed = folder / "protein/deepcov.lst"
    names = [line.split()[0] for line in listed.read_text().splitlines()]
    listed.write_text("".join(f"{name}{copy}\n" for name in names for copy in range(5)))
    for path in [*folder.glob("protein/deepcov/*/*")]:
        for copy in range(5):
            path.with_name(path.name[:5] + str(copy) + path.name[5:]).hardlink_to(path)


def series(folder: Path) -> None:
    """The public number of rows."""
    rng = np.random.default_rng(0)
    for part, rows in (("train", 900_000), ("test", 1_000)):
        values = {"data": rng.standard_normal((rows, 46), np.float32), "label": np.arange(rows) % 24 + 1}
        np.save(folder / f"satellite_{part}.npy", values, allow_pickle=True)


class Enough(BaseException):
    pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "write", "encoder", "batch_size"),
    [("psicov", proteins, "tiny_swin", 1), ("satellite", series, "tiny_roberta", 64)],
)
def test_a_hundred_steps_take_no_more_memory_than_twenty(
    task, write, encoder, batch_size, tmp_path, request, monkeypatch
):
    """A sample of psicov is 60 MB: one that stayed at every second step would be 2.4 GB."""
    (tmp_path / "data").mkdir()
    write(tmp_path / "data")
    found = []

    def end():
        found.append(anonymous())
        raise Enough

    stop_at(monkeypatch, 20, lambda: found.append(anonymous()))
    stop_at(monkeypatch, 100, end)
    settings = {
        "task": task,
        "data_dir": tmp_path / "data",
        "encoder": request.getfixturevalue(encoder),
        "method": "nft",
        "output_dir": tmp_path / "run",
        "batch_size": batch_size,
        "accumulate": 1,
        "device": "cpu",
        "threads": 1,
    }
    with pytest.raises(Enough):
        cli.train([word for key, value in settings.items() for word in (f"--{key}", str(value))])
    assert found[1] - found[0] < 32 * MIB, found
