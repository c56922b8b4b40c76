from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from crossmodal.pde.base import SolvedEquation
from crossmodal.report import fields
from crossmodal.tasks.base import About
from tests.crossmodal.runs import toy_task


def rollout(ndim: int, equation: bool = True):
    """Three samples of two channels over four frames, whose values grow like the frame's number; predictions are a tenth, a
    twentieth and a thirtieth too high."""
    known = SolvedEquation(
        "diffusion_reaction_2d", {}, (), (np.arange(6),) * ndim, outputs=("u", "v"), asked=(0.5, 1.0, 1.5, 2.0)
    )
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
    figure = fields.draw(task, outputs, targets, "3 samples")["errors_over_time.png"]()
    (axis,) = figure.axes
    assert figure.get_suptitle() == "3 samples"
    assert (axis.get_ylabel(), axis.get_xlabel()) == ("test relative_l2", "t" if equation else "frame")
    times = [0.5, 1, 1.5, 2] if equation else [1, 2, 3, 4]
    np.testing.assert_allclose(axis.lines[0].get_xydata(), [(t, 0.55 / 9) for t in times])


def test_time_and_place_are_the_axes_of_a_picture():
    task, outputs, targets = rollout(1)
    axes = [axis for axis in fields.draw(task, outputs, targets, "")["examples.png"]().axes if axis.images]
    assert [axis.get_ylabel() for axis in axes[:6:3]] == ["test sample 0\nu\nt", "test sample 0\nv\nt"]
    target, output, error = (axis.images[0] for axis in axes[:3])
    assert target.get_array().shape == (4, 6)
    np.testing.assert_allclose(target.get_array()[:, 0], targets[0, ::2, 0])
    np.testing.assert_allclose(error.get_array(), (outputs - targets)[0, ::2])
    assert target.get_clim() == output.get_clim() == (0.5, 6.0)
    assert error.get_clim() == pytest.approx((-0.6, 0.6))
    assert axes[-1].get_xlabel() == "x"
    np.testing.assert_allclose(target.get_extent(), (-0.5, 5.5, 2.25, 0.25))  # cells around 0, ..., 5 and 0.5, ..., 2


def test_lines_lie_over_seconds_and_have_the_units_of_their_channel():
    about = About(features=("emg", "force"), units=("mV", "N"), rate=2.0, targets=("force",))
    task = toy_task("dense", 1, input_shape=(2, 5), output_shape=(1, 5), about=about)
    values = torch.arange(10.0).view(2, 1, 5)
    figure = fields.draw(task, values + 1, values, "head")["examples.png"]()
    first, error = figure.axes[:2]
    assert (first.get_ylabel(), figure.axes[-1].get_xlabel()) == ("test sample 0\nforce [N]", "time [s]")
    np.testing.assert_allclose(first.lines[0].get_xdata(), [0, 0.5, 1, 1.5, 2])
    np.testing.assert_allclose(error.lines[0].get_ydata(), 1)


def test_maps_are_those_of_the_last_frame_and_channels_are_named():
    task, outputs, targets = rollout(2)
    figure = fields.draw(task, outputs, targets, "3 samples")["examples.png"]()
    assert figure.get_suptitle() == "3 samples\nthe last frame"
    axes = [axis for axis in figure.axes if axis.images]
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


@pytest.mark.parametrize("shape", [(2, 1, 5), (2, 1, 4, 5)])
def test_examples_far_from_zero_are_drawn_as_near_it(shape):
    task = toy_task("dense", 1, input_shape=shape[1:])
    pictures = []
    for offset in (0.0, 1e9):
        targets = torch.linspace(0, 1, 2 * math.prod(shape[1:]), dtype=torch.float64).reshape(shape) + offset
        figure = fields.examples(targets + 0.125, targets, task, "")
        figure.set_layout_engine("none")
        for axis in figure.axes:
            axis.set_axis_off()
        figure.canvas.draw()
        pictures.append(np.asarray(figure.canvas.buffer_rgba()).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 2
