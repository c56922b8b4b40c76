"""What a table may say of differences: tests for few seeds and few tasks, and ranks.

Within a task two methods are compared seed by seed, by a paired t-test: on five seeds a signed-rank test cannot come below
p = 0.06 whatever they say. Across tasks, whose errors have no common unit, average ranks are compared by Nemenyi's test (Demšar,
JMLR 2006); signed-rank tests of all pairs, corrected, could not tell five methods apart on eight tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from crossmodal.scoring.metric import FEWEST

LEVEL = 0.05
FEWEST_SEEDS = 3
POWER = 0.8
FEWEST_TASKS = 6  # on five, one method that always wins against another still has p = 1/16 by the sign test


@dataclass(frozen=True)
class Paired:
    """Differences of pairs: their mean; standard error, 95 % interval and p of Student's t, or None where they say nothing."""

    mean: float
    error: float | None = None
    interval: list[float] | None = None
    p: float | None = None


def paired(differences: Any) -> Paired:
    """Differences of two methods, seed by seed.

    Fewer than three, or differences that are all the same, have a mean and nothing else: what two seeds, or a small test split,
    happen to agree on is not known to be exact.
    """
    differences = np.asarray(differences, dtype=float)
    mean = float(differences.mean())
    if len(differences) < FEWEST_SEEDS or not np.ptp(differences) > 1e-9 * np.abs(differences).max():
        return Paired(mean)
    error = float(stats.sem(differences))
    interval = stats.t.interval(1 - LEVEL, len(differences) - 1, mean, error)
    return Paired(mean, error, list(map(float, interval)), float(stats.ttest_1samp(differences, 0.0).pvalue))


def compared(value: float, resampled: Any, units: int) -> Paired:
    """A difference of figures of the same test samples, by what it is in bootstrap resamples of them.

    Its standard error is the deviation of the resamples, for `units` that are few made larger by sqrt(units / (units - 1)), and
    interval and p are Student's with units - 1 degrees of freedom: for a mean over units this is the paired t-test. A difference
    that is the same in every unit has the p of a sign test.

    Args:
        value: the difference, of all samples.
        resampled: (resamples,), that of each; those that are NaN are left out.
        units: how many samples, or groups of them, were drawn from; below five (`FEWEST`) nothing but the difference is
            given.
    """
    resampled = np.asarray(resampled, dtype=float)
    resampled = resampled[np.isfinite(resampled)]
    if units < FEWEST or len(resampled) < 2 or not np.isfinite(value):
        return Paired(value)
    if np.ptp(resampled) <= 1e-9 * np.abs(resampled).max():
        return Paired(value, 0.0, [value, value], 1.0 if value == 0 else 0.5 ** (units - 1))
    error = float(resampled.std(ddof=1)) * np.sqrt(units / (units - 1))
    low, high = stats.t.interval(1 - LEVEL, units - 1, value, error)
    return Paired(value, float(error), [float(low), float(high)], float(2 * stats.t.sf(abs(value) / error, units - 1)))


def units_needed(found: Paired, units: int) -> int | None:
    """How many units (samples, or groups of them) would tell a difference as large as the one found from zero in four of five
    data sets (two-sided at `LEVEL`, power 80 %), if further ones are like these: n = units ((z_0.975 + z_0.8) error / mean)^2.
    None where the difference is zero or its error unknown."""
    if not found.error or not found.mean:
        return None
    z = stats.norm.ppf(1 - LEVEL / 2) + stats.norm.ppf(POWER)
    return int(np.ceil(units * (z * found.error / found.mean) ** 2))


def holm(values: list[float]) -> list[float]:
    """p values adjusted for being one of so many, each by Holm's step-down procedure (Scand. J. Statist. 6, 1979)."""
    adjusted, greatest = [0.0] * len(values), 0.0
    for place, index in enumerate(np.argsort(values, kind="stable")):
        greatest = max(greatest, min(1.0, (len(values) - place) * values[index]))
        adjusted[index] = greatest
    return adjusted


def mark_best(tables: list[dict[str, Any]]) -> int:
    """Says of each row of each task whether its mean error is lower than every other's, `row["best"]`; returns how many tests
    that took. Methods that were tested on fewer samples than others are not among them.

    The method of lowest mean is tested against each of the others over the seeds they share; a single run of a method without
    seeds counts for every seed. It is best if all these tests say so after Holm's correction over the tests of all tasks, so where
    one cannot be made, none is.

    Args:
        tables: what `tables.summarise` gives, one for each task.
    """
    tests: list[tuple[int, str, float | None]] = []  # table, its lowest row, p against one other
    for number, table in enumerate(tables):
        rows = {
            name: _by_seed(row, table["seeds"])
            for name, row in table["methods"].items()
            if row["mean"] is not None and row["samples"] == table["samples"]
        }
        for row in table["methods"].values():
            row["best"] = False
        if len(rows) < 2:
            continue
        lowest = min(rows, key=lambda name: table["methods"][name]["mean"])
        for name, errors in rows.items():
            if name != lowest:
                seeds = sorted(errors.keys() & rows[lowest].keys())
                p = paired([rows[lowest][seed] - errors[seed] for seed in seeds]).p if seeds else None
                tests.append((number, lowest, p))
    made = [index for index, (_, _, p) in enumerate(tests) if p is not None]
    adjusted = dict(zip(made, holm([tests[index][2] for index in made]), strict=True))
    for number, lowest in {(number, lowest) for number, lowest, _ in tests}:
        own = [adjusted.get(index, 1.0) for index, test in enumerate(tests) if test[0] == number]
        tables[number]["methods"][lowest]["best"] = max(own) < LEVEL
    return len(made)


def _by_seed(row: dict[str, Any], seeds: list[int]) -> dict[int, float]:
    errors = row["errors"]
    return dict.fromkeys(seeds, errors[0]) if not row["seeded"] else dict(zip(row["seeds"], errors, strict=True))


def average_ranks(means: np.ndarray) -> np.ndarray:
    """Average rank of each method (1: lowest error; ties share); means (tasks, methods)."""
    return stats.rankdata(means, axis=1).mean(axis=0)


def critical_difference(methods: int, tasks: int) -> float:
    """By how much average ranks over so many tasks must differ, by Nemenyi's test at `LEVEL` for all pairs of so many methods."""
    quantile = stats.studentized_range.ppf(1 - LEVEL, methods, np.inf) / np.sqrt(2)
    return float(quantile * np.sqrt(methods * (methods + 1) / (6 * tasks)))


def cliques(ranks: np.ndarray, difference: float) -> list[tuple[int, int]]:
    """Stretches of sorted average ranks that differ by less than `difference`: (first, last) places of those of two and more that
    lie in no longer one."""
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = int(np.searchsorted(ranks, rank + difference)) - 1
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def profile(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Performance profiles (Dolan and Moré, Math. Program. 91, 2002): (ratios, shares).

    Ratio (tasks, methods) of each error to the task's lowest, infinite where that is zero and the method's is not; shares (ratios
    sorted, methods) of the tasks in which a method's ratio is at most so much.
    """
    lowest = means.min(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(means == lowest, 1.0, means / lowest)
    steps = np.unique(ratios[np.isfinite(ratios)])
    return steps, (ratios[None] <= steps[:, None, None]).mean(axis=1)
