"""Roll-outs learned from whole trajectories."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from crossmodal import evaluate, methods, parsing, run, tasks
from crossmodal.data.dataset import ArrayDataset, Batch
from crossmodal.errors import UserError
from crossmodal.methods._unrolled import Unrolling
from crossmodal.methods._unrolled_objective import Trajectories, UnrolledObjective
from tests.crossmodal.runs import toy_task


@pytest.mark.parametrize(("protocol", "known"), [("rollout", 10), ("markov", 1)])
def test_trajectories_hold_the_frames_of_their_steps_in_the_order_of_time(protocol, known):
    task = tasks.load("advection", protocol=protocol)
    found = Trajectories(task.train, task)
    assert len(found) == 16
    batch = found.read(torch.tensor([4, 1]))
    assert batch.y.shape == (2, task.steps, 16) == (2, 41 - known, 16)
    normalizer = task.normalizer
    for row, sample in enumerate((4, 1)):
        windows = task.train.read(sample * task.steps + torch.arange(task.steps))
        frames = windows.x.double() * normalizer.x_std + normalizer.x_mean
        torch.testing.assert_close(batch.x[row], windows.x[0])
        torch.testing.assert_close(normalizer.inverse_y(batch.y)[row, :-1], frames[1:, -1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("damage", ["no groups", "unequal", "in another order"])
def test_what_are_no_trajectories_is_refused(damage):
    task = tasks.load("advection", protocol="rollout")
    x, y, group = task.train.x, task.train.y, task.train.extra("group")
    rows = {"no groups": slice(None), "unequal": slice(3, None), "in another order": torch.arange(len(x) - 1, -1, -1)}
    extras = {} if damage == "no groups" else {"group": group[rows[damage]]}
    with pytest.raises(UserError, match=r"learn: advection has no whole trajectories .* take `steps`"):
        Trajectories(ArrayDataset(x[rows[damage]], y[rows[damage]], extras=extras), task)


class Factor(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.factor * x[:, -2:]


@pytest.mark.parametrize(("unroll", "loss", "slope"), [(None, 28, 76), (9, 28, 76), (2, 40, 72), (1, 64, 64)])
def test_the_last_frames_are_scored_and_learned_from(unroll, loss, slope):
    """From 1, a factor of 2 makes 2, 4 and 8 where 0 is true. Of f, f^2 and f^3 the mean square is 28 and its slope
    (2 f + 4 f^3 + 6 f^5) / 3 = 76; from 2 on, of 2 f and 2 f^2, 40 and (8 f + 16 f^3) / 2; from 4 on, of 4 f, 64 and 32 f."""
    model = Factor()
    batch = Batch(torch.ones(1, 2, 16), torch.zeros(1, 6, 16), torch.arange(1), torch.ones(1))
    mean, summed = (
        UnrolledObjective(toy_task("dense", 2), Unrolling("rollout", unroll), summed).losses(model, batch, None)["loss"]
        for summed in (False, True)
    )
    assert summed.item() == min(unroll or 3, 3) * loss
    mean.backward()
    assert (mean.item(), model.factor.grad.item()) == (loss, slope)


@pytest.mark.parametrize(
    ("method", "task"), [("unet", "advection"), ("fno_pdebench", "diffusion_reaction_1d"), ("copy", "shallow_water")]
)
def test_a_run_is_repeated_from_its_folder(tmp_path, method, task):
    given = ["--task", task, "--protocol", "rollout", "--method", method, "--steps", "2", "--threads", "1"]
    if method == "unet":
        given += ["--unet.width", "4", "--unet.learn", "rollout", "--unet.unroll", "3"]
    results = run.train(parsing.parse([*given, "--output_dir", str(tmp_path)]))
    trajectories = 16 if method != "copy" else 16 * 91
    assert results["samples"] == {"train": trajectories, "validation": 2, "test": 2}
    assert results["steps"] == (2 if method != "copy" else 0)
    assert evaluate.evaluate(tmp_path)["value"] == results["test"]
    assert (tmp_path / "errors_over_time.png").exists()
    assert (tmp_path / "rollout.gif").exists() == (task == "shallow_water")


def test_single_steps_are_learned_as_they_are():
    config = parsing.parse(["--task", "advection", "--method", "fno_pdebench", "--protocol", "step"])
    task, _, _ = run.build(config)
    assert len(task.train) == 16 * 40


def test_batch_norm_is_for_one_process(monkeypatch):
    task, given = toy_task("dense", 1), ["--task", "advection", "--method", "unet"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"^unet\.norm: batch norm .* take `group`"):
        methods.get("unet").build(task, parsing.parse(given))
    assert methods.get("unet").build(task, parsing.parse([*given, "--unet.norm", "group"]))
    with pytest.raises(UserError, match=r"^unet\.width: expected a multiple of 8 for group norm, got 12"):
        methods.get("unet").build(task, parsing.parse([*given, "--unet.norm", "group", "--unet.width", "12"]))
