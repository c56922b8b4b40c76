"""Pictures of predicted fields: target, prediction and error of test samples, the error over time, a roll-out that moves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from crossmodal.drawing import BLUE, GREY, RED, marker, panel, panels, with_unit
from crossmodal.files import replacing
from crossmodal.naming import by_protocol
from crossmodal.scoring import metrics

MOST_ROWS = 6  # samples times channels
MOST_SAMPLES = 4
MOST_FRAMES = 40  # of what moves
PAUSE = 100  # milliseconds from frame to frame


def draw(task, outputs: Tensor, targets: Tensor, head: str) -> dict[str, Callable[[], Figure]]:
    """What draws pictures, by file name.

    Args:
        task: a `tasks.Task` of dense targets; its roll-out has `task.steps` frames.
        outputs, targets: of test samples, (n, T * Cout, *grid), frame by frame.
        head: what the pictures are of.
    """
    if not task.steps:
        return {"examples.png": partial(examples, outputs, targets, task, head)}
    per_frame = [values.unflatten(1, (task.steps, -1)) for values in (outputs, targets)]
    drawn = {"errors_over_time.png": partial(errors_over_time, *per_frame, task, head)}
    if task.ndim == 1:  # time and place are the axes of a picture
        return drawn | {"examples.png": partial(examples, *(one.transpose(1, 2) for one in per_frame), task, head)}
    last = [values[:, -1] for values in per_frame]
    return drawn | {"examples.png": partial(examples, *last, task, f"{head}\nthe last frame")}


def channel_names(task) -> tuple[str, ...]:
    """What the channels of a target are called, with their units where these are known."""
    about, channels = task.about, task.num_outputs
    if task.equation is not None:
        return task.equation.outputs
    if len(about.targets) == channels:
        units = dict(zip(about.features, about.units, strict=False))  # a target may be a channel of the sample
        return tuple(with_unit(name, units.get(name, "")) for name in about.targets)
    return tuple(f"channel {i}" for i in range(channels)) if channels > 1 else ("",)


def _places(task, count: int) -> tuple[str, np.ndarray]:
    """What the last axis of a field is called, and its positions."""
    if task.equation is not None:
        return "x", np.asarray(task.equation.points[-1])
    if task.about.rate is not None:
        return "time [s]", np.arange(count) / task.about.rate
    return "position", np.arange(count)


def _times(task) -> tuple[str, np.ndarray]:
    """What time is called, and that of each frame."""
    if task.equation is not None:
        return "t", np.array(task.equation.asked)
    return "frame", np.arange(1, task.steps + 1)


def examples(outputs: Tensor, targets: Tensor, task, head: str) -> Figure:
    """The first test samples, a row for each channel of each: lines, or maps, of target and prediction, and the error.

    Args:
        outputs, targets: (n, C, L) or (n, C, H, W), or of a roll-out in one dimension (n, C, T, L).
        task: gives names, units and positions.
        head: what the picture is of.
    """
    outputs, targets = outputs[:MOST_SAMPLES].numpy(), targets[:MOST_SAMPLES].numpy()
    names = channel_names(task)
    rows = [(sample, channel) for sample in range(len(targets)) for channel in range(len(names))][:MOST_ROWS]
    maps, over_time = targets.ndim == 4, targets.ndim == 4 and task.ndim == 1
    size = (9, 2.4 * len(rows) + 0.6) if maps else (8, 1.9 * len(rows) + 0.6)
    about = f"Target, prediction and error of the first {rows[-1][0] + 1} test samples."
    figure, axes = panels(len(rows), 3 if maps else 2, size, about)
    if maps and not over_time:  # which have an aspect
        figure.set_layout_engine("compressed")
    figure.suptitle(head)
    called, places = _places(task, targets.shape[-1])
    extent = None
    if over_time:
        time, at = _times(task)
        (left, right), (top, bottom) = _edges(places), _edges(at)
        extent = (left, right, bottom, top)
    for place, (line, (sample, channel)) in enumerate(zip(axes, rows, strict=True)):
        target, output, name = targets[sample, channel], outputs[sample, channel], names[channel]
        if maps:
            heads = _maps(figure, line, target, output, name, extent)
        else:
            line[0].plot(places, target, label="target", color=BLUE)
            line[0].plot(places, output, label="prediction", color=RED, linestyle="--")
            line[1].plot(places, output - target, color=GREY)
            line[1].axhline(0, color="0.5", linewidth=0.6)
            heads = ("target and prediction", "error (prediction less target)")
        said_of_row = [f"test sample {sample}", name, time if over_time else ""]
        line[0].set_ylabel("\n".join(filter(None, said_of_row)))
        if place == 0:
            for axis, said in zip(line, heads, strict=True):
                axis.set_title(said)
            if not maps:
                line[0].margins(y=0.25)
                line[0].legend(loc="upper right", ncols=2)
    if not maps or over_time:
        for axis in axes[-1]:
            axis.set_xlabel(called)
    return figure


def _maps(figure: Figure, line, target: np.ndarray, output: np.ndarray, name: str, extent) -> tuple[str, ...]:
    """Target and prediction on one scale, that of the target, and the error on one around zero."""
    low, high, most = target.min(), target.max(), np.nanmax(np.abs(output - target), initial=0)
    form = {} if extent is None else {"aspect": "auto", "extent": extent}
    line[0].imshow(target, vmin=low, vmax=high, **form)
    shown = line[1].imshow(output, vmin=low, vmax=high, **form)
    error = line[2].imshow(output - target, vmin=-most, vmax=most, cmap="RdBu_r", **form)
    figure.colorbar(shown, ax=line[1], label=name)
    figure.colorbar(error, ax=line[2], label=name)
    for axis in line:
        if extent is None:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        elif axis is not line[0]:
            axis.set_yticks([])
    return "target", "prediction", "error (prediction less target)"


def _edges(middles: np.ndarray) -> tuple[float, float]:
    """Where cells begin and end that have these middles."""
    half = (middles[-1] - middles[0]) / max(len(middles) - 1, 1) / 2 or 0.5
    return middles[0] - half, middles[-1] + half


def errors_over_time(outputs: Tensor, targets: Tensor, task, head: str) -> Figure:
    """The task's first metric of each frame, and of the samples at the tenth and the ninetieth percentile.

    Args:
        outputs, targets: (n, T, C, *grid).
        task: gives metric and times.
        head: what the picture is of.
    """
    metric = metrics.get(metrics.plain_name(task.metric))
    called, times = _times(task)
    numbers = [metric.numbers(outputs[:, frame], targets[:, frame]) for frame in range(outputs.shape[1])]
    figure, axis = panel((6.0, 3.6), f"{task.metric} of each of {len(times)} frames of the roll-out.")
    figure.suptitle(head)
    axis.plot(times, [metric.figure(of_frame) for of_frame in numbers], marker=marker(len(times)), label="all samples")
    if len(outputs) > 1:
        alone = [
            [metric.figure({name: values[[row]] for name, values in of_frame.items()}) for row in range(len(outputs))]
            for of_frame in numbers
        ]
        low, high = np.nanquantile(alone, (0.1, 0.9), axis=1)
        axis.fill_between(times, low, high, alpha=0.2, linewidth=0, label="80 % of the samples")
    axis.set(xlabel=called, ylabel=f"test {task.metric}", ylim=(0, None))
    axis.legend()
    return figure


def save_animation(outputs: Tensor, targets: Tensor, task, path: Path) -> None:
    """The first test sample of a roll-out, frame after frame, as GIF: target, prediction and error of each channel.

    Args:
        outputs, targets: (n, T, C, H, W).
        task: gives names and times.
        path: the file, which is written whole.
    """
    output, target = outputs[0].numpy(), targets[0].numpy()
    names, (called, times) = channel_names(task), _times(task)
    count = min(len(names), MOST_ROWS)
    figure, axes = panels(count, 3, (7.5, 2.5 * count + 0.3))
    figure.set_dpi(80)
    images, most = [], np.nanmax(np.abs(output - target), axis=(0, 2, 3), initial=0)
    for channel, line in enumerate(axes):
        low, high = target[:, channel].min(), target[:, channel].max()
        line[0].set_ylabel(names[channel])
        scales = ({"vmin": low, "vmax": high},) * 2 + (
            {"vmin": -most[channel], "vmax": most[channel], "cmap": "RdBu_r"},
        )
        images.append([axis.imshow(target[0, channel], **scale) for axis, scale in zip(line, scales, strict=True)])
        for axis, head in zip(line, ("target", "prediction", "error"), strict=True):
            axis.set(xticks=[], yticks=[], title=head if channel == 0 else "")
            axis.spines[:].set_visible(False)
    shots = []
    for frame in np.unique(np.linspace(0, len(times) - 1, MOST_FRAMES).round().astype(int)):
        figure.suptitle(f"{by_protocol(task.title, task.protocol)}, test sample 0, {called} = {times[frame]:.3g}")
        for channel, row in enumerate(images):
            there, found = target[frame, channel], output[frame, channel]
            for image, values in zip(row, (there, found, found - there), strict=True):
                image.set_data(values)
        figure.canvas.draw()
        figure.set_layout_engine("none")  # which the first one has settled
        shot = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
        shots.append(shot.convert("P", palette=Image.Palette.ADAPTIVE))
    with replacing(path) as aside:
        shots[0].save(aside, format="GIF", save_all=True, append_images=shots[1:], duration=PAUSE, loop=0)
