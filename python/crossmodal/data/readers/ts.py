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

LABELS = {"classlabel": "classification", "targetlabel": "regression"}
BOOLEANS = ("timestamps", "missing", "univariate", "equallength", *LABELS)
COUNTS = ("dimension", "dimensions", "serieslength")


@dataclass(frozen=True)
class TimeSeriesFile:
    """A .ts file as it stands.

    Attributes:
        path: the file.
        series: one float64 array ``(C, L_i)`` per case; NaN where a value is missing.
        kind: "classification" or "regression", as the header says; None where it announces no labels.
        labels: class labels or regression targets as written; empty where there are none.
        class_names: the classes of the header, in its order; empty where the header lists none.
        lines: the line number of every case.
    """

    path: Path
    series: list[np.ndarray]
    kind: str | None
    labels: list[str]
    class_names: tuple[str, ...]
    lines: list[int]

    @property
    def lengths(self) -> list[int]:
        return [one.shape[1] for one in self.series]

    @property
    def has_missing(self) -> bool:
        return any(np.isnan(one).any() for one in self.series)


def read_ts(path: str | Path) -> TimeSeriesFile:
    """Read a .ts file.

    Raises:
        UserError: the file is not what its format or its own header says; file and line are named.
    """
    path = Path(path)
    header: dict[str, bool | int] = {}
    class_names: tuple[str, ...] = ()
    kinds: list[str] = []
    series: list[np.ndarray] = []
    labels: list[str] = []
    lines: list[int] = []
    try:
        content = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from None
    for number, line in enumerate(map(str.strip, content), start=1):
        where = f"{path}, line {number}"
        if not line or line.startswith("#"):
            continue
        if "data" not in header:
            key, words = _header_line(line, header, where)
            if header.get(key) and key in LABELS:
                kinds.append(LABELS[key])
                class_names = tuple(words) if key == "classlabel" else class_names
            if len(kinds) > 1 or len(set(class_names)) != len(class_names):
                raise UserError(f"{where}: @classLabel and @targetLabel are both true, or a class is listed twice")
            continue
        *channels, label = line.split(":") if kinds else [*line.split(":"), ""]
        label = label.strip()
        if kinds and (not channels or not label or (class_names and label not in class_names)):
            of = f", one of {' '.join(class_names)}" if class_names else ""
            raise UserError(f"{where}: expected values, ':' and a label{of}, got {line[:40]!r}")
        case = _case(channels, where)
        _compare(case, header, series, where)
        series.append(case)
        labels += [label] * bool(kinds)
        lines.append(number)
    if not series:
        raise UserError(f"{path}: no cases after a line @data")
    return TimeSeriesFile(path, series, kinds[0] if kinds else None, labels, class_names, lines)


def _header_line(line: str, header: dict[str, bool | int], where: str) -> tuple[str, list[str]]:
    """Take in one ``@key value`` line; keys of no use here are skipped."""
    key, *words = line.lower().removeprefix("@").split() or [""]
    if not line.startswith("@"):
        raise UserError(f"{where}: expected a header line that starts with '@' before @data, got {line[:40]!r}")
    if key == "data":
        header[key] = True
    elif key in (*BOOLEANS, *COUNTS):
        word = words[0] if words else ""
        if not (word in ("true", "false") if key in BOOLEANS else word.isdecimal()):
            expected = "true or false" if key in BOOLEANS else "a whole number"
            raise UserError(f"{where}: @{key} must be {expected}, got {word!r}")
        header[key] = word == "true" if key in BOOLEANS else int(word)
    if header.get("timestamps"):
        raise UserError(f"{where}: series with time stamps (@timeStamps true) are not supported")
    return key, line.split()[2:]


def _case(channels: list[str], where: str) -> np.ndarray:
    """The values of a case, float64 ``(C, L)``, NaN where one is missing."""
    rows = []
    for channel, text in enumerate(channels):
        words, row = [word.strip() for word in text.split(",")], []
        for index, word in enumerate(words):
            try:
                row.append(np.nan if word == "?" else parse_number(word))
            except UserError:
                row.append(np.inf)
            if np.isinf(row[-1]):
                raise UserError(
                    f"{where}, channel {channel}, value {index}: expected a finite number or '?' (and no time stamps), got "
                    f"{word!r}"
                )
        rows.append(row)
    if len({len(row) for row in rows}) > 1:
        raise UserError(f"{where}: channels of one case differ in length: {[len(row) for row in rows]}")
    return np.array(rows)


def _compare(case: np.ndarray, header: dict[str, bool | int], before: list[np.ndarray], where: str) -> None:
    """Holds a case to what the header declares, and to the channels of those before it."""
    channels, length = case.shape
    equal, size = header.get("equallength"), header.get("serieslength")
    for key, found, expected in (
        ("univariate", channels, 1 if header.get("univariate") else None),
        ("dimensions", channels, header.get("dimensions", header.get("dimension"))),
        ("equalLength", length, before[0].shape[1] if before and equal else None),
        ("seriesLength", length, size if equal and size else None),  # 0 where lengths differ, in some files
        ("missing", int(np.isnan(case).sum()), 0 if header.get("missing") is False else None),
        ("data", channels, before[0].shape[0] if before else None),
    ):
        if expected not in (None, found):
            what = {"missing": "missing value(s)", "equalLength": "values", "seriesLength": "values"}.get(
                key, "channel(s)"
            )
            raise UserError(f"{where}: {found} {what}, expected {expected} by @{key} and the cases before")


def parse_target(text: str, where: str) -> float:
    """A regression target.

    Raises:
        UserError: no finite number.
    """
    try:
        if np.isfinite(value := parse_number(text)):
            return value
    except UserError:
        pass
    raise UserError(f"{where}: expected a finite number as regression target, got {text!r}")
