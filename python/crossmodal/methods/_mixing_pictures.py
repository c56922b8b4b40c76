"""Pictures of mixing: k over the epochs, which patches of training samples were replaced, and what a gate thinks of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import torch
from torch import Tensor

matplotlib.use("Agg", force=False)
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from crossmodal.data.dataset import Dataset

MOST_PANELS = 6  # Channels of a series.


def schedule(history: list[dict[str, Any]]) -> Figure:
    """k and lam over the epochs; epochs with Gumbel noise are shaded."""
    figure, axis = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
    epochs = [record["epoch"] for record in history]
    edges = [epoch - 0.5 for epoch in epochs] + [epochs[-1] + 0.5]
    axis.stairs([record["k"] for record in history], edges, baseline=None, color="tab:purple", linewidth=1.5)
    axis.set(xlabel="epoch", ylabel="patches from the source, k", xlim=(edges[0], edges[-1]))
    tokens = next((record["k"] / record["lam"] for record in history if record["lam"]), 1.0)
    right = axis.secondary_yaxis("right", functions=(lambda k: k / tokens, lambda lam: lam * tokens))
    right.set_ylabel("lam = k / N")
    noisy = [record["epoch"] for record in history if record.get("selection") == "gumbel"]
    if noisy:
        axis.axvspan(noisy[0] - 0.5, noisy[-1] + 0.5, color="tab:purple", alpha=0.1, label="Gumbel noise")
        axis.legend(fontsize="small")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def mixing(
    train: Dataset,
    replaced: dict[str, dict[str, list[int]]],
    patch_size: tuple[int, ...],
    canvas_size: tuple[int, ...],
    sheet: Callable[[Tensor], Tensor] = lambda x: x,
) -> Figure:
    """Training samples, early, midway and late, with the patches shaded that source patches took.

    Args:
        train: the training split.
        replaced: epoch (from 1) to sample to replaced slots.
        patch_size, canvas_size: of the embedder, per axis: samples are resized to the canvas, which is cut into patches.
        sheet: makes pictures of the samples, where the encoder sees such.
    """
    samples = sorted({sample for slots in replaced.values() for sample in slots}, key=int)
    x = sheet(train.read(torch.tensor(list(map(int, samples)))).x)
    grid = [-(-canvas // patch) for canvas, patch in zip(canvas_size, patch_size, strict=True)]
    cell = [
        patch * size / canvas for patch, size, canvas in zip(patch_size, x.shape[2:], canvas_size, strict=True)
    ]  # a patch in units of the sample
    epochs = sorted(replaced, key=int)
    series = len(patch_size) == 1
    width = 4.0 if series else min(max(1.9 * x.shape[-1] / x.shape[-2], 1.6), 4.0)
    height = 1.9 if series else min(max(1.9, 0.8 * x.shape[-2] / x.shape[-1]), 5.0)  # channels are one below the other
    size = (max(width * len(epochs), 5.0), height * len(samples) + 0.4)
    figure, axes = plt.subplots(len(samples), len(epochs), figsize=size, squeeze=False, layout="constrained")
    figure.suptitle("training samples; grey: patches whose place source patches took", fontsize="medium")
    for column, epoch in enumerate(epochs):
        for row, sample in enumerate(samples):
            axis, slots = axes[row][column], replaced[epoch].get(sample, [])
            if series:
                _draw_series(axis, x[row].numpy(), slots, cell[0])
            else:
                _draw_image(axis, x[row].numpy(), slots, grid, cell)
            title = f"sample {sample}, epoch {epoch}: {len(slots)} replaced"
            # Images are narrow.
            axis.set_title(title if series or width > 3 else title.replace(": ", "\n"), fontsize="small")
    return figure


def gate(scores: dict[str, list[list[float]]]) -> Figure:
    """Gate scores of target and source patches over the epochs: median, and from the first to the last decile.

    Args:
        scores: `epoch/sample` to the three of target patches and of source patches, of which the mean over the samples is drawn.
    """
    by_epoch: dict[int, list[list[list[float]]]] = {}
    for key, values in scores.items():
        by_epoch.setdefault(int(key.split("/")[0]), []).append(values)
    epochs = sorted(by_epoch)
    means = np.array([np.mean(by_epoch[epoch], axis=0) for epoch in epochs])  # (epochs, 2, 3)
    figure, axis = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
    marker = "." if len(epochs) == 1 else ""
    for place, (name, color) in enumerate((("target", "tab:blue"), ("source", "tab:orange"))):
        low, middle, high = means[:, place].T
        axis.fill_between(epochs, low, high, color=color, alpha=0.2, linewidth=0)
        axis.plot(epochs, middle, color=color, marker=marker, label=f"{name} patches")
    axis.set(xlabel="epoch", ylabel="gate score: median, 10 to 90 %")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(fontsize="small")
    return figure


def _draw_series(axis, sample: np.ndarray, slots: list[int], cell: float) -> None:
    for channel in sample[:MOST_PANELS]:
        axis.plot(channel, linewidth=0.9)
    for slot in slots:
        axis.axvspan(slot * cell - 0.5, (slot + 1) * cell - 0.5, color="0.6", alpha=0.6, linewidth=0)
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
