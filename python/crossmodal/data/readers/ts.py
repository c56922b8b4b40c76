"""Reader of the .ts format of the UCR/UEA/TSER time-series archives.

A file is a header of ``@key value`` lines up to ``@data``, then one case per line: channels separated by ``:``, values
by ``,``, the class label or regression target last; ``?`` stands for a missing value, ``#`` starts a comment line.
Series may differ in length. Time stamps (``(time, value)`` pairs) are not supported and are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossmodal.data.numeric import parse_number
from crossmodal.errors import UserError


@dataclass(frozen=True)
class TimeSeriesFile:
    """A .ts file as it stands.

    Attributes:
        path: the file.
        series: one float64 array ``(C, L_i)`` per case; NaN where a value is missing.
        labels: class labels as written; None without ``@classLabel true``.
        targets: regression targets, float64 ``(n,)``; None without ``@targetLabel true``.
        class_names: the classes of the header, in its order; empty where the header lists none.
        lines: the line number of every case.
    """

    path: Path
    series: list[np.ndarray]
    labels: list[str] | None
    targets: np.ndarray | None
    class_names: tuple[str, ...]
    lines: list[int]

    @property
    def channels(self) -> int:
        return self.series[0].shape[0]

    @property
    def lengths(self) -> list[int]:
        return [one.shape[1] for one in self.series]

    @property
    def has_missing(self) -> bool:
        return any(np.isnan(one).any() for one in self.series)


@dataclass
class _Header:
    """The declarations that the cases are held to."""

    missing: bool | None = None
    univariate: bool | None = None
    dimensions: int | None = None
    equal_length: bool | None = None
    series_length: int | None = None
    class_label: bool = False
    class_names: tuple[str, ...] = ()
    target_label: bool = False


def read_ts(path: str | Path) -> TimeSeriesFile:
    """Read a .ts file.

    Raises:
        UserError: no such file.
        UserError: the file is not what its format or its own header says; file and line are named.
    """
    path = Path(path)
    header = _Header()
    series: list[np.ndarray] = []
    labels: list[str] = []
    lines: list[int] = []
    in_data = False
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                line = line.strip()
                if not line or line.startswith("#"):
                    continue
                where = f"{path}, line {number}"
                if not in_data:
                    in_data = _read_header_line(line, header, where)
                    continue
                channels, label = _split_case(line, header, where)
                if series and len(channels) != series[0].shape[0]:
                    raise UserError(f"{where}: {len(channels)} channel(s), but {series[0].shape[0]} before")
                case = _parse_case(channels, header, where)
                if header.equal_length and series and case.shape[1] != series[0].shape[1]:
                    raise UserError(
                        f"{where}: length {case.shape[1]}, but {series[0].shape[1]} before and @equalLength is true"
                    )
                series.append(case)
                labels.append(label)
                lines.append(number)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from None
    if not in_data:
        raise UserError(f"{path}: no @data line")
    if not series:
        raise UserError(f"{path}: no cases after @data")
    targets = None
    if header.target_label:
        targets = np.array(
            [parse_target(label, f"{path}, line {line}") for label, line in zip(labels, lines, strict=True)]
        )
    return TimeSeriesFile(path, series, labels if header.class_label else None, targets, header.class_names, lines)


def _read_header_line(line: str, header: _Header, where: str) -> bool:
    """Take in one ``@key value`` line; True once ``@data`` is reached. Keys of no use here are skipped."""
    if not line.startswith("@"):
        raise UserError(f"{where}: expected a header line that starts with '@' before @data, got {line[:40]!r}")
    key, *values = line[1:].split() or [""]
    key = key.lower()
    if key == "data":
        if header.class_label and header.target_label:
            raise UserError(f"{where}: @classLabel and @targetLabel are both true")
        return True
    if key == "timestamps" and _boolean(values, key, where):
        raise UserError(f"{where}: series with time stamps (@timeStamps true) are not supported")
    elif key == "missing":
        header.missing = _boolean(values, key, where)
    elif key == "univariate":
        header.univariate = _boolean(values, key, where)
    elif key == "equallength":
        header.equal_length = _boolean(values, key, where)
    elif key in ("dimension", "dimensions"):
        header.dimensions = _count(values, key, where)
    elif key == "serieslength":
        header.series_length = _count(values, key, where) or None  # 0: some files say so for unequal lengths
    elif key == "targetlabel":
        header.target_label = _boolean(values, key, where)
    elif key == "classlabel":
        header.class_label = _boolean(values, key, where)
        header.class_names = tuple(values[1:]) if header.class_label else ()
        if len(set(header.class_names)) != len(header.class_names):
            raise UserError(f"{where}: a class is listed twice in @classLabel {' '.join(header.class_names)}")
    return False


def _boolean(values: list[str], key: str, where: str) -> bool:
    value = values[0].lower() if values else ""
    if value not in ("true", "false"):
        raise UserError(f"{where}: @{key} must be true or false, got {value!r}")
    return value == "true"


def _count(values: list[str], key: str, where: str) -> int:
    if not values or not values[0].isdecimal():
        raise UserError(f"{where}: @{key} must be a whole number, got {' '.join(values)!r}")
    return int(values[0])


def _split_case(line: str, header: _Header, where: str) -> tuple[list[str], str]:
    if "(" in line:
        raise UserError(f"{where}: '(' in a case: series with time stamps are not supported")
    channels = line.split(":")
    label = ""
    if header.class_label or header.target_label:
        label = channels.pop().strip()
        if not channels:
            raise UserError(f"{where}: expected values, ':' and a label, got {line[:40]!r}")
        if not label:
            raise UserError(f"{where}: the label after the last ':' is empty")
        if header.class_names and label not in header.class_names:
            raise UserError(f"{where}: label {label!r} is not in @classLabel {' '.join(header.class_names)}")
    if header.univariate and len(channels) != 1:
        raise UserError(f"{where}: {len(channels)} channels, but @univariate is true")
    if header.dimensions is not None and len(channels) != header.dimensions:
        raise UserError(f"{where}: {len(channels)} channel(s), but @dimensions is {header.dimensions}")
    return channels, label


def _parse_case(channels: list[str], header: _Header, where: str) -> np.ndarray:
    rows = [_parse_values(text, f"{where}, channel {index}") for index, text in enumerate(channels)]
    lengths = [len(row) for row in rows]
    if len(set(lengths)) > 1:
        raise UserError(f"{where}: channels of one case differ in length: {lengths}")
    if header.series_length is not None and header.equal_length and lengths[0] != header.series_length:
        raise UserError(f"{where}: length {lengths[0]}, but @seriesLength is {header.series_length}")
    case = np.stack(rows)
    missing = np.isnan(case)
    if header.missing is False and missing.any():
        raise UserError(f"{where}: a missing value, but @missing is false")
    if missing.all(axis=1).any():
        raise UserError(f"{where}, channel {int(missing.all(axis=1).argmax())}: every value is missing")
    return case


def _parse_values(text: str, where: str) -> np.ndarray:
    values = np.empty(text.count(",") + 1)
    for index, word in enumerate(text.split(",")):
        word = word.strip()
        try:
            values[index] = np.nan if word == "?" else parse_number(word)
        except ValueError:
            raise UserError(f"{where}, value {index}: expected a number or '?', got {word!r}") from None
    if np.isinf(values).any():
        raise UserError(f"{where}, value {int(np.isinf(values).argmax())}: infinite")
    return values


def parse_target(text: str, where: str) -> float:
    try:
        value = parse_number(text)
    except ValueError:
        raise UserError(f"{where}: expected a number as regression target, got {text!r}") from None
    if not np.isfinite(value):
        raise UserError(f"{where}: the regression target is {text}")
    return value
