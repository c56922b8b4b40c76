"""Training losses, by name. Each gives one number per sample, so that a batch can be split, gathered and weighed exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from crossmodal.naming import unknown

__all__ = ["LOSSES", "Loss", "get"]


@dataclass(frozen=True)
class Loss:
    """A loss.

    Attributes:
        per_sample: (output, target), batch first, to losses of shape (B,), float32.
        kinds: kinds of target it is made for.
        physical: whether it is computed on values in the data's own units instead of normalised ones.
        description: one line.
    """

    per_sample: Callable[[Tensor, Tensor], Tensor]
    kinds: tuple[str, ...]
    physical: bool
    description: str


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """-log softmax(output)[target]; output (B, K) logits, target int64 (B,)."""
    return F.cross_entropy(output.float(), target, reduction="none")


def bce_with_logits(output: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy, mean over a sample's labels or pixels; output logits and target in [0, 1], both (B, ...)."""
    return F.binary_cross_entropy_with_logits(output.float(), target.float(), reduction="none").flatten(1).mean(1)


def mse(output: Tensor, target: Tensor) -> Tensor:
    """Mean over a sample's values of (output - target)^2; both (B, ...)."""
    return (output.float() - target.float()).square().flatten(1).mean(1)


def relative_l2(output: Tensor, target: Tensor) -> Tensor:
    """|output - target| / |target|, Euclidean norms over a sample's values; both (B, ...).

    Nothing can be learned relative to a target of zeros: :func:`crossmodal.tasks.load` refuses such data.
    """
    difference = (output.float() - target.float()).flatten(1).norm(dim=1)
    return difference / target.float().flatten(1).norm(dim=1)


LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(cross_entropy, ("classification",), False, "softmax cross entropy"),
    "bce_with_logits": Loss(bce_with_logits, ("multilabel", "dense"), False, "binary cross entropy on logits"),
    "mse": Loss(mse, ("regression", "dense"), False, "mean squared error of normalised values"),
    "relative_l2": Loss(relative_l2, ("regression", "dense"), True, "norm of the error over the norm of the target"),
}


def get(name: str) -> Loss:
    """The loss of that name.

    Raises:
        ValueError: there is none; the nearest name is given.
    """
    if name not in LOSSES:
        raise ValueError(unknown("loss", name, LOSSES))
    return LOSSES[name]
