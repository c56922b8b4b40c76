"""PDEBench's tasks, on files that are written here from what is known of its layout, whose values say where they stand."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import crossmodal
from crossmodal import evaluate, parsing, run, tasks
from crossmodal.data.readers.pdebench import read_groups
from crossmodal.errors import UserError
from crossmodal.pde import EQUATIONS
from crossmodal.tasks import pdebench

SAMPLES = 20
FRAMES = {"advection": 201, "burgers": 201} | dict.fromkeys(
    ("diffusion_reaction_1d", "diffusion_sorption", "navier_stokes_1d", "shallow_water", "diffusion_reaction_2d"), 101
)
GROUPED = {"diffusion_sorption": ((8,), 1), "shallow_water": ((4, 4), 1), "diffusion_reaction_2d": ((4, 4), 2)}


def coded(samples: int, frames: int, *grid: int) -> np.ndarray:
    """Values that say sample, frame and place, float32 `(samples, frames, *grid)`: all of them are exact."""
    sample, frame, *place = np.indices((samples, frames, *grid), sparse=True)
    total, size = 0, 1
    for axis in place[::-1]:
        total, size = total + axis * size, size * axis.size
    return (1 + sample * 256 + frame + total / 1024).astype(np.float32)


def write(folder: Path, name: str, samples: int = SAMPLES, size: int = 8) -> Path:
    """A file as PDEBench publishes it, but for the numbers in it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / Path(pdebench.ENTRIES[name].file.path).name
    with h5py.File(path, "w") as file:
        if name in GROUPED:
            grid, channels = GROUPED[name]
            values = coded(samples, FRAMES[name], *grid)
            for sample, value in enumerate(values):
                group = file.create_group(f"{sample:04d}")
                group["data"] = np.stack([value + 100_000 * channel for channel in range(channels)], axis=-1)
                group["grid/x"], group["grid/t"] = np.arange(grid[0]), np.arange(FRAMES[name])
        elif name == "darcy":
            file["nu"] = coded(samples, 1, size, size)[:, 0]
            file["tensor"] = coded(samples, 1, size, size) + 7
        elif name == "navier_stokes_1d":
            for channel, key in enumerate(("density", "pressure", "Vx")):
                file[key] = coded(samples, 101, size) + 100_000 * channel
        else:
            file["tensor"] = coded(samples, FRAMES[name], size)
            file["x-coordinate"], file["t-coordinate"] = np.arange(size), np.arange(FRAMES[name] + 1)
    return path


def raw(task, part: str) -> tuple[np.ndarray, np.ndarray]:
    """All of a part in its own units."""
    batch = getattr(task, part).read(torch.arange(len(getattr(task, part))))
    x = batch.x.double() * task.normalizer.x_std + task.normalizer.x_mean
    return x.numpy(), task.normalizer.inverse_y(batch.y).numpy()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for the scaling there and back; the frames and samples next to it differ by one at least."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.02)


def test_a_published_file_is_thinned_and_split_as_pdebench_does(tmp_path):
    write(tmp_path, "advection", size=1024)
    task = tasks.load("advection", data_dir=tmp_path)
    values = coded(SAMPLES, 201, 1024)[:, :, None, ::4]
    for part, rows in {"test": slice(2), "validation": slice(2, 4), "train": slice(4, 20)}.items():
        x, y = raw(task, part)
        close(x, values[rows, 0])
        close(y, values[rows, 200])
    assert (task.equation.known, task.equation.asked, task.steps) == ((0.0,), (2.0,), 0)
    np.testing.assert_allclose(task.equation.points[0], (4 * np.arange(256) + 0.5) / 1024)
    assert "every 4th of 1024 points" in task.description


def test_grouped_samples_are_tested_at_the_end(tmp_path):
    write(tmp_path, "diffusion_reaction_2d")
    task = tasks.load("diffusion_reaction_2d", data_dir=tmp_path)
    values = coded(SAMPLES, 101, 4, 4)
    values = np.stack([values, values + 100_000], axis=2)
    for part, rows in {"train": slice(16), "validation": slice(16, 18), "test": slice(18, 20)}.items():
        x, y = raw(task, part)
        close(x, values[rows, 0])
        close(y, values[rows, 100])


def test_permeability_in_pressure_out(tmp_path):
    write(tmp_path, "darcy", size=128)
    task = tasks.load("darcy", data_dir=tmp_path)
    x, y = raw(task, "test")
    close(x, coded(SAMPLES, 1, 128, 128)[:2, :, ::2, ::2])
    close(y, x + 7)
    assert tasks.protocols("darcy") == ("single",)


@pytest.mark.parametrize("loaded", [0, 2**25])  # read when asked for, or at once
@pytest.mark.parametrize(("protocol", "known"), [("rollout", 10), ("markov", 1), ("step", 1)])
def test_windows_of_trajectories(tmp_path, monkeypatch, protocol, known, loaded):
    monkeypatch.setattr(pdebench, "LOADED_VALUES", loaded)
    write(tmp_path, "navier_stokes_1d")
    task = tasks.load("navier_stokes_1d", data_dir=tmp_path, protocol=protocol)
    values = coded(SAMPLES, 101, 8)[:, ::5]
    values = np.stack([values, values + 200_000, values + 100_000], axis=2)  # density, velocity, pressure
    starts = 21 - known
    x, y = raw(task, "train")
    assert len(x) == 16 * starts
    for row in (0, 1, starts - 1, starts, 16 * starts - 1):
        frames, start = values[4 + row // starts], row % starts
        close(x[row], frames[start : start + known].reshape(-1, 8))
        close(y[row], frames[start + known])
    x, y = raw(task, "test")
    if protocol == "step":
        assert task.steps == 0
        close(y, values[:2, 1:].reshape(-1, 3, 8))
        return
    assert task.steps == starts
    close(x, values[:2, :known].reshape(2, -1, 8))
    close(y, values[:2, known:].reshape(2, -1, 8))
    assert task.equation.asked == pytest.approx(np.arange(known, 21) * 0.05)
    group = task.train.read(torch.arange(len(task.train))).extras["group"]
    assert group.unique_consecutive(return_counts=True)[1].tolist() == [starts] * 16


@pytest.mark.parametrize("name", ["advection", "shallow_water"])
def test_a_batch_reads_its_own_frames_alone(tmp_path, monkeypatch, name):
    monkeypatch.setattr(pdebench, "LOADED_VALUES", 0)
    write(tmp_path, name)
    task, at_once = tasks.load(name, data_dir=tmp_path, protocol="rollout"), []
    original = pdebench.Solutions.read

    def counted(self, rows, frames):
        found = original(self, rows, frames)
        at_once.append(found.shape[:2])
        return found

    monkeypatch.setattr(pdebench.Solutions, "read", counted)
    rows = torch.tensor([40, 3, 200])
    batch = task.train.read(rows)
    assert sum(samples * frames for samples, frames in at_once) == 3 * (10 + 1)
    monkeypatch.setattr(pdebench, "LOADED_VALUES", 2**25)
    again = tasks.load(name, data_dir=tmp_path, protocol="rollout").train.read(rows)
    assert again.x.equal(batch.x)
    assert again.y.equal(batch.y)


@pytest.mark.parametrize(
    ("name", "learned", "tested"),
    [
        ("advection", 200, 200),
        ("burgers", 200, 200),
        ("diffusion_reaction_1d", 29, 99),
        ("diffusion_sorption", 100, 99),
        ("shallow_water", 100, 99),
        ("diffusion_reaction_2d", 100, 99),
    ],
)
def test_released_has_the_target_times_of_the_public_code(tmp_path, monkeypatch, name, learned, tested):
    monkeypatch.setattr(pdebench, "LOADED_VALUES", 0)
    write(tmp_path, name)
    task = tasks.load(name, data_dir=tmp_path, protocol="released")
    grid, _ = GROUPED.get(name, ((8,), 1))
    values = coded(SAMPLES, FRAMES[name], *grid)[:, :, None]
    out = 100_000 * (name == "diffusion_reaction_2d")  # v from u
    train, test = (slice(18), slice(18, 20)) if name in GROUPED else (slice(2, 20), slice(2))
    for part, rows, frame in (("train", train, learned), ("validation", test, tested), ("test", test, tested)):
        x, y = raw(task, part)
        np.testing.assert_array_equal(x, values[rows, 0])
        np.testing.assert_array_equal(y, (values + out)[rows, frame])
    assert ("tested is on targets at" in task.description) == (learned != tested)
    assert "validation is the test part" in task.description
    assert "Protocol: released." in task.description
    assert (task.loss, task.metric) == ("rmse" if name == "burgers" else "relative_l2", "relative_l2")


def test_released_navier_stokes_is_one_standardised_series(tmp_path, monkeypatch):
    monkeypatch.setattr(pdebench, "LOADED_VALUES", 0)
    write(tmp_path, "navier_stokes_1d")
    task = tasks.load("navier_stokes_1d", data_dir=tmp_path, protocol="released")
    values = coded(SAMPLES, 101, 8)
    series = np.concatenate([values, values + 100_000, values + 200_000], axis=-1).astype(np.float64)
    first = series[2:, 0]
    mean, deviation = first.mean(0), np.sqrt(((first - first.mean(0)) ** 2).sum(0) / 17) + 1e-5
    for part, rows in {"train": slice(2, 20), "test": slice(2)}.items():
        x, y = raw(task, part)
        np.testing.assert_allclose(x[:, 0], (series[rows, 0] - mean) / deviation, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(y[:, 0], (series[rows, 100] - mean) / deviation, rtol=1e-5, atol=1e-6)
    assert "errors are in these units" in task.description


def _missing(file):
    del file["tensor"]


def _frames(file):
    values = file["tensor"][:, :100]
    del file["tensor"]
    file["tensor"] = values


def _axes(file):
    values = file["tensor"][:, :, 0]
    del file["tensor"]
    file["tensor"] = values


def _text(file):
    del file["tensor"]
    file["tensor"] = "u"


def _elsewhere(file):
    del file["tensor"]
    file["tensor"] = h5py.ExternalLink("/etc/passwd", "tensor")


def _nan(file):
    file["tensor"][3, 0, 4] = np.nan


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_missing, r"\.hdf5: no data set tensor; found: t-coordinate, x-coordinate"),
        (_frames, r"\.hdf5: tensor: expected shape \(any, 201, any\), got \(20, 100, 8\)"),
        (_axes, r"\.hdf5: tensor: expected shape \(any, 201, any\), got \(20, 201\)"),
        (_text, r"\.hdf5: tensor: expected a data set of numbers, got <HDF5 dataset"),
        (_elsewhere, r"\.hdf5: tensor is a link, which is not followed"),
        (_nan, r"x_val: value nan at index \(1, 0, 4\)"),
    ],
)
def test_bad_arrays(tmp_path, damage, said):
    with h5py.File(write(tmp_path, "advection"), "r+") as file:
        damage(file)
    with pytest.raises(UserError, match=said):
        tasks.load("advection", data_dir=tmp_path)


def test_bad_groups(tmp_path):
    path = write(tmp_path, "shallow_water")

    def refused(said: str) -> None:
        with pytest.raises(UserError, match=said):
            tasks.load("shallow_water", data_dir=tmp_path)

    with h5py.File(path, "r+") as file:
        del file["0007/data"]
        file["0007/data"] = np.ones((101, 4, 5, 1))
    refused(r"\.h5: 0007/data is of shape \(101, 4, 5, 1\), expected \(101, 4, 4, 1\) as in 0000")
    with h5py.File(path, "r+") as file:
        del file["0007/data"]
    refused(r"\.h5: no data set 0007/data")
    with h5py.File(path, "w") as file:
        file["0000/data"] = np.ones((101, 4, 4, 2))
    refused(r"\.h5: 0000/data: expected shape \(101, any, any, 1\), got \(101, 4, 4, 2\)")
    with h5py.File(path, "w") as file:
        file["tensor"] = np.ones((20, 101, 4, 4))
    refused(r"\.h5: no groups 0000, 0001, \.\.\.; found: tensor")


def test_files_that_are_cut_off_of_another_kind_or_too_small(tmp_path):
    path = write(tmp_path, "burgers")
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(UserError, match=r"\.hdf5 cannot be read: .*truncated"):
        tasks.load("burgers", data_dir=tmp_path)
    path.write_text("no HDF5 file")
    with pytest.raises(UserError, match=r"\.hdf5 cannot be read: "):
        tasks.load("burgers", data_dir=tmp_path)
    write(tmp_path, "burgers", samples=9)
    with pytest.raises(UserError, match=r"holds 9 samples, expected at least 10"):
        tasks.load("burgers", data_dir=tmp_path)
    with h5py.File(write(tmp_path, "darcy"), "r+") as file:
        del file["nu"]
        file["nu"] = np.ones((20, 8, 9))
    with pytest.raises(UserError, match=r"nu and tensor differ in samples or grid"):
        tasks.load("darcy", data_dir=tmp_path)


def test_a_file_that_says_what_it_holds(tmp_path):
    path = write(tmp_path, "burgers")
    with h5py.File(path, "r+") as file:
        file.attrs["name"] = "advection"
    with pytest.raises(
        UserError, match=r"\.hdf5: expected solutions of burgers, got ones of advection, as the file says"
    ):
        tasks.load("burgers", data_dir=tmp_path)
    with h5py.File(path, "r+") as file:
        file.attrs.update(name="of somebody else's", transient=np.ones(3))
    assert "steady" not in tasks.load("burgers", data_dir=tmp_path).description
    with h5py.File(write(tmp_path, "darcy"), "r+") as file:
        file.attrs.update(name="darcy", transient=True)
    assert "the state is that at t = 1.75" in tasks.load("darcy", data_dir=tmp_path).description


def test_a_grid_that_is_not_square(tmp_path):
    with h5py.File(write(tmp_path, "darcy"), "r+") as file:
        for name in ("nu", "tensor"):
            values = file[name][..., :6]
            del file[name]
            file[name] = values
    with pytest.raises(UserError, match=r"\.hdf5: expected as many points along both axes, got 8 x 6"):
        tasks.load("darcy", data_dir=tmp_path)


def test_groups_are_in_the_order_of_their_numbers(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for number in (10_000, 9_999):
            file[f"{number}/data"] = np.full((1, 2, 1), number)
    groups = read_groups(tmp_path / "f.h5", (1, 2, 1))
    assert groups[[0, 1], 0][:, 0, 0].tolist() == [9_999, 10_000]


@pytest.mark.parametrize("place", ["published", "there.h5", "own", "own.h5"])
def test_where_files_are_looked_for(tmp_path, place):
    path, file = write(tmp_path, "burgers"), pdebench.ENTRIES["burgers"].file
    (tmp_path / file.path).parent.mkdir(parents=True)
    there = {
        "published": tmp_path / file.path,
        "there.h5": path.with_suffix(".h5"),
        "own": tmp_path / "burgers.hdf5",
        "own.h5": tmp_path / "burgers.h5",
    }[place]
    path.rename(there)
    assert tasks.load("burgers", data_dir=tmp_path).description.startswith(
        f"burgers: dense prediction of shape (1, 8), from {there}."
    )
    there.unlink()
    with pytest.raises(
        UserError, match=r"^data_dir: neither 1D_Burgers_Sols_Nu1\.0\.hdf5 nor burgers\.hdf5 is in .*--download burgers"
    ):
        tasks.load("burgers", data_dir=tmp_path)


def test_public_files_are_all_different():
    files = [entry.file for entry in pdebench.ENTRIES.values()]
    assert set(pdebench.ENTRIES) == set(EQUATIONS) - {"darcy_flow"}
    assert (
        len({file.url for file in files})
        == len({file.hash for file in files})
        == len({file.path for file in files})
        == 8
    )
    assert all(len(file.hash) == len("md5:") + 32 for file in files)
    assert all(tasks.base.entry(name).files == (entry.file,) for name, entry in pdebench.ENTRIES.items())


def test_one_process_generates_and_the_others_wait(tmp_path, capsys, monkeypatch):
    """Locks are of open files: threads stand for processes."""
    solve, calls, found = pdebench.generate, [], []

    def slowly(*given):
        calls.append(given)
        time.sleep(0.2)
        return solve(*given)

    with monkeypatch.context() as patch:
        patch.setattr(pdebench, "generate", slowly)
        patch.setattr(pdebench, "folder", lambda: tmp_path / "new")
        threads = [threading.Thread(target=lambda: found.append(pdebench.small_set("advection"))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        fingerprint = tasks.load("advection").fingerprint
    assert len(calls) == 1
    assert len(found) == 3
    assert len(set(found)) == 1
    assert {path.suffix for path in (tmp_path / "new").iterdir()} <= {".hdf5", ".lock"}
    capsys.readouterr()

    monkeypatch.setattr(pdebench, "folder", lambda: tmp_path / "other")
    task = tasks.load("advection")
    assert (
        "advection: without --data_dir, 20 samples at a resolution of 16 are generated, once: "
        in capsys.readouterr().out
    )
    assert "20 samples at a resolution of 16, generated here (seed 0)" in task.description
    assert tasks.load("advection").fingerprint == task.fingerprint == fingerprint
    assert "are generated" not in capsys.readouterr().out
    (tmp_path / "file").touch()
    monkeypatch.setattr(pdebench, "folder", lambda: tmp_path / "file" / "pde")
    with pytest.raises(UserError, match=r"cannot be written .*; set PARE_CACHE_DIR"):
        tasks.load("advection")


WALK = [
    pytest.param(
        name,
        protocol,
        marks=[pytest.mark.slow]
        * (
            (name, protocol)
            not in (("navier_stokes_1d", "rollout"), ("darcy", "single"), ("diffusion_reaction_2d", "released"))
        ),
    )
    for name in pdebench.ENTRIES
    for protocol in tasks.protocols(name)
]


@pytest.mark.parametrize("method", ["nft", "fno"])
@pytest.mark.parametrize(("name", "protocol"), WALK)
def test_every_task_trains_by_every_protocol(tmp_path, tiny_bert, name, protocol, method):
    if method == "fno":
        pytest.importorskip("neuralop")
    given = ["--task", name, "--protocol", protocol, "--method", method, "--encoder", tiny_bert, "--steps", "1"]
    given += ["--output_dir", str(tmp_path), "--threads", "1", "--split.train_size", "8", "--device", "cpu"]
    results = run.train(parsing.parse(given + (["--fno.width", "4", "--fno.layers", "1"] if method == "fno" else [])))
    assert results["protocol"] == protocol
    assert np.isfinite(list(results["test_metrics"].values())).all()
    again = evaluate.evaluate(tmp_path)
    assert (again["value"], again["metrics"]) == (results["test"], results["test_metrics"])
    task = tasks.load(name, protocol=protocol)
    x, y = raw(task, "test")
    assert crossmodal.load(tmp_path).predict(x).predictions.shape == y.shape
    if protocol == "rollout":
        fields = np.array(results["test_fields"]["nrmse"])
        assert fields.shape == (task.steps, task.num_outputs)
        assert fields.mean() == pytest.approx(results["test"])
