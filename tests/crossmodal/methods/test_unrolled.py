"""Roll-outs learned from whole trajectories."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from crossmodal import evaluate, parsing, run, tasks
from crossmodal.data.dataset import ArrayDataset, Batch
from crossmodal.errors import UserError
from crossmodal.methods._unrolled import Trajectories, UnrolledObjective, Unrolling
from crossmodal.tasks import advection
from tests.crossmodal.runs import toy_task


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(advection, "TRAJECTORIES", {"train": 6, "val": 3, "test": 4})


def test_trajectories_are_what_roll_outs_are_scored_on(few):
    task = tasks.load("advection")
    found = Trajectories(task.train, task)
    assert len(found) == 6
    batch = found.read(torch.tensor([4, 1]))
    frames = advection.trajectories(6, np.random.default_rng(advection.SEED))[[4, 1]]
    expected = task.normalizer.apply_x(frames[:, :1]), task.normalizer.apply_y(frames[:, 1:])
    torch.testing.assert_close((batch.x, batch.y), expected)


@pytest.mark.parametrize("damage", ["no groups", "unequal", "in another order"])
def test_what_are_no_trajectories_is_refused(few, damage):
    task = tasks.load("advection")
    x, y, group = task.train.x, task.train.y, task.train.extra("group")
    rows = {"no groups": slice(None), "unequal": slice(3, None), "in another order": torch.arange(59, -1, -1)}[damage]
    extras = {} if damage == "no groups" else {"group": group[rows]}
    with pytest.raises(UserError, match=r"learn: advection has no whole trajectories .* take `steps`"):
        Trajectories(ArrayDataset(x[rows], y[rows], extras=extras), task)


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
    found = UnrolledObjective(toy_task("dense", 2), Unrolling("rollout", unroll)).losses(model, batch, None)["loss"]
    found.backward()
    assert (found.item(), model.factor.grad.item()) == (loss, slope)


@pytest.mark.parametrize("method", ["unet", "fno_pdebench"])
def test_a_run_is_repeated_from_its_folder(tmp_path, few, method):
    given = [
        "--task",
        "advection",
        "--method",
        method,
        "--epochs",
        "2",
        "--threads",
        "1",
        "--output_dir",
        str(tmp_path),
    ]
    if method == "unet":
        given += ["--unet.width", "4", "--unet.unroll", "3"]
    results = run.train(parsing.parse(given))
    assert results["samples"] == {"train": 6, "validation": 3, "test": 4}
    assert results["steps"] == 2
    assert evaluate.evaluate(tmp_path)["value"] == results["test"]


def test_single_steps_are_learned_as_they_are(few):
    config = parsing.parse(["--task", "advection", "--method", "unet", "--protocol", "single"])
    task, _, _ = run.build(config)
    assert len(task.train) == 6 * 10
