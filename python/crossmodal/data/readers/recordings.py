"""Reader of recordings: series of several channels, in one file each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from crossmodal.data.numeric import is_number
from crossmodal.data.readers.audio import open_wav, scaled
from crossmodal.data.readers.damage import explained
from crossmodal.data.readers.npy import read_npy
from crossmodal.data.readers.tables import Table, read_rows, shown, table_of
from crossmodal.errors import MissingPackage, UserError
from crossmodal.naming import nearest

TEXT = (".csv", ".tsv")
SUFFIXES = (*TEXT, ".npy", ".wav", ".edf", ".hea")
TIMES = {"time", "t", "timestamp", "seconds", "sec"}  # names of the column of time, without its unit
SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "min": 60.0}
ANNOTATIONS = "annotations"


@dataclass(frozen=True)
class Recording:
    """What is known of a recording, and how its values are had.

    Attributes:
        path: its file.
        channels, units: names of channels (numbers where they have none), and units, "" where unknown.
        rate: values per second, None where the file does not say.
        length: values of a channel.
        load: gives all values, (C, length), real numbers; of .npy mapped.
        labels: a label for each value, str, "" where there is none, or float64; None where they were not asked for.
        ignored: what was left out of what is in the file.
    """

    path: Path
    channels: tuple[str, ...]
    units: tuple[str, ...]
    rate: float | None
    length: int
    load: Callable[[], np.ndarray]
    labels: np.ndarray | None = None
    ignored: tuple[str, ...] = ()

    def with_channels(self, names: Sequence[str]) -> Recording:
        """The same with these channels in this order.

        Raises:
            UserError: one is missing.
        """
        if tuple(names) == self.channels:
            return self
        for name in names:
            if name not in self.channels:
                raise UserError(
                    f"{self.path}: has no channel {name!r}{nearest(name, self.channels)} (channels: {shown(self.channels)})"
                )
        rows = [self.channels.index(name) for name in names]
        return replace(
            self,
            channels=tuple(names),
            units=tuple(self.units[row] for row in rows),
            load=partial(_rows, self.load, rows),
        )


def _rows(load: Callable[[], np.ndarray], rows: list[int]) -> np.ndarray:
    return load()[rows]


def open_recording(path: Path, ignore: Sequence[str] = (), labels: str | None = None) -> Recording:
    """A recording, without what is not needed of it yet.

    Args:
        path: .csv or .tsv (a row for each moment, a column for each channel; a column `time` gives the rate), .npy ((n,) or two
            axes, of which the longer one is time), .wav, .edf, .hea (WFDB).
        ignore: channels to leave out.
        labels: name of the column of a .csv or .tsv file, or `annotations` of .edf and .hea, that labels each moment.

    Raises:
        UserError: no such content; names file, line and column.
        MissingPackage: that of the format is not installed.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    suffix = path.suffix.lower()
    if labels is not None and suffix in (".npy", ".wav"):
        raise UserError(f"recordings.labels: {path}: a {suffix} file has no labels of its own; name them in an index")
    if suffix in TEXT:
        found = _text(path, ignore, labels)
    elif suffix == ".npy":
        values = _npy(path)
        found = Recording(path, _numbered(len(values)), ("",) * len(values), None, values.shape[1], partial(_npy, path))
    elif suffix == ".wav":
        rate, samples = open_wav(path)
        channels = samples.shape[1]
        found = Recording(path, _numbered(channels), ("",) * channels, float(rate), len(samples), partial(_wav, path))
    else:
        found = {".edf": _edf, ".hea": _wfdb}[suffix](path, ignore, labels)
    kept = [name for name in found.channels if name not in ignore]
    found = replace(found, ignored=found.ignored + tuple(name for name in found.channels if name in ignore))
    if not kept or not found.length:
        raise UserError(f"{path}: holds {found.length} values of {len(kept)} channels, expected at least one of each")
    return found.with_channels(kept)


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _npy(path: Path) -> np.ndarray:
    values = read_npy(path, reserved=2**62)  # which has it mapped
    if values.ndim not in (1, 2) or values.dtype.kind not in "biuf" or 0 in values.shape:
        raise UserError(
            f"{path}: expected numbers (time,) or (channels, time), got {values.dtype} of shape {values.shape}"
        )
    if values.ndim == 1:
        return values[None]
    if values.shape[0] == values.shape[1]:
        raise UserError(
            f"{path}: of shape {values.shape}, of which either axis may be time; save it as .csv, a row for each moment"
        )
    return values if values.shape[0] < values.shape[1] else values.T


def _wav(path: Path) -> np.ndarray:
    return scaled(open_wav(path)[1], path).T


def _text(path: Path, ignore: Sequence[str], labels: str | None) -> Recording:
    rows, places = read_rows(path)
    numbers = [is_number(cell) for cell in rows[0]]
    if any(numbers) and not all(numbers):
        raise UserError(f"{path}, {places[0]}: neither names of channels nor numbers: {shown(rows[0])}")
    names = list(map(str, range(len(rows[0])))) if all(numbers) else rows.pop(0)
    table = table_of(path, names, rows, places[-len(rows) :] if rows else [])
    heads = table.names
    if labels is not None:
        table.require([labels], "recordings.labels")
    split = {head: _unit(head) for head in heads}
    rate, wanted, ignored = None, [], []
    for head in heads:
        name, unit = split[head]
        if head == labels:
            continue
        if head in ignore or name in ignore:
            ignored.append(head if head in ignore else name)
            continue
        if name.lower() in TIMES and unit in SECONDS and not all(numbers):
            rate = _rate(table, head, SECONDS[unit])
        else:
            wanted.append(head)
    label = None
    if labels is not None:
        values = table.numbers(labels)
        whole = values is None or ((values == np.round(values)) | np.isnan(values)).all()
        label = np.array(table.text(labels)) if whole else values
    values = [_channel(table, head) for head in wanted]
    return Recording(
        path,
        tuple(split[head][0] for head in wanted),
        tuple(split[head][1] for head in wanted),
        rate,
        len(table),
        partial(np.stack, values) if values else partial(np.zeros, (0, 0)),
        label,
        tuple(ignored),
    )


def _unit(head: str) -> tuple[str, str]:
    """Name and unit of a channel that is written as `EMG (mV)` or `EMG [mV]`."""
    found = re.fullmatch(r"(.*\S)\s*[(\[]([^)\]]*)[)\]]", head)
    return (found[1], found[2].strip()) if found else (head, "")


def _channel(table: Table, head: str) -> np.ndarray:
    values = table.numbers(head)
    cells = table.text(head)
    if values is None or np.isnan(values).any():
        row = 0 if values is None else int(np.isnan(values).argmax())
        raise UserError(
            f"{table.path}, {table.places[row] if cells else 'no rows'}: channel {head!r} holds {cells[row] if cells else ''!r}, "
            f"expected a number; --table.ignore {head} leaves the channel out, start and stop in an index cut a piece out"
        )
    return values


def _dates(cells: Sequence[str]) -> np.ndarray:
    """Seconds from the first of times that are written with their date (ISO 8601), float64; NaN where they are not."""
    try:
        times = np.array([cell.removesuffix("Z") for cell in cells], "datetime64[ns]")
    except ValueError:
        return np.full(len(cells), np.nan)
    return (times - times[0]) / np.timedelta64(1, "s")


def _rate(table: Table, head: str, unit: float) -> float | None:
    """Values per second by a column of times, which may be rounded."""
    times = table.numbers(head)
    if times is None:
        times, unit = _dates(table.text(head)), 1.0
    if np.isnan(times).any():
        raise UserError(
            f"{table.path}: column {head!r} must hold times, in numbers or as 2024-05-01 12:00:00.25, in every row; --table.ignore "
            f"{head} leaves it out, and --recordings.rate says how many values a second has"
        )
    if len(times) < 2:
        return None
    step = (times[-1] - times[0]) / (len(times) - 1)
    off = np.abs(times - times[0] - step * np.arange(len(times)))
    if not step > 0 or off.max() > 0.75 * step:
        row = int(off.argmax())
        raise UserError(
            f"{table.path}, {table.places[row]}: column {head!r}: times are not evenly spaced ({times[row]:g} is "
            f"{off.max() / abs(step) if step else np.inf:.1f} steps off); cut it at the gap, or take values as evenly spaced "
            f"nevertheless: --table.ignore {head!r} --recordings.rate {1 / (abs(step) * unit) if step else 1:.4g}"
        )
    rate = 1 / (step * unit)
    return float(round(rate)) if abs(rate - round(rate)) < 1e-3 * rate else rate


def _edf(path: Path, ignore: Sequence[str], labels: str | None) -> Recording:
    try:
        import edfio
    except ImportError:
        raise MissingPackage(f"{path}", "edfio", "edf") from None
    with explained(path, "an EDF file"):
        found = edfio.read_edf(path)
        signals = [signal for signal in found.signals if signal.label not in ignore]
        ignored = tuple(signal.label for signal in found.signals if signal.label in ignore)
        channels = tuple(signal.label for signal in signals)
        rates = {signal.label: float(signal.sampling_frequency) for signal in signals}
        units = tuple(signal.physical_dimension for signal in signals)
        length = min((len(signal.data) for signal in signals), default=0)
        marks = [(mark.onset, mark.duration, mark.text) for mark in found.annotations]
    if len(set(channels)) != len(channels):
        raise UserError(f"{path}: two channels have one name: {shown(channels)}")
    if len(set(rates.values())) > 1:
        listing = ", ".join(f"{name} {rate:g} Hz" for name, rate in rates.items())
        raise UserError(
            f"{path}: its channels differ in rate ({listing}); leave those out that do not fit with --table.ignore"
        )
    rate = next(iter(rates.values()), None)
    label = None
    if labels is not None:
        _require_annotations(path, labels)
        label = _marked(
            [(round(at * rate), round((at + (span or 0)) * rate), text) for at, span, text in marks], length
        )
    return Recording(path, channels, units, rate, length, partial(_edf_values, path, channels), label, ignored)


def _edf_values(path: Path, channels: Sequence[str]) -> np.ndarray:
    import edfio

    found = {signal.label: signal for signal in edfio.read_edf(path).signals}
    return np.stack([found[name].data.astype(np.float32) for name in channels])


def _wfdb(path: Path, ignore: Sequence[str], labels: str | None) -> Recording:
    try:
        import wfdb
    except ImportError:
        raise MissingPackage(f"{path}", "wfdb", "wfdb") from None
    record = str(path.with_suffix(""))
    try:
        header = wfdb.rdheader(record)
        names = tuple(header.sig_name or ())
        for file in header.file_name or ():
            if Path(file).name != file:
                raise UserError(f"its header names a file of another folder: {file}")
        units = tuple(unit or "" for unit in header.units or ())
        label = None
        if labels is not None:
            _require_annotations(path, labels)
            marks = wfdb.rdann(record, "atr")
            spans = [(int(at), int(at) + 1, text) for at, text in zip(marks.sample, marks.symbol, strict=True)]
            label = _marked(spans, int(header.sig_len))
        wfdb.rdrecord(record, sampto=1)
        found = Recording(
            path, names, units, float(header.fs), int(header.sig_len), partial(_wfdb_values, record), label
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # a damaged file raises whatever its bytes happen to say
        raise UserError(f"{path}: not a WFDB record, or a damaged one: {str(error) or type(error).__name__}") from None
    if len(set(names)) != len(names):
        raise UserError(f"{path}: two channels have one name: {shown(names)}")
    return found


def _wfdb_values(record: str) -> np.ndarray:
    import wfdb

    return wfdb.rdrecord(record).p_signal.T.astype(np.float32)


def _require_annotations(path: Path, labels: str) -> None:
    if labels != ANNOTATIONS:
        raise UserError(f"recordings.labels: of {path.name} expected {ANNOTATIONS!r}, got {labels!r}")


def _marked(spans: Sequence[tuple[int, int, str]], length: int) -> np.ndarray:
    """A label for each value: that of the last span that covers it."""
    names = sorted({text for *_, text in spans})
    codes = np.zeros(length, np.int64)
    for start, stop, text in spans:
        codes[max(start, 0) : max(stop, start + 1)] = 1 + names.index(text)
    return np.array(["", *names])[codes]
