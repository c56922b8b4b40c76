"""Pictures of a run and of a comparison."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from torch import Tensor

matplotlib.use("Agg", force=False)
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from crossmodal.files import replacing
from crossmodal.report import fields, statistics
from crossmodal.scoring import metrics
from crossmodal.training.evaluation import Evaluation
from crossmodal.training.run import Run

MOST_CLASSES_NAMED = 30  # Labels, too.
MOST_POINTS = 2000
MOST_MARKED = 60  # Epochs up to which each has a dot of its own.
MOST_PANELS = 6  # Channels of a series, values of a regression.
LONGEST_NAME = 24  # Characters of a class name on an axis.


def draw_run(run: Run, test: Evaluation) -> None:
    """Every picture that fits the kind of task, into the run's folder."""
    task, outputs, targets = run.task, test.outputs, test.targets
    drawn = {}
    validated = [record for record in run.history if "validation" in record]
    if validated:
        drawn["curves.png"] = curves(validated, task.metric, run.best)
    if task.kind == "classification":
        drawn["confusion.png"] = confusion(test.decided, targets, task.class_names)
    elif task.kind == "multilabel":
        outputs = test.decided if metrics.get(task.metric).decides else outputs
        drawn["labels.png"] = labels(outputs, targets, task.class_names, task.metric)
    elif task.kind == "regression":
        drawn["scatter.png"] = scatter(outputs, targets)
    elif task.kind == "dense":
        drawn |= fields.draw(task, outputs, targets)
    save_all(drawn, run.folder.path)
    if task.kind == "dense" and task.steps and task.ndim == 2:
        frames = (values.unflatten(1, (task.steps, -1)) for values in (outputs, targets))
        fields.save_animation(*frames, task, run.folder.path / "rollout.gif")


def save_all(figures: dict[str, Figure], folder: Path) -> None:
    """Writes pictures under their names."""
    for name, figure in figures.items():
        save(figure, folder / name)


def save(figure: Figure, path: Path) -> None:
    """Writes a picture, whole, and closes it."""
    try:
        with replacing(path) as aside:
            figure.savefig(aside, dpi=110)
    finally:
        plt.close(figure)


def curves(history: list[dict[str, Any]], metric: str, best: dict[str, Any] | None = None) -> Figure:
    """Losses and validation metric over the epochs of all stages that predict; the epoch whose weights were kept is marked."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    epochs = range(1, len(history) + 1)
    marker = "." if len(epochs) <= MOST_MARKED else ""
    names = [name for name in history[-1] if name == "loss" or name.startswith("loss_")]
    for name in (*names, "validation_loss"):
        label = {"loss": "minimised", "validation_loss": "validation"}.get(
            name, name.removeprefix("loss_").replace("_", ", ")
        )
        style = "--" if name == "validation_loss" else "-"
        axes[0].plot(epochs, column(history, name), label=label, linestyle=style, marker=marker)
    axes[0].set(xlabel="epoch", ylabel="loss")
    axes[0].legend(fontsize="small")
    axes[1].plot(epochs, column(history, "validation"), color="tab:green", marker=marker)
    axes[1].set(xlabel="epoch", ylabel=f"validation {metric}")
    if best is not None:
        before = len(history) - sum(record["stage"] == history[-1]["stage"] for record in history)
        axes[1].axvline(before + best["epoch"], color="0.5", linestyle=":", label=f"kept: epoch {best['epoch']}")
        axes[1].legend(fontsize="small")
    for axis in axes:
        axis.set_xlim(0.5, len(epochs) + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def column(history: list[dict[str, Any]], name: str) -> list[float]:
    """One number of every epoch, NaN where there is none."""
    return [np.nan if record.get(name) is None else record[name] for record in history]


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
    # Of single labels there is the plain form of a metric of groups.
    count, score = targets.shape[1], metrics.get(metrics.plain_name(metric))
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


def comparison(found: dict[str, dict[str, Any]]) -> Figure:
    """A panel for each task: one dot per run, a bar per method, a line for what seeds make no difference to.

    Args:
        found: by the name of each task, what `tables.summarise` gives.
    """
    widest = max(sum(row["seeded"] for row in table["methods"].values()) for table in found.values())
    few = widest <= 4  # as many as have their names side by side
    figure, panels = _panels(len(found), (1.6 + (1.4 if few else 0.5) * max(widest, 1), 3.4))
    colors = _colors(table["methods"] for table in found.values())
    for (task, table), axis in zip(found.items(), panels, strict=True):
        seeded = {name: row for name, row in table["methods"].items() if row["seeded"]}
        for place, (name, row) in enumerate(seeded.items()):
            height = np.nan if row["mean"] is None else row["mean"]
            axis.bar(place, height, width=0.6, color=colors[name], alpha=0.35)
            errors = [np.nan if error is None else error for error in row["errors"]]
            axis.plot([place] * len(errors), errors, "o", color=colors[name])
        unseeded = [row for name, row in table["methods"].items() if name not in seeded and row["mean"] is not None]
        for row, style in zip(unseeded, itertools.cycle(("--", ":", "-.")), strict=False):
            axis.axhline(row["mean"], color="0.4", linestyle=style, linewidth=0.9, label=row["label"])
            axis.legend(fontsize="small")
        names = {} if few else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axis.set_xticks(range(len(seeded)), list(map(_short, seeded)), **names)
        axis.set(ylabel=f"test {table['label']}", title=task, ylim=(0, None))
    return figure


def _colors(names: Iterable[Iterable[str]]) -> dict[str, str]:
    """A color for each method, the same in all panels."""
    return {name: f"C{place}" for place, name in enumerate(dict.fromkeys(itertools.chain(*names)))}


def _panels(count: int, size: tuple[float, float]) -> tuple[Figure, list[Any]]:
    """A figure of panels, each of that size in inches, at most three abreast."""
    across = min(count, 3)
    down = -(-count // across)
    figure, axes = plt.subplots(
        down, across, figsize=(size[0] * across, size[1] * down), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, list(axes.flat[:count])


def learning_curves(found: dict[str, dict[str, list[list[float]]]], metric_of: dict[str, str]) -> Figure:
    """A panel for each task, a line for each method: validation over the epochs of all stages, mean of the seeds, between their
    lowest and highest.

    Args:
        found: by task and method, the values of each seed's epochs.
        metric_of: name of each task's metric.
    """
    figure, panels = _panels(len(found), (4.6, 3.2))
    colors = _colors(found.values())
    for (task, by_method), axis in zip(found.items(), panels, strict=True):
        for method, runs in by_method.items():
            values = np.full((len(runs), max(map(len, runs))), np.nan)
            for row, run in zip(values, runs, strict=True):
                row[: len(run)] = run
            seen = ~np.isnan(values).all(axis=0)
            epochs, values = np.arange(1, values.shape[1] + 1)[seen], values[:, seen]
            marker = "." if len(epochs) <= MOST_MARKED else ""
            axis.plot(epochs, np.nanmean(values, axis=0), color=colors[method], marker=marker, label=method)
            low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
            axis.fill_between(epochs, low, high, color=colors[method], alpha=0.15, linewidth=0)
        axis.set(xlabel="epoch", ylabel=f"validation {metric_of[task]}", title=task)
        axis.set_xlim(0.5, max(len(run) for runs in by_method.values() for run in runs) + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend(fontsize="small")
    return figure


def critical_difference(methods: list[str], means: np.ndarray) -> Figure:
    """Average ranks on a line; a bar joins methods that differ by less than the critical difference (Demšar, JMLR 2006).

    Args:
        methods: their names.
        means: their errors (tasks, methods).
    """
    ranks = statistics.average_ranks(means)
    order, last, half = np.argsort(ranks, kind="stable"), len(ranks), -(-len(ranks) // 2)
    difference = statistics.critical_difference(last, len(means))
    joined = statistics.cliques(ranks[order], difference)
    figure, axis = plt.subplots(figsize=(9, 1.5 + 0.3 * half + 0.15 * len(joined)), layout="constrained")
    axis.plot([1, last], [0, 0], "|-", color="black", markevery=[0, -1])
    for rank in range(1, last + 1):
        axis.plot([rank, rank], [0, 0.15], color="black", linewidth=0.9)
        axis.annotate(str(rank), (rank, 0.2), ha="center", fontsize="small")
    axis.plot([1, 1 + difference], [0.9, 0.9], "|-", color="black")
    axis.annotate(f"critical difference {difference:.2f}, {len(means)} tasks", (1, 1.05), fontsize="small")
    for place, index in enumerate(order):
        left = place < half  # names of the better half stand left, of the others right
        height = -0.25 * len(joined) - 0.3 - 0.5 * (place if left else last - 1 - place)
        end = 0.9 if left else last + 0.1
        axis.plot([ranks[index], ranks[index], end], [0, height, height], color="0.4", linewidth=0.9)
        offset, side = (-3, "right") if left else (3, "left")
        text = f"{_short(methods[index])} ({ranks[index]:.2f})"
        axis.annotate(text, (end, height), (offset, 0), textcoords="offset points", va="center", ha=side)
    for row, (first, final) in enumerate(joined, 1):
        span = [ranks[order[first]], ranks[order[final]]]
        axis.plot(span, [-0.25 * row] * 2, color="black", linewidth=3, solid_capstyle="projecting")
    margin = 0.7 * (last - 1)
    axis.set_xlim(1 - margin, last + margin)
    axis.set_axis_off()
    return figure


def profiles(methods: list[str], means: np.ndarray) -> Figure:
    """Performance profiles, see `statistics.profile`; `means` (tasks, methods)."""
    ratios, shares = statistics.profile(means)
    last = 1.05 * max(ratios[-1], 1.05)
    figure, axis = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    for method, share in zip(methods, shares.T, strict=True):
        axis.step([*ratios, last], [*share, share[-1]], where="post", label=method)
    axis.set(
        xlabel="error, in times the task's lowest",
        ylabel=f"share of {len(means)} tasks",
        xlim=(1, last),
        ylim=(0, 1.05),
    )
    if last > 10:
        axis.set_xscale("log")
    axis.legend(fontsize="small")
    return figure
