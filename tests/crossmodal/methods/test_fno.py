"""Fourier neural operators and roll-outs, by whole runs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import crossmodal
from crossmodal import evaluate, methods, parsing, run, tasks
from crossmodal.errors import UserError
from crossmodal.pde.base import SolvedEquation
from crossmodal.scoring import metrics
from crossmodal.tasks import pdebench
from tests.crossmodal.runs import toy_task

pytest.importorskip("neuralop")


def settings(folder, *arguments: str):
    given = ("--task", "advection", "--method", "fno", "--device", "cpu", "--threads", "1")
    return parsing.parse([*given, "--output_dir", str(folder), *arguments])


FEW = ("--epochs", "2", "--fno.modes", "4", "--fno.width", "6", "--fno.layers", "1")


def in_own_units(task, split) -> tuple[torch.Tensor, torch.Tensor]:
    batch = split.read(torch.arange(len(split)))
    normalizer = task.normalizer
    return batch.x.double() * normalizer.x_std + normalizer.x_mean, normalizer.inverse_y(batch.y)


@pytest.mark.slow
def test_a_roll_out_beats_the_last_frame_that_is_known_ten_times(tmp_path, monkeypatch):
    entry = replace(pdebench.ENTRIES["advection"], samples=300, resolution=64)
    monkeypatch.setitem(pdebench.ENTRIES, "advection", entry)
    results = run.train(settings(tmp_path / "run", "--protocol", "rollout"))
    task = tasks.load("advection", protocol="rollout")
    known, later = in_own_units(task, task.test)
    copied = metrics.get("nrmse")(known[:, -1:].repeat(1, task.steps, 1), later)
    assert results["protocol"] == "rollout"
    assert 0.5 < copied < 2.0
    assert results["test"] < copied / 10


@pytest.mark.parametrize(("protocol", "known"), [("rollout", 10), ("markov", 1)])
def test_a_run_is_repeated_from_its_folder_and_rolled_out_by_hand(tmp_path, protocol, known):
    results = run.train(settings(tmp_path / "run", "--protocol", protocol, *FEW))
    for split in ("test", "validation"):
        again = evaluate.evaluate(tmp_path / "run", split)
        assert again["value"] == again["stored"] == results[split]
    assert evaluate.evaluate(tmp_path / "run", "train")["samples"] == 16 * (41 - known)

    task, predictor = tasks.load("advection", protocol=protocol), crossmodal.load(tmp_path / "run")
    frames, later = in_own_units(task, task.test)
    first = frames.numpy()
    for _ in range(task.steps):
        following = predictor.predict(frames[:, -known:].numpy(), steps=1).predictions
        frames = torch.cat([frames, following], dim=1)
    by_hand = metrics.get("nrmse")(frames[:, known:], later)
    assert by_hand == pytest.approx(results["test"], rel=1e-5)
    rolled = predictor.predict(first).predictions  # as many steps as the run was evaluated by
    torch.testing.assert_close(rolled, frames[:, known:], rtol=1e-4, atol=1e-5)
    ((*_, last),) = zip(*results["test_fields"]["nrmse"], strict=True)  # of one channel
    assert last == pytest.approx(metrics.get("nrmse")(frames[:, -1:], later[:, -1:]), rel=1e-5)
    assert len(results["test_fields"]["nrmse"]) == 41 - known


def test_protocols_differ_in_what_is_scored_alone(tmp_path):
    found = {
        name: run.train(settings(tmp_path / name, "--protocol", name, *FEW, "--select", "last"))
        for name in ("markov", "step")
    }
    one, other = (crossmodal.load(tmp_path / name).model.state_dict() for name in found)
    assert all(torch.equal(one[name], other[name]) for name in one)  # they learn from the same pairs
    assert {name: results["samples"]["test"] for name, results in found.items()} == {"markov": 2, "step": 80}
    assert found["markov"]["test"] != found["step"]["test"]


def test_what_it_cannot_do_is_refused_with_the_reason(tmp_path):
    with pytest.raises(UserError, match=r"method: fno cannot do digits: .* field"):
        run.train(parsing.parse(["--task", "digits", "--method", "fno", "--output_dir", str(tmp_path)]))
    with pytest.raises(UserError, match=r"fno\.modes: expected int > 0, got"):
        settings(tmp_path, "--fno.modes", "0")


@pytest.mark.parametrize(
    ("equation", "network", "shape", "out_channels", "parameters"),
    [
        ("advection", None, (10, 64), 1, 43_137),
        ("diffusion_sorption", None, (10, 64), 1, 550_145),
        ("advection", "wide", (10, 64), 1, 550_145),
        ("diffusion_reaction_2d", None, (20, 32, 32), 2, 926_686),
    ],
)
def test_networks_of_pdebench_have_its_sizes(equation, network, shape, out_channels, parameters):
    given = ["--method", "fno_pdebench"] + (["--fno_pdebench.network", network] if network else [])
    told = SolvedEquation(equation, {}, (), ())
    task = replace(toy_task("dense", out_channels), input_shape=shape, equation=told)
    assert methods.get("fno_pdebench").build(task, parsing.parse(given)).count_parameters() == parameters


def test_pdebenchs_settings_stand_in_the_place_of_the_tasks():
    config = parsing.parse(["--task", "advection", "--method", "fno_pdebench", "--optimizer.new_lr", "0.01"])
    assert (config.epochs, config.steps, config.batch_size, config.loss) == (500, None, 50, "mse")
    assert (config.optimizer.name, config.optimizer.new_lr, config.lr_schedule.kind) == ("adam", 0.01, "step")
    config = parsing.parse(["--task", "advection", "--method", "fno_pdebench", "--steps", "7"])
    assert (config.epochs, config.steps) == (None, 7)
