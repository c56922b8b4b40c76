"""Which epoch's weights a run keeps, by its validation split."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from crossmodal.metrics import Metric


class EpochSelection:
    """Is told of one epoch after the other and says whether its weights are the ones to keep so far.

    Args:
        rule: `metric`, `loss`, `within_error` or `last`; see `Config.select`.
        metric: the validation metric.

    Attributes:
        best: `epoch`, `metric` and `loss` of the epoch that is kept; None before the first.
        reference: scores of the best epoch, for `within_error`, which may keep a later one; None before the first.
    """

    def __init__(self, rule: str, metric: Metric) -> None:
        self.rule, self.metric = rule, metric
        self.best: dict[str, Any] | None = None
        self.reference: list[float] | None = None

    def consider(self, epoch: int, metric: float, loss: float, scores: Tensor) -> bool:
        """Whether to keep this epoch. NaN is worst; the later epoch wins a full tie.

        Args:
            epoch: its number, from 1.
            metric, loss: of the validation split.
            scores: float64 (n,), what each validation sample says for the model, higher is better.
        """
        kept = self._is_best(metric, loss, scores)
        if kept:
            self.best = {"epoch": epoch, "metric": metric, "loss": loss}
        return kept

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of the choice so far: plain numbers."""
        return {"best": self.best, "reference": self.reference}

    def load_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.best, self.reference = state["best"], state["reference"]

    def _is_best(self, metric: float, loss: float, scores: Tensor) -> bool:
        if self.rule == "within_error":
            return self._within_error(scores)
        if self.best is None or self.rule == "last":
            return True
        if self.rule == "metric":
            worst = -math.inf if self.metric.higher_is_better else math.inf
            now, before = _or_worst(metric, worst), _or_worst(self.best["metric"], worst)
            if now != before:
                return self.metric.better(now, before)
        return _or_worst(loss, math.inf) <= _or_worst(self.best["loss"], math.inf)

    def _within_error(self, scores: Tensor) -> bool:
        """Whether this epoch is the best, or so near it that the validation samples cannot tell them apart.

        The one-standard-error rule (Breiman et al., 1984) on the differences sample by sample. It prefers the end of the
        walk, where the learning rate is low and no source patch is left, unless the samples object.
        """
        before = -math.inf if self.reference is None else sum(self.reference) / len(scores)
        if _or_worst(scores.mean().item(), -math.inf) >= _or_worst(before, -math.inf):
            self.reference = scores.tolist()
            return True
        behind = torch.tensor(self.reference, dtype=scores.dtype) - scores.cpu()
        error = behind.std() / len(behind) ** 0.5 if len(behind) > 1 else 0.0
        return bool(behind.mean() <= error * (1 + 1e-9))  # one sample alone is exactly one error behind


def _or_worst(value: float, worst: float) -> float:
    return worst if math.isnan(value) else value
