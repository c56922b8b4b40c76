"""The figure of a finished run, computed again from its stored model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal import parsers, parsing, run
from crossmodal.errors import UserError
from crossmodal.predict import load
from crossmodal.scoring import protocols
from crossmodal.settings import Config
from crossmodal.training import evaluation
from crossmodal.training.folder import RunFolder


def evaluate(folder: str | Path, split: str = "test", device: str = "cpu") -> dict[str, Any]:
    """Metric of a split, with the model, the data and the batches of the run.

    Of a run of several folds these are the means over them.
    Relative paths of the data count from where training ran, or from here if the data are no longer there.

    Args:
        folder: the run's folder.
        split: train, validation or test; where the task is a roll-out, train is scored step by step.
        device: where to compute.

    Returns:
        `metric` (the first one's name), `value`, its `interval` (see `Metric.interval`), `metrics` (all by name), `split`,
        `samples`, and `stored`: what results.json says, None for the training split.

    Raises:
        UserError: the folder holds no finished run, or the data are gone; unknown split, a damaged file, or data that have
            changed since the run.
    """
    if split not in parsers.SPLITS:
        raise UserError(f"split: expected one of {', '.join(parsers.SPLITS)}, got {split!r}")
    stored = RunFolder(folder).read_results()
    if "folds" in stored:
        return _folds(Path(folder), stored, split, device)
    predictor = load(folder, device)
    settings = _locate(parsing.load(RunFolder(folder).config), predictor.results["directory"])
    if settings.task == "arrays":
        settings = replace(settings, kind=predictor.kind)  # as it was inferred then: the rules may have changed
    task = run.load_task(settings)
    if task.fingerprint != predictor.results["fingerprint"]:
        raise UserError(
            f"{settings.data or task.name}: the data have changed since the run (sha256 {task.fingerprint[:12]}, then "
            f"{predictor.results['fingerprint'][:12]}), so its figure cannot be repeated"
        )
    task = replace(task, thresholds=predictor.thresholds)
    samples = getattr(task, split)
    steps = 0 if split == "train" else task.steps  # what is learned from is one step
    # In precision and batches of the run: the last bits of its outputs depend on them.
    found = evaluation.evaluate(
        lambda batch: protocols.predict(predictor, batch.x.to(device), steps, task.normalizer).cpu(),
        samples,
        task,
        settings.loader.eval_batch_size,
        processes=predictor.results["processes"],
    )
    return {
        "metric": task.metric,
        "value": found.metric,
        "interval": found.interval,
        "metrics": found.metrics,
        "split": split,
        "samples": len(samples),
        "stored": None if split == "train" else predictor.results[split],
    }


def _folds(folder: Path, stored: dict[str, Any], split: str, device: str) -> dict[str, Any]:
    """Means over the folds; the interval is the stored one, as it hangs on the samples of all of them."""
    found = [evaluate(folder / Path(name).name, split, device) for name in stored["folds"]["runs"]]
    return found[0] | {
        "value": float(np.mean([one["value"] for one in found])),
        "interval": stored["test_interval"] if split == "test" else None,
        "metrics": {name: float(np.mean([one["metrics"][name] for one in found])) for name in found[0]["metrics"]},
        "samples": stored["samples"]["test"] if split == "test" else sum(one["samples"] for one in found),
        "stored": None if split == "train" else stored[split],
    }


def _locate(settings: Config, directory: str) -> Config:
    """The settings with the paths of the data as they were for a process in `directory`."""

    def locate(path: str | None) -> str | None:
        if path is None:
            return None
        there = Path(directory, path)
        moved = Path(path).exists() and not there.exists()  # e.g. with the whole project, to another machine
        return path if moved else str(there)

    return replace(settings, data=locate(settings.data), data_dir=locate(settings.data_dir))


def main(argv: list[str] | None = None) -> None:
    """Command line: see `--help`."""
    arguments = parsers.evaluate().parse_args(argv)
    found = evaluate(arguments.run, arguments.split, arguments.device)
    stored = "" if found["stored"] is None else f"  (stored: {found['stored']!r})"
    interval = "" if found["interval"] is None else "  (95 % interval: {:#.4g} to {:#.4g})".format(*found["interval"])
    print(f"{found['split']} {found['metric']} {found['value']!r} over {found['samples']} samples{interval}{stored}")
