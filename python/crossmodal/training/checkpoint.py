"""Checkpoints of a running training: whole or not there, checked when read, the newest few kept.

    checkpoints/train/step-00000120/        one folder per stage of a run
        model.safetensors      weights now
        best.safetensors       weights of the best epoch so far (absent before the first epoch ends)
        state.pt               optimizer, learning rate, position, history (read with weights_only)
        random-0.pt ...        random number generators of each process
        manifest.json          size and sha256 of every file above; written last

The folder is written under another name and renamed, so a reader meets complete checkpoints only.
"""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from crossmodal.errors import UserError
from crossmodal.files import digest, flush, read_json, write_json, writing

_NAME = re.compile(r"step-(\d{8,})")
_LEFTOVER = re.compile(r"\.(writing|removing)-step-\d{8,}")


class CheckpointError(UserError):
    """A checkpoint that is damaged."""


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: where they lie, e.g. `runs/x/checkpoints/train`.
        keep: how many stay.
        rank: this process; process 0 writes all but the generators of the others.
        barrier: waits for all processes.
    """

    def __init__(self, folder: Path, keep: int = 2, rank: int = 0, barrier: Callable[[], None] = lambda: None) -> None:
        self.folder, self.keep, self.rank, self.barrier = Path(folder), keep, rank, barrier

    def list(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        found = [
            path for path in self.folder.iterdir() if _NAME.fullmatch(path.name) and (path / "manifest.json").is_file()
        ]
        return sorted(found, key=lambda path: int(_NAME.fullmatch(path.name)[1]))

    def save(
        self, step: int, model: dict[str, Tensor] | None, state: dict[str, Any] | None, best: dict[str, Tensor] | None
    ) -> Path:
        """Writes a checkpoint; all processes call it, process 0 brings the content.

        Raises:
            OSError: it cannot be written (folder, disk); the earlier checkpoints are untouched.
        """
        final = self.folder / f"step-{step:08d}"
        aside = self.folder / f".writing-{final.name}"
        if final in self.list():  # Resumed and at once interrupted again: it holds the same state.
            return final
        if self.rank == 0:
            self._remove(_LEFTOVER)
            aside.mkdir(parents=True)
        self.barrier()
        try:
            with writing(aside):
                torch.save(random_state(), aside / f"random-{self.rank}.pt")
                self.barrier()
                if self.rank == 0:
                    self._write(aside, final, model, state, best)
        except BaseException:
            if self.rank == 0:
                shutil.rmtree(aside, ignore_errors=True)
            raise
        self.barrier()
        return final

    def _write(self, aside: Path, final: Path, model, state, best) -> None:
        save_file(model, aside / "model.safetensors")
        if best is not None:
            save_file(best, aside / "best.safetensors")
        torch.save(state, aside / "state.pt")
        manifest = {}
        for file in sorted(aside.iterdir()):
            flush(file)
            manifest[file.name] = {"bytes": file.stat().st_size, "sha256": digest(file)}
        write_json(aside / "manifest.json", manifest)
        aside.rename(final)
        flush(self.folder)
        for old in self.list()[: -self.keep]:
            shutil.rmtree(old.rename(self.folder / f".removing-{old.name}"))

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor] | None, Path] | None:
        """(model, state, best, path) of the newest checkpoint that is whole, and this process's generators restored.

        A damaged one is passed over with a warning. None where there is no checkpoint at all.

        Raises:
            CheckpointError: there are checkpoints, but none is whole; names each damaged file.
        """
        damage = []
        for path in reversed(self.list()):
            try:
                check(path)
                content = self._read(path)
            except CheckpointError as error:
                damage.append(str(error))
                warnings.warn(f"{error}; trying the checkpoint before it", stacklevel=2)
                continue
            return *content, path
        if damage:
            raise CheckpointError("no checkpoint can be read: " + "; ".join(damage))
        return None

    def _read(self, path: Path):
        try:
            model = load_file(path / "model.safetensors")
            best = load_file(path / "best.safetensors") if (path / "best.safetensors").exists() else None
            state = torch.load(path / "state.pt", weights_only=True)
            generators = path / f"random-{self.rank}.pt"
            if generators.exists():  # Absent where the run now has more processes than it had.
                set_random_state(torch.load(generators, weights_only=True))
        except Exception as error:  # A damaged pickle can make the reader raise anything.
            raise CheckpointError(f"{path}: cannot be read ({error})") from None
        return model, state, best

    def clear(self) -> None:
        """Removes all of them, and what an interrupted write left; the folder too, unless it holds anything else."""
        self._remove(_NAME)
        self._remove(_LEFTOVER)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    @classmethod
    def clear_stages(cls, folder: Path) -> None:
        """Removes the checkpoints of every stage below a folder, as `clear` does, and the folder."""
        for stage in [path for path in folder.glob("*") if path.is_dir()]:
            cls(stage).clear()
        with contextlib.suppress(OSError):
            folder.rmdir()

    def _remove(self, names: re.Pattern) -> None:
        for path in self.folder.glob("*"):
            if names.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)


def check(path: Path) -> None:
    """Compares the files of a checkpoint with its manifest.

    Raises:
        CheckpointError: names the file that is missing, truncated or changed.
    """
    try:
        manifest = read_json(path / "manifest.json")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: its manifest cannot be read ({error})") from None
    for name, expected in manifest.items():
        file = path / name
        found = file.stat().st_size if file.is_file() else None
        if found != expected["bytes"] or digest(file) != expected["sha256"]:
            what = "missing" if found is None else f"{found} bytes" if found != expected["bytes"] else "other content"
            raise CheckpointError(f"{file}: {what} where {expected['bytes']} bytes were written")


def random_state() -> dict[str, Any]:
    """State of every random number generator of this process, as tensors and plain numbers."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 - libraries draw from it
    version, words, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "python": [version, list(words), gauss_next],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, words, gauss_next = state["python"]
    random.setstate((version, tuple(words), gauss_next))
