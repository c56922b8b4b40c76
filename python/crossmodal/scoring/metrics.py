"""Metrics, by name.

A metric says of each sample a few numbers (`of_samples`) and makes one figure of those of a whole split (`figure`). So a split
is gone through in batches and divided among processes, and the figure is the same; parts of a split (groups, bootstrap samples)
are scored by choosing among its samples' numbers. Averages of per-batch values would be wrong for most of them.

Every metric has four more forms where samples belong to groups (recordings, clips, patients): `NAME_per_group` is the mean over
the groups of the figure of each, `NAME_of_groups` scores the mean prediction of each group, `NAME_of_group_logits` for classes and
labels that of its mean logits, `NAME_of_group_votes` for classes the one that most of its samples are taken for.
`NAME_per_1024` is the mean over the figures of 1024 samples at a time, as public code has it that averages over batches: it
hangs on their order, and the last few weigh as much as the others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from crossmodal.errors import UserError
from crossmodal.kinds import LABEL_KINDS
from crossmodal.naming import Registry
from crossmodal.scoring import fields, labels, values
from crossmodal.scoring.metric import Metric, Numbers, mean_of

_CLASSES, _LABELS, _VALUES = (
    ("classification",),
    ("classification", "multilabel", "mask"),
    ("regression", "dense", "mask"),
)

METRICS: Registry[Metric] = Registry(
    "metric",
    {
        "accuracy": Metric(
            labels.counts,
            labels.accuracy,
            True,
            _CLASSES,
            "share of samples in the right class",
            interval_by="wilson",
            decides=True,
        ),
        "balanced_accuracy": Metric(
            labels.counts,
            labels.balanced_accuracy,
            True,
            _CLASSES,
            "accuracy with every class weighing the same",
            decides=True,
        ),
        "macro_f1": Metric(
            labels.counts,
            labels.macro_f1,
            True,
            _LABELS,
            "F1 (of masks: Dice), mean over classes, labels or channels",
            decides=True,
        ),
        "challenge2017_f1": Metric(
            labels.counts,
            labels.challenge2017_f1,
            True,
            _CLASSES,
            "F1, mean over the first three classes: of PhysioNet's challenge of 2017, whose fourth is noise",
            decides=True,
        ),
        "auroc": Metric(
            labels.ranks,
            labels.per_column(labels.area),
            True,
            _LABELS,
            "area under the ROC curve, mean over labels or channels",
        ),
        "mean_average_precision": Metric(
            labels.ranks,
            labels.per_column(labels.precision),
            True,
            _LABELS,
            "average precision, mean over labels or channels",
        ),
        "average_precision": Metric(
            labels.positive_ranks,
            labels.per_column(labels.precision),
            True,
            LABEL_KINDS,
            "average precision, of two classes that of the second, else the mean over classes or labels",
        ),
        "quadratic_kappa": Metric(
            labels.orders,
            labels.quadratic_kappa,
            True,
            _CLASSES,
            "Cohen's kappa with quadratic weights, for classes that have an order: theirs",
            decides=True,
            bounds=(-1.0, 1.0),
        ),
        "brier": Metric(
            labels.squares,
            labels.brier,
            False,
            LABEL_KINDS,
            "squared error of the probabilities, summed over classes (of two: of one), mean over labels",
        ),
        "calibration_error": Metric(  # which is larger in a resample than in the sample
            labels.confidences,
            labels.calibration_error,
            False,
            LABEL_KINDS,
            f"gap between probability and frequency of being right, over {labels.BINS} bins of equally many samples",
            interval_by=None,
        ),
        "false_negative_rate": Metric(
            labels.counts,
            labels.false_negative_rate,
            False,
            ("multilabel", "mask"),
            "share of what is true that is not found, mean over labels or channels",
            decides=True,
        ),
        "thresholded_auroc": Metric(
            labels.counts_of_all,
            labels.thresholded_auroc,
            True,
            ("mask",),
            "area under the ROC curve of masks that are predicted, not of probabilities: the mean of the shares of true and other "
            "pixels that are found so, where those that do not count are others, rightly",
        ),
        "iou": Metric(labels.counts, labels.iou, True, ("mask",), "intersection over union, mean over channels"),
        "mse": Metric(values.errors, values.mse, False, _VALUES, "mean squared error"),
        "rmse": Metric(values.errors, values.rmse, False, _VALUES, "root of the mean squared error"),
        "mae": Metric(values.errors, values.mae, False, _VALUES, "mean absolute error"),
        "relative_l2": Metric(
            values.errors,
            values.relative_l2,
            False,
            _VALUES,
            "norm of the error over the norm of the target, mean over samples",
        ),
        "mae_8": Metric(
            values.near_residues,
            values.near_mean,
            False,
            ("dense",),
            "MAE of distances up to 8 angstrom of residues 24 or more apart along the chain, mean over proteins",
        ),
        "r2": Metric(
            values.pairs,
            values.r2,
            True,
            _VALUES,
            "coefficient of determination, mean over the values of a sample",
            bounds=(-math.inf, 1.0),
        ),
    }
    | {
        name: Metric(
            of_samples,
            figure,
            False,
            ("dense",),
            description,
            of_fields=True,
            interval_by=None if figure is fields.largest else "bootstrap",
        )
        for name, of_samples, figure, description in (
            (
                "nrmse",
                fields.nrmse,
                fields.relative,
                "RMSE of a field over the root mean square of its target, mean over samples, channels and frames",
            ),
            ("field_rmse", fields.rmse, fields.mean, "RMSE of a field, mean over samples, channels and frames"),
            ("max_error", fields.max, fields.largest, "largest absolute error"),
            (
                "boundary_rmse",
                fields.boundary,
                fields.mean,
                "RMSE over the outermost cells of a field, mean like field_rmse",
            ),
            (
                "conserved_error",
                fields.conserved,
                fields.mean,
                "absolute error of the mean of a field, mean like field_rmse",
            ),
            (
                "fourier_low",
                fields.band(0, fields.LOW),
                fields.mean,
                f"part of field_rmse in wave numbers up to {fields.LOW}",
            ),
            (
                "fourier_mid",
                fields.band(fields.LOW + 1, fields.MIDDLE),
                fields.mean,
                f"part of field_rmse in wave numbers {fields.LOW + 1} to {fields.MIDDLE}",
            ),
            (
                "fourier_high",
                fields.band(fields.MIDDLE + 1, math.inf),
                fields.mean,
                f"part of field_rmse in wave numbers above {fields.MIDDLE}",
            ),
        )
    },
)

PER_GROUP, OF_GROUPS = "_per_group", "_of_groups"
OF_GROUP_LOGITS, OF_GROUP_VOTES = "_of_group_logits", "_of_group_votes"
PER_CHUNK = re.compile(r"_per_([1-9]\d*)$")
CUT = re.compile(r"(?<=^mae_8)_cut_([1-9]\d*)$")


def get(name: str) -> Metric:
    """The metric of that name, in one of its forms.

    Raises:
        UserError: there is none; the nearest name is given.
    """
    for suffix, form in FORMS.items():
        if name.endswith(suffix):
            return form(get(name.removesuffix(suffix)))
    if chunk := PER_CHUNK.search(name):
        return _per_chunk(get(name[: chunk.start()]), int(chunk[1]))
    if length := CUT.search(name):
        return replace(
            METRICS["mae_8"],
            of_samples=values.near_residues_released,
            figure=partial(values.near_mean, length=int(length[1])),
            description=f"the same of the first {length[1]} residues, with 3/4 of the lower triangle and 1/4 of the upper",
        )
    return METRICS.find(name)


def plain_name(name: str) -> str:
    """The metric without the ending that asks for one of its forms."""
    for suffix in FORMS:
        name = name.removesuffix(suffix)
    return CUT.sub("", PER_CHUNK.sub("", name))


def _per_group(metric: Metric) -> Metric:
    def figure(numbers: Numbers) -> float:
        group = numbers["group"]
        parts = [{name: values[group == one] for name, values in numbers.items()} for one in np.unique(group)]
        figures = np.array([metric.figure(part) for part in parts])
        return mean_of(figures[~np.isnan(figures)])

    return replace(
        metric,
        figure=figure,
        description=f"{metric.description}; mean over groups",
        grouped=True,
        of_fields=False,
        interval_by="bootstrap",
    )


def _per_chunk(metric: Metric, size: int) -> Metric:
    def figure(numbers: Numbers) -> float:
        total = len(next(iter(numbers.values())))
        parts = [slice(start, start + size) for start in range(0, total, size)]
        return float(
            np.mean([metric.figure({name: values[part] for name, values in numbers.items()}) for part in parts])
        )

    return replace(
        metric,
        figure=figure,
        description=f"{metric.description}; mean over {size} samples at a time",
        interval_by="bootstrap",
    )


def _of_groups(metric: Metric) -> Metric:
    """Classes and labels by mean probability, values by mean; the samples of a group have one target."""
    is_value = not {"regression", "dense"}.isdisjoint(metric.kinds)

    def of_samples(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        return {"outputs": outputs if is_value else labels.columns(outputs, targets)[1], "targets": targets}

    def logits(mean: Tensor, targets: Tensor) -> Tensor:
        if is_value or targets.ndim > 2:  # those of masks are probabilities
            return mean
        return mean.log() if targets.ndim == 1 else mean.logit()

    return _scored_by_group(metric, of_samples, logits, "of the mean of each group")


def _of_group_logits(metric: Metric) -> Metric:
    """Classes and labels by mean logit; the samples of a group have one target."""

    def of_samples(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        return {"outputs": outputs.double(), "targets": targets}

    return _scored_by_group(metric, of_samples, lambda mean, targets: mean, "of the mean logits of each group")


def _of_group_votes(metric: Metric) -> Metric:
    """The class that most samples of a group are taken for (the first of several); the samples of a group have one target."""

    def of_samples(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        return {
            "outputs": torch.zeros_like(outputs, dtype=torch.float64).scatter_(1, outputs.argmax(1, True), 1.0),
            "targets": targets,
        }

    return replace(
        _scored_by_group(metric, of_samples, lambda mean, targets: mean, "of the vote of each group"),
        kinds=("classification",),
        decides=True,
    )


def _scored_by_group(
    metric: Metric, of_samples: Callable, logits: Callable[[Tensor, Tensor], Tensor], said: str
) -> Metric:
    """The metric of one prediction per group: the mean of its samples' outputs, as `logits` makes outputs of it."""

    def pool(numbers: Numbers) -> Numbers:
        _, first, member = np.unique(numbers["group"], return_index=True, return_inverse=True)
        targets = numbers["targets"][first]
        if not np.array_equal(numbers["targets"], targets[member]):
            raise UserError(
                "metric: *_of_groups scores one prediction per group, but samples of a group differ in their target"
            )
        order, sizes = np.argsort(member, kind="stable"), np.bincount(member)
        sums = np.add.reduceat(numbers["outputs"][order], np.cumsum(sizes) - sizes)
        mean = torch.from_numpy(sums / sizes.reshape(-1, *[1] * (sums.ndim - 1)))
        outputs = logits(mean, torch.from_numpy(targets))
        if "shift" in numbers:
            outputs = outputs - torch.from_numpy(numbers["shift"][first])
        return metric.numbers(outputs, torch.from_numpy(targets))

    return replace(
        metric,
        of_samples=of_samples,
        figure=lambda numbers: metric.figure(pool(numbers)),
        description=f"{metric.description}; {said}",
        grouped=True,
        pooled=(metric, pool),
        of_fields=False,
        decides=False,
    )


FORMS = {
    PER_GROUP: _per_group,
    OF_GROUPS: _of_groups,
    OF_GROUP_LOGITS: _of_group_logits,
    OF_GROUP_VOTES: _of_group_votes,
}
