"""Pictures of a run: its course, and what came of the test split; each says of what, of how many, and how sure its figure is."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from crossmodal import drawing
from crossmodal.drawing import BLUE, GREEN, GREY, RED, SKY, column, marker, over_epochs, panel, panels, short, tiled
from crossmodal.errors import sparing
from crossmodal.kinds import LABEL_KINDS
from crossmodal.naming import by_protocol
from crossmodal.report import fields
from crossmodal.scoring import labels as scores_of_labels
from crossmodal.scoring import metrics
from crossmodal.scoring.metric import wilson

MOST_CELLS_WRITTEN = 30  # Classes up to which a confusion matrix has its numbers written in it.
MOST_TICKS = 100  # Classes or labels up to which each is named.
MOST_GROUPS = 60
MOST_POINTS = 2000
MOST_PANELS = 6  # Values of a regression.
MOST_LINES = 6  # Labels of a reliability diagram.


def draw_run(task, results: dict[str, Any], test: Any, history: list[dict[str, Any]], folder: Path, form: str) -> None:
    """Every picture that fits the kind of task, into the run's folder; what cannot be drawn is warned of.

    Args:
        task: `tasks.Task`.
        results: what `results.json` holds.
        test: `training.evaluation.Evaluation` of the test split; None where there is none.
        history: records of the epochs of all stages.
        form: see `drawing.save`.
    """
    drawn = {}
    validated = [record for record in history if "validation" in record]
    if validated:
        drawn["curves.png"] = partial(curves, validated, results)
    if test is not None:
        drawn |= _of_test(task, results, test)
    drawing.sparingly(drawn, folder, form)
    if test is not None and task.kind == "dense" and task.steps and task.ndim == 2:
        with sparing(str(folder / "rollout.gif")):
            frames = (values.unflatten(1, (task.steps, -1)) for values in (test.outputs, test.targets))
            fields.save_animation(*frames, task, folder / "rollout.gif")


def _of_test(task, results: dict[str, Any], test: Any) -> dict[str, Any]:
    outputs, targets = test.outputs, test.targets
    head, names = heading(results, len(targets)), task.class_names or tuple(map(str, range(task.num_outputs)))
    drawn = {}
    if task.kind == "classification":
        drawn["confusion.png"] = partial(
            confusion, confused(metrics.get("macro_f1").numbers(test.decided, targets)), names, head
        )
    elif task.kind == "multilabel":
        shown = test.decided if metrics.get(task.metric).decides else outputs
        drawn["labels.png"] = partial(labels, shown, targets, names, task.metric, head)
    elif task.kind == "regression":
        drawn["scatter.png"] = partial(scatter, outputs, targets, task.about.targets, task.metric, head)
    elif task.kind == "dense":
        drawn |= fields.draw(task, outputs, targets, head)
    if task.kind in LABEL_KINDS:
        drawn["calibration.png"] = partial(calibration, outputs, targets, names, head)
    return drawn | of_groups(results)


def of_folds(results: dict[str, Any]) -> dict[str, Any]:
    """What several folds came to."""
    drawn = {"folds.png": partial(folds, results)} if results["folds"]["folds"] else {}
    return drawn | of_groups(results)


def of_groups(results: dict[str, Any]) -> dict[str, Any]:
    """The picture of the groups, where there are some."""
    return {"groups.png": partial(groups, results)} if len(results["test_groups"]) > 1 else {}


def heading(results: dict[str, Any], drawn: int | None = None) -> str:
    """What a picture of the test split is of: two lines.

    Args:
        results: what `results.json` holds.
        drawn: of how many samples it is, where not of all.
    """
    count, groups = results["samples"]["test"], len(results["test_groups"])
    said = f"{by_protocol(results['title'], results['protocol'])}, {results['method']}: test split, n = {count}"
    said += f" in {groups} groups" if groups else ""
    said += f", {drawn} of them shown" if drawn is not None and drawn < count else ""
    return f"{said}\n{figure_of(results)}"


def figure_of(results: dict[str, Any]) -> str:
    """The test figure with its interval, in words."""
    value = "undefined" if results["test"] is None or np.isnan(results["test"]) else f"{results['test']:.4g}"
    interval, names = results["test_interval"], results["target_names"]
    over = f"over {results['test_interval_over']}"
    unit = unit_of(metrics.plain_name(results["metric"]), names[0]) if len(names) == 1 else ""
    return f"{results['metric']} {value}{unit} " + (
        f"(95 % interval {over}: {interval[0]:.4g} to {interval[1]:.4g})" if interval else f"(no interval {over})"
    )


# ----- the course --------------------------------------------------------------------------------------------------------------


def curves(history: list[dict[str, Any]], results: dict[str, Any]) -> Figure:
    """Losses and validation metric over the epochs of all stages that predict; the epoch whose weights were kept is marked.

    Args:
        history: records of these epochs.
        results: what `results.json` holds.
    """
    metric, best, count = results["metric"], results["best_epoch"], results["samples"]["validation"]
    about = f"Left, the losses over {len(history)} epochs; right, {metric} of the validation split, with the epoch that was kept."
    figure, axes = panels(1, 2, (8, 3.4), about)
    kept = "" if results["validation"] is None else f": {metric} {results['validation']:.4g} in the epoch that was kept"
    task = by_protocol(results["title"], results["protocol"])
    figure.suptitle(f"{task}, {results['method']}: validation split, n = {count}{kept}")
    left, right = axes[0]
    epochs = range(1, len(history) + 1)
    names = [name for name in history[-1] if name == "loss" or name.startswith("loss_")]
    for name in (*names, "validation_loss"):
        label = {"loss": "minimised", "validation_loss": "validation"}.get(
            name, name.removeprefix("loss_").replace("_", ", ")
        )
        line = "--" if name == "validation_loss" else "-"
        left.plot(epochs, column(history, name), label=label, linestyle=line, marker=marker(len(epochs)))
    left.set(xlabel="epoch", ylabel=f"loss ({results['loss']})")
    left.legend()
    right.plot(epochs, column(history, "validation"), color=GREEN, marker=marker(len(epochs)))
    right.set(xlabel="epoch", ylabel=f"validation {metric}")
    if best is not None:
        before = len(history) - sum(record["stage"] == history[-1]["stage"] for record in history)
        right.axvline(before + best, color=GREY, linestyle=":", label=f"kept: epoch {best}")
        right.legend()
    for axis in (left, right):
        axis.set_xlim(0.5, len(epochs) + 0.5)
        over_epochs(axis)
    return figure


# ----- classes and labels ------------------------------------------------------------------------------------------------------


def confused(numbers: metrics.Numbers) -> np.ndarray:
    """How many samples of each class (rows) were taken for each (columns), int64 (K, K), from what metrics of classes say of
    the samples, see `labels.counts`. A sample whose outputs are NaN is taken for none."""
    return (numbers["truth"].T @ np.nan_to_num(numbers["found"])).astype(int)


def confusion(counts: np.ndarray, names: tuple[str, ...], head: str) -> Figure:
    """Shares of each true class, and counts, that were taken for each class; beside it the recall of each.

    Args:
        counts: see `confused`.
        names: of the classes.
    """
    classes, of_class = len(counts), counts.sum(1)
    with np.errstate(invalid="ignore"):
        shares = counts / of_class[:, None]  # NaN for a class without samples
    written = classes <= MOST_CELLS_WRITTEN
    cell = min(max(8.5 / classes, 0.085 if classes <= MOST_TICKS else 0.0), 0.72)  # inches
    longest = max(len(short(name)) for name in names) * 0.07
    about = f"Confusion matrix of {classes} classes, as shares of each true class; mean recall {np.nanmean(shares.diagonal()):.3g}."
    size = (max(classes * cell + longest + 2.6, 5.6), max(classes * cell, 1.2) + longest + 1.1)
    ratios = {"width_ratios": [max(classes * cell, 1.2), 1.4]}
    figure, axes = panels(1, 2, size, about, gridspec_kw=ratios, sharey=True)
    figure.suptitle(head)
    axis, bars = axes[0]
    shown = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axis.set(xlabel="predicted class", ylabel="true class")
    font = min(8.0, 72 * 0.3 * cell)
    if written:
        for i, j in np.ndindex(classes, classes):
            if counts[i, j]:
                color = "white" if shares[i, j] > 0.55 else "black"
                text = f"{shares[i, j]:.2f}\n{counts[i, j]}"
                axis.text(j, i, text, ha="center", va="center", fontsize=font, color=color, in_layout=False)
    else:
        figure.colorbar(shown, ax=bars, label="share of the true class", fraction=0.12)
    every = range(0, classes, -(-classes // MOST_TICKS))
    ticks, size = [short(names[one]) for one in every], min(8.5, 72 * 0.85 * cell * every.step)
    upright = longest > cell
    axis.set_xticks(every, ticks, rotation=90 if upright else 0, fontsize=size)
    axis.set_yticks(every, [f"{tick} ({of_class[one]})" for one, tick in zip(every, ticks, strict=True)], fontsize=size)
    for edge in axis.spines.values():
        edge.set_visible(True)
    recalls = shares.diagonal()
    bars.barh(range(classes), np.nan_to_num(recalls), color=SKY, height=0.8)
    bars.axvline(np.nanmean(recalls), color=GREY, linestyle="--", linewidth=0.9)
    bars.set(xlabel="recall (dashed: mean)", xlim=(0, 1.18 if written else 1))
    bars.set_xticks([0, 0.5, 1])
    bars.tick_params(left=False, labelleft=False)
    if written:
        for place, recall in enumerate(recalls):
            text = "none" if np.isnan(recall) else f"{recall:.2f}"
            bars.text(
                np.nan_to_num(recall) + 0.02,
                place,
                text,
                va="center",
                fontsize=min(8.0, 72 * 0.6 * cell),
                in_layout=False,
            )
    return figure


def labels(outputs: Tensor, targets: Tensor, names: tuple[str, ...], metric: str, head: str) -> Figure:
    """The metric of each label, with its mean, and how many samples have the label; outputs (n, K) logits, targets (n, K).

    A label for which it has no value has no bar.
    """
    # Of single labels there is the plain form of a metric of groups.
    count, score = targets.shape[1], metrics.get(metrics.plain_name(metric))
    values = np.array([score(outputs[:, [i]], targets[:, [i]]) for i in range(count)])
    having = (targets > 0.5).sum(0).tolist()
    height = min(0.28, 9 / count)
    figure, axis = panel((6.4, max(1.4 + count * height, 2.6)), f"{metric} of {count} labels.")
    figure.suptitle(head)
    axis.barh(range(count), values, color=SKY)
    if not np.isnan(values).all():
        axis.axvline(
            np.nanmean(values), color=GREY, linestyle="--", linewidth=0.9, label=f"mean: {np.nanmean(values):.3g}"
        )
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    axis.set(xlabel=f"test {metric}", ylabel="label (test samples that have it)", ylim=(count - 0.5, -0.5))
    axis.set_xlim(0, max(1, np.nanmax(values, initial=0)))
    if count <= MOST_TICKS:
        ticks = [f"{short(name)} ({n})" for name, n in zip(names, having, strict=True)]
        axis.set_yticks(range(count), ticks, fontsize=min(8.5, 72 * 0.85 * height))
    return figure


def calibration(outputs: Tensor, targets: Tensor, names: tuple[str, ...], head: str) -> Figure:
    """Reliability diagram: how often predictions are right (labels: true) by their probability, in the bins of the calibration
    error, with Wilson's 95 % intervals; below, how many predictions have which probability.

    Args:
        outputs: (n, K) logits.
        targets: (n,) classes or (n, K) labels; of more labels than a few all predictions are taken together.
    """
    numbers = metrics.get("calibration_error").numbers(outputs, targets)
    error, of_labels = metrics.get("calibration_error").figure(numbers), targets.ndim == 2
    probability, truth = numbers["probability"], numbers["truth"]
    if of_labels and probability.shape[1] > MOST_LINES:
        probability, truth, names = probability.reshape(-1, 1), truth.reshape(-1, 1), ("all labels together",)
    elif not of_labels:
        names = ("",)
    about = f"Reliability diagram; calibration error {error:.3g}."
    figure, axes = panels(2, 1, (4.8, 5.4), about, gridspec_kw={"height_ratios": [3, 1]}, sharex=True)
    figure.suptitle(f"{head}\ncalibration error {error:.3g}")
    above, below = axes[:, 0]
    above.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle="--")
    sizes = []
    for name, said, true in zip(names, probability.T, truth.T, strict=True):
        bins = scores_of_labels.bins(said)
        sizes += map(len, bins)
        x, y = ([values[one].mean() for one in bins] for values in (said, true))
        ends = np.array([wilson(share, len(one)) for share, one in zip(y, bins, strict=True)]).T
        bars = np.abs(ends - np.array(y))
        above.errorbar(x, y, bars, fmt="o-", markersize=4, linewidth=1, elinewidth=0.8, label=short(name))
    if len(names) > 1:
        above.legend()
    few, many = min(sizes), max(sizes)
    above.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        ylabel="share that has the label" if of_labels else "share that is right",
    )
    above.set_title(
        f"bins of {few if few == many else f'{few} to {many}'} predictions, 95 % intervals", fontsize="small"
    )
    counts, edges = np.histogram(probability, bins=10, range=(0, 1))
    below.bar(edges[:-1], counts, width=0.1, align="edge", color=SKY, edgecolor="white")
    for edge, count in zip(edges, counts, strict=False):
        if count:
            below.annotate(str(count), (edge + 0.05, count), ha="center", va="bottom", fontsize="x-small")
    below.margins(y=0.25)
    below.set(
        xlabel="probability of the label" if of_labels else "probability of the predicted class", ylabel="predictions"
    )
    return figure


# ----- values and groups -------------------------------------------------------------------------------------------------------


def scatter(outputs: Tensor, targets: Tensor, names: tuple[str, ...], metric: str, head: str) -> Figure:
    """Predicted against true values, a panel for each of the first; both (n, R)."""
    values = targets.shape[1]
    plain = metrics.plain_name(metric)
    count, score = min(values, MOST_PANELS), metrics.get(plain)
    names = names if len(names) == values else tuple(f"value {one}" if values > 1 else "" for one in range(values))
    rows = np.unique(np.linspace(0, len(targets) - 1, MOST_POINTS).round().astype(int))
    about = f"Predicted against true values of {len(rows)} test samples" + (
        f", {count} values each." if count > 1 else "."
    )
    figure, axes = tiled(count, (3.6, 3.7) if count > 1 else (4.8, 4.6), about)
    figure.suptitle(head + (f"\n{len(rows)} of the samples, evenly chosen" if len(rows) < len(targets) else ""))
    for value, axis in enumerate(axes):
        true, found = targets[:, value].numpy(), outputs[:, value].numpy()
        axis.plot(true[rows], found[rows], "o", color=BLUE, markersize=4, alpha=0.5, markeredgewidth=0)
        axis.axline((true[0],) * 2, slope=1, color=GREY, linewidth=0.9, linestyle="--")
        name = short(names[value])
        axis.set(xlabel=f"true {name}".strip(), ylabel=f"predicted {name}".strip())
        if values > 1:
            own = score(outputs[:, [value]], targets[:, [value]])
            axis.set_title(f"{name}: {plain} {own:.4g}{unit_of(plain, name)}")
        limits = [np.nanmin((axis.get_xlim(), axis.get_ylim())), np.nanmax((axis.get_xlim(), axis.get_ylim()))]
        axis.set(xlim=limits, ylim=limits, aspect="equal")
    return figure


def unit_of(metric: str, name: str) -> str:
    """The unit of a metric's figure, after a blank, where a value is called `force [N]` or `force (N)`; else nothing."""
    found = re.search(r"[\[(]([^\[\]()]+)[\])]$", name)
    return f" {found[1]}" if found and metric in ("rmse", "mae") else ""


def groups(results: dict[str, Any]) -> Figure:
    """The figure of each group, the worst first, beside that of all with its interval.

    Args:
        results: what `results.json` holds.
    """
    found = results["test_groups"]
    own = [name for name in next(iter(found.values())) if name != "samples"]
    metric = next((name for name in own if name == results["metric"]), own[0] if own else "samples")
    higher = metrics.get(metric).higher_is_better if own else True
    kept = {name: one for name, one in found.items() if one[metric] is not None and one[metric] == one[metric]}
    order = sorted(kept, key=lambda name: kept[name][metric], reverse=not higher)[:MOST_GROUPS]
    about = f"{metric} of {len(order)} of {len(found)} groups, the worst first."
    height = min(0.28, 9.6 / max(len(order), 1))
    figure, axis = panel((6.4, max(1.7 + height * len(order), 2.6)), about)
    cut = f"\nthe {len(order)} groups of {len(found)} with the worst {metric}" if len(order) < len(found) else ""
    figure.suptitle(heading(results) + cut)
    values = [kept[name][metric] for name in order]
    axis.barh(range(len(order)), values, color=SKY, height=0.75)
    axis.plot(values, range(len(order)), "o", color=BLUE, markersize=3)
    if metric == results["metric"] and results["test"] is not None:
        if results["test_interval"]:
            axis.axvspan(*results["test_interval"], color=RED, alpha=0.15, linewidth=0, label="its 95 % interval")
        axis.axvline(results["test"], color=RED, linewidth=1.1, label=f"all: {results['test']:.4g}")
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
    axis.set(xlabel=f"test {metric}", ylabel="group (test samples)", ylim=(len(order) - 0.4, -0.6))
    ticks = [f"{short(name)} ({kept[name]['samples']})" for name in order]
    axis.set_yticks(range(len(order)), ticks, fontsize=min(9.0, 72 * 0.8 * height))
    return figure


def folds(results: dict[str, Any]) -> Figure:
    """The figure of each fold, their mean, and its interval over folds.

    Args:
        results: what `results.json` of several folds holds.
    """
    tests = [np.nan if value is None else value for value in results["folds"]["test"]]
    figure, axis = panel((6.4, 3.2), f"{results['metric']} of {len(tests)} folds.")
    figure.suptitle(heading(results))
    axis.plot(range(1, len(tests) + 1), tests, "o", color=BLUE, label="folds")
    axis.axhline(np.mean(tests), color=RED, linewidth=1.1, label="mean")
    if results["folds"]["interval"]:
        axis.axhspan(*results["folds"]["interval"], color=RED, alpha=0.12, linewidth=0, label="95 %, over folds")
    axis.set(xlabel="fold", ylabel=f"test {results['metric']}")
    over_epochs(axis)
    axis.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    return figure
