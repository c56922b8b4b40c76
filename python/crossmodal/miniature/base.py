"""The registry of miniatures, and how one is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossmodal.data.download import marker
from crossmodal.errors import UserError
from crossmodal.files import adding
from crossmodal.naming import Registry

Maker = Callable[[Path, np.random.Generator], None]


@dataclass(frozen=True)
class Miniature:
    """What makes a small set, and of what, in words."""

    maker: Maker
    made_of: str


REGISTRY: Registry[Miniature] = Registry("task")


def register(task: str, made_of: str) -> Callable[[Maker], Maker]:
    """Decorator for a function that writes a small set in the public format of a task.

    It is called with a folder, below which it writes what the task reads, and a generator that all that is random comes from.

    Args:
        task: name of the task.
        made_of: one line.
    """

    def decorate(maker: Maker) -> Maker:
        REGISTRY.add(task, Miniature(maker, made_of))
        return maker

    return decorate


def make(task: str, folder: Path, seed: int = 0) -> None:
    """Writes the miniature of a task below a folder, whole or not at all; one seed gives the same bytes.

    Raises:
        UserError: there is none of that task; it, or a file is there already; or the package with the real data is not installed.
    """
    found = REGISTRY.find(task)
    if seed < 0:
        raise UserError(f"seed: expected a whole number >= 0, got {seed}")
    if marker(task, folder).exists():
        raise UserError(f"output: {folder} holds a miniature of {task} already; remove it, or choose another folder")
    with adding(folder) as aside:
        found.maker(aside, np.random.default_rng(seed))
        marker(task, aside).write_text(
            f"A miniature of the task {task} (seed {seed}): {REGISTRY[task].made_of}. No result on it stands for the real task.\n"
        )
