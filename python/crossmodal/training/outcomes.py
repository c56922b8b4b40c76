"""What came of each test sample, kept in the run's folder so that runs can be compared sample by sample."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crossmodal.errors import UserError
from crossmodal.files import replacing
from crossmodal.scoring import metrics
from crossmodal.scoring.metric import Metric, Numbers
from crossmodal.training.evaluation import Evaluation

MOST_VALUES = 2**20  # 8 MiB; of a metric that needs more (ranks of pixels), only the samples' scores are kept
PREFIX, OTHER = "number_", "other_"
SCORE = "score"
# Of each sample whether its class is right, else minus its loss.
SCORES = Metric(lambda *_: {}, lambda numbers: float(numbers[SCORE].mean()), True, (), "mean score of the samples")


@dataclass(frozen=True)
class Outcomes:
    """Of the test samples of a run, in their order.

    Attributes:
        metric: name, or "score" where only scores were kept.
        numbers: what the metric says of each sample, see `scoring.metric`.
        rows: int64 (n,), which samples of the data these are.
        group: int64 (n,), or None.
        fold: int64 (n,), in which fold of a cross-validation each was tested, or None.
        others: by name, what the metric says of those that the verdict compares with, on the samples `compared`.
        compared: int64 (m,), places of these samples.
    """

    metric: str
    numbers: Numbers
    rows: np.ndarray
    group: np.ndarray | None = None
    fold: np.ndarray | None = None
    others: Mapping[str, Numbers] = field(default_factory=dict)
    compared: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def measure(self) -> Metric:
        """The metric."""
        return SCORES if self.metric == SCORE else metrics.get(self.metric)

    @property
    def units(self) -> np.ndarray | None:
        """What a bootstrap draws, (n,): groups, or samples, which several folds may have tested; None: each for itself."""
        return self.rows if self.group is None and self.fold is not None else self.group

    def some(self, places: np.ndarray) -> Outcomes:
        """The same of these samples, without others."""
        group, fold = (None if values is None else values[places] for values in (self.group, self.fold))
        return Outcomes(self.metric, taken(self.numbers, places), self.rows[places], group, fold)


def taken(numbers: Numbers, places: np.ndarray) -> Numbers:
    """Those of some samples."""
    return {key: values[places] for key, values in numbers.items()}


def joined(several: Sequence[Outcomes]) -> Outcomes:
    """Those of folds as one."""
    sizes = [len(one) for one in several]
    group = None if several[0].group is None else np.concatenate([one.group for one in several])
    before = np.cumsum(sizes) - sizes
    return Outcomes(
        several[0].metric,
        _together([one.numbers for one in several]),
        np.concatenate([one.rows for one in several]),
        group,
        np.repeat(np.arange(len(several)), sizes),
        {
            name: _together([one.others[name] for one in several])
            for name in several[0].others
            if all(name in one.others for one in several)
        },
        np.concatenate([one.compared + start for one, start in zip(several, before, strict=True)]),
    )


def _together(several: Sequence[Numbers]) -> Numbers:
    return {key: np.concatenate([numbers[key] for numbers in several]) for key in several[0]}


def of(test: Evaluation, rows: np.ndarray) -> Outcomes:
    """What came of the test samples by the first metric, or their scores where that would be too much."""
    name = next(iter(test.metrics))
    numbers = test.numbers[name]
    if sum(values.size for values in numbers.values()) > MOST_VALUES:
        name, numbers = SCORE, {SCORE: test.scores.numpy()}
    return Outcomes(name, numbers, rows, test.group)


def save(file: Path, found: Outcomes) -> None:
    """Writes them."""
    arrays = {PREFIX + key: values for key, values in found.numbers.items()}
    for name, numbers in found.others.items():
        arrays |= {f"{OTHER}{name}_{key}": values for key, values in numbers.items()}
    arrays |= {"metric": np.array(found.metric), "rows": found.rows, "compared": found.compared}
    arrays |= {key: values for key in ("group", "fold") if (values := getattr(found, key)) is not None}
    with replacing(file) as aside, open(aside, "wb") as opened:
        np.savez_compressed(opened, **arrays)


def load(file: Path) -> Outcomes:
    """The inverse of `save`.

    Raises:
        UserError: there is no such file, as of runs that were made before it was written, or it is damaged.
    """
    if not file.is_file():
        raise UserError(f"{file} is missing: the run was made before what came of each sample was kept")
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
        numbers = {key.removeprefix(PREFIX): values for key, values in arrays.items() if key.startswith(PREFIX)}
        others: dict[str, Numbers] = {}
        for key, values in arrays.items():
            if key.startswith(OTHER):
                name, _, own = key.removeprefix(OTHER).partition("_")
                others.setdefault(name, {})[own] = values
        rest = {key: arrays[key] for key in ("group", "fold", "compared") if key in arrays}
        found = Outcomes(str(arrays["metric"]), numbers, arrays["rows"], others=others, **rest)
        sizes = {
            values.shape[:1]
            for values in (*numbers.values(), found.rows, found.group, found.fold)
            if values is not None
        }
        if len(sizes) != 1 or () in sizes:
            raise ValueError(f"expected arrays with a row for each sample, got {sizes}")
        found.measure.figure(numbers)
    except (OSError, ValueError, KeyError, IndexError, UserError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is damaged: {error}") from None
    return found
