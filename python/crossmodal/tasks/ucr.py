"""Tasks of the UCR/UEA time-series archive, and any pair of .ts files.

Eleven small data sets of the archive ship inside the PyPI package ``aeon``. Only its data files are used, never its code,
because aeon's own requirements would downgrade numpy: install it with ``pip install --no-deps aeon``. The package is
located without being imported, and the files are read by :mod:`crossmodal.data.readers.ts`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from crossmodal.data.readers.ts import TimeSeriesFile, parse_target, read_ts
from crossmodal.data.series import stack_series
from crossmodal.errors import UserError
from crossmodal.tasks.base import Options, RawTask, register

TRAIN_SUFFIX = "_TRAIN.ts"
TEST_SUFFIX = "_TEST.ts"


def find_archive(name: str, data_dir: Path | None) -> Path:
    """Path of ``<name>_TRAIN.ts``: in ``data_dir``, in ``data_dir/<name>``, else among the data files of aeon.

    Raises:
        UserError: it is in none of them; the message says how to get it.
    """
    folders = [] if data_dir is None else [data_dir, data_dir / name]
    package = importlib.util.find_spec("aeon")
    if package is not None:
        folders += [Path(place) / "datasets" / "data" / name for place in package.submodule_search_locations or ()]
    for folder in folders:
        if (folder / f"{name}{TRAIN_SUFFIX}").is_file():
            return folder / f"{name}{TRAIN_SUFFIX}"
    searched = f" (searched: {', '.join(map(str, folders))})" if folders else ""
    raise UserError(
        f"{name}{TRAIN_SUFFIX} not found{searched}. Install the package that carries it with "
        f"`pip install --no-deps aeon`, or put {name}{TRAIN_SUFFIX} and {name}{TEST_SUFFIX} into data_dir"
    )


def load_ts_pair(train_path: Path, *, kind: str | None = None, length: int | None = None) -> RawTask:
    """Read NAME_TRAIN.ts and the NAME_TEST.ts beside it.

    Args:
        kind: "classification" or "regression"; by default what the header says (@classLabel or @targetLabel). Class
            labels that are numbers can be asked for as regression targets.
        length: common length of the series; by default that of the longest training series.

    Raises:
        UserError: one of the two is missing; not NAME_TRAIN.ts, bad content, or the two do not fit together.
    """
    if not train_path.name.endswith(TRAIN_SUFFIX):
        raise UserError(f"data: expected a file NAME{TRAIN_SUFFIX}, got {train_path}")
    test_path = train_path.with_name(train_path.name.removesuffix(TRAIN_SUFFIX) + TEST_SUFFIX)
    train, test = read_ts(train_path), read_ts(test_path)
    notes = []
    longest, every_length = max(train.lengths), {*train.lengths, *test.lengths}
    target_length = length or longest
    resampled = every_length != {target_length}
    if resampled:
        shown = f"{min(every_length)} to {max(every_length)}" if len(every_length) > 1 else f"{longest}"
        notes.append(f"series of length {shown} are linearly resampled to {target_length}.")
    missing = train.has_missing or test.has_missing
    if missing:
        notes.append("missing values are linearly interpolated within their series.")

    if kind not in (None, "classification", "regression"):
        raise UserError(f"kind: a .ts file holds classification or regression targets, not {kind}")
    says = kind in (None, train.kind)
    kind = kind or train.kind or "classification"
    notes.append(f"{kind}: " + (f"the header of {train_path.name} says so." if says else "set by --kind."))
    return RawTask(
        kind=kind,
        x_train=stack_series(train.series, target_length, str(train_path)),
        y_train=_targets(train, kind),
        x_test=stack_series(test.series, target_length, str(test_path)),
        y_test=_targets(test, kind),
        class_names=train.class_names if kind == "classification" else (),
        origin=str(train_path),
        notes=tuple(notes),
        resample=resampled,
        fill_missing=missing,
    )


def _targets(file: TimeSeriesFile, kind: str) -> np.ndarray:
    """Class labels ``(n,)`` as they are written, or numbers ``(n,)``."""
    if file.kind is None:
        raise UserError(f"{file.path}: no labels: neither @classLabel true nor @targetLabel true")
    if kind == "classification":
        return np.array(file.labels)
    pairs = zip(file.labels, file.lines, strict=True)
    return np.array([parse_target(label, f"{file.path}, line {line}") for label, line in pairs])


def _archive_task(name: str, problem: str, summary: str, length: int | None = None) -> None:
    @register(name, summary)
    def loader(options: Options) -> RawTask:
        return load_ts_pair(find_archive(problem, options.data_dir), length=length)


# Lengths are given where the archive's own has no divisor that would do as patch size, or varies.
_archive_task(
    "italy_power_demand",
    "ItalyPowerDemand",
    "a day's electricity demand (24 hourly values): winter or summer half-year; 67 train, 1029 test",
)
_archive_task("gunpoint", "GunPoint", "hand motion (150 values): gun draw or point; 50 train, 150 test")
_archive_task(
    "basic_motions",
    "BasicMotions",
    "smart-watch accelerometer and gyroscope (6 x 100 values), 4 activities; 40 train, 40 test",
)
_archive_task(
    "japanese_vowels",
    "JapaneseVowels",
    "speech coefficients (12 x 7 to 29 values, resampled to 24), 9 speakers; 270 train, 370 test",
    length=24,
)
_archive_task(
    "arrow_head",
    "ArrowHead",
    "outlines of projectile points (251 values, resampled to 256), 3 types; 36 train, 175 test",
    length=256,
)
_archive_task(
    "osu_leaf",
    "OSULeaf",
    "outlines of leaves (427 values, resampled to 432), 6 species; 200 train, 242 test",
    length=432,
)
_archive_task(
    "acsf1", "ACSF1", "power consumption of household appliances (1460 values), 10 kinds; 100 train, 100 test"
)
_archive_task(
    "pickup_gesture",
    "PickupGestureWiimoteZ",
    "acceleration of a hand-held controller (29 to 361 values, resampled to 160), 10 gestures; 50 train, 50 test",
    length=160,
)
_archive_task(
    "covid_deaths",
    "Covid3Month",
    "daily confirmed cases of a country over 84 days: its death rate (regression); 140 train, 61 test",
)
_archive_task("covid_death_levels", "Covid3Month_disc", "the same series, death rate in 3 classes; 140 train, 61 test")
_archive_task(
    "cardano_sentiment",
    "CardanoSentiment",
    "hourly price and volume of a cryptocurrency over a day (2 x 24 values): mood of the news (regression); 74 train, 33 test",
)
