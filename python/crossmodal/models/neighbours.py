"""Nearest neighbours among the samples that were learned from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from crossmodal.models.base import Model

LEAST = 1e-6  # share of the neighbours, so that logits are finite


class Neighbours(Model, name="neighbours"):
    """Logits, or normalised values, (B, K) of samples (B, *input_shape): what the nearest samples by Euclidean distance say.

    Logits are those of the shares of the neighbours that have a class or a label; values are their mean.

    Args:
        input_shape: (C, L) or (C, H, W).
        task_kind: "classification", "multilabel" or "regression".
        num_outputs: K.
        samples: n, of those learned from.
        k: neighbours.

    Attributes:
        x, y: what was learned from, (n, *input_shape), and (n, K): zeros and ones, or normalised values.
    """

    def __init__(self, input_shape: tuple[int, ...], task_kind: str, num_outputs: int, samples: int, k: int) -> None:
        super().__init__()
        self.input_shape, self.task_kind, self.k = tuple(input_shape), task_kind, k
        self.x = nn.Parameter(torch.zeros(samples, *input_shape), requires_grad=False)
        self.y = nn.Parameter(torch.zeros(samples, num_outputs), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.vote(self.nearest(x, self.k))

    def nearest(self, x: Tensor, k: int) -> Tensor:
        """The k nearest samples (B, k), the nearest first."""
        distances = torch.cdist(x.flatten(1), self.x.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
        return distances.topk(k, largest=False).indices

    def vote(self, neighbours: Tensor) -> Tensor:
        """Outputs of the neighbours (B, k)."""
        mean = self.y[neighbours].mean(1)
        if self.task_kind == "regression":
            return mean
        share = mean.clamp(LEAST, 1 - LEAST)
        return share.log() if self.task_kind == "classification" else share.logit()

    def spec(self) -> dict[str, Any]:
        return self.arguments | {"k": self.k}  # as it was chosen

    def facts(self) -> dict[str, Any]:
        return {"k": self.k}
