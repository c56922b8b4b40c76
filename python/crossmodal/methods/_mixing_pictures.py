"""Pictures of mixing: k over the epochs, which patches of training samples were replaced, and what a gate thinks of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from crossmodal.drawing import BLUE, ORANGE, PURPLE, over_epochs, panel, panels, short, with_unit
from crossmodal.tasks.base import Task

MOST_CHANNELS, MOST_ROWS = 6, 12  # Of a series, and of all samples together.


def schedule(history: list[dict[str, Any]], head: str) -> Figure:
    """k and lam over the epochs; epochs with Gumbel noise are shaded."""
    epochs = [record["epoch"] for record in history]
    figure, axis = panel((4.8, 3.3), f"Replaced patches k over {len(epochs)} epochs.")
    figure.suptitle(head)
    edges = [epoch - 0.5 for epoch in epochs] + [epochs[-1] + 0.5]
    axis.stairs([record["k"] for record in history], edges, baseline=None, color=PURPLE, linewidth=1.5)
    axis.set(xlabel="epoch", ylabel="patches from the source, k", xlim=(edges[0], edges[-1]))
    tokens = next((record["k"] / record["lam"] for record in history if record["lam"]), 1.0)
    right = axis.secondary_yaxis("right", functions=(lambda k: k / tokens, lambda lam: lam * tokens))
    right.set_ylabel("lam = k / N")
    noisy = [record["epoch"] for record in history if record.get("selection") == "gumbel"]
    if noisy:
        axis.axvspan(noisy[0] - 0.5, noisy[-1] + 0.5, color=PURPLE, alpha=0.1, label="Gumbel noise")
        axis.legend()
    over_epochs(axis)
    return figure


def mixing(
    task: Task,
    replaced: dict[str, dict[str, list[int]]],
    patch_size: tuple[int, ...],
    canvas_size: tuple[int, ...],
    head: str,
    sheet: Callable[[Tensor], Tensor] | None = None,
) -> Figure:
    """Training samples, early, midway and late, with the patches shaded that source patches took; of a series each channel has a
    row of its own, in the data's own units.

    Args:
        task: gives training samples, names, units and sampling rate.
        replaced: epoch (from 1) to sample to replaced slots.
        patch_size, canvas_size: of the embedder, per axis: samples are resized to the canvas, which is cut into patches.
        head: what the picture is of.
        sheet: makes pictures of the samples, where the encoder sees such.
    """
    samples = sorted({sample for slots in replaced.values() for sample in slots}, key=int)
    epochs = sorted(replaced, key=int)
    x = task.train.read(torch.tensor(list(map(int, samples)))).x
    x = task.normalizer.inverse_x(x) if sheet is None else sheet(x)
    grid = [-(-canvas // patch) for canvas, patch in zip(canvas_size, patch_size, strict=True)]
    cell = [
        patch * size / canvas for patch, size, canvas in zip(patch_size, x.shape[2:], canvas_size, strict=True)
    ]  # a patch in units of the sample
    series = len(patch_size) == 1
    channels = min(x.shape[1], MOST_CHANNELS) if series else 1
    samples = samples[: max(1, MOST_ROWS // channels)]
    width = 4.0 if series else min(max(1.9 * x.shape[-1] / x.shape[-2], 1.6), 4.0)
    if series:
        height = max(1.7, 0.85 * channels)
    else:  # channels are one below the other
        height = min(max(1.9, 0.8 * x.shape[-2] / x.shape[-1]), 5.0)
    size = (max(width * len(epochs), 5.0) + 0.6, (height + 0.3) * len(samples) + 0.7)
    about = f"Training samples {', '.join(samples)} in the epochs {', '.join(epochs)}, with the patches that were replaced in grey."
    figure, axes = panels(
        len(samples) * channels, len(epochs), size, about, sharex=series, sharey="row" if series else False
    )
    cut = f"; {channels} of {x.shape[1]} channels" if series and channels < x.shape[1] else ""
    figure.suptitle(f"{head}, {len(samples)} of them shown{cut}\ngrey: patches whose place source patches took")
    for column, epoch in enumerate(epochs):
        for row, sample in enumerate(samples):
            slots = replaced[epoch].get(sample, [])
            own = axes[row * channels : (row + 1) * channels, column]
            if series:
                _draw_series(own, x[row].numpy(), slots, cell[0], task.about)
            else:
                _draw_image(own[0], x[row].numpy(), slots, grid, cell)
            title = f"sample {sample}, epoch {epoch}: {len(slots)} replaced"
            # Images are narrow.
            own[0].set_title(title if series or width > 3 else title.replace(": ", "\n"), fontsize="small")
    if series:
        for axis in axes[-1]:
            axis.set_xlabel("value of the series" if task.about.rate is None else "time [s]")
        for axis, channel in zip(axes[:, 0], list(range(channels)) * len(samples), strict=True):
            axis.set_ylabel(_channel(task, channel), fontsize="small")
    return figure


def _channel(task: Task, channel: int) -> str:
    about = task.about
    if len(about.features) != task.input_shape[0]:
        return f"channel {channel}" if task.input_shape[0] > 1 else ""
    return with_unit(short(about.features[channel]), about.units[channel] if about.units else "")


def gate(scores: dict[str, list[list[float]]], head: str) -> Figure:
    """Gate scores of target and source patches over the epochs: median, and from the first to the last decile.

    Args:
        scores: `epoch/sample` to the three of target patches and of source patches, of which the mean over the samples is drawn.
    """
    by_epoch: dict[int, list[list[list[float]]]] = {}
    for key, values in scores.items():
        by_epoch.setdefault(int(key.split("/")[0]), []).append(values)
    epochs = sorted(by_epoch)
    means = np.array([np.mean(by_epoch[epoch], axis=0) for epoch in epochs])  # (epochs, 2, 3)
    figure, axis = panel((4.8, 3.3), f"Gate scores of target and source patches over {len(epochs)} epochs.")
    figure.suptitle(f"{head}, mean over {len(next(iter(by_epoch.values())))} of them")
    marker = "." if len(epochs) == 1 else ""
    for place, (name, color) in enumerate((("target", BLUE), ("source", ORANGE))):
        low, middle, high = means[:, place].T
        axis.fill_between(epochs, low, high, color=color, alpha=0.2, linewidth=0)
        axis.plot(epochs, middle, color=color, marker=marker, label=f"{name} patches")
    axis.set(xlabel="epoch", ylabel="gate score: median, 10 to 90 %")
    over_epochs(axis)
    axis.legend()
    return figure


def _draw_series(axes, sample: np.ndarray, slots: list[int], cell: float, about) -> None:
    step = 1 / (about.rate or 1)
    for axis, channel in zip(axes, sample, strict=False):
        axis.plot(np.arange(len(channel)) * step, channel, linewidth=0.9)
        spans = [((slot * cell - 0.5) * step, cell * step) for slot in slots]
        across = axis.get_xaxis_transform()
        axis.broken_barh(spans, (0, 1), transform=across, color="0.6", alpha=0.6, linewidth=0, in_layout=False)
        axis.margins(x=0)


def _draw_image(axis, sample: np.ndarray, slots: list[int], grid: list[int], cell: list[float]) -> None:
    axis.imshow(sample.mean(0), cmap="viridis", interpolation="nearest")
    taken = np.zeros(grid)
    taken.flat[slots] = 1
    right, bottom = (
        grid[1] * cell[1] - 0.5,
        grid[0] * cell[0] - 0.5,
    )  # beyond the sample where the last patches are padded
    style = {"cmap": "gray", "vmin": 0, "vmax": 1.3, "interpolation": "nearest"}
    axis.imshow(np.ones_like(taken), alpha=0.75 * taken, extent=(-0.5, right, bottom, -0.5), **style)
    axis.set(xlim=(-0.5, sample.shape[2] - 0.5), ylim=(sample.shape[1] - 0.5, -0.5))
    axis.set_axis_off()
