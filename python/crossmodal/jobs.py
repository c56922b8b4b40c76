"""Runs in processes of their own: so many at a time on this machine, or on a cluster through submitit."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from crossmodal.errors import MissingPackage, UserError
from crossmodal.files import write_text
from crossmodal.naming import counted
from crossmodal.settings import Config, changes
from crossmodal.training.folder import LOCK, RunFolder

# Without the current directory, which `-c` puts first: a file of the user's there must not pass for a module.
TRAIN = "import sys; sys.path[:] = filter(None, sys.path); from crossmodal.cli import train; sys.exit(train())"
# A process whose comparison is gone, even by kill -9, saves itself and ends: the pipe it waits at is closed then.
ORPHAN = (
    "import os, signal, threading; "
    "wait = lambda: (os.read(0, 1), os.kill(os.getpid(), signal.SIGTERM)); "
    "threading.Thread(target=wait, daemon=True).start(); "
)
POLL_SECONDS = 0.2
GRACE_SECONDS = 20.0  # for a run to save itself after SIGTERM
TAIL = 20


@dataclass(eq=False)
class Job:
    """One run of a comparison.

    Attributes:
        task, method: names of its column and row.
        name: how it is called while it runs.
        point: where in the grid of its method it is, in words; empty where that has none.
        failure: why it did not come to its end.
    """

    task: str
    method: str
    name: str
    config: Config
    folder: RunFolder
    point: str = ""
    failure: str | None = None

    def beside(self, suffix: str) -> Path:
        """A file of the job beside its folder: `.log`, `.yaml` (the settings), `.job` (its number on a cluster)."""
        return self.folder.path.with_name(self.folder.path.name + suffix)

    def prepare(self, overwrite: bool, hashes: Callable[[], dict[str, str]]) -> bool:
        """Looks at what is in the folder already; returns whether there is something to do.

        A finished run with these settings and data is taken as it is, an interrupted one is resumed.

        Args:
            overwrite: replace a run with other settings or data.
            hashes: gives those of the data as they are now, see `run.data_hashes`.

        Raises:
            UserError: the folder holds a run with other settings or data, and `overwrite` is not set.
        """
        if not self.folder.holds_run:
            return True
        # What a comparison that was killed left on this machine may still be saving itself.
        if not self.folder.finished and not self.beside(".job").exists():
            with contextlib.suppress(Timeout, NotImplementedError), FileLock(self.folder.path / LOCK, GRACE_SECONDS):
                pass
        settings = changes(self.folder.read_config(), self.config)
        changed = [f"{key} was {was!r} and is now {now!r}" for key, (was, now) in settings.items()]
        changed = changed or self.folder.changed_data(hashes())
        if not changed and self.folder.finished:
            return False
        if changed and not overwrite:
            what = "with other settings" if settings else "on data that have changed since"
            raise UserError(
                f"{self.folder.path} holds a run {what} ({', '.join(changed)}); add --overwrite to replace it"
            )
        self.config.overwrite, self.config.resume = bool(changed), not changed
        return True

    def command(self) -> tuple[dict[str, str], list[str]]:
        """Environment variables and arguments of the process that does the run; writes its settings."""
        self.folder.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.beside(".yaml"), yaml.safe_dump(self.config.to_dict(), sort_keys=False))
        variables = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        variables["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        return variables, [sys.executable, "-c", TRAIN, "--config", str(self.beside(".yaml"))]


class Running:
    """A run at work, whose log is read as it grows.

    A subclass starts it, and says by `poll` how it ended: by its exit code, or why it has none; None where it has not.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._reader = open(job.beside(".log"), encoding="utf-8", errors="replace")  # noqa: SIM115 - as long as the run
        self._rest = ""

    def poll(self) -> int | str | None:
        raise NotImplementedError

    def relay(self) -> None:
        """Prints what the run wrote since the last call: lines of epochs and of the end."""
        *lines, self._rest = (self._rest + self._reader.read()).split("\n")
        for line in lines:
            if line.startswith(("epoch ", "test ", "fold ", "step skipped")):
                print(f"{self.job.name}: {line}", flush=True)

    def done(self) -> bool:
        """Whether it ended. What went wrong is said, with the end of the log, and kept as the job's failure."""
        ended = self.poll()
        if ended is None:
            return False
        self.relay()
        self._reader.close()
        if ended != 0:
            log = self.job.beside(".log")
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
            how = f"exit code {ended}" if isinstance(ended, int) else ended
            said = f": {tail[-1]}" if tail else ""
            self.job.failure = f"{how}{said}"
            print(f"{self.job.name} failed ({how}); the end of {log}:\n" + "\n".join(tail), flush=True)
        return True


class Process(Running):
    """A run in a process on this machine."""

    def __init__(self, job: Job) -> None:
        variables, (python, option, program, *arguments) = job.command()
        with open(job.beside(".log"), "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [python, option, ORPHAN + program, *arguments],
                env=os.environ | variables,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        super().__init__(job)

    def poll(self) -> int | None:
        return self.process.poll()


class Submitted(Running):
    """A run that waits or works on a cluster; `work` is its submitit job."""

    def __init__(self, job: Job, work: Any) -> None:
        super().__init__(job)
        self.work = work

    def poll(self) -> int | str | None:
        if not self.work.done():
            return None
        self.job.beside(".job").unlink(missing_ok=True)
        try:
            return self.work.result()
        except Exception:  # pages of submitit's about a job that died
            return f"no result, {self.work.state}; see {self.work.paths.stderr}"


class Attempt:
    """A run on a machine of a cluster, as submitit calls it. When its time is up, or its place is needed, it saves itself and goes
    on in the next place it is given.

    Args:
        again: whether the run was begun before.
    """

    def __init__(self, again: bool = False) -> None:
        self.again = again

    def __call__(self, command: list[str], folder: str, log: str) -> int:
        resume = ["--resume=true", "--overwrite=false"] if self.again and Path(folder, "data.json").is_file() else []
        # The scheduler's warning, SIGUSR2, goes to every process; the run, which would die of it, is told by `checkpoint`.
        quiet = ["sh", "-c", 'trap "" USR2; exec "$@" >> "$0" 2>&1', log]
        self.process = subprocess.Popen([*quiet, *command, *resume])
        return self.process.wait()

    def checkpoint(self, *arguments: Any) -> Any:
        """Ends the run; returns what submitit is to call in the next place."""
        from submitit.helpers import DelayedSubmission

        self.process.terminate()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.process.pid, 0)  # not by Popen, whose lock is held by the call that is interrupted here
        return DelayedSubmission(Attempt(again=True), *arguments)


class Machine:
    """This machine."""

    def start(self, jobs: list[Job]) -> list[Running]:
        """Starts runs."""
        return [Process(job) for job in jobs]

    def stop(self, running: list[Process]) -> None:
        """Ends runs: asks, waits, and insists."""
        for one in running:
            if one.poll() is None:
                one.process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for one in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.process.wait(max(0.0, deadline - time.monotonic()))
            if one.poll() is None:
                one.process.kill()
                one.process.wait()


class Cluster:
    """A cluster, by submitit: it knows the scheduler, and this class does not.

    Runs that a comparison left there when it was killed are found again by their number, where the scheduler still knows them.

    Args:
        name: of the executor, `slurm` or `local` (processes of this machine, as a rehearsal).
        parameters: for submitit's `update_parameters`: timeout_min, cpus_per_task, slurm_partition, ...
        folder: where submitit keeps what it needs; on a file system that the cluster's machines share.

    Raises:
        UserError: submitit is not installed, does not know a parameter, or finds no scheduler here.
    """

    def __init__(self, name: str, parameters: dict[str, Any], folder: Path) -> None:
        try:
            import cloudpickle
            import submitit
        except ImportError:
            raise MissingPackage("cluster", "submitit", "cluster") from None
        cloudpickle.register_pickle_by_value(
            sys.modules[__name__]
        )  # so that an Attempt starts without importing this package
        if "timeout_min" not in parameters:  # whose default is 5 minutes
            raise UserError("cluster.timeout_min: expected how many minutes a run may take, got nothing")
        self.folder = folder
        self._find = {"slurm": submitit.SlurmJob, "local": submitit.LocalJob}[name]
        try:
            self._executor = submitit.AutoExecutor(folder, cluster=name)
            self._executor.update_parameters(**parameters)
        except (RuntimeError, NameError, ValueError, TypeError) as error:
            raise UserError(f"cluster: {error}") from None

    def start(self, jobs: list[Job]) -> list[Running]:
        """Submits runs, together, but those that are there already."""
        works = {job: self._left(job) for job in jobs}
        fresh = [job for job, work in works.items() if work is None]
        calls = {job: self._call(job) for job in fresh}
        if fresh:
            try:
                with self._executor.batch():
                    works |= {job: self._executor.submit(Attempt(), *call) for job, call in calls.items()}
            except RuntimeError as error:
                raise UserError(f"cluster: {error}") from None
        for job in fresh:
            write_text(job.beside(".job"), f"{works[job].job_id}\n")
        return [Submitted(job, work) for job, work in works.items()]

    def _left(self, job: Job) -> Any:
        """The submitit job of an earlier comparison that is still to do this run; None where there is none."""
        try:
            number = job.beside(".job").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        work = self._find(self.folder, number)
        if work.done():
            return None
        print(f"{job.name}: on the cluster already, as {number}", flush=True)
        return work

    def _call(self, job: Job) -> tuple[list[str], str, str]:
        variables, command = job.command()
        log = job.beside(".log")
        log.write_text("", encoding="utf-8")
        given = [f"{name}={value}" for name, value in variables.items()]  # beside those that the scheduler sets there
        return ["env", *given, *command], str(job.folder.path), str(log)

    def stop(self, running: list[Submitted]) -> None:
        """Takes runs off the cluster, or out of its queue."""
        for one in running:
            one.work.cancel()
            one.job.beside(".job").unlink(missing_ok=True)


def execute(jobs: list[Job], place: Machine | Cluster, at_once: int) -> None:
    """Does runs, `at_once` at a time, with a line for every epoch and the end of every run.

    A run that fails says so and stops no other, see `Job.failure`. What is at work when this is left by an exception is stopped.
    """
    waiting, running = list(jobs), []
    try:
        while waiting or running:
            free = max(0, at_once - len(running))
            if starting := waiting[:free]:
                del waiting[:free]
                running += place.start(starting)
            time.sleep(POLL_SECONDS)
            for one in list(running):
                one.relay()
                if one.done():
                    running.remove(one)
                    left = len(waiting) + len(running)
                    print(f"{one.job.name}: {len(jobs) - left} of {counted(len(jobs), 'runs')} done", flush=True)
    finally:
        place.stop(running)
