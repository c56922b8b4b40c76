"""Training losses, by name. Each gives one number per sample, so that a batch can be split, gathered and weighed exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from crossmodal.data.dataset import Batch
from crossmodal.data.normalizer import Normalizer
from crossmodal.errors import UserError
from crossmodal.kinds import LABEL_KINDS
from crossmodal.naming import Registry


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


def focal(output: Tensor, target: Tensor, mask: Tensor | None = None, power: float = 3.0) -> Tensor:
    """-(1 - p)^power log p of the probability p = softmax(output)[target], which makes little of what is right already (Lin et al.,
    ICCV 2017); output (B, K) logits, target int64 (B,)."""
    entropy = cross_entropy(output, target)
    return (1 - (-entropy).exp()) ** power * entropy


def log_cosh(output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over a sample's values of log cosh(output - target), squared near 0 and absolute beyond 1; both (B, ...)."""
    difference = (_real(output) - _real(target)).abs()
    return _mean(difference + F.softplus(-2 * difference) - math.log(2), mask).float()


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


LOSSES: Registry[Loss] = Registry(
    "loss",
    {
        "cross_entropy": Loss(cross_entropy, ("classification",), False, "softmax cross entropy"),
        "focal": Loss(focal, ("classification",), False, "cross entropy times (1 - probability)^3"),
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
        "log_cosh": Loss(log_cosh, ("regression", "dense"), False, "log cosh of the error of normalised values"),
        "rmse": Loss(
            rmse, ("regression", "dense"), False, "root of the mean squared error of a sample's normalised values"
        ),
        "relative_l2": Loss(
            relative_l2, ("regression", "dense"), True, "norm of the error over the norm of the target"
        ),
        "nrmse": Loss(nrmse, ("dense",), True, "relative_l2 of each channel, mean over the channels"),
    },
)
get = LOSSES.find


def class_weights(asked: str, kind: str, loss: str, y: Tensor, count: int) -> tuple[float, ...]:
    """Weight of each class, or of the part of a label's loss where it is there.

    Args:
        asked: "balanced", or a positive number for each class or label, separated by commas.
        kind: of the target.
        loss: its name.
        y: training targets, int64 (n,) or zeros and ones (n, K).
        count: K.

    Returns:
        Of classes scaled so that the mean over the training samples is 1: balanced n / (K n_k), as in scikit-learn. Of labels
        as given: balanced (n - n_k) / n_k. 1 for a class or label that does not occur.

    Raises:
        UserError: not for this target, or not as many positive numbers.
    """
    if loss not in ("cross_entropy", "bce_with_logits") or kind not in LABEL_KINDS:
        raise UserError(
            f"class_weights: they are for the losses cross_entropy and bce_with_logits of classes and labels, the target is {kind} "
            f"with the loss {loss}"
        )
    found = torch.bincount(y, minlength=count) if kind == "classification" else y.sum(0)
    found = found.double()
    if asked == "balanced":
        wanted = len(y) / (count * found) if kind == "classification" else (len(y) - found) / found
        wanted = torch.where((found > 0) & (wanted > 0), wanted, 1.0)
    else:
        try:
            wanted = torch.tensor([float(word) for word in asked.split(",")], dtype=torch.float64)
        except ValueError:
            wanted = torch.zeros(0)
        if len(wanted) != count or not (wanted > 0).all() or not wanted.isfinite().all():
            raise UserError(
                f"class_weights: expected balanced or {count} positive numbers separated by commas, got {asked!r}"
            )
    if kind == "classification":
        wanted = wanted * len(y) / (wanted * found).sum()
    return tuple(wanted.tolist())


def of_batch(
    loss: Loss, outputs: Tensor, batch: Batch, normalizer: Normalizer, weights: tuple[float, ...] = ()
) -> Tensor:
    """A loss per sample (B,) of a model's outputs, where it is computed: normalised, or in the data's own units; with weights of
    classes or labels, see `class_weights`."""
    if weights:
        weight = torch.tensor(weights, device=outputs.device)
        if batch.y.ndim == 1:
            return loss.per_sample(outputs, batch.y, None) * weight[batch.y]
        return F.binary_cross_entropy_with_logits(
            outputs.float(), batch.y.float(), reduction="none", pos_weight=weight
        ).mean(1)
    target = batch.y
    if loss.physical:
        outputs, target = normalizer.decode(outputs.float()), normalizer.inverse_y(target)
    return loss.per_sample(outputs, target, batch.extras.get("mask"))
