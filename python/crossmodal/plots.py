"""Pictures of a run and of a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from torch import Tensor

matplotlib.use("Agg", force=False)
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from crossmodal import metrics
from crossmodal.files import replacing
from crossmodal.results import RunFolder

MOST_CLASSES_NAMED = 30  # Labels, too.
MOST_POINTS = 2000
MOST_MARKED = 60  # Epochs up to which each has a dot of its own.
MOST_PANELS = 6  # Channels of a series, values of a regression.
LONGEST_NAME = 24  # Characters of a class name on an axis.


def draw_run(
    folder: RunFolder, task, results: dict[str, Any], history: list[dict[str, Any]], outputs: Tensor, targets: Tensor
) -> None:
    """Every picture that fits the kind of task; outputs and targets of the test split in the data's own units."""
    save(curves(history, task.metric, results["best_epoch"]), folder.path / "curves.png")
    if results.get("replaced"):
        cut = results["patch_size"], results["canvas_size"]
        save(mixing(task.train.x, results["replaced"], *cut), folder.path / "mixing.png")
    if task.kind == "classification":
        save(confusion(outputs, targets, task.class_names), folder.path / "confusion.png")
    elif task.kind == "multilabel":
        save(labels(outputs, targets, task.class_names, task.metric), folder.path / "labels.png")
    elif task.kind == "regression":
        save(scatter(outputs, targets), folder.path / "scatter.png")
    elif task.kind == "dense":
        save(examples(outputs, targets), folder.path / "examples.png")


def save(figure: Figure, path: Path) -> None:
    """Writes a picture, whole, and closes it."""
    try:
        with replacing(path) as aside:
            figure.savefig(aside, dpi=110)
    finally:
        plt.close(figure)


def curves(history: list[dict[str, Any]], metric: str, best_epoch: int | None = None) -> Figure:
    """Losses, validation metric, and k and lam, over the epochs; the epoch whose weights were kept is marked."""
    mixed = any(record["k"] is not None for record in history)
    figure, axes = plt.subplots(1, 3 if mixed else 2, figsize=(12 if mixed else 8, 3.2), layout="constrained")
    epochs = [record["epoch"] for record in history]
    marker = "." if len(epochs) <= MOST_MARKED else ""
    names = {
        "loss": "minimised",
        "target": "target",
        "mixed_target": "mixed, target label",
        "mixed_source": "mixed, source label",
        "validation_loss": "validation",
    }
    for name, label in names.items():
        if any(record.get(name) is not None for record in history) and (mixed or name != "target"):
            style = "--" if name == "validation_loss" else "-"
            axes[0].plot(epochs, _column(history, name), label=label, linestyle=style, marker=marker)
    axes[0].set(xlabel="epoch", ylabel="loss")
    axes[0].legend(fontsize="small")
    axes[1].plot(epochs, _column(history, "validation"), color="tab:green", marker=marker)
    axes[1].set(xlabel="epoch", ylabel=f"validation {metric}")
    if best_epoch is not None:
        axes[1].axvline(best_epoch, color="0.5", linestyle=":", label=f"kept: epoch {best_epoch}")
        axes[1].legend(fontsize="small")
    if mixed:
        k = _column(history, "k")
        edges = [epoch - 0.5 for epoch in epochs] + [epochs[-1] + 0.5]
        axes[2].stairs(k, edges, baseline=None, color="tab:purple", linewidth=1.5)
        axes[2].set(xlabel="epoch", ylabel="replaced patches k")
        tokens = next((record["k"] / record["lam"] for record in history if record["lam"]), 1.0)
        right = axes[2].secondary_yaxis("right", functions=(lambda k: k / tokens, lambda lam: lam * tokens))
        right.set_ylabel("lam = k / N")
        noisy = [record["epoch"] for record in history if record["selection"] == "gumbel"]
        if noisy:
            axes[2].axvspan(noisy[0] - 0.5, noisy[-1] + 0.5, color="tab:purple", alpha=0.1, label="Gumbel noise")
            axes[2].legend(fontsize="small")
    for axis in axes:
        axis.set_xlim(0.5, len(epochs) + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _column(history: list[dict[str, Any]], name: str) -> list[float]:
    return [np.nan if record.get(name) is None else record[name] for record in history]


def mixing(
    x: Tensor, replaced: dict[str, dict[str, list[int]]], patch_size: list[int], canvas_size: list[int]
) -> Figure:
    """Training samples, early, midway and late, with the patches shaded that source patches took.

    Args:
        x: training samples (n, C, L) or (n, C, H, W).
        replaced: epoch to sample to replaced slots.
        patch_size, canvas_size: of the embedder, per axis: samples are resized to the canvas, which is cut into patches.
    """
    grid = [-(-canvas // patch) for canvas, patch in zip(canvas_size, patch_size, strict=True)]
    cell = [
        patch * size / canvas for patch, size, canvas in zip(patch_size, x.shape[2:], canvas_size, strict=True)
    ]  # a patch in units of the sample
    epochs = sorted(replaced, key=int)
    samples = sorted({sample for slots in replaced.values() for sample in slots}, key=int)
    series = len(patch_size) == 1
    width = 4.0 if series else min(max(1.9 * x.shape[-1] / x.shape[-2], 1.6), 4.0)
    size = (max(width * len(epochs), 5.0), 1.9 * len(samples) + 0.4)
    figure, axes = plt.subplots(len(samples), len(epochs), figsize=size, squeeze=False, layout="constrained")
    figure.suptitle("training samples; grey: patches whose place source patches took", fontsize="medium")
    for column, epoch in enumerate(epochs):
        for row, sample in enumerate(samples):
            axis, slots = axes[row][column], replaced[epoch].get(sample, [])
            if series:
                _draw_series(axis, x[int(sample)].numpy(), slots, cell[0])
            else:
                _draw_image(axis, x[int(sample)].numpy(), slots, grid, cell)
            title = f"sample {sample}, epoch {epoch}: {len(slots)} replaced"
            # Images are narrow.
            axis.set_title(title if series or width > 3 else title.replace(": ", "\n"), fontsize="small")
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


def confusion(outputs: Tensor, targets: Tensor, names: tuple[str, ...]) -> Figure:
    """Counts of predicted against true classes; outputs (n, K) logits, targets (n,)."""
    classes = outputs.shape[1]
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (targets.numpy(), outputs.argmax(1).numpy()), 1)
    side = min(2.5 + 0.4 * classes, 12)
    figure, axis = plt.subplots(figsize=(side, side), layout="constrained")
    axis.imshow(counts, cmap="Blues")
    axis.set(xlabel="predicted", ylabel="true")
    if classes <= MOST_CLASSES_NAMED:
        labels = [_short(name) for name in names or map(str, range(classes))]
        axis.set_xticks(range(classes), labels, rotation=90)
        axis.set_yticks(range(classes), labels)
        for i, j in np.ndindex(classes, classes):
            dark = counts[i, j] > counts.max() / 2
            axis.text(
                j, i, str(counts[i, j]), ha="center", va="center", fontsize="small", color="white" if dark else "black"
            )
    return figure


def labels(outputs: Tensor, targets: Tensor, names: tuple[str, ...], metric: str) -> Figure:
    """The metric of each label, with its mean, and how many samples have the label; outputs (n, K) logits, targets (n, K).

    A label for which it has no value has no bar.
    """
    count, score = targets.shape[1], metrics.get(metric)
    values = np.array([score(outputs[:, [i]], targets[:, [i]]) for i in range(count)])
    figure, axis = plt.subplots(figsize=(6, min(1.5 + 0.3 * count, 12)), layout="constrained")
    axis.barh(range(count), values, color="tab:blue", alpha=0.6)
    if not np.isnan(values).all():
        axis.axvline(np.nanmean(values), color="0.4", linestyle="--", linewidth=0.9, label="mean")
        axis.legend(fontsize="small")
    axis.set(xlabel=f"test {metric}", ylabel="label (test samples that have it)", xlim=(0, 1))
    axis.invert_yaxis()
    if count <= MOST_CLASSES_NAMED:
        having = (targets > 0.5).sum(0).tolist()
        shown = [f"{_short(name)} ({n})" for name, n in zip(names or map(str, range(count)), having, strict=True)]
        axis.set_yticks(range(count), shown)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def scatter(outputs: Tensor, targets: Tensor) -> Figure:
    """Predicted against true values, a panel for each of the first; both (n, R)."""
    outputs, targets = outputs[:MOST_POINTS].numpy(), targets[:MOST_POINTS].numpy()
    count = min(targets.shape[1], MOST_PANELS)
    size = (3.4 * min(count, 3), 3.4 * -(-count // 3))
    figure, axes = plt.subplots(-(-count // 3), min(count, 3), figsize=size, squeeze=False, layout="constrained")
    for value, axis in enumerate(axes.flat):
        if value >= count:
            axis.set_axis_off()
            continue
        axis.plot(targets[:, value], outputs[:, value], ".", markersize=4, alpha=0.6)
        axis.axline((targets[0, value],) * 2, slope=1, color="0.5", linewidth=0.8)
        axis.set(xlabel="true", ylabel="predicted", title=f"value {value}" if targets.shape[1] > 1 else "")
        limits = [np.nanmin((axis.get_xlim(), axis.get_ylim())), np.nanmax((axis.get_xlim(), axis.get_ylim()))]
        axis.set(xlim=limits, ylim=limits, aspect="equal")
    return figure


def examples(outputs: Tensor, targets: Tensor) -> Figure:
    """The first test samples, true and predicted; both (n, Cout, L) or (n, Cout, H, W); first channel."""
    count = min(4, len(targets))
    outputs, targets = outputs[:count].numpy(), targets[:count].numpy()
    if targets.ndim == 3:
        figure, axes = plt.subplots(1, count, figsize=(3.2 * count, 2.6), squeeze=False, layout="constrained")
        for i in range(count):
            axes[0][i].plot(targets[i, 0], label="true", linewidth=0.9)
            axes[0][i].plot(outputs[i, 0], label="predicted", linewidth=0.9)
            axes[0][i].set_title(f"test sample {i}", fontsize="small")
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small")
        return figure
    figure, axes = plt.subplots(2, count, figsize=(2.4 * count, 4.8), squeeze=False, layout="constrained")
    for i in range(count):
        low, high = targets[i, 0].min(), targets[i, 0].max()
        for row, (name, field) in enumerate((("true", targets), ("predicted", outputs))):
            image = axes[row][i].imshow(field[i, 0], vmin=low, vmax=high)
            axes[row][i].set_title(f"test sample {i}, {name}", fontsize="small")
            axes[row][i].set_axis_off()
        figure.colorbar(image, ax=axes[:, i], orientation="horizontal", shrink=0.8, pad=0.02)  # one scale for both
    return figure


def comparison(table: dict[str, Any]) -> Figure:
    """One dot per run, a bar per method, a line for the yardstick; `table` as `compare.summarise` gives it."""
    methods = table["methods"]
    figure, axis = plt.subplots(figsize=(1.6 + 1.4 * len(methods), 3.4), layout="constrained")
    for place, row in enumerate(methods.values()):
        axis.bar(place, np.nan if row["mean"] is None else row["mean"], width=0.6, color=f"C{place}", alpha=0.35)
        errors = [np.nan if error is None else error for error in row["errors"]]
        axis.plot([place] * len(errors), errors, "o", color=f"C{place}")
    if table["yardstick"] and table["yardstick"]["error"] is not None:
        axis.axhline(
            table["yardstick"]["error"], color="0.4", linestyle="--", linewidth=0.9, label=table["yardstick"]["name"]
        )
        axis.legend(fontsize="small")
    axis.set_xticks(range(len(methods)), list(methods))
    axis.set(ylabel=f"test {table['label']}", title=table["task"], ylim=(0, None))
    return figure
