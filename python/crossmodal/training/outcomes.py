"""What came of each test sample, kept in the run's folder so that runs can be compared sample by sample."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossmodal.errors import UserError
from crossmodal.files import replacing
from crossmodal.scoring import metrics
from crossmodal.scoring.metric import Metric, Numbers
from crossmodal.training.evaluation import Evaluation

MOST_VALUES = 2**20  # 8 MiB; of a metric that needs more (ranks of pixels), only the samples' scores are kept
PREFIX = "number_"
SCORE = "score"
# Of each sample whether its class is right, else minus its loss.
SCORES = Metric(lambda *_: {}, lambda numbers: float(numbers[SCORE].mean()), True, (), "mean score of the samples")


@dataclass(frozen=True)
class Outcomes:
    """Of the test samples of a run, in their order.

    metric: name, or "score" where only scores were kept. numbers: what the metric says of each sample, see `scoring.metric`.
    rows: int64 (n,), which samples of the data these are. group: int64 (n,), or None.
    """

    metric: str
    numbers: Numbers
    rows: np.ndarray
    group: np.ndarray | None

    def __len__(self) -> int:
        return len(next(iter(self.numbers.values())))

    @property
    def measure(self) -> Metric:
        """The metric."""
        return SCORES if self.metric == SCORE else metrics.get(self.metric)


def save(file: Path, test: Evaluation, rows: np.ndarray) -> None:
    """Writes the outcomes of the first metric, or scores where these would be too many."""
    name = next(iter(test.metrics))
    numbers = test.numbers[name]
    if sum(values.size for values in numbers.values()) > MOST_VALUES:
        name, numbers = SCORE, {SCORE: test.scores.numpy()}
    arrays = {PREFIX + key: values for key, values in numbers.items()} | {"metric": np.array(name), "rows": rows}
    with replacing(file) as aside, open(aside, "wb") as opened:
        np.savez_compressed(opened, **arrays, **({} if test.group is None else {"group": test.group}))


def load(file: Path) -> Outcomes:
    """The inverse of `save`.

    Raises:
        UserError: there is no such file, as of runs that were made before it was written, or it is damaged.
    """
    if not file.is_file():
        raise UserError(f"{file} is missing: the run was made before what came of each sample was kept")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            numbers = {key.removeprefix(PREFIX): arrays[key] for key in arrays.files if key.startswith(PREFIX)}
            group = arrays["group"] if "group" in arrays.files else None
            found = Outcomes(str(arrays["metric"]), numbers, arrays["rows"], group)
        sizes = {values.shape[:1] for values in [*numbers.values(), found.rows, *([] if group is None else [group])]}
        if len(sizes) != 1 or () in sizes:
            raise ValueError(f"expected arrays with a row for each sample, got {sizes}")
        found.measure.figure(numbers)
    except (OSError, ValueError, KeyError, IndexError, UserError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is damaged: {error}") from None
    return found
