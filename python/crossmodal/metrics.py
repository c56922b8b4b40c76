"""Metrics, by name. Each sees a whole split at once; averages of per-batch values are wrong for most of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn import metrics as sk
from torch import Tensor

from crossmodal.naming import unknown

__all__ = ["METRICS", "Metric", "get"]

# Below this part of the typical norm a target is zero: bringing it back to its own units leaves rounding errors.
ZERO_NORM = 1e-6


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        compute: (outputs, targets) of a whole split to a number. Outputs are logits for classes and labels, values in
            the data's own units otherwise, which for masks are probabilities (see `Normalizer.decode`).
        higher_is_better: direction.
        kinds: kinds of target it is made for; "mask" are dense targets from 0 to 1 with the loss bce_with_logits.
        description: one line.
    """

    compute: Callable[[Tensor, Tensor], float]
    higher_is_better: bool
    kinds: tuple[str, ...]
    description: str

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        if len(outputs) != len(targets):
            raise ValueError(f"outputs and targets must hold the same samples, got {len(outputs)} and {len(targets)}")
        if len(targets) == 0:
            raise ValueError("a metric needs at least one sample, got an empty split")
        return float(self.compute(outputs.detach().cpu(), targets.detach().cpu()))

    def better(self, one: float, other: float) -> bool:
        """Whether `one` beats `other`."""
        return one > other if self.higher_is_better else one < other

    def as_error(self, value: float) -> tuple[str, float]:
        """Label and number for a table in which lower is better: scores, whose best is 1, become `error %`."""
        return ("error %", 100.0 * (1.0 - value)) if self.higher_is_better else ("error", value)


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Share of samples whose largest logit is the right class; outputs (n, K), targets int64 (n,)."""
    return (outputs.argmax(1) == targets).double().mean().item()


def balanced_accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Mean over the classes among the targets of the share found of each; outputs (n, K), targets int64 (n,)."""
    return sk.recall_score(targets.numpy(), outputs.argmax(1).numpy(), labels=np.unique(targets), average="macro")


def macro_f1(outputs: Tensor, targets: Tensor) -> float:
    """F1 (of masks: Dice), mean over the classes, labels or channels that occur in the targets or the predictions; classes by
    largest logit, labels and pixels by probability above 1/2. NaN where none occurs."""
    truth, probability = _per_column(outputs, targets)
    found = probability > 0.5
    if targets.ndim == 1:
        found = np.arange(outputs.shape[1]) == outputs.argmax(1).numpy()[:, None]
    # By hand: scikit-learn takes one column for two classes, the label and its absence.
    total = truth.sum(0) + found.sum(0)
    scores = 2 * (truth & found).sum(0)[total > 0] / total[total > 0]
    return float(scores.mean()) if len(scores) else float("nan")


def iou(outputs: Tensor, targets: Tensor) -> float:
    """Intersection over union of the pixels above 1/2 of a whole split, mean over channels; NaN where there are none at all."""
    truth, probability = _per_column(outputs, targets)
    found = probability > 0.5
    union = (truth | found).sum(0)
    shares = (truth & found).sum(0)[union > 0] / union[union > 0]
    return float(shares.mean()) if len(shares) else float("nan")


def auroc(outputs: Tensor, targets: Tensor) -> float:
    """Area under the ROC curve, mean over the labels (classes, one against the rest; channels of masks, over all pixels) that
    occur and also do not."""
    return _per_label(sk.roc_auc_score, outputs, targets)


def mean_average_precision(outputs: Tensor, targets: Tensor) -> float:
    """Average precision, mean over the same as `auroc`."""
    return _per_label(sk.average_precision_score, outputs, targets)


def _per_label(score: Callable, outputs: Tensor, targets: Tensor) -> float:
    truth, values = _per_column(outputs, targets)
    scored = [i for i in range(truth.shape[1]) if 0 < truth[:, i].sum() < len(truth)]
    return float(np.mean([score(truth[:, i], values[:, i]) for i in scored])) if scored else float("nan")


def _per_column(outputs: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(truth, probability), each (rows, columns): samples by classes or labels, pixels of all samples by channels."""
    if targets.ndim == 1:
        truth = torch.nn.functional.one_hot(targets, outputs.shape[1]) > 0
        return truth.numpy(), outputs.double().softmax(1).numpy()
    if targets.ndim == 2:
        return (targets > 0.5).numpy(), outputs.double().sigmoid().numpy()
    truth, probability = (values.movedim(1, -1).flatten(0, -2) for values in (targets > 0.5, outputs))
    return truth.numpy(), probability.numpy()


def mse(outputs: Tensor, targets: Tensor) -> float:
    """Mean over all values of (output - target)^2."""
    return (outputs.double() - targets.double()).square().mean().item()


def rmse(outputs: Tensor, targets: Tensor) -> float:
    """Square root of the mean over all values of (output - target)^2."""
    return mse(outputs, targets) ** 0.5


def mae(outputs: Tensor, targets: Tensor) -> float:
    """Mean over all values of |output - target|."""
    return (outputs.double() - targets.double()).abs().mean().item()


def relative_l2(outputs: Tensor, targets: Tensor) -> float:
    """Mean over samples of |output - target| / |target|; for dense targets also known as nRMSE.

    A target of zeros (an empty mask) has no norm of its own: its error is taken relative to the root mean square of the
    norms of all targets. NaN where every target is zero.
    """
    difference = (outputs.double() - targets.double()).flatten(1).norm(dim=1)
    norm = targets.double().flatten(1).norm(dim=1)
    typical = norm.square().mean().sqrt()
    if typical == 0:
        return float("nan")
    return (difference / torch.where(norm > ZERO_NORM * typical, norm, typical)).mean().item()


def r2(outputs: Tensor, targets: Tensor) -> float:
    """Coefficient of determination, mean over the values of a sample; NaN for fewer than two samples."""
    if len(targets) < 2:
        return float("nan")
    return sk.r2_score(targets.flatten(1).numpy(), outputs.flatten(1).numpy())


_CLASSES, _LABELS, _VALUES = (
    ("classification",),
    ("classification", "multilabel", "mask"),
    ("regression", "dense", "mask"),
)

METRICS: dict[str, Metric] = {
    "accuracy": Metric(accuracy, True, _CLASSES, "share of samples in the right class"),
    "balanced_accuracy": Metric(balanced_accuracy, True, _CLASSES, "accuracy with every class weighing the same"),
    "macro_f1": Metric(macro_f1, True, _LABELS, "F1 (of masks: Dice), mean over classes, labels or channels"),
    "auroc": Metric(auroc, True, _LABELS, "area under the ROC curve, mean over labels or channels"),
    "mean_average_precision": Metric(
        mean_average_precision, True, _LABELS, "average precision, mean over labels or channels"
    ),
    "iou": Metric(iou, True, ("mask",), "intersection over union, mean over channels"),
    "mse": Metric(mse, False, _VALUES, "mean squared error"),
    "rmse": Metric(rmse, False, _VALUES, "root of the mean squared error"),
    "mae": Metric(mae, False, _VALUES, "mean absolute error"),
    "relative_l2": Metric(
        relative_l2, False, _VALUES, "norm of the error over the norm of the target, mean over samples"
    ),
    "r2": Metric(r2, True, _VALUES, "coefficient of determination"),
}


def get(name: str) -> Metric:
    """The metric of that name.

    Raises:
        ValueError: there is none; the nearest name is given.
    """
    if name not in METRICS:
        raise ValueError(unknown("metric", name, METRICS))
    return METRICS[name]
