"""Sets of hyperparameters that were tried, each as a stage of training, and the best of them by validation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from crossmodal import seeds
from crossmodal.scoring import metrics
from crossmodal.training.run import Run
from crossmodal.training.selection import EpochSelection
from crossmodal.training.trainer import NonFiniteLoss


class Trials:
    """What was tried, in order.

    Attributes:
        tried: what was chosen in each, with what came of it on validation.
        best: the choice of the best so far, by the metric and in a tie by the loss; None before the first.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._selection = run, EpochSelection("metric", metrics.get(run.task.metric))
        self.tried: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None

    def attempt(self, choice: dict[str, Any], train: Callable[[], Any]) -> None:
        """Trains by a choice and takes note of what came of it; a training that diverges is worse than any other."""
        try:
            train()
            metric, loss = self._run.best["metric"], self._run.best["loss"]
        except NonFiniteLoss as error:
            self._run.accelerator.print(f"given up: {error}")
            metric = loss = math.nan
        self.add(choice, metric, loss)

    def add(self, choice: dict[str, Any], metric: float, loss: float) -> None:
        """Takes note of a choice and its figures on validation."""
        self.tried.append(choice | {"validation": metric, "validation_loss": loss})
        if self._selection.consider(len(self.tried), metric, loss, torch.empty(0)):
            self.best = choice

    @property
    def said(self) -> str:
        """The choice in words."""
        shown = ", ".join(f"{key} {_shown(value)}" for key, value in self.best.items())
        return f"chosen of {len(self.tried)}: {shown}"

    @property
    def facts(self) -> dict[str, Any]:
        """What results.json says of it."""
        return {"chosen": self.best, "trials": self.tried}


def seeded(config, *names: str | int) -> None:
    """Makes weights that are drawn next depend on the run's seed and these names alone."""
    torch.manual_seed(seeds.derive(config.seed, *names))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2g}"
    return "+".join(value) or "none" if isinstance(value, tuple) else str(value)
