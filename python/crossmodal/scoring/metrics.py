"""Metrics, by name.

A metric says of each sample a few numbers (`of_samples`) and makes one figure of those of a whole split (`figure`). So a split
is gone through in batches and divided among processes, and the figure is the same; parts of a split (groups, bootstrap samples)
are scored by choosing among its samples' numbers. Averages of per-batch values would be wrong for most of them.

Every metric has three more forms where samples belong to groups (recordings, clips, patients): `NAME_per_group` is the mean over
the groups of the figure of each, `NAME_of_groups` scores the mean prediction of each group, `NAME_of_group_logits` for classes and
labels that of its mean logits. `NAME_per_1024` is the mean over the figures of 1024 samples at a time, as public code has it that
averages over batches: it hangs on their order, and the last few weigh as much as the others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from crossmodal.data.dataset import Batch
from crossmodal.errors import UserError
from crossmodal.naming import unknown

RESAMPLES = 1000  # of a bootstrap; fewer, but at least a tenth, where a split holds many values
FEWEST = 10  # samples, below which a bootstrap is far too narrow

# Below this part of the typical norm a target is zero: bringing it back to its own units leaves rounding errors.
ZERO_NORM = 1e-6

Numbers = dict[str, np.ndarray]  # by name, samples first


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        of_samples: (outputs, targets, mask) of a batch to numbers by name, each (B, ...). Outputs are logits for classes and
            labels, values in the data's own units otherwise, which for masks are probabilities (see `Normalizer.decode`).
            mask: of the shape of dense targets, False where a value must not count; or None.
        figure: those numbers of all samples to one.
        higher_is_better: direction.
        kinds: kinds of target it is made for; "mask" are dense targets from 0 to 1 with the loss bce_with_logits.
        description: one line.
        grouped: whether it also looks at `extras["group"]`.
        pooled: of a metric that scores one prediction per group: the metric of these, and what makes their numbers of those of
            the samples.
        of_fields: whether its numbers have a column for each field, (B, fields), so that each channel of each frame has a figure.
    """

    of_samples: Callable[[Tensor, Tensor, Tensor | None], dict[str, Tensor]]
    figure: Callable[[Numbers], float]
    higher_is_better: bool
    kinds: tuple[str, ...]
    description: str
    grouped: bool = False
    pooled: tuple[Metric, Callable[[Numbers], Numbers]] | None = None
    of_fields: bool = False

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Numbers of the samples of a batch, on its device; outputs and batch.y in the data's own units."""
        found = self.of_samples(outputs, batch.y, batch.extras.get("mask"))
        return found | ({"group": batch.extras["group"]} if self.grouped else {})

    def __call__(self, outputs: Tensor, targets: Tensor, mask: Tensor | None = None) -> float:
        """The figure of samples that are at hand at once, see `of_samples`."""
        return self.figure(self.numbers(outputs, targets, mask))

    def numbers(self, outputs: Tensor, targets: Tensor, mask: Tensor | None = None) -> Numbers:
        """The numbers of samples that are at hand at once, each `(n, ...)`."""
        found = self.of_samples(outputs.detach().cpu(), targets.detach().cpu(), mask)
        return {name: values.numpy() for name, values in found.items()}

    def by_field(self, numbers: Numbers, channels: int) -> list[list[float]]:
        """The figure of each channel of each frame, frames first, from the numbers of fields that lie frame after frame."""
        fields = len(next(iter(numbers.values()))[0])
        figures = [
            self.figure({name: values[:, one : one + 1] for name, values in numbers.items()}) for one in range(fields)
        ]
        return [figures[start : start + channels] for start in range(0, fields, channels)]

    @property
    def unit(self) -> str:
        """What a split is a choice of, for the interval: samples, or groups of them."""
        return "groups" if self.grouped else "samples"

    def interval(self, numbers: Numbers) -> tuple[float, float] | None:
        """95 % interval of the figure, for the chance by which these samples were drawn and no others.

        Of an accuracy it is Wilson's (1927), else the percentiles of a bootstrap (Efron, 1979) over samples, or over groups
        where the metric has them, with a fixed seed.

        Returns:
            Low and high; None where a bootstrap says nothing: for fewer than ten samples or groups, where all resamples
            agree, of a largest error, and where the figure itself is not finite.
        """
        if self.pooled is not None:
            metric, pool = self.pooled
            return metric.interval(pool(numbers))
        if self.figure is _field_largest or not math.isfinite(self.figure(numbers)):
            return None
        if self.figure is _accuracy:
            return wilson(_accuracy(numbers), len(numbers["truth"]))
        group = numbers.get("group")
        units = None if group is None else np.unique(group)
        count = len(next(iter(numbers.values()))) if units is None else len(units)
        if count < FEWEST:
            return None
        members = None if units is None else [np.flatnonzero(group == unit) for unit in units]
        rng, size = np.random.default_rng(0), sum(values.size for values in numbers.values())
        figures = []
        for _ in range(min(RESAMPLES, max(RESAMPLES // 10, 3 * 10**7 // size))):
            drawn = rng.integers(count, size=count)
            rows = drawn if members is None else np.concatenate([members[unit] for unit in drawn])
            part = {name: values[rows] for name, values in numbers.items()}
            if members is not None:  # a group drawn twice counts twice
                part["group"] = np.repeat(np.arange(count), [len(members[unit]) for unit in drawn])
            figures.append(self.figure(part))
        figures = np.array(figures)[~np.isnan(figures)]
        low, high = np.quantile(figures, (0.025, 0.975)).tolist() if len(figures) else (0.0, 0.0)
        return (low, high) if low < high else None

    def better(self, one: float, other: float) -> bool:
        """Whether `one` beats `other`."""
        return one > other if self.higher_is_better else one < other

    def as_error(self, value: float) -> tuple[str, float]:
        """Label and number for a table in which lower is better: scores, whose best is 1, become `error %`."""
        return ("error %", 100.0 * (1.0 - value)) if self.higher_is_better else ("error", value)


# ----- classes, labels, masks: counts and ranks per column ----------------------------------------------------------------


def _columns(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(truth, probability), (B, K) for classes and labels, (B, K, pixels) for the channels of masks."""
    if targets.ndim == 1:
        truth = torch.nn.functional.one_hot(targets, outputs.shape[1]) > 0
        return truth, outputs.double().softmax(1)
    if targets.ndim == 2:
        return targets > 0.5, outputs.double().sigmoid()
    return (targets > 0.5).flatten(2), outputs.flatten(2)


def _counts(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Per column, how often it is true, found, and both; float64 (B, K). Classes are found by largest logit, labels and pixels
    by a probability above 1/2; outputs that are NaN find NaN."""
    truth, probability = _columns(outputs, targets)
    found = probability > 0.5
    if targets.ndim == 1:
        found = torch.arange(outputs.shape[1], device=outputs.device) == outputs.argmax(1)[:, None]
    if mask is not None:
        truth, found = truth & mask.flatten(2), found & mask.flatten(2)
    parts = {"truth": truth, "found": found, "both": truth & found}
    counts = {name: (part.sum(2) if part.ndim > 2 else part).double() for name, part in parts.items()}
    undefined = outputs.flatten(1).isnan().any(1, keepdim=True)
    return counts | {name: counts[name].masked_fill(undefined, torch.nan) for name in ("found", "both")}


def _sums(numbers: Numbers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(numbers[name].sum(0) for name in ("truth", "found", "both"))


def _mean(shares: np.ndarray) -> float:
    return float(shares.mean()) if len(shares) else float("nan")


def _accuracy(numbers: Numbers) -> float:
    return float(numbers["both"].sum() / numbers["truth"].sum())


def _balanced_accuracy(numbers: Numbers) -> float:
    truth, _, both = _sums(numbers)
    return _mean(both[truth > 0] / truth[truth > 0])


def _macro_f1(numbers: Numbers) -> float:
    truth, found, both = _sums(numbers)
    total = truth + found
    return _mean(2 * both[total != 0] / total[total != 0])


def _challenge2017_f1(numbers: Numbers) -> float:
    return _macro_f1({name: numbers[name][:, :3] for name in ("truth", "found", "both")})


def _iou(numbers: Numbers) -> float:
    truth, found, both = _sums(numbers)
    union = truth + found - both
    return _mean(both[union != 0] / union[union != 0])


def _false_negative_rate(numbers: Numbers) -> float:
    truth, _, both = _sums(numbers)
    return _mean(1 - both[truth > 0] / truth[truth > 0])


def _counts_of_all(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Counts, and pixels whether they count or not."""
    counts = _counts(outputs, targets, mask)
    return counts | {"pixels": torch.full_like(counts["truth"], targets[0, 0].numel())}


def _thresholded_auroc(numbers: Numbers) -> float:
    truth, found, both = _sums(numbers)
    pixels = numbers["pixels"].sum(0)
    scored = (truth > 0) & (truth < pixels)
    positive, negative = both[scored] / truth[scored], 1 - (found - both)[scored] / (pixels - truth)[scored]
    return _mean((positive + negative) / 2)


def _ranks(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Per column whether it is true, its probability (float64), and whether it counts; each (B, K), of masks (B, K, pixels)."""
    truth, probability = _columns(outputs, targets)
    counts = torch.ones_like(truth) if mask is None else mask.flatten(2)
    return {"truth": truth, "probability": probability, "counts": counts}


def _per_column(score: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[Numbers], float]:
    """Mean of `score`, given the sorted probabilities of what is true and of what is not, over the columns that have both."""

    def figure(numbers: Numbers) -> float:
        if np.isnan(numbers["probability"]).any():
            return float("nan")
        scores = []
        for column in range(numbers["truth"].shape[1]):
            counts, truth, probability = (
                numbers[name][:, column].ravel() for name in ("counts", "truth", "probability")
            )
            having, lacking = np.sort(probability[truth & counts]), np.sort(probability[~truth & counts])
            if len(having) and len(lacking):
                scores.append(score(having, lacking))
        return _mean(np.array(scores))

    return figure


def _area(having: np.ndarray, lacking: np.ndarray) -> float:
    """How often one that has the label ranks before one that does not (Mann and Whitney, 1947); sorted, (n,) and (m,)."""
    below, upto = (np.searchsorted(lacking, having, side) for side in ("left", "right"))
    return (below + upto).mean() / (2 * len(lacking))


def _precision(having: np.ndarray, lacking: np.ndarray) -> float:
    """Mean over those that have the label of the precision at their probability; sorted, (n,) and (m,)."""
    right, wrong = (len(values) - np.searchsorted(values, having) for values in (having, lacking))
    return (right / (right + wrong)).mean()


# ----- values --------------------------------------------------------------------------------------------------------------


def _masked(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """(error, target, count), float64 (B, values), zero where a value does not count."""
    error, target = (outputs.double() - targets.double()).flatten(1), targets.double().flatten(1)
    count = torch.ones_like(target) if mask is None else mask.double().flatten(1)
    return error * count, target * count, count


def _errors(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Per sample, float64 (B,): sums of squared and absolute errors, norm of the target, and how many values count."""
    error, target, count = _masked(outputs, targets, mask)
    return {
        "squares": error.square().sum(1),
        "absolute": error.abs().sum(1),
        "norm": target.norm(dim=1),
        "count": count.sum(1),
    }


def _mse(numbers: Numbers) -> float:
    return float(numbers["squares"].sum() / numbers["count"].sum())


def _rmse(numbers: Numbers) -> float:
    return _mse(numbers) ** 0.5


def _mae(numbers: Numbers) -> float:
    return float(numbers["absolute"].sum() / numbers["count"].sum())


def _relative_l2(numbers: Numbers) -> float:
    """A target of zeros (an empty mask) has no norm of its own: its error is taken relative to the root mean square of the
    norms of all targets. NaN where every target is zero."""
    norm = numbers["norm"]
    typical = np.sqrt(np.square(norm).mean())
    if typical == 0:
        return float("nan")
    return float((np.sqrt(numbers["squares"]) / np.where(norm > ZERO_NORM * typical, norm, typical)).mean())


def _pairs(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Error and target of every value, float64 (B, values)."""
    error, target, _ = _masked(outputs, targets, mask)
    return {"error": error, "truth": target}


def _r2(numbers: Numbers) -> float:
    """NaN for fewer than two samples. A value that is constant counts 1 where it is met exactly, else 0, as in scikit-learn."""
    error, truth = numbers["error"], numbers["truth"]
    if len(truth) < 2:
        return float("nan")
    residual, spread = np.square(error).sum(0), np.square(truth - truth.mean(0)).sum(0)
    varies = (truth != truth[0]).any(0)
    scores = np.where(varies, 1 - residual / np.where(varies, spread, 1.0), residual == 0)
    return float(scores.mean())


# ----- distances of residues, protein by protein ---------------------------------------------------------------------------

APART, NEAR, SHORTEST = 24, 8.0, 0.01  # residues along the chain, and angstrom


def _near_residues(outputs: Tensor, targets: Tensor, mask: Tensor | None, lower: float) -> dict[str, Tensor]:
    """Per column of maps of distances (B, 1, L, L), counted from the first residue, sums of absolute errors and how many there are:
    over pairs at least 24 residues apart along the chain whose true distance is at most 8 angstrom, each once.

    lower: share of the lower triangle in the predicted distance, the upper one has the rest.
    """
    if targets.ndim != 4 or targets.shape[1] != 1 or targets.shape[2] != targets.shape[3]:
        raise UserError(f"metric: mae_8 is of square maps, got targets of shape {tuple(targets.shape[1:])}")
    count = torch.ones_like(targets, dtype=torch.bool) if mask is None else mask
    found, true, count = outputs.double().squeeze(1), targets.double().squeeze(1), count.squeeze(1)
    found = (1 - lower) * found + lower * found.mT
    counts = count & (true <= NEAR) & torch.ones_like(count[0]).triu(APART)
    first = count.any(1).int().argmax(1)  # where the padding ends
    columns = (torch.arange(true.shape[2], device=true.device) + first[:, None]) % true.shape[2]
    sums = {"absolute": ((found - true).abs() * counts).sum(1), "count": counts.sum(1).double()}
    return {name: values.gather(1, columns) for name, values in sums.items()}


def _near_mean(numbers: Numbers, length: int | None = None) -> float:
    """Mean over the proteins that have such a pair, among their first residues."""
    absolute, count = (numbers[name][:, :length].sum(1) for name in ("absolute", "count"))
    return _mean(absolute[count > 0] / count[count > 0])


def _near_residues_released(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """The public code overwrites the upper triangle by the mean of both, then takes the mean of both again."""
    upper = (outputs.double() + outputs.double().mT) / 2
    once = torch.where(torch.ones_like(upper[0], dtype=torch.bool).triu(), upper, outputs.double())
    return _near_residues(once.clamp_min(SHORTEST), targets, mask, 0.5)


# ----- fields: a number for each channel of each frame ---------------------------------------------------------------------

LOW, MIDDLE = 4, 12  # the highest wave numbers of the two lower bands (Takamoto et al., NeurIPS 2022)


def _field_errors(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
    """Errors, float64 (B, fields, *grid), zero where a value does not count."""
    error = outputs.double() - targets.double()
    return error if mask is None else error * mask


def _root_mean_square(values: Tensor) -> Tensor:
    """Over the grid: (B, fields, ...) to (B, fields)."""
    return values.flatten(2).square().mean(2).sqrt()


def _field_rmse(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    return {"error": _root_mean_square(_field_errors(outputs, targets, mask))}


def _field_nrmse(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    targets = targets.double() if mask is None else targets.double() * mask
    return _field_rmse(outputs, targets, mask) | {"size": _root_mean_square(targets)}


def _field_max(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    return {"error": _field_errors(outputs, targets, mask).abs().flatten(2).amax(2)}


def _field_boundary(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Over the outermost cells, each once: the two ends of a series, the edges of a square."""
    error = _field_errors(outputs, targets, mask)
    edge = torch.ones(error.shape[2:], dtype=torch.bool, device=error.device)
    edge[(slice(1, -1),) * edge.ndim] = False
    return {"error": _root_mean_square(error[:, :, edge])}


def _field_conserved(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    return {"error": _field_errors(outputs, targets, mask).flatten(2).mean(2).abs()}


def _field_band(lowest: int, highest: float) -> Callable[[Tensor, Tensor, Tensor | None], dict[str, Tensor]]:
    """sqrt(sum |F(error)|^2 / N^2) over the wave numbers, of either sign, whose length rounded down is in the band: the squares of
    the three bands add up to that of the RMSE. (PDEBench divides by the number of wave numbers, too.)"""

    def of_samples(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        error = _field_errors(outputs, targets, mask)
        axes = tuple(range(2, error.ndim))
        numbers = [torch.fft.fftfreq(size, 1 / size, device=error.device) for size in error.shape[2:]]
        length = sum(one.square() for one in torch.meshgrid(*numbers, indexing="ij")).sqrt().floor()
        band = (length >= lowest) & (length <= highest)
        spectrum = torch.fft.fftn(error, dim=axes, norm="forward")
        return {"error": spectrum[:, :, band].abs().square().sum(2).sqrt()}

    return of_samples


def _field_mean(numbers: Numbers) -> float:
    return float(numbers["error"].mean())


def _field_largest(numbers: Numbers) -> float:
    return float(numbers["error"].max())


def _field_relative(numbers: Numbers) -> float:
    """A field of zeros is treated as in `_relative_l2`, by what is typical of its channel and frame; one that is zero in every
    sample is left out."""
    size = numbers["size"]
    typical = np.sqrt(np.square(size).mean(0))
    some = typical > 0
    size, typical = size[:, some], typical[some]
    if not size.size:
        return float("nan")
    return float((numbers["error"][:, some] / np.where(size > ZERO_NORM * typical, size, typical)).mean())


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of `count` samples (Wilson, 1927)."""
    z = stats.norm.ppf(0.975).item()
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * (share * (1 - share) / count + (z / (2 * count)) ** 2) ** 0.5
    return max(min(centre - half, share), 0.0), min(max(centre + half, share), 1.0)  # whatever rounding does at 0 and 1


_CLASSES, _LABELS, _VALUES = (
    ("classification",),
    ("classification", "multilabel", "mask"),
    ("regression", "dense", "mask"),
)

METRICS: dict[str, Metric] = {
    "accuracy": Metric(_counts, _accuracy, True, _CLASSES, "share of samples in the right class"),
    "balanced_accuracy": Metric(
        _counts, _balanced_accuracy, True, _CLASSES, "accuracy with every class weighing the same"
    ),
    "macro_f1": Metric(_counts, _macro_f1, True, _LABELS, "F1 (of masks: Dice), mean over classes, labels or channels"),
    "challenge2017_f1": Metric(
        _counts,
        _challenge2017_f1,
        True,
        _CLASSES,
        "F1, mean over the first three classes: of PhysioNet's challenge of 2017, whose fourth is noise",
    ),
    "auroc": Metric(
        _ranks, _per_column(_area), True, _LABELS, "area under the ROC curve, mean over labels or channels"
    ),
    "mean_average_precision": Metric(
        _ranks,
        _per_column(_precision),
        True,
        _LABELS,
        "average precision, mean over labels or channels",
    ),
    "false_negative_rate": Metric(
        _counts,
        _false_negative_rate,
        False,
        ("multilabel", "mask"),
        "share of what is true that is not found, mean over labels or channels",
    ),
    "thresholded_auroc": Metric(
        _counts_of_all,
        _thresholded_auroc,
        True,
        ("mask",),
        "area under the ROC curve of masks that are predicted, not of probabilities: the mean of the shares of true and other "
        "pixels that are found so, where those that do not count are others, rightly",
    ),
    "iou": Metric(_counts, _iou, True, ("mask",), "intersection over union, mean over channels"),
    "mse": Metric(_errors, _mse, False, _VALUES, "mean squared error"),
    "rmse": Metric(_errors, _rmse, False, _VALUES, "root of the mean squared error"),
    "mae": Metric(_errors, _mae, False, _VALUES, "mean absolute error"),
    "relative_l2": Metric(
        _errors, _relative_l2, False, _VALUES, "norm of the error over the norm of the target, mean over samples"
    ),
    "mae_8": Metric(
        partial(_near_residues, lower=0.5),
        _near_mean,
        False,
        ("dense",),
        "MAE of distances up to 8 angstrom of residues 24 or more apart along the chain, mean over proteins",
    ),
    "r2": Metric(_pairs, _r2, True, _VALUES, "coefficient of determination, mean over the values of a sample"),
} | {
    name: Metric(of_samples, figure, False, ("dense",), description, of_fields=True)
    for name, of_samples, figure, description in (
        (
            "nrmse",
            _field_nrmse,
            _field_relative,
            "RMSE of a field over the root mean square of its target, mean over samples, channels and frames",
        ),
        ("field_rmse", _field_rmse, _field_mean, "RMSE of a field, mean over samples, channels and frames"),
        ("max_error", _field_max, _field_largest, "largest absolute error"),
        (
            "boundary_rmse",
            _field_boundary,
            _field_mean,
            "RMSE over the outermost cells of a field, mean like field_rmse",
        ),
        (
            "conserved_error",
            _field_conserved,
            _field_mean,
            "absolute error of the mean of a field, mean like field_rmse",
        ),
        ("fourier_low", _field_band(0, LOW), _field_mean, f"part of field_rmse in wave numbers up to {LOW}"),
        (
            "fourier_mid",
            _field_band(LOW + 1, MIDDLE),
            _field_mean,
            f"part of field_rmse in wave numbers {LOW + 1} to {MIDDLE}",
        ),
        (
            "fourier_high",
            _field_band(MIDDLE + 1, math.inf),
            _field_mean,
            f"part of field_rmse in wave numbers above {MIDDLE}",
        ),
    )
}

PER_GROUP, OF_GROUPS, OF_GROUP_LOGITS = "_per_group", "_of_groups", "_of_group_logits"
PER_CHUNK = re.compile(r"_per_([1-9]\d*)$")
CUT = re.compile(r"(?<=^mae_8)_cut_([1-9]\d*)$")


def get(name: str) -> Metric:
    """The metric of that name, in one of its forms.

    Raises:
        UserError: there is none; the nearest name is given.
    """
    for suffix, form in ((PER_GROUP, _per_group), (OF_GROUPS, _of_groups), (OF_GROUP_LOGITS, _of_group_logits)):
        if name.endswith(suffix):
            return form(get(name.removesuffix(suffix)))
    if chunk := PER_CHUNK.search(name):
        return _per_chunk(get(name[: chunk.start()]), int(chunk[1]))
    if length := CUT.search(name):
        return replace(
            METRICS["mae_8"],
            of_samples=_near_residues_released,
            figure=partial(_near_mean, length=int(length[1])),
            description=f"the same of the first {length[1]} residues, with 3/4 of the lower triangle and 1/4 of the upper",
        )
    if name not in METRICS:
        raise UserError(unknown("metric", name, METRICS))
    return METRICS[name]


def plain_name(name: str) -> str:
    """The metric without the ending that asks for one of its forms."""
    for suffix in (PER_GROUP, OF_GROUPS, OF_GROUP_LOGITS):
        name = name.removesuffix(suffix)
    return CUT.sub("", PER_CHUNK.sub("", name))


def _per_group(metric: Metric) -> Metric:
    def figure(numbers: Numbers) -> float:
        group = numbers["group"]
        parts = [{name: values[group == one] for name, values in numbers.items()} for one in np.unique(group)]
        figures = np.array([metric.figure(part) for part in parts])
        return _mean(figures[~np.isnan(figures)])

    return replace(
        metric, figure=figure, description=f"{metric.description}; mean over groups", grouped=True, of_fields=False
    )


def _per_chunk(metric: Metric, size: int) -> Metric:
    def figure(numbers: Numbers) -> float:
        total = len(next(iter(numbers.values())))
        parts = [slice(start, start + size) for start in range(0, total, size)]
        return float(
            np.mean([metric.figure({name: values[part] for name, values in numbers.items()}) for part in parts])
        )

    return replace(metric, figure=figure, description=f"{metric.description}; mean over {size} samples at a time")


def _of_groups(metric: Metric) -> Metric:
    """Classes and labels by mean probability, values by mean; the samples of a group have one target."""
    is_value = not {"regression", "dense"}.isdisjoint(metric.kinds)

    def of_samples(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        return {"outputs": outputs if is_value else _columns(outputs, targets)[1], "targets": targets}

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
        return metric.numbers(logits(mean, torch.from_numpy(targets)), torch.from_numpy(targets))

    return replace(
        metric,
        of_samples=of_samples,
        figure=lambda numbers: metric.figure(pool(numbers)),
        description=f"{metric.description}; {said}",
        grouped=True,
        pooled=(metric, pool),
        of_fields=False,
    )
