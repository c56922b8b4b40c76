"""Several methods and seeds side by side, and one honest table.

Each run is a process of its own with one thread. Finished runs whose settings and data match are taken as they are.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from crossmodal import methods, parsers, parsing, run
from crossmodal.errors import UserError
from crossmodal.files import write_json, write_text
from crossmodal.report import pictures, tables
from crossmodal.settings import Config, differences
from crossmodal.training import sharding
from crossmodal.training.folder import RunFolder

YARDSTICK = "linear"  # goes with every comparison of a task that it can do
# Without the current directory, which `-c` puts first: a file of the user's there must not pass for a module.
TRAIN = "import sys; sys.path[:] = filter(None, sys.path); from crossmodal.cli import train; sys.exit(train())"
POLL_SECONDS = 0.2
GRACE_SECONDS = 20.0  # for a run to save itself after SIGTERM
TAIL = 20


@dataclass
class Job:
    """One run of the comparison."""

    config: Config
    folder: RunFolder

    @property
    def name(self) -> str:
        return f"{self.config.method} seed {self.config.seed}"

    @property
    def log(self) -> Path:
        return self.folder.path.with_name(self.folder.path.name + ".log")

    def prepare(self, overwrite: bool, hashes: Callable[[str], dict[str, str]]) -> bool:
        """Looks at what is in the folder already; returns whether there is something to do.

        A finished run with these settings and data is taken as it is, an interrupted one is resumed.

        Args:
            overwrite: replace a run with other settings or data.
            hashes: gives, by method, those of the data as they are now, see `run.data_hashes`.

        Raises:
            UserError: the folder holds a run with other settings or data, and `overwrite` is not set.
        """
        if not self.folder.holds_run:
            return True
        settings = differences(self.folder.read_config(), self.config.to_dict())
        changed = [f"{key} was {was!r} and is now {now!r}" for key, (was, now) in settings.items()]
        changed = changed or self.folder.changed_data(hashes(self.config.method))
        if not changed and self.folder.finished:
            return False
        if changed and not overwrite:
            what = "with other settings" if settings else "on data that have changed since"
            raise UserError(
                f"{self.folder.path} holds a run {what} ({', '.join(changed)}); add --overwrite to replace it"
            )
        self.config.overwrite, self.config.resume = bool(changed), not changed
        return True


def main(argv: list[str] | None = None) -> int:
    """Command line: see `--help`. Every other option goes to the runs, as `train.py` takes it."""
    arguments, rest = parsers.compare().parse_known_args(argv)
    if sharding.started() > 1:
        raise UserError(
            "a comparison starts processes of its own (--jobs): start it without torchrun or another launcher"
        )
    names, seeds = arguments.methods.split(","), [_seed(text) for text in arguments.seeds.split(",")]
    for name in names:
        methods.get(name)
    for key, given in (("methods", names), ("seeds", seeds)):
        twice = [value for value, count in Counter(given).items() if count > 1]
        if twice:
            raise UserError(f"{key}: {twice[0]} is given twice")
    for word in rest:
        for own, instead in (("method", "methods"), ("seed", "seeds"), ("output_dir", "runs_dir")):
            if word == f"--{own}" or word.startswith(f"--{own}="):
                raise UserError(f"{own}: each run of a comparison has its own; take --{instead}")
        owner, dot, _ = word.removeprefix("--").partition(".")
        if dot and owner in methods.METHODS and owner not in (*names, YARDSTICK):
            raise UserError(f"{word}: an option of the method {owner}, which this comparison does not run")
    jobs = plan(names, seeds, arguments.runs_dir, rest)
    run.check_names(jobs[0].config)
    execute(jobs, arguments.jobs or cpu_cores(), arguments.overwrite)
    found = jobs[0].folder.read_results()
    if YARDSTICK not in names and not methods.reason_against(YARDSTICK, found["kind"], len(found["input_shape"]) - 1):
        last = plan([YARDSTICK], seeds, arguments.runs_dir, rest)
        execute(last, 1, arguments.overwrite)
        jobs += last
    table = tables.summarise([job.folder.read_results() for job in jobs])
    folder = arguments.runs_dir
    name = f"{table['task']}-comparison"
    write_json(folder / f"{name}.json", table)
    text = tables.render(table)
    write_text(folder / f"{name}.md", text)
    pictures.save(pictures.comparison(table), folder / f"{name}.png")
    print(f"\n{text}\n{folder / name}.png; pictures of each run: {folder}/<task>-<method>-<seed>/*.png")
    return 0


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UserError(f"seeds: expected whole numbers separated by commas, got {text!r}") from None


def plan(names: list[str], seeds: list[int], runs_dir: Path, options: list[str]) -> list[Job]:
    """A job for each method and seed (one where seeds make no difference), in the order in which they are started."""
    jobs = []
    for name in names:
        for seed in seeds if methods.get(name).seeded else seeds[:1]:
            own = ["--seed", str(seed), "--threads", "1"]
            settings = parsing.parse([*options, *own], method=name)
            settings.output_dir = str(runs_dir / f"{settings.task}-{name}-{seed}")
            jobs.append(Job(settings, RunFolder(settings.output_dir)))
    return jobs


def cpu_cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def execute(jobs: list[Job], at_once: int, overwrite: bool = False) -> None:
    """Runs what is not there yet, `at_once` at a time, with a line for every epoch of every run.

    Raises:
        UserError: see `Job.prepare`; nothing was started.
        UserError: a run failed; the others were stopped.
    """

    @functools.cache
    def hashes(method: str) -> dict[str, str]:
        task, _, objective = run.build(next(job.config for job in jobs if job.config.method == method))
        return run.data_hashes(task, objective)

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


class Process:
    """A run in a process of its own."""

    def __init__(self, job: Job) -> None:
        self.job = job
        job.log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        settings = job.log.with_suffix(".yaml")
        write_text(settings, yaml.safe_dump(job.config.to_dict(), sort_keys=False))
        command = [sys.executable, "-c", TRAIN, "--config", str(settings)]
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
        """Whether it ended. Raises UserError, with the end of its log, when it ended badly."""
        code = self.process.poll()
        if code is None:
            return False
        self.relay()
        self._reader.close()
        if code != 0:
            tail = self.job.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
            raise UserError(
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
