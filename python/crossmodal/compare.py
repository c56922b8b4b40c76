"""Several methods and seeds side by side, and one honest table.

Each run is a process of its own with one thread. Finished runs whose settings and data match are taken as they are.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.multiclass import OneVsRestClassifier

from crossmodal import checks, config, metrics, parsers, plots, run
from crossmodal.config import Config, ConfigError, differences
from crossmodal.errors import RunFolderError
from crossmodal.files import finite, write_json, write_text
from crossmodal.methods import METHODS
from crossmodal.naming import unknown
from crossmodal.results import RunFolder

BASELINE = "nft"
# Without the current directory, which `-c` puts first: a file of the user's there must not pass for a module.
TRAIN = "import sys; sys.path[:] = filter(None, sys.path); from crossmodal.cli import train; sys.exit(train())"
POLL_SECONDS = 0.2
GRACE_SECONDS = 20.0  # for a run to save itself after SIGTERM
TAIL = 20


class RunFailed(RunFolderError):
    """One of the runs ended with an error; the message holds the end of its log."""


@dataclass
class Job:
    """One run of the comparison."""

    config: Config
    folder: RunFolder
    arguments: list[str]

    @property
    def name(self) -> str:
        return f"{self.config.method} seed {self.config.seed}"

    @property
    def log(self) -> Path:
        return self.folder.path.with_name(self.folder.path.name + ".log")

    def prepare(self, overwrite: bool, hashes: Callable[[], dict[str, str]]) -> bool:
        """Looks at what is in the folder already; returns whether there is something to do.

        A finished run with these settings and data is taken as it is, an interrupted one is resumed.

        Args:
            overwrite: replace a run with other settings or data.
            hashes: gives those of the data as they are now, see `run.data_hashes`.

        Raises:
            RunFolderError: the folder holds a run with other settings or data, and `overwrite` is not set.
        """
        if not self.folder.holds_run:
            return True
        settings = differences(self.folder.read_config(), self.config.to_dict())
        changed = [f"{key} was {was!r} and is now {now!r}" for key, (was, now) in settings.items()]
        changed = changed or self.folder.changed_data(hashes())
        if not changed and self.folder.finished:
            return False
        if changed and not overwrite:
            what = "with other settings" if settings else "on data that have changed since"
            raise RunFolderError(
                f"{self.folder.path} holds a run {what} ({', '.join(changed)}); add --overwrite to replace it"
            )
        self.arguments += ["--overwrite", "true"] if changed else ["--resume", "true"]
        return True


def main(argv: list[str] | None = None) -> int:
    """Command line: see `--help`. Every other option goes to the runs, as `train.py` takes it."""
    arguments, rest = parsers.compare().parse_known_args(argv)
    if checks.started() > 1:
        raise ConfigError(
            "a comparison starts processes of its own (--jobs): start it without torchrun or another launcher"
        )
    methods, seeds = arguments.methods.split(","), [_seed(text) for text in arguments.seeds.split(",")]
    for method in methods:
        if method not in METHODS:
            raise ConfigError(unknown("methods", method, METHODS))
    for key, given in (("methods", methods), ("seeds", seeds)):
        twice = [value for value, count in Counter(given).items() if count > 1]
        if twice:
            raise ConfigError(f"{key}: {twice[0]} is given twice")
    for word in rest:
        for own, instead in (("method", "methods"), ("seed", "seeds"), ("output_dir", "runs_dir")):
            if word == f"--{own}" or word.startswith(f"--{own}="):
                raise ConfigError(f"{own}: each run of a comparison has its own; take --{instead}")
    jobs = plan(methods, seeds, arguments.runs_dir, rest)
    execute(jobs, arguments.jobs or cpu_cores(), arguments.overwrite)
    table = summarise(jobs)
    folder = arguments.runs_dir
    name = f"{table['task']}-comparison"
    write_json(folder / f"{name}.json", table)
    text = render(table)
    write_text(folder / f"{name}.md", text)
    plots.save(plots.comparison(table), folder / f"{name}.png")
    print(f"\n{text}\n{folder / name}.png; pictures of each run: {folder}/<task>-<method>-<seed>/*.png")
    return 0


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"seeds: expected whole numbers separated by commas, got {text!r}") from None


def plan(methods: list[str], seeds: list[int], runs_dir: Path, options: list[str]) -> list[Job]:
    """A job for each method and seed; the costliest methods first, so that the cores are busy to the end."""
    jobs = []
    for method in sorted(methods, key=lambda name: not METHODS[name].mixes):
        for seed in seeds:
            settings = config.parse([*options, "--method", method, "--seed", str(seed), "--threads", "1"])
            folder = RunFolder(runs_dir / f"{settings.task}-{method}-{seed}")
            own = ["--method", method, "--seed", str(seed), "--threads", "1", "--output_dir", str(folder.path)]
            jobs.append(Job(settings, folder, [*options, *own]))
    run.check_names(jobs[0].config)
    return jobs


def cpu_cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def execute(jobs: list[Job], at_once: int, overwrite: bool = False) -> None:
    """Runs what is not there yet, `at_once` at a time, with a line for every epoch of every run.

    Raises:
        RunFolderError: see `Job.prepare`; nothing was started.
        RunFailed: a run failed; the others were stopped.
    """
    # Data are the same for all of them, and jobs that mix, which have a source as well, come first.
    hashes = functools.cache(lambda: _hashes(jobs[0].config))
    waiting = [job for job in jobs if job.prepare(overwrite, hashes)]
    for job in jobs:
        if job not in waiting:
            print(f"{job.name}: finished before, taken as it is", flush=True)
    running: list[Process] = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(Process(waiting.pop(0)))
            time.sleep(POLL_SECONDS)
            for process in list(running):
                process.relay()
                if process.done():
                    running.remove(process)
    finally:
        stop(running)


def _hashes(settings: Config) -> dict[str, str]:
    task, _, source = run.load_data(settings)
    return run.data_hashes(task, source)


class Process:
    """A run in a process of its own."""

    def __init__(self, job: Job) -> None:
        self.job = job
        job.log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-c", TRAIN, *job.arguments]
        with open(job.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        self._reader = open(job.log, encoding="utf-8", errors="replace")  # noqa: SIM115 - open as long as the run
        self._rest = ""

    def relay(self) -> None:
        """Prints what the run wrote since the last call: lines of epochs and of the end."""
        *lines, self._rest = (self._rest + self._reader.read()).split("\n")
        for line in lines:
            if line.startswith(("epoch ", "test ", "step skipped")):
                print(f"{self.job.name}: {line}", flush=True)

    def done(self) -> bool:
        """Whether it ended. Raises RunFailed when it ended badly."""
        code = self.process.poll()
        if code is None:
            return False
        self.relay()
        self._reader.close()
        if code != 0:
            tail = self.job.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
            raise RunFailed(
                f"{self.job.name} failed (exit code {code}); the end of {self.job.log}:\n" + "\n".join(tail)
            )
        return True


def stop(running: list[Process]) -> None:
    """Ends runs: asks, waits, and insists."""
    for process in running:
        if process.process.poll() is None:
            process.process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.process.wait(max(0.0, deadline - time.monotonic()))
        if process.process.poll() is None:
            process.process.kill()
            process.process.wait()


def summarise(jobs: list[Job]) -> dict[str, Any]:
    """Every number of the table, as test errors (lower is better); None where the metric is NaN."""
    errors: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for job in jobs:
        results = job.folder.read_results()
        metric = results["metric"]
        test = float("nan") if results["test"] is None else results["test"]  # NaN, which JSON has no word for
        label, error = metrics.get(metric).as_error(test)
        errors.setdefault(job.config.method, []).append(error)
        seconds.setdefault(job.config.method, []).append(results["seconds"])
    rows = {}
    for method, values in errors.items():
        rows[method] = {
            "errors": values,
            "mean": float(np.mean(values)),
            "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "seconds": float(np.mean(seconds[method])),
        }
        if BASELINE in errors and method != BASELINE:
            difference = np.subtract(values, errors[BASELINE])
            rows[method]["difference"] = float(difference.mean())
            count = len(difference)
            rows[method]["standard_error"] = float(difference.std(ddof=1) / count**0.5) if count > 1 else None
    first = jobs[0].config
    table = {
        "task": first.task,
        "encoder": first.encoder,
        "metric": metric,
        "label": label,
        "baseline": BASELINE,
        "seeds": sorted({job.config.seed for job in jobs}),
        "methods": rows,
        "yardstick": yardstick(first),
    }
    return finite(table)


def yardstick(settings: Config) -> dict[str, Any] | None:
    """Error of a linear model on the raw (z-scored) values, fitted on training and validation samples together.

    Logistic regression for classes and labels, ridge regression for values; None for dense targets. It chooses no
    epoch, so the validation samples are free to be learned from.
    """
    task = run.load_task(settings)
    if task.kind == "dense":
        return None
    x = np.concatenate([task.train.x.flatten(1).numpy(), task.validation.x.flatten(1).numpy()])
    y = np.concatenate([task.train.y.numpy(), task.validation.y.numpy()])
    test = task.test.x.flatten(1).numpy()
    outputs = np.zeros((len(test), task.num_outputs))
    if task.kind == "regression":
        name, model = "ridge regression", RidgeCV(alphas=np.logspace(-3, 3, 13)).fit(x, y)
        outputs[:] = model.predict(test).reshape(outputs.shape)
    else:
        name, model = "logistic regression", LogisticRegression(max_iter=5000)
        model = (model if task.kind == "classification" else OneVsRestClassifier(model)).fit(x, y)
        scores = model.decision_function(test)
        if task.kind == "classification" and scores.ndim == 1:
            scores = np.stack([-scores, scores], axis=1)
        outputs[:] = scores.reshape(outputs.shape)  # of one label alone scikit-learn gives (n,)
    predicted, targets = (task.normalizer.inverse_y(values) for values in (torch.from_numpy(outputs), task.test.y))
    metric = metrics.get(task.metric)
    return {"name": name, "error": metric.as_error(metric(predicted, targets))[1]}


def render(table: dict[str, Any]) -> str:
    """The table as Markdown."""
    count, form = len(table["seeds"]), _form(table)
    lines = [
        f"{table['task']}: test {table['label']} ({table['metric']}), encoder {table['encoder']}, {count} seed{'s' * (count > 1)}",
        "",
        f"| method | mean | std | difference to {table['baseline']}, paired | seconds per run |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for method, row in table["methods"].items():
        difference = (
            "" if method == table["baseline"] else _plus_minus(row.get("difference"), row.get("standard_error"), form)
        )
        mean, std = _number(row["mean"], form), _number(row["std"], form)
        lines.append(f"| {method} | {mean} | {std} | {difference} | {row['seconds']:.0f} |")
    if table["yardstick"]:
        error = _number(table["yardstick"]["error"], form)
        lines.append(f"| {table['yardstick']['name']}, raw values | {error} | | | |")
    lines += ["", "Differences are per seed, with their standard error; negative is better."]
    undefined = [method for method, row in table["methods"].items() if None in row["errors"]]
    if undefined:
        lines.append(f"No mean of {', '.join(undefined)}: test {table['metric']} is NaN in at least one run.")
    return "\n".join(lines) + "\n"


def _form(table: dict[str, Any]) -> str:
    """How errors are written: per cent with two decimals, others so that the smallest mean has three digits and the smallest
    deviation or standard error two.

    What is below a thousandth of the largest mean is not waited for; very small ones come with an exponent.
    """
    rows = table["methods"].values()
    means = [row["mean"] for row in rows] + ([table["yardstick"]["error"]] if table["yardstick"] else [])
    sizes = [abs(mean) for mean in means if mean]
    if table["label"] == "error %" or not sizes:
        return ".2f"
    spreads = [row.get(key) for row in rows for key in ("std", "standard_error")]
    sizes += [10 * spread for spread in spreads if spread]
    decimals = 2 - math.floor(math.log10(max(min(sizes), max(sizes) / 1000)))
    return f".{max(decimals, 0)}f" if decimals <= 8 else ".2e"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _plus_minus(value: float | None, error: float | None, form: str) -> str:
    if value is None:
        return ""
    return f"{value:+{form}}" + ("" if error is None else f" ± {error:{form}}")
