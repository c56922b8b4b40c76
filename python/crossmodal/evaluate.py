"""The figure of a finished run, computed again from its stored model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from crossmodal import config, metrics, parsers, run
from crossmodal.config import Config
from crossmodal.loader import eval_rows
from crossmodal.parsers import SPLITS
from crossmodal.predict import load
from crossmodal.results import RunFolder


def evaluate(folder: str | Path, split: str = "test", device: str = "cpu") -> dict[str, Any]:
    """Metric of a split, with the model, the data and the batches of the run.

    Relative paths of the data count from where training ran, or from here if the data are no longer there.

    Args:
        folder: the run's folder.
        split: train, validation or test.
        device: where to compute.

    Returns:
        `metric` (its name), `value`, `split`, `samples`, and `stored`: what results.json says, None for the training split.

    Raises:
        FileNotFoundError: the folder holds no finished run, or the data are gone.
        ValueError: unknown split, a damaged file, or data that have changed since the run.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    predictor = load(folder, device)
    settings = _locate(config.load(RunFolder(folder).config), predictor.results["directory"])
    if settings.task == "arrays":
        settings = replace(settings, kind=predictor.kind)  # as it was inferred then: the rules may have changed
    task = run.load_task(settings)
    if task.sha256 != predictor.results["data_sha256"]:
        raise ValueError(
            f"{settings.data or task.name}: the data have changed since the run (sha256 {task.sha256[:12]}, then "
            f"{predictor.results['data_sha256'][:12]}), so its figure cannot be repeated"
        )
    samples = getattr(task, split)
    # In the batches the run had: another number of rows in a matrix product may change the last bit of each.
    n, size, world = len(samples), settings.loader.eval_batch_size, predictor.results["processes"]
    batches = [rows for rank in range(world) for rows in eval_rows(n, size, rank, world)]
    outputs = torch.cat([predictor.outputs(samples.x[rows], size) for rows in batches])[:n]
    value = metrics.get(task.metric)(task.normalizer.decode(outputs), task.normalizer.inverse_y(samples.y))
    return {
        "metric": task.metric,
        "value": value,
        "split": split,
        "samples": len(samples),
        "stored": None if split == "train" else predictor.results[split],
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
    print(f"{found['split']} {found['metric']} {found['value']!r} over {found['samples']} samples{stored}")
