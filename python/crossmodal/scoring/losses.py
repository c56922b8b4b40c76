"""Training losses, by name. Each gives one number per sample, so that a batch can be split, gathered and weighed exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from crossmodal.data.dataset import Batch
from crossmodal.data.normalizer import Normalizer
from crossmodal.errors import UserError
from crossmodal.naming import unknown


@dataclass(frozen=True)
class Loss:
    """A loss.

    Attributes:
        per_sample: (output, target, mask), batch first, to losses of shape (B,), float32; mask: of the shape of dense targets,
            False where a value must not count, or None.
        kinds: kinds of target it is made for.
        physical: whether it is computed on values in the data's own units instead of normalised ones.
        description: one line.
    """

    per_sample: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    kinds: tuple[str, ...]
    physical: bool
    description: str


def cross_entropy(output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """-log softmax(output)[target]; output (B, K) logits, target int64 (B,)."""
    return F.cross_entropy(output.float(), target, reduction="none")


def bce_with_logits(output: Tensor, target: Tensor, mask: Tensor | None = None, positive: float = 1.0) -> Tensor:
    """Binary cross entropy, mean over a sample's labels or pixels; output logits and target in [0, 1], both (B, ...).

    positive: weight of the part that pulls a logit up, where the target is above 0.
    """
    weight = None if positive == 1 else torch.tensor(positive, device=output.device)
    return _mean(
        F.binary_cross_entropy_with_logits(output.float(), target.float(), reduction="none", pos_weight=weight), mask
    )


def mse(output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over a sample's values of (output - target)^2; both (B, ...)."""
    return _mean((_real(output) - _real(target)).square(), mask).float()


def relative_l2(output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """|output - target| / |target|, Euclidean norms over a sample's values; both (B, ...).

    Nothing can be learned relative to a target of zeros: :func:`crossmodal.tasks.load` refuses such data.
    """
    difference, target = _real(output) - _real(target), _real(target)
    if mask is not None:
        difference, target = difference * mask, target * mask
    return (difference.flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)).float()


def rmse(output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """|output - target| / sqrt(number of values), Euclidean norm over a sample's values; both (B, ...)."""
    difference = _real(output) - _real(target)
    if mask is not None:
        difference = difference * mask
    count = difference[0].numel() if mask is None else mask.flatten(1).sum(1).clamp_min(1)
    return (difference.flatten(1).norm(dim=1) / count**0.5).float()


def nrmse(output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """`relative_l2` of each channel, mean over the channels; both (B, C, ...)."""
    flat = (None if values is None else values.flatten(0, 1) for values in (output, target, mask))
    return relative_l2(*flat).view(output.shape[:2]).mean(1)


def _real(values: Tensor) -> Tensor:
    """At least float32; float64 stays, in which values far from zero still differ."""
    return values if values.dtype == torch.float64 else values.float()


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean (B,) over the values (B, ...) of each sample, or over those that the mask lets count (0 where none does)."""
    if mask is None:
        return values.flatten(1).mean(1)
    return (values * mask).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp_min(1)


LOSSES: dict[str, Loss] = {
    "cross_entropy": Loss(cross_entropy, ("classification",), False, "softmax cross entropy"),
    "bce_with_logits": Loss(bce_with_logits, ("multilabel", "dense"), False, "binary cross entropy on logits"),
    **{
        f"bce_with_logits_{weight}": Loss(
            partial(bce_with_logits, positive=float(weight)),
            ("multilabel",),
            False,
            f"the same, in which a label that is there weighs {weight} times",
        )
        for weight in (4, 10)
    },
    "mse": Loss(mse, ("regression", "dense"), False, "mean squared error of normalised values"),
    "rmse": Loss(
        rmse, ("regression", "dense"), False, "root of the mean squared error of a sample's normalised values"
    ),
    "relative_l2": Loss(relative_l2, ("regression", "dense"), True, "norm of the error over the norm of the target"),
    "nrmse": Loss(nrmse, ("dense",), True, "relative_l2 of each channel, mean over the channels"),
}


def get(name: str) -> Loss:
    """The loss of that name.

    Raises:
        UserError: there is none; the nearest name is given.
    """
    if name not in LOSSES:
        raise UserError(unknown("loss", name, LOSSES))
    return LOSSES[name]


def of_batch(loss: Loss, outputs: Tensor, batch: Batch, normalizer: Normalizer) -> Tensor:
    """A loss per sample (B,) of a model's outputs, where it is computed: normalised, or in the data's own units."""
    target = batch.y
    if loss.physical:
        outputs, target = normalizer.decode(outputs.float()), normalizer.inverse_y(target)
    return loss.per_sample(outputs, target, batch.extras.get("mask"))
