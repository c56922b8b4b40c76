"""Tables that a person reads."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from crossmodal.files import finite
from crossmodal.naming import counted
from crossmodal.report.statistics import paired
from crossmodal.scoring import metrics
from crossmodal.training.progress import duration

MINIATURE = "a miniature: no result on it stands for the real task"
BASELINE = "nft"  # to which others are compared, seed by seed


def closing_table(results: dict[str, Any], select: str) -> str:
    """What a run came to, in a few lines: figures of the splits, the epoch that was kept, how long it took.

    Args:
        results: what `results.json` holds.
        select: how the epoch was chosen.
    """
    rows = {
        results["metric"]: [_number(results[split]) for split in ("validation", "test")],
        **{name: ["", _number(value)] for name, value in list(results["test_metrics"].items())[1:]},
        "loss": [_number(results[split]) for split in ("validation_loss", "test_loss")],
        "samples": [str(results["samples"][split]) for split in ("validation", "test")],
    }
    if results["protocol"] != "default":
        rows["protocol"] = ["", results["protocol"]]
    width = max(map(len, rows))
    lines = [f"{'':{width}} {'validation':>12} {'test':>12}"]
    lines += [f"{name:{width}} {validation:>12} {test:>12}" for name, (validation, test) in rows.items()]
    lines += _by_field(results)
    if results["test_interval"]:
        low, high = results["test_interval"]
        over = results["test_interval_over"]
        lines.append(f"95 % interval of the test {results['metric']}, over {over}: {low:#.4g} to {high:#.4g}")
    if results["best_epoch"] is not None:
        if select == "metric" and math.isnan(results["validation"]):
            select = f"loss, because validation {results['metric']} is NaN in every epoch"
        lines.append(
            f"weights of epoch {results['best_epoch']} of {results['epochs']} (select: {select}); "
            f"{results['steps']} steps in {duration(results['seconds'])}"
        )
    if results.get("miniature"):
        lines.append(f"{results['title']} is {MINIATURE}")
    return "\n".join(lines)


def _by_field(results: dict[str, Any]) -> list[str]:
    """Of the metric that chose the epoch: how it grows over the frames of a roll-out, and what each channel has."""
    figures = np.array(results["test_fields"].get(results["metric"], np.zeros((0, 0))))  # (frames, channels)
    frames, channels = figures.shape
    lines = []
    if frames > 1:
        shown = sorted({0, frames // 2, frames - 1})
        each = ", ".join(f"{_number(figures[frame].mean())} in frame {frame + 1}" for frame in shown)
        lines.append(f"test {results['metric']} over the {frames} frames: {each}")
    if channels > 1:
        names = results["channels"] or [f"channel {number}" for number in range(channels)]
        each = ", ".join(f"{name} {_number(value)}" for name, value in zip(names, figures.mean(axis=0), strict=True))
        lines.append(f"test {results['metric']} by channel: {each}")
    return lines


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Every number of the table of a comparison, as test errors (lower is better); None where the metric is NaN.

    Intervals are of 95 %: `interval` over the test samples, the mean of the runs' own; `difference_interval` over the seeds,
    see `statistics.paired`.

    Args:
        runs: what results.json of each run holds, of one task; a run of a method for which seeds make no difference says
            `"seeded": False`.
    """
    first, by_method = runs[0], {}
    for results in runs:
        by_method.setdefault(results["method"], []).append(results)
    metric = metrics.get(first["metric"])
    rows: dict[str, dict[str, Any]] = {}
    for name, found in by_method.items():
        # NaN, which JSON has no word for, is null in a file.
        tests = [float("nan") if results["test"] is None else results["test"] for results in found]
        errors = [metric.as_error(test)[1] for test in tests]
        intervals = [_as_errors(metric, results["test_interval"]) for results in found]
        rows[name] = {
            "method": name,
            "label": found[0].get("called", name),
            "seeds": [results["seed"] for results in found],
            "seeded": found[0].get("seeded", True),
            "errors": errors,
            "mean": float(np.mean(errors)),
            "std": float(np.std(errors, ddof=1)) if len(errors) > 1 else None,
            "samples": found[0]["samples"]["test"],
            "groups": len(found[0]["test_groups"]) if found[0].get("test_interval_over") == "groups" else None,
            "interval": None if None in intervals else np.mean(intervals, axis=0).tolist(),
            "seconds": float(np.mean([results["seconds"] + results.get("test_seconds", 0.0) for results in found])),
        }
    same = ("seeds", "samples")
    for name, row in rows.items():
        if BASELINE in rows and name != BASELINE and all(row[key] == rows[BASELINE][key] for key in same):
            found = paired(np.subtract(row["errors"], rows[BASELINE]["errors"]))
            row |= {"difference": found.mean, "standard_error": found.error, "difference_interval": found.interval}
    seeds = {results["seed"] for results in runs if results.get("seeded", True)}
    return finite(
        {
            "task": first["title"],
            "protocol": first["protocol"],
            "encoder": ", ".join(dict.fromkeys(results["encoder"] for results in runs if results["encoder"])),
            "metric": first["metric"],
            "label": metric.as_error(0.0)[0],
            "baseline": BASELINE,
            "seeds": sorted(seeds or {first["seed"]}),
            "samples": max(row["samples"] for row in rows.values()),
            "miniature": first.get("miniature", False),
            "methods": rows,
        }
    )


def _as_errors(metric: metrics.Metric, interval: list[float] | None) -> list[float] | None:
    return interval and sorted(metric.as_error(bound)[1] for bound in interval)


def render(table: dict[str, Any]) -> str:
    """The table as Markdown, and a second one of intervals."""
    count, form = len(table["seeds"]), form_of(table)
    protocol = "" if table["protocol"] == "default" else f", protocol {table['protocol']}"
    encoder = f", encoder {table['encoder']}" if table["encoder"] else ""
    differ = any("difference" in row for row in table["methods"].values())
    heads = ["method", "mean", "std", *([f"difference to {table['baseline']}, paired"] * differ), "seconds per run"]
    lines = [
        f"{table['task']}{protocol}: test {table['label']} ({table['metric']}){encoder}, {counted(count, 'seeds')}",
        "",
        f"| {' | '.join(heads)} |",
        f"| --- {'| ---: ' * (len(heads) - 1)}|",
    ]
    for row in table["methods"].values():
        difference = [_plus_minus(row.get("difference"), row.get("standard_error"), form)] * differ
        seconds = "" if len(row["errors"]) < count else f"{row['seconds']:.0f}"
        mean = f"**{row['mean']:{form}}**" if row.get("best") else _number(row["mean"], form)
        cells = (row["label"], mean, _number(row["std"], form), *difference, seconds)
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    if differ:
        lines.append("Differences are per seed, with their standard error (from three seeds on); negative is better.")
    if any(row.get("best") for row in table["methods"].values()):
        lines.append(
            "Bold: lower than every other, each paired t-test over the seeds at p < 0.05 after Holm's correction for all of them."
        )
    if table.get("miniature"):
        lines.append(f"{table['task']} is {MINIATURE}.")
    undefined = [name for name, row in table["methods"].items() if None in row["errors"]]
    if undefined:
        lines.append(f"No mean of {', '.join(undefined)}: test {table['metric']} is NaN in at least one run.")
    return "\n".join(lines + _intervals(table, form, differ)) + "\n"


def tuning(chosen: list[dict[str, Any]]) -> str:
    """What was chosen from grids on validation, as Markdown.

    Args:
        chosen: see `compare.tune`.
    """
    lines = ["| task | method | chosen on validation | mean over the seeds of the validation metric |"]
    lines.append("| --- | --- | --- | --- |")
    for row in chosen:
        values = "; ".join(f"{point}: {_number(value)}" for point, value in row["validation"].items())
        lines.append(f"| {row['task']} | {row['method']} | {row['chosen']} | {values} |")
    return "\n".join(lines) + "\n"


def _intervals(table: dict[str, Any], form: str, differ: bool) -> list[str]:
    """The table of intervals; nothing where there is none."""
    rows = [
        (row["label"], _range(row["interval"], form), *[_range(row.get("difference_interval"), f"+{form}")] * differ)
        for row in table["methods"].values()
    ]
    if not any(any(cells) for _, *cells in rows):
        return []
    return [
        "",
        f"| 95 % interval | over {_units(table)}, mean of the seeds' |{' of the difference, over seeds |' * differ}",
        f"| --- | ---: |{' ---: |' * differ}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _units(table: dict[str, Any]) -> str:
    """What intervals take the test part for a choice of."""
    groups = max((row["groups"] or 0 for row in table["methods"].values()), default=0)
    return f"{groups} test groups" if groups else f"{table['samples']} test samples"


def _range(interval: list[float] | None, form: str) -> str:
    return "" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"


def form_of(table: dict[str, Any]) -> str:
    """How errors are written: per cent with two decimals, or more if the smallest standard error needs them, others so that the
    smallest mean has three digits and the smallest deviation or standard error two.

    What is below a thousandth of the largest mean is not waited for; very small ones come with an exponent.
    """
    rows = table["methods"].values()
    sizes = [abs(row["mean"]) for row in rows if row["mean"]]
    if table["label"] == "error %" or not sizes:
        smallest = min((row["standard_error"] for row in rows if row.get("standard_error")), default=1)
        return f".{max(2, -math.floor(math.log10(smallest)))}f"
    spreads = [row.get(key) for row in rows for key in ("std", "standard_error")]
    sizes += [10 * spread for spread in spreads if spread]
    decimals = 2 - math.floor(math.log10(max(min(sizes), max(sizes) / 1000)))
    return f".{max(decimals, 0)}f" if decimals <= 8 else ".2e"


def _number(value: float | None, form: str = "#.4g") -> str:
    return "" if value is None else f"{value:{form}}"


def _plus_minus(value: float | None, error: float | None, form: str) -> str:
    if value is None:
        return ""
    return f"{value:+{form}}" + ("" if error is None else f" ± {error:{form}}")
