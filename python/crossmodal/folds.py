"""Several runs as one: each fold by a run of its own, then, if asked for, a model that learns from everything."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from scipy import stats

from crossmodal import verdict
from crossmodal.errors import UserError
from crossmodal.files import finite
from crossmodal.kinds import LABEL_KINDS
from crossmodal.naming import counted
from crossmodal.report import page
from crossmodal.scoring import labels, metrics
from crossmodal.settings import Config
from crossmodal.training import outcomes
from crossmodal.training.folder import RunFolder

FINAL = "final"


def asked_for(config: Config) -> bool:
    """Whether settings ask for several runs, and not for one of them."""
    split = config.split
    return split.fold is None and (split.folds is not None or split.final)


def train(config: Config, accelerator: Accelerator, hashes: dict[str, str], one: Callable[[Config], dict]) -> dict:
    """Does what is not done yet of the runs, in folders `fold-1`, ... and `final` of the run's folder; returns and writes what they
    came to.

    Args:
        config: the settings, see `asked_for`.
        accelerator: of this process.
        hashes: of the data, see `RunFolder.prepare`.
        one: does one run.

    Raises:
        UserError: the folder cannot be used; or what a run raises.
    """
    folder, split = RunFolder(config.run_dir), config.split
    if accelerator.num_processes > 1:
        raise UserError(
            "split: several runs in one need one process; start each fold by itself, with --split.fold 1 and so on, in several"
        )
    if config.resume:
        folder.check_data(hashes)
        if folder.finished:
            accelerator.print(f"{folder.path} is finished already")
            return folder.read_results()
    folder.prepare(config, hashes)
    try:
        found = []
        for number in range(1, split.runs + 1):
            accelerator.print(f"\nfold {number} of {split.runs}" if split.folds else "\nwith a test part")
            fold = number if split.folds else None
            found.append(_one(config, one, f"fold-{number}", fold=fold, final=False))
        parts = [RunFolder(folder.path / f"fold-{number}") for number in range(1, split.runs + 1)]
        tested = outcomes.joined([outcomes.load(part.outcomes) for part in parts])
        results = combine([part.path for part in parts], split.folds, tested)
        if split.final:
            epochs = [run["best_epoch"] for run in found if run["best_epoch"]]
            length, said = {}, ""
            if epochs:
                length = {"epochs": round(statistics.median(epochs)), "steps": None}
                best = ", ".join(map(str, epochs))
                said = f", for {length['epochs']} epochs, the median of the best ones ({best})"
            if results["thresholds"]:
                length["thresholds"] = ",".join(map(repr, results["thresholds"]))
                said += f", with the thresholds {length['thresholds']}, the medians of the chosen ones"
            accelerator.print(f"\n{FINAL}: learns from all samples{said}")
            final = _one(config, one, FINAL, length, fold=0, final=True)
            results |= {
                "final": True,
                "final_epochs": final["epochs"] or None,
                "final_samples": final["samples"]["train"],
            }
        outcomes.save(folder.outcomes, tested)
        folder.write_results(results)
        if config.pictures:
            _draw(folder, results, tested, config.pictures)
        page.write(folder)
        accelerator.print(f"\n{table(results)}\n{folder.path}")
        return results
    finally:
        folder.release()


def _one(config: Config, run: Callable[[Config], dict], name: str, changes: dict | None = None, **split: Any) -> dict:
    path = config.run_dir / name
    changes = changes or {}
    if split["final"]:
        changes |= {"select": "last", "patience": None}
    own = dataclasses.replace(
        config,
        output_dir=str(path),
        overwrite=False,
        resume=RunFolder(path).holds_run,
        split=dataclasses.replace(config.split, **split),
        **changes,
    )
    return run(own)


# ----- what the runs came to ---------------------------------------------------------------------------------------------------


def combine(folders: list[Path], folds: int | None, tested: outcomes.Outcomes) -> dict[str, Any]:
    """What `results.json` of several folds holds: as that of a run, with means for figures, and the figure of each fold."""
    runs = [RunFolder(path).read_results() for path in folders]
    first, name = runs[0], runs[0]["metric"]
    metric = metrics.get(name)
    tests = [_number(run["test"]) for run in runs]
    interval, classes, judged = None, {}, None
    if tested.metric == name:  # of many and large samples only scores were kept
        interval = metric.interval(tested.numbers, tested.units, tested.fold)
        judged = verdict.of_folds(tested, [run["verdict"] for run in runs])
        if _counts_classes(first, tested.numbers):
            classes = labels.by_class(tested.numbers, tuple(first["class_names"]))
    results = first | {
        "test": float(np.mean(tests)),
        "test_loss": _mean(run["test_loss"] for run in runs),
        "validation": _mean(run["validation"] for run in runs),
        "validation_loss": _mean(run["validation_loss"] for run in runs),
        "test_metrics": {key: _mean(run["test_metrics"][key] for run in runs) for key in first["test_metrics"]},
        "test_interval": interval,
        "test_interval_over": "samples" if tested.group is None else "groups",
        "test_fields": {},
        "thresholds": [
            statistics.median(several) for several in zip(*(run["thresholds"] for run in runs), strict=True)
        ],
        "test_classes": classes,
        "test_groups": _merged(run["test_groups"] for run in runs),
        "best_epoch": None,
        "steps": sum(run["steps"] for run in runs),
        "seconds": sum(run["seconds"] for run in runs),
        "test_seconds": sum(run.get("test_seconds", 0.0) for run in runs),
        "samples": first["samples"] | {"test": len(np.unique(tested.rows))},
        "pictures": [],
        "warnings": [
            f"{said} ({path.name})" for path, run in zip(folders, runs, strict=True) for said in run["warnings"]
        ],
        "verdict": judged,
        "final": False,
        "folds": {
            "runs": [path.name for path in folders],
            "folds": folds,
            "test": tests,
            "best_epoch": [run["best_epoch"] for run in runs],
            "interval": corrected_interval(metric, tests, [run["samples"] for run in runs]) if folds else None,
        },
    }
    return finite(results)


def _counts_classes(results: dict[str, Any], numbers: metrics.Numbers) -> bool:
    """Whether numbers of a metric are those of `labels.counts`, a column for each class or label."""
    return results["kind"] in LABEL_KINDS and {"truth", "found", "both"} <= numbers.keys()


def _draw(folder: RunFolder, results: dict[str, Any], tested: outcomes.Outcomes, form: str) -> None:
    from crossmodal import drawing
    from crossmodal.report import pictures

    drawn, numbers = pictures.of_folds(results), tested.numbers
    if results["kind"] == "classification" and _counts_classes(results, numbers):
        names = tuple(results["class_names"]) or tuple(map(str, range(numbers["truth"].shape[1])))
        drawn["confusion.png"] = partial(
            pictures.confusion, pictures.confused(numbers), names, pictures.heading(results)
        )
    with drawing.style():
        drawing.sparingly(drawn, folder.path, form)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _mean(values: Any) -> float:
    return float(np.mean([_number(value) for value in values]))


def _merged(found: Any) -> dict[str, Any]:
    """Figures of groups over the folds: the mean where a group was tested several times."""
    by_group: dict[str, list[dict]] = {}
    for groups in found:
        for name, said in groups.items():
            by_group.setdefault(name, []).append(said)
    return {
        name: {"samples": max(one["samples"] for one in several)}
        | {key: _mean(one[key] for one in several) for key in several[0] if key != "samples"}
        for name, several in sorted(by_group.items())
    }


def corrected_interval(
    metric: metrics.Metric, figures: list[float], samples: list[dict[str, int]]
) -> list[float] | None:
    """95 % interval of the mean over folds by Student's t, with the variance of Nadeau and Bengio (Machine Learning 52, 2003),
    (1/J + n_test/n_train) s^2 for J figures: the training sets of folds overlap, so their figures are no
    independent draws. It is cut off at the bounds of the metric. None where all figures are the same."""
    if len(figures) < 2 or not np.isfinite(figures).all() or not np.ptp(figures):
        return None
    share = np.mean([one["test"] / (one["train"] + one["validation"]) for one in samples])
    error = np.sqrt((1 / len(figures) + share) * np.var(figures, ddof=1))
    half = float(stats.t.ppf(0.975, len(figures) - 1) * error)
    return metric.clipped(float(np.mean(figures)) - half, float(np.mean(figures)) + half)


def table(results: dict[str, Any]) -> str:
    """What the folds came to, in a few lines."""
    name, folds = results["metric"], results["folds"]
    shown = ", ".join(f"{_number(value):#.4g}" for value in folds["test"])
    lines = [f"test {name} of each fold: {shown}"] if folds["folds"] else []
    lines.append(f"test {name}: {_number(results['test']):#.4g}" + " (mean over the folds)" * bool(folds["folds"]))
    if folds["interval"]:
        low, high = folds["interval"]
        lines.append(
            f"95 % interval over the folds: {low:#.4g} to {high:#.4g} (t, corrected for training sets that overlap: Nadeau and "
            "Bengio, 2003; cut off where the metric ends)"
        )
    if results["test_interval"]:
        low, high = results["test_interval"]
        lines.append(f"95 % interval over {results['test_interval_over']}: {low:#.4g} to {high:#.4g}")
    lines += group_lines(results)
    if results["verdict"]:
        lines.append(verdict.lines(results["verdict"]))
    if results["final"]:
        length = f", {results['final_epochs']} epochs" if results["final_epochs"] else ""
        lines.append(
            f"{FINAL}: learned from all {results['final_samples']} samples{length}; predict.py takes it. Nothing tests it: the "
            "figures are those of the runs before."
        )
    elif folds["folds"]:
        lines.append(
            "predict.py takes the mean of the folds' predictions; --split.final true adds a model of all samples"
        )
    return "\n".join(lines)


def group_lines(results: dict[str, Any]) -> list[str]:
    """The worst group and how far groups lie apart, in a line."""
    name = results["metric"]
    found = {group: one[name] for group, one in results.get("test_groups", {}).items() if one.get(name) is not None}
    found = {group: value for group, value in found.items() if value == value}
    if len(found) < 2:
        return []
    worst = (min if results["higher_is_better"] else max)(found, key=found.__getitem__)
    values = list(found.values())
    return [
        f"test {name} of {len(found)} groups: {min(values):#.4g} to {max(values):#.4g}, standard deviation "
        f"{statistics.stdev(values):.3g}; worst: {worst} ({counted(results['test_groups'][worst]['samples'], 'samples')})"
    ]
