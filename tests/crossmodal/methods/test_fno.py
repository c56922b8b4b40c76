"""Fourier neural operators and roll-outs, by whole runs."""

from __future__ import annotations

import pytest
import torch

import crossmodal
from crossmodal import evaluate, parsing, run, tasks
from crossmodal.errors import UserError
from crossmodal.scoring import metrics
from crossmodal.tasks import advection

pytest.importorskip("neuralop")


def settings(folder, *arguments: str):
    given = ("--task", "advection", "--method", "fno", "--device", "cpu", "--threads", "1")
    return parsing.parse([*given, "--output_dir", str(folder), *arguments])


@pytest.fixture
def few(monkeypatch):
    """A handful of trajectories and a network that learns nothing of use."""
    monkeypatch.setattr(advection, "TRAJECTORIES", {"train": 6, "val": 3, "test": 4})
    return ("--epochs", "2", "--fno.modes", "4", "--fno.width", "6", "--fno.layers", "1")


def in_own_units(task, split) -> tuple[torch.Tensor, torch.Tensor]:
    batch = split.read(torch.arange(len(split)))
    normalizer = task.normalizer
    return batch.x.double() * normalizer.x_std + normalizer.x_mean, normalizer.inverse_y(batch.y)


@pytest.mark.slow
def test_a_roll_out_beats_the_frame_that_is_known_ten_times(tmp_path):
    results = run.train(settings(tmp_path / "run"))
    task = tasks.load("advection")
    known, later = in_own_units(task, task.test)
    copied = metrics.get("relative_l2")(known.repeat(1, task.steps, 1), later)
    assert results["protocol"] == "rollout"
    assert 1.0 < copied < 2.0
    assert results["test"] < copied / 10


def test_a_run_is_repeated_from_its_folder_and_rolled_out_by_hand(tmp_path, few):
    results = run.train(settings(tmp_path / "run", *few))
    for split in ("test", "validation"):
        again = evaluate.evaluate(tmp_path / "run", split)
        assert again["value"] == again["stored"] == results[split]
    assert evaluate.evaluate(tmp_path / "run", "train")["samples"] == 6 * (advection.FRAMES - 1)

    task, predictor = tasks.load("advection"), crossmodal.load(tmp_path / "run")
    known, later = in_own_units(task, task.test)
    frames = [known]
    for _ in range(task.steps):
        frames.append(predictor.predict(frames[-1].numpy(), steps=1).predictions)
    by_hand = metrics.get("relative_l2")(torch.cat(frames[1:], dim=1), later)
    assert by_hand == pytest.approx(results["test"], rel=1e-5)
    rolled = predictor.predict(known.numpy()).predictions  # as many steps as the run was evaluated by
    torch.testing.assert_close(rolled, torch.cat(frames[1:], dim=1), rtol=1e-4, atol=1e-5)


def test_protocols_differ_in_what_is_scored_alone(tmp_path, few):
    found = {
        name: run.train(settings(tmp_path / name, "--protocol", name, *few, "--select", "last"))
        for name in ("rollout", "single")
    }
    one, other = (crossmodal.load(tmp_path / name).model.state_dict() for name in found)
    assert all(torch.equal(one[name], other[name]) for name in one)  # they learn from the same pairs
    assert {name: results["samples"]["test"] for name, results in found.items()} == {"rollout": 4, "single": 40}
    assert found["rollout"]["test"] != found["single"]["test"]


def test_what_it_cannot_do_is_refused_with_the_reason(tmp_path, few):
    with pytest.raises(UserError, match=r"method: fno cannot do digits: .* field"):
        run.train(parsing.parse(["--task", "digits", "--method", "fno", "--output_dir", str(tmp_path)]))
    with pytest.raises(UserError, match=r"fno\.modes: expected int > 0, got"):
        settings(tmp_path, "--fno.modes", "0")
