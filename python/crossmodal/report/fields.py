"""Pictures of predicted fields: target, prediction and error of test samples, the error over time, a roll-out that moves."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from crossmodal.files import replacing
from crossmodal.scoring import metrics

MOST_ROWS = 6  # samples times channels
MOST_SAMPLES = 4
MOST_FRAMES = 40  # of what moves
MOST_MARKED = 60  # frames up to which each has a dot of its own
PAUSE = 100  # milliseconds from frame to frame


def draw(task, outputs: Tensor, targets: Tensor) -> dict[str, Figure]:
    """Pictures by file name.

    Args:
        task: a `tasks.Task` of dense targets; its roll-out has `task.steps` frames.
        outputs, targets: of test samples, (n, T * Cout, *grid), frame by frame.
    """
    if not task.steps:
        return {"examples.png": examples(outputs, targets, channel_names(task))}
    per_frame = [values.unflatten(1, (task.steps, -1)) for values in (outputs, targets)]
    names = channel_names(task)
    drawn = {"errors_over_time.png": errors_over_time(*per_frame, task)}
    if task.ndim == 1:  # time and place are the axes of a picture
        drawn["examples.png"] = examples(*(values.transpose(1, 2) for values in per_frame), names, _times(task))
    else:
        drawn["examples.png"] = examples(*(values[:, -1] for values in per_frame), names)
    return drawn


def channel_names(task) -> tuple[str, ...]:
    """What the channels of a target are called."""
    if task.equation is not None:
        return task.equation.outputs
    return tuple(f"channel {i}" for i in range(task.num_outputs)) if task.num_outputs > 1 else ("",)


def _times(task) -> tuple[str, np.ndarray]:
    """What time is called, and that of each frame."""
    if task.equation is not None:
        return "t", np.array(task.equation.asked)
    return "frame", np.arange(1, task.steps + 1)


def examples(
    outputs: Tensor, targets: Tensor, names: tuple[str, ...], times: tuple[str, np.ndarray] | None = None
) -> Figure:
    """The first test samples, a row for each channel of each: lines, or maps, of target and prediction, and the error.

    Args:
        outputs, targets: (n, C, L) or (n, C, H, W).
        names: of the channels.
        times: what the first axis of a map is called, and its values, where that is time.
    """
    outputs, targets = outputs[:MOST_SAMPLES].numpy(), targets[:MOST_SAMPLES].numpy()
    rows = [(sample, channel) for sample in range(len(targets)) for channel in range(len(names))][:MOST_ROWS]
    maps = targets.ndim == 4
    size = (9, 2.4 * len(rows)) if maps else (8, 1.9 * len(rows))
    figure, axes = plt.subplots(len(rows), 3 if maps else 2, figsize=size, squeeze=False, layout="constrained")
    for place, (panels, (sample, channel)) in enumerate(zip(axes, rows, strict=True)):
        target, output = targets[sample, channel], outputs[sample, channel]
        if maps:
            heads = _maps(figure, panels, target, output, times)
        else:
            panels[0].plot(target, label="target", linewidth=0.9)
            panels[0].plot(output, label="prediction", linewidth=0.9)
            panels[1].plot(output - target, color="tab:red", linewidth=0.9)
            panels[1].axhline(0, color="0.5", linewidth=0.6)
            heads = ("target and prediction", "error")
        panels[0].set_ylabel(f"test sample {sample}" + (f"\n{names[channel]}" if names[channel] else ""))
        if place == 0:
            for panel, head in zip(panels, heads, strict=True):
                panel.set_title(head, fontsize="small")
            if not maps:
                panels[0].legend(fontsize="small")
    if times is not None:
        axes[-1, 0].set_xlabel(f"place (down: {times[0]} from {times[1][0]:.3g} to {times[1][-1]:.3g})")
    return figure


def _maps(figure: Figure, panels, target: np.ndarray, output: np.ndarray, times=None) -> tuple[str, ...]:
    """Target and prediction on one scale, that of the target, and the error on one around zero."""
    low, high, most = *_range(target), np.nanmax(np.abs(output - target), initial=0)
    form = {"aspect": "auto"} if times is not None else {}
    panels[0].imshow(target, vmin=low, vmax=high, **form)
    shown = panels[1].imshow(output, vmin=low, vmax=high, **form)
    error = panels[2].imshow(output - target, vmin=-most, vmax=most, cmap="RdBu_r", **form)
    figure.colorbar(shown, ax=panels[1])
    figure.colorbar(error, ax=panels[2])
    for panel in panels:
        panel.set(xticks=[], yticks=[])
    return "target", "prediction", "error"


def _range(values: np.ndarray) -> tuple[float, float]:
    return values.min(), values.max()


def errors_over_time(outputs: Tensor, targets: Tensor, task) -> Figure:
    """The task's first metric of each frame, and of the samples at the tenth and the ninetieth percentile.

    Args:
        outputs, targets: (n, T, C, *grid).
        task: gives metric, protocol and times.
    """
    metric = metrics.get(metrics.plain_name(task.metric))
    called, times = _times(task)
    numbers = [metric.numbers(outputs[:, frame], targets[:, frame]) for frame in range(outputs.shape[1])]
    figure, axis = plt.subplots(figsize=(5.2, 3.2), layout="constrained")
    marker = "." if len(times) <= MOST_MARKED else ""
    axis.plot(times, [metric.figure(of_frame) for of_frame in numbers], marker=marker, label="all samples")
    if len(outputs) > 1:
        alone = [
            [metric.figure({name: values[[row]] for name, values in of_frame.items()}) for row in range(len(outputs))]
            for of_frame in numbers
        ]
        low, high = np.nanquantile(alone, (0.1, 0.9), axis=1)
        axis.fill_between(times, low, high, alpha=0.2, linewidth=0, label="80 % of the samples")
    axis.set(xlabel=called, ylabel=task.metric, title=f"{task.name}, {task.protocol}: {len(outputs)} test samples")
    axis.set_ylim(0, None)
    axis.legend(fontsize="small")
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
    figure, axes = plt.subplots(count, 3, figsize=(7.5, 2.5 * count), dpi=80, squeeze=False, layout="constrained")
    images, most = [], np.nanmax(np.abs(output - target), axis=(0, 2, 3), initial=0)
    for channel, panels in enumerate(axes):
        low, high = _range(target[:, channel])
        panels[0].set_ylabel(names[channel])
        scales = ({"vmin": low, "vmax": high},) * 2 + (
            {"vmin": -most[channel], "vmax": most[channel], "cmap": "RdBu_r"},
        )
        images.append([panel.imshow(target[0, channel], **scale) for panel, scale in zip(panels, scales, strict=True)])
        for panel, head in zip(panels, ("target", "prediction", "error"), strict=True):
            panel.set(xticks=[], yticks=[], title=head if channel == 0 else "")
    shots = []
    try:
        for frame in np.unique(np.linspace(0, len(times) - 1, MOST_FRAMES).round().astype(int)):
            figure.suptitle(f"{task.name}, test sample 0, {called} = {times[frame]:.3g}", fontsize="small")
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
    finally:
        plt.close(figure)
