"""The folder of a run: what lies in it, when it may be used again, and how each file is written."""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from crossmodal.errors import UserError
from crossmodal.files import finite, read_json, read_yaml, write_json, write_text
from crossmodal.models.base import DESCRIPTION_FILE, WEIGHTS_FILE
from crossmodal.settings import Config, changes
from crossmodal.training.checkpoint import Checkpoints

PACKAGES = ("torch", "transformers", "accelerate", "numpy", "scipy", "scikit-learn", "safetensors")
PICTURES = (  # beside those of the method
    "curves.png",
    "confusion.png",
    "labels.png",
    "scatter.png",
    "calibration.png",
    "groups.png",
    "folds.png",
    "examples.png",
    "errors_over_time.png",
    "rollout.gif",
)
FORMS = (".pdf", ".svg")  # of pictures, for papers
LOCK = ".lock"  # held while a run is at work
WRITER = "crossmodal"  # what data.json names, and trackers call the project


class RunFolder:
    """The folder of a run.

    config.yaml, data.json (hashes of what is learned from), metrics.jsonl (a line per epoch), test.npz (what came of each test
    sample), results.json (written last: a run with it is finished), model/ and normalizer.safetensors, pictures, and checkpoints/
    while the run goes on; report.html (all of it in one file, for people).
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.data = self.path / "data.json"
        self.metrics = self.path / "metrics.jsonl"
        self.outcomes = self.path / "test.npz"
        self.results = self.path / "results.json"
        self.report = self.path / "report.html"
        self.model = self.path / "model"
        self.normalizer = self.path / "normalizer.safetensors"
        self.checkpoints = self.path / "checkpoints"
        self._lock: FileLock | None = None

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.results.is_file()

    @property
    def holds_run(self) -> bool:
        """Whether a run wrote what lies there, by data.json: a config.yaml, or a folder `model`, other programs have as well."""
        if not (self.config.is_file() and self.data.is_file()):
            return False
        with contextlib.suppress(ValueError):
            return read_json(self.data).get("written_by") == WRITER
        return False

    def check(self, config: Config) -> None:
        """Whether a run may use the folder; changes nothing.

        Raises:
            UserError: it holds a run, and neither `overwrite` nor `resume` is set; it holds something else; it cannot
                be written; or `resume` is set, and there is no run or one with other settings (more epochs are none,
                unless it is finished).
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"output_dir: {self.path} is a file, expected a folder")
        used = self.path.is_dir() and any(path.name != LOCK for path in self.path.iterdir())
        if used and not self.holds_run:
            raise UserError(f"output_dir: {self.path} is not empty and holds no run; choose another folder")
        if config.resume:
            if not used:
                state = "is empty" if self.path.is_dir() else "does not exist"
                raise UserError(
                    f"resume: no run to go on with, {self.path.absolute()} {state}; name its folder with --output_dir, or "
                    "leave --resume out to start one"
                )
            self._check_same(config)
        elif used and not config.overwrite:
            state = "a finished run" if self.finished else "an interrupted run"
            remedy = (
                "--overwrite to replace it" if self.finished else "--resume true to go on or --overwrite to start anew"
            )
            raise UserError(f"output_dir: {self.path} holds {state}; add {remedy}, or choose another folder")
        try:
            with tempfile.TemporaryFile(dir=self._existing):
                pass
        except OSError as error:
            raise UserError(f"output_dir: {self.path} cannot be written ({error.strerror}: {self._existing})") from None

    @property
    def _existing(self) -> Path:
        """The folder, or the nearest one above it that exists."""
        return next(path for path in (self.path, *self.path.absolute().parents) if path.exists())

    def prepare(self, config: Config, hashes: dict[str, str] | None = None) -> None:
        """Makes the folder ready for a run and keeps others out until `release`: creates it, or empties or keeps what is there.

        Args:
            config: the settings, for config.yaml.
            hashes: what the run learns from, in words, and its sha256, for data.json.

        Raises:
            UserError: as `check`; or another run is at work in the folder.
        """
        self.check(config)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._acquire()
            self.check(config)  # again: what was there may have changed until the lock was had
            if config.overwrite:
                self.clear()
            write_text(self.config, yaml.safe_dump(config.to_dict(), sort_keys=False))
            write_json(self.data, {"written_by": WRITER, "sha256": hashes or {}})
        except (OSError, UserError) as error:
            self.release()
            what = error if isinstance(error, UserError) else f"output_dir: {self.path} cannot be written ({error})"
            raise UserError(what) from None

    def _acquire(self) -> None:
        lock = FileLock(self.path / LOCK, blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"output_dir: another run is at work in {self.path}") from None
        except NotImplementedError:
            warnings.warn(f"the file system of {self.path} has no locks: take care of one run at a time", stacklevel=3)
            return
        self._lock = lock

    def release(self) -> None:
        """Lets other runs use the folder."""
        if self._lock is not None:
            (self.path / LOCK).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    def _check_same(self, config: Config) -> None:
        stored = self.read_config()
        changed = changes(stored, config)
        if not self.finished and config.epochs is not None and (stored.get("epochs") or 0) < config.epochs:
            changed = {key: values for key, values in changed.items() if key not in ("epochs", "steps")}
        if changed:
            listing = ", ".join(f"{key} was {was!r} and is now {now!r}" for key, (was, now) in changed.items())
            remedy = "; it is finished, and its checkpoints are gone" if self.finished else ""
            raise UserError(f"resume: the run in {self.path} has other settings: {listing}{remedy}")

    def check_data(self, hashes: dict[str, str]) -> None:
        """Raises UserError where the run learned from other data; `hashes` are those of now, see `prepare`."""
        changed = self.changed_data(hashes)
        if changed:
            raise UserError(
                f"resume: what the run in {self.path} learned from has changed since: {', '.join(changed)}; "
                "add --overwrite to start anew"
            )

    def changed_data(self, hashes: dict[str, str]) -> list[str]:
        """What the run learned from and is no longer the same, in words; `hashes` are those of now, see `prepare`."""
        stored = read_json(self.data)["sha256"]
        return [
            f"{what} (sha256 {now[:12]}, then {stored[what][:12]})"
            for what, now in hashes.items()
            if stored.get(what) not in (None, now)
        ]

    def check_space(self, needed: int) -> None:
        """Raises UserError where the disk has less than `needed` bytes left."""
        free = shutil.disk_usage(self._existing).free
        if free < needed:
            raise UserError(
                f"output_dir: the disk of {self.path} has {free / 2**20:.0f} MiB left, this run may need {needed / 2**20:.0f} MiB"
            )

    def clear(self) -> None:
        """Removes what a run leaves, and nothing else, not from its folders either."""
        drawn = PICTURES
        with contextlib.suppress(UserError):
            drawn += tuple(name for name in self.read_results().get("pictures", ()) if Path(name).name == name)
        for name in (
            self.results,
            self.outcomes,
            self.metrics,
            self.normalizer,
            self.data,
            self.report,
            *(
                (self.path / picture).with_suffix(form)
                for picture in drawn
                for form in FORMS
                if picture.endswith(".png")
            ),
            *(self.path / picture for picture in drawn),
            *(self.model / file for file in (WEIGHTS_FILE, DESCRIPTION_FILE)),
            self.config,
        ):
            name.unlink(missing_ok=True)
        for part in (*self.path.glob("fold-*"), self.path / "final"):
            if RunFolder(part).holds_run:
                RunFolder(part).clear()
                with contextlib.suppress(OSError):
                    part.rmdir()
        Checkpoints.clear_stages(self.checkpoints)
        shutil.rmtree(self.path / "trackers" / WRITER, ignore_errors=True)
        for folder in (self.model, self.path / "trackers"):
            with contextlib.suppress(OSError):  # absent, or somebody else's files are in it
                folder.rmdir()

    def read_config(self) -> dict[str, Any]:
        """The stored settings, as a plain dictionary."""
        return read_yaml(self.config)

    def read_results(self) -> dict[str, Any]:
        """What a finished run found.

        Raises:
            UserError: the run is not finished, or there is none; or the file is damaged.
        """
        if not self.finished:
            raise UserError(f"{self.results}: no results; the run is not finished or {self.path} holds none")
        results = read_json(self.results)
        return {"title": results.get("task")} | results  # which runs of earlier versions lack

    def read_metrics(self) -> list[dict[str, Any]]:
        """The records of all epochs."""
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]

    def write_metrics(self, records: list[dict[str, Any]]) -> None:
        """Writes the records of all epochs so far."""
        write_text(self.metrics, "".join(_line(record) for record in records))

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Adds the record of an epoch."""
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(_line(record))

    def write_results(self, results: dict[str, Any]) -> None:
        """Writes results.json, which marks the run as finished."""
        write_json(self.results, results)


def _line(record: dict[str, Any]) -> str:
    return json.dumps(finite(record), allow_nan=False) + "\n"


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    from pare_kernels import __version__

    found = {"python": platform.python_version(), "pare_kernels": __version__}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
