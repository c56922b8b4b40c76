"""Pictures of a comparison."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from crossmodal.drawing import marker, over_epochs, panel, short, tiled
from crossmodal.naming import by_protocol
from crossmodal.report import statistics


def comparison(found: dict[str, dict[str, Any]]) -> Figure:
    """A panel for each task: one dot per run, a bar per method, a line for what seeds make no difference to.

    Args:
        found: by the name of each task, what `tables.summarise` gives.
    """
    widest = max(sum(row["seeded"] for row in table["methods"].values()) for table in found.values())
    few = widest <= 4  # as many as have their names side by side
    figure, panels = tiled(len(found), (1.6 + (1.4 if few else 0.5) * max(widest, 1), 3.4))
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
            axis.legend()
        names = {} if few else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axis.set_xticks(range(len(seeded)), list(map(short, seeded)), **names)
        axis.set(ylabel=f"test {table['label']}", title=by_protocol(task, table["protocol"]), ylim=(0, None))
    return figure


def _colors(names: Iterable[Iterable[str]]) -> dict[str, str]:
    """A color for each method, the same in all panels."""
    return {name: f"C{place}" for place, name in enumerate(dict.fromkeys(itertools.chain(*names)))}


def learning_curves(found: dict[str, dict[str, list[list[float]]]], metric_names: list[str]) -> Figure:
    """A panel for each task, a line for each method: validation over the epochs of all stages, mean of the seeds, between their
    lowest and highest.

    Args:
        found: by task and method, the values of each seed's epochs.
        metric_names: of each task's metric.
    """
    figure, panels = tiled(len(found), (4.6, 3.2))
    colors = _colors(found.values())
    for (task, by_method), metric, axis in zip(found.items(), metric_names, panels, strict=True):
        for method, runs in by_method.items():
            values = np.full((len(runs), max(map(len, runs))), np.nan)
            for row, run in zip(values, runs, strict=True):
                row[: len(run)] = run
            seen = ~np.isnan(values).all(axis=0)
            epochs, values = np.arange(1, values.shape[1] + 1)[seen], values[:, seen]
            axis.plot(
                epochs, np.nanmean(values, axis=0), color=colors[method], marker=marker(len(epochs)), label=method
            )
            low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
            axis.fill_between(epochs, low, high, color=colors[method], alpha=0.15, linewidth=0)
        axis.set(xlabel="epoch", ylabel=f"validation {metric}", title=task)
        axis.set_xlim(0.5, max(len(run) for runs in by_method.values() for run in runs) + 0.5)
        over_epochs(axis)
        axis.legend()
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
    figure, axis = panel((9, 1.5 + 0.3 * half + 0.15 * len(joined)))
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
        text = f"{short(methods[index])} ({ranks[index]:.2f})"
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
    figure, axis = panel((5.2, 3.4))
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
        axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.legend()
    return figure
