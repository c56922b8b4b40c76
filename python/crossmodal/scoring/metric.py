"""What a metric is, and the interval of its figure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats
from torch import Tensor

from crossmodal.data.dataset import Batch

RESAMPLES = 1000  # of a bootstrap; fewer, but at least a tenth, where a split holds many values
FEWEST = 5  # samples or groups: of figures with 5, nine intervals in ten hold the truth, of 3 two in three

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
        interval_by: how its interval is computed; None: not at all, as of a largest error.
        bounds: the least and greatest value; None: of an error from 0 on, of a score from 0 to 1.
        decides: whether it looks at what is predicted, by thresholds of probabilities, and not at the probabilities.
    """

    of_samples: Callable[[Tensor, Tensor, Tensor | None], dict[str, Tensor]]
    figure: Callable[[Numbers], float]
    higher_is_better: bool
    kinds: tuple[str, ...]
    description: str
    grouped: bool = False
    pooled: tuple[Metric, Callable[[Numbers], Numbers]] | None = None
    of_fields: bool = False
    interval_by: Literal["bootstrap", "wilson"] | None = "bootstrap"
    decides: bool = False
    bounds: tuple[float, float] | None = None

    def measure(self, outputs: Tensor, batch: Batch, shift: Tensor | None = None) -> dict[str, Tensor]:
        """Numbers of the samples of a batch, on its device; outputs and batch.y in the data's own units. shift: see
        `thresholds.shift`; of the mean of a group it is taken when that is made."""
        if shift is not None and self.decides:
            outputs = outputs - shift.to(outputs.device)
        found = self.of_samples(outputs, batch.y, batch.extras.get("mask"))
        if shift is not None and not self.decides and self.pooled and self.pooled[0].decides:
            found["shift"] = shift.to(outputs.device).expand(outputs.shape)
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

    def interval(
        self, numbers: Numbers, group: np.ndarray | None = None, fold: np.ndarray | None = None
    ) -> tuple[float, float] | None:
        """95 % interval of the figure, for the chance by which these samples were drawn and no others.

        Of an accuracy of samples without groups it is Wilson's (1927), else the percentiles of a bootstrap (Efron, 1979) over
        samples, or over groups where they belong to some, with a fixed seed. The percentiles lie further out the fewer there
        are, as Student's t does from the normal distribution (Hesterberg, Am. Stat. 69, 2015).

        Args:
            numbers: of all samples.
            group: (n,), of what the samples are parts; where the metric itself looks at groups, these count.
            fold: see `resampled`.

        Returns:
            Low and high; None where a bootstrap says nothing: for fewer than five (`FEWEST`) samples or groups, where all resamples
            agree, of a largest error, and where the figure itself is not finite.
        """
        if not math.isfinite(self.over_folds(numbers, fold)):
            return None
        if self.interval_by == "wilson" and group is None:
            return wilson(self.figure(numbers), len(numbers["truth"]))
        figures, count = self.resampled([numbers], group, fold)
        figures = figures[~np.isnan(figures)]
        if count < FEWEST or not len(figures):
            return None
        tail = stats.norm.cdf(-math.sqrt(count / (count - 1)) * stats.t.ppf(0.975, count - 1))
        low, high = np.quantile(figures, (tail, 1 - tail)).tolist()
        return (low, high) if low < high else None

    def over_folds(self, numbers: Numbers, fold: np.ndarray | None, weighed: bool = False) -> float:
        """The figure of all samples; or the mean of those of the folds that have one, if so each weighed by its samples."""
        if fold is None:
            return self.figure(numbers)
        parts = [np.flatnonzero(fold == one) for one in np.unique(fold)]
        figures = np.array([self.figure({name: values[part] for name, values in numbers.items()}) for part in parts])
        weights = np.array([len(part) if weighed else 1 for part in parts])
        kept = ~np.isnan(figures)
        return float(np.average(figures[kept], weights=weights[kept])) if kept.any() else math.nan

    def resampled(
        self, several: list[Numbers], group: np.ndarray | None = None, fold: np.ndarray | None = None
    ) -> tuple[np.ndarray, int]:
        """Figures of what several models say of the same samples, in bootstrap resamples that are the same for all.

        Args:
            several: numbers of each model, of the same samples.
            group: see `interval`.
            fold: (n,), in which fold of a cross-validation each sample was tested: the figures are `over_folds`, weighed, as a
                resample has few samples of some.

        Returns:
            Figures (resamples, models), without a row where a bootstrap says nothing, and from how many samples or groups was
            drawn.
        """
        if self.pooled is not None and fold is None:
            metric, pool = self.pooled
            return metric.resampled([pool(numbers) for numbers in several])
        group = several[0].get("group", group)
        units = None if group is None else np.unique(group)
        count = len(next(iter(several[0].values()))) if units is None else len(units)
        if self.interval_by is None or count < 2:
            return np.empty((0, len(several))), count
        members = None if units is None else [np.flatnonzero(group == unit) for unit in units]
        size = sum(values.size for numbers in several for values in numbers.values())
        rng, figures = np.random.default_rng(0), []
        for _ in range(min(RESAMPLES, max(RESAMPLES // 10, 3 * 10**7 * len(several) // size))):
            drawn = rng.integers(count, size=count)
            rows = drawn if members is None else np.concatenate([members[unit] for unit in drawn])
            parts = [{name: values[rows] for name, values in numbers.items()} for numbers in several]
            if "group" in several[0]:  # a group drawn twice counts twice
                own = np.repeat(np.arange(count), [len(members[unit]) for unit in drawn])
                parts = [part | {"group": own} for part in parts]
            figures.append(
                [self.over_folds(part, None if fold is None else fold[rows], weighed=True) for part in parts]
            )
        return np.array(figures), count

    def clipped(self, low: float, high: float) -> list[float]:
        """An interval that was made without regard to the bounds, cut off at them."""
        least, greatest = self.bounds or (0.0, 1.0 if self.higher_is_better else math.inf)
        return [max(low, least), min(high, greatest)]

    def better(self, one: float, other: float) -> bool:
        """Whether `one` beats `other`."""
        return one > other if self.higher_is_better else one < other

    def as_error(self, value: float) -> tuple[str, float]:
        """Label and number for a table in which lower is better: scores, whose best is 1, become `error %`."""
        return ("error %", 100.0 * (1.0 - value)) if self.higher_is_better else ("error", value)


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of `count` samples (Wilson, 1927)."""
    z = stats.norm.ppf(0.975).item()
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * (share * (1 - share) / count + (z / (2 * count)) ** 2) ** 0.5
    return max(min(centre - half, share), 0.0), min(max(centre + half, share), 1.0)  # whatever rounding does at 0 and 1


def mean_of(shares: np.ndarray) -> float:
    """Their mean, NaN of none."""
    return float(shares.mean()) if len(shares) else float("nan")
