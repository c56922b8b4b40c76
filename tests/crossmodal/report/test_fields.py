from __future__ import annotations

import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from crossmodal.pde.base import SolvedEquation
from crossmodal.report import fields
from tests.crossmodal.runs import toy_task


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def rollout(ndim: int, equation: bool = True):
    """Three samples of two channels over four frames, whose values grow like the frame's number; predictions are a tenth, a
    twentieth and a thirtieth too high."""
    known = SolvedEquation("diffusion_reaction_2d", {}, (), (), outputs=("u", "v"), asked=(0.5, 1.0, 1.5, 2.0))
    shapes = {"input_shape": (2, *[6] * ndim), "output_shape": (2, *[6] * ndim)}
    task = replace(toy_task("dense", 2), **shapes, steps=4, protocol="rollout", equation=known if equation else None)
    targets = torch.arange(1.0, 5.0, dtype=torch.float64).repeat_interleave(2).view(1, 8, *[1] * ndim)
    targets = targets * torch.linspace(0.5, 1.5, 6, dtype=torch.float64).expand(3, 8, *[6] * ndim)
    return (
        task,
        targets * (1 + torch.tensor([0.1, 0.05, 1 / 30], dtype=torch.float64).view(3, *[1] * (ndim + 1))),
        targets,
    )


@pytest.mark.parametrize(("ndim", "equation"), [(1, True), (2, False)])
def test_a_roll_out_has_its_error_over_time(ndim, equation):
    task, outputs, targets = rollout(ndim, equation)
    task = replace(task, metrics=("relative_l2",))
    drawn = fields.draw(task, outputs, targets)
    axis = drawn["errors_over_time.png"].axes[0]
    assert axis.get_title() == "toy, rollout: 3 test samples"
    assert (axis.get_ylabel(), axis.get_xlabel()) == ("relative_l2", "t" if equation else "frame")
    times = [0.5, 1, 1.5, 2] if equation else [1, 2, 3, 4]
    np.testing.assert_allclose(axis.lines[0].get_xydata(), [(t, 0.55 / 9) for t in times])


def test_time_and_place_are_the_axes_of_a_picture():
    task, outputs, targets = rollout(1)
    axes = [axis for axis in fields.draw(task, outputs, targets)["examples.png"].axes if axis.images]
    assert [axis.get_ylabel() for axis in axes[:6:3]] == ["test sample 0\nu", "test sample 0\nv"]
    target, output, error = (axis.images[0] for axis in axes[:3])
    assert target.get_array().shape == (4, 6)
    np.testing.assert_allclose(target.get_array()[:, 0], targets[0, ::2, 0])
    np.testing.assert_allclose(error.get_array(), (outputs - targets)[0, ::2])
    assert target.get_clim() == output.get_clim() == (0.5, 6.0)
    assert error.get_clim() == pytest.approx((-0.6, 0.6))
    assert "t from 0.5 to 2" in axes[-3].get_xlabel()


def test_maps_are_those_of_the_last_frame_and_channels_are_named():
    task, outputs, targets = rollout(2)
    axes = [axis for axis in fields.draw(task, outputs, targets)["examples.png"].axes if axis.images]
    assert len(axes) == 3 * fields.MOST_ROWS
    np.testing.assert_allclose(axes[3].images[0].get_array(), targets[0, -1])


@pytest.mark.parametrize("frames", [3, 9])
def test_what_moves_shows_every_frame_or_as_many_as_it_may(tmp_path, monkeypatch, frames):
    monkeypatch.setattr(fields, "MOST_FRAMES", 4)
    task, outputs, targets = rollout(2, equation=False)
    task = replace(task, steps=frames)
    outputs, targets = (values.unflatten(1, (4, 2))[:, torch.arange(frames) % 4] for values in (outputs, targets))
    fields.save_animation(outputs, targets, task, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as moving:
        assert (moving.format, moving.n_frames) == ("GIF", min(frames, fields.MOST_FRAMES))
    assert not plt.get_fignums()


@pytest.mark.parametrize("shape", [(2, 1, 5), (2, 1, 4, 5)])
def test_examples_far_from_zero_are_drawn_as_near_it(shape):
    pictures = []
    for offset in (0.0, 1e9):
        targets = torch.linspace(0, 1, 2 * math.prod(shape[1:]), dtype=torch.float64).reshape(shape) + offset
        figure = fields.examples(targets + 0.125, targets, ("",))
        figure.set_layout_engine("none")
        for axis in figure.axes:
            axis.set_axis_off()
        figure.canvas.draw()
        pictures.append(np.asarray(figure.canvas.buffer_rgba()).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 2
