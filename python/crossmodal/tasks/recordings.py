"""A user's folder of recordings: each is a sample, or is cut into windows that are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.data import windows
from crossmodal.data.readers.recordings import SUFFIXES, Recording, open_recording
from crossmodal.data.readers.tables import shown
from crossmodal.errors import UserError
from crossmodal.naming import counted, nearest
from crossmodal.tasks import columns, oddities
from crossmodal.tasks.base import About, Options, RawTask
from crossmodal.tasks.folders import Listing, list_folder

RESERVED = ("start", "stop", "start_s", "stop_s", "rate")  # columns of an index
Span = tuple[int, int, int]  # number of a recording, first value and the one behind the last, at the common rate


def load_recordings(options: Options) -> RawTask:
    """The task of a folder of recordings; see `crossmodal.settings.RecordingsConfig`.

    Raises:
        UserError: names file, line of the index, channel and place.
    """
    told = options.recordings
    if options.kind == "dense":
        raise UserError("kind: the targets of recordings are labels or numbers, not fields; for fields save arrays")
    if told.rule is not None and told.labels is None:
        raise UserError("recordings.rule: is for labels of each moment, whose column --recordings.labels names")
    listing = list_folder(options, SUFFIXES, RESERVED, needs_target=told.labels is None)
    paths = list(dict.fromkeys(listing.paths))
    found = [open_recording(path, listing.ignored, told.labels) for path in paths]
    known = {*(listing.index.names if listing.index else ()), *(name for one in found for name in one.ignored)}
    for name in listing.ignored:
        if name not in known:
            here = shown(found[0].channels)
            raise UserError(
                f"table.ignore: no recording has a channel {name!r}{nearest(name, found[0].channels)} (channels: {here})"
            )
    notes = _differences(found)
    found = [one.with_channels(found[0].channels) for one in found]
    if told.rate is not None and all(one.rate for one in found):
        notes.append("warning: --recordings.rate is for files that do not say their rate, and all of these do.")
    rates = [one.rate or _given(listing, one.path) or told.rate for one in found]
    rate = _common(found, rates, told.resample)
    grows = [Fraction(1) if own == rate else windows.ratio(rate, own) for own in rates]
    spans = [_span(listing, entry, paths, found, rates, grows) for entry in range(len(listing.paths))]
    window = _window(told.window, rate, spans, found)
    hop = window if told.hop is None else _length("recordings.hop", told.hop, rate)
    of, starts, entry = _cut(spans, window, hop)
    notes += _left_out(spans, window, hop, listing)
    if told.labels is None:
        y, kind, targets, names = listing.y[entry], listing.kind, listing.targets, listing.targets
    else:
        y, kind, names, known = _labels_of_windows(found, grows, of, starts, window, options)
        targets = (told.labels,)
        if not known.any():
            raise UserError(f"{listing.folder}: no window has a label in {told.labels!r}")
        notes += [f"windows without a label, left out: {(~known).sum()} of {len(known)}."] * (not known.all())
        of, starts, entry, y = of[known], starts[known], entry[known], y[known]
    low, high = (np.full(len(found[0].channels), np.nan) for _ in range(2))

    def look(_: int, values: np.ndarray) -> None:
        np.fmin(low, values.min(axis=1), out=low)
        np.fmax(high, values.max(axis=1), out=high)

    x = windows.cut(found, grows, of, starts, window, look, options.copies)
    flat = [found[0].channels[i] for i in np.flatnonzero(low == high)]
    notes += [f"warning: constant channels, which say nothing: {shown(flat)}."] if flat else []
    files = np.array([path.relative_to(listing.folder).as_posix() for path in paths])
    several = len(of) > len(paths)

    def place(row: int) -> str:
        at = f"{starts[row] / rate:g} s" if rate else f"value {starts[row]}"
        return f"{files[of[row]]} from {at}" if several else str(files[of[row]])

    if isinstance(x, np.ndarray):
        notes += oddities.said(x, y, place, targets=targets, kind=kind, constant=False)
    group = listing.group[entry] if listing.group is not None else files[of] if several else None
    others = Counter(f"{own:g}" for own, grow in zip(rates, grows, strict=True) if grow != 1)
    resampled = [f"{counted(count, 'files')} of {own} Hz" for own, count in others.items()]
    rows = {
        "recordings": f"{counted(len(paths), 'files')}, {_range([one.length for one in found], rates)}",
        "window": f"{_measure(window, rate)}, one every {_measure(hop, rate)}" if several or told.window else "",
        "resampled": f"{', '.join(resampled)} to {rate:g} Hz" if resampled else "",
        "labels": f"{told.labels}: {_rule(options, y)} of a window" if told.labels else "",
        "ignored": shown(listing.ignored),
    }
    return RawTask(
        kind=kind,
        **columns.divide({"x": x, "y": y, "group": group}, None if listing.part is None else listing.part[entry]),
        class_names=tuple(names) if kind == "multilabel" else (),
        origin=str(listing.folder),
        notes=tuple(notes),
        about=About(
            features=found[0].channels,
            units=found[0].units,
            rate=rate,
            targets=tuple(targets),
            rows=rows,
            reading={
                "form": "recordings",
                "channels": list(found[0].channels),
                "ignore": [*listing.ignored, *([told.labels] if told.labels else [])],
                "given_rate": told.rate,
                "rate": rate,
                "window": window,
                "hop": hop,
            },
        ),
    )


def _given(listing: Listing, path: Path) -> float | None:
    """The rate that the index gives for a file."""
    if listing.index is None or "rate" not in listing.index.names:
        return None
    row = listing.paths.index(path)
    values = listing.index.numbers("rate")
    value = float("nan") if values is None else float(values[row])
    if (not np.isnan(value) and value <= 0) or (values is None and listing.index.text("rate")[row]):
        raise UserError(
            f"{listing.places[row]}: rate: expected values per second, got {listing.index.text('rate')[row]!r}"
        )
    return None if np.isnan(value) else value


def _common(found: Sequence[Recording], rates: Sequence[float | None], resample: float | None) -> float | None:
    """The rate of all samples.

    Raises:
        UserError: rates differ, or one is not known where it is needed.
    """
    known = sorted({rate for rate in rates if rate is not None})
    if (resample or known) and None in rates:
        path = found[rates.index(None)].path
        raise UserError(
            f"{path}: does not say how many values a second has; --recordings.rate, or a column `rate` of an index, does"
        )
    if resample is None and len(known) > 1:
        examples = ", ".join(f"{found[rates.index(rate)].path.name} {rate:g} Hz" for rate in known[:6])
        raise UserError(
            f"recordings.resample: recordings differ in rate ({examples}); --recordings.resample {known[0]:g} brings all to one"
        )
    return resample or (known[0] if known else None)


def _span(
    listing: Listing,
    entry: int,
    paths: Sequence[Path],
    found: Sequence[Recording],
    rates: Sequence[float | None],
    grows: Sequence[Fraction],
) -> Span:
    """The piece of a recording that an entry is."""
    number = paths.index(listing.paths[entry])
    length, rate, ends = found[number].length, rates[number], []
    for name, default in (("start", 0), ("stop", length)):
        end = default
        for column, scale in ((name, 1.0), (f"{name}_s", rate)):
            if listing.index is None or column not in listing.index.names or column in listing.targets:
                continue
            values, cell = listing.index.numbers(column), listing.index.text(column)[entry]
            if not cell:
                continue
            where = f"{listing.places[entry]}: {column}"
            if values is None:
                raise UserError(f"{where}: expected a number, got {cell!r}")
            if scale is None:
                raise UserError(
                    f"{where}: in seconds, but {found[number].path.name} has no rate; --recordings.rate says it"
                )
            if column == name and values[entry] != round(values[entry]):
                raise UserError(
                    f"{where}: expected a whole number of values, got {cell}; seconds go into the column {name}_s"
                )
            end = round(values[entry] * scale)
        if not 0 <= end <= length:
            raise UserError(
                f"{listing.places[entry]}: {name}: {end} lies outside of {found[number].path.name}, of {length} values"
            )
        ends.append(end)
    if ends[0] >= ends[1]:
        raise UserError(
            f"{listing.places[entry]}: starts at value {ends[0]} and stops at {ends[1]}: nothing lies between"
        )
    start, stop = (round(end * grows[number]) for end in ends)
    return number, start, stop


def _length(key: str, text: str, rate: float | None) -> int:
    """A length in values, from seconds (`2s`) or values (`400`)."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(s|ms)?", text.strip())
    if match is None:
        raise UserError(f"{key}: expected seconds (2s, 500ms) or values (400), got {text!r}")
    number, unit = float(match[1]), match[2]
    if unit and rate is None:
        raise UserError(f"{key}: {text} needs to know how many values a second has: --recordings.rate says it")
    values = number * {"s": 1.0, "ms": 1e-3}[unit] * rate if unit else number
    if round(values) < 1 or (not unit and values != round(values)):
        raise UserError(
            f"{key}: expected at least one value, got {text}" if unit else f"{key}: expected a whole number, got {text}"
        )
    return round(values)


def _window(text: str | None, rate: float | None, spans: Sequence[Span], found: Sequence[Recording]) -> int:
    """Values of a channel in a sample.

    Raises:
        UserError: recordings differ in length and no window is set, or none is as long as it.
    """
    lengths = [stop - start for _, start, stop in spans]
    short, long = min(lengths), max(lengths)
    shortest, longest = (
        f"{_measure(one, rate)} ({found[spans[lengths.index(one)][0]].path.name})" for one in (short, long)
    )
    if text is None and short != long:
        example = f"{short / rate:.3g}s" if rate else f"{short}"
        raise UserError(
            f"recordings.window: recordings differ in length, from {shortest} to {longest}; cut them into windows, for example "
            f"with --recordings.window {example}"
        )
    window = short if text is None else _length("recordings.window", text, rate)
    if window > long:
        raise UserError(f"recordings.window: {_measure(window, rate)}, but the longest recording has {longest}")
    return window


def _cut(spans: Sequence[Span], window: int, hop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Recording, first value and entry of each window, int64 (n,)."""
    starts = [np.arange(start, stop - window + 1, hop) for _, start, stop in spans]
    counts = [len(one) for one in starts]
    of = np.repeat([number for number, *_ in spans], counts)
    return of, np.concatenate(starts), np.repeat(np.arange(len(spans)), counts)


def _left_out(spans: Sequence[Span], window: int, hop: int, listing: Listing) -> list[str]:
    """What no window covers."""
    lengths = np.array([stop - start for _, start, stop in spans])
    short = np.flatnonzero(lengths < window)
    notes = []
    if len(short):
        named = shown([listing.name(entry) for entry in short], 4)
        notes.append(f"warning: recordings shorter than a window, left out: {len(short)} of {len(spans)} ({named}).")
    covered = np.where(lengths >= window, (lengths - window) // hop * hop + window, 0)
    lost = 1 - covered.sum() / lengths.sum()
    if lost > 0.05 and hop <= window:
        notes.append(f"{lost:.0%} of all values lie behind the last whole window and are not used.")
    return notes


def _labels_of_windows(
    found: Sequence[Recording],
    grows: Sequence[Fraction],
    of: np.ndarray,
    starts: np.ndarray,
    window: int,
    options: Options,
) -> tuple[np.ndarray, str | None, list[str], np.ndarray]:
    """Targets by the labels of each moment, their kind, names of labels, and which windows have one."""
    rule, kind = options.recordings.rule, options.kind
    of_files = [recording.labels for recording in found]
    numbers = any(labels.dtype.kind == "f" for labels in of_files)
    if numbers:  # of some files all may be whole, which are read as text
        try:
            of_files = [np.where(labels == "", "nan", labels).astype(float) for labels in of_files]
        except ValueError:
            raise UserError(
                f"recordings.labels: {options.recordings.labels!r} holds real numbers in some files and text in others"
            ) from None
    if numbers and rule in ("majority", "any"):
        raise UserError(
            f"recordings.rule: {options.recordings.labels!r} holds real numbers, of which a window takes the last; got {rule!r}"
        )
    rule = rule or ("last" if numbers else "majority")
    pieces = []
    for number, start in zip(of, starts, strict=True):
        labels, grow = of_files[number], grows[number]
        first = int(start / grow)
        pieces.append(labels[first : max(first + 1, min(len(labels), round((start + window) / grow)))])
    if rule == "last":
        y = np.array([piece[-1] for piece in pieces])
    elif rule == "majority":
        y = np.array([_most(piece) for piece in pieces])
    else:
        names = sorted({label for piece in pieces for label in np.unique(piece).tolist()} - {""})
        if set(names) <= {"0", "1"}:
            return np.array([int("1" in piece) for piece in pieces]), kind, names, np.ones(len(pieces), bool)
        held = np.array([np.isin(names, piece) for piece in pieces])
        return held.astype(np.int64), "multilabel", names, np.ones(len(pieces), bool)
    known = ~np.isnan(y) if numbers else y != ""
    if not numbers and all(re.fullmatch(r"[+-]?\d{1,15}", label) for label in y[known].tolist()):
        y = np.array([int(label) if label else 0 for label in y.tolist()])
    return y, kind or ("regression" if numbers else None), [], known


def _most(labels: np.ndarray) -> str:
    values, counts = np.unique(labels, return_counts=True)
    return values[counts.argmax()]


def _rule(options: Options, y: np.ndarray) -> str:
    rule = options.recordings.rule or ("last" if y.dtype.kind == "f" else "majority")
    return {"majority": "that of most values", "last": "that of the last value", "any": "any that occurs"}[rule]


def _differences(found: Sequence[Recording]) -> list[str]:
    """What is odd about the channels of recordings: more of them than moments, other ones than in the first file, other units."""
    first, notes = found[0], []
    units = dict(zip(first.channels, first.units, strict=True))
    for one in found:
        if len(one.channels) > one.length:
            notes.append(
                f"warning: {one.path.name} has {len(one.channels)} channels of {one.length} values: if these are {one.length} "
                "channels, turn the table round, so that a row is a moment."
            )
            break
    for one in found:
        if others := [name for name in one.channels if name not in units]:
            notes.append(
                f"warning: {one.path.name} has channels that {first.path.name} lacks, left out: {shown(others)}."
            )
            break
    for one in found:
        mixed = [name for name, unit in zip(one.channels, one.units, strict=True) if units.get(name, unit) != unit]
        if mixed:
            unit = one.units[one.channels.index(mixed[0])]
            notes.append(
                f"warning: channel {mixed[0]!r} is in {units[mixed[0]] or 'no unit'} in {first.path.name}, in "
                f"{unit or 'no unit'} in {one.path.name}: bring them to one scale."
            )
            break
    return notes


def _measure(values: int, rate: float | None) -> str:
    return f"{values} values" + (f" ({values / rate:.4g} s)" if rate else "")


def _range(lengths: Sequence[int], rates: Sequence[float | None]) -> str:
    """Shortest to longest."""
    sizes = [length / rate if rate else length for length, rate in zip(lengths, rates, strict=True)]
    unit = "values" if None in rates else "s"
    low, high = f"{min(sizes):.4g}", f"{max(sizes):.4g}"
    return f"{low} {unit} each" if low == high else f"{low} to {high} {unit}"


def read_recording(path: Path, reading: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, list], str]:
    """Windows (n, C, L) of a new recording, cut as the run's were; where each begins and ends, as an index has it; and a sentence
    that says so.

    Raises:
        UserError: it lacks a channel, or is shorter than a window, or there is no telling its rate.
    """
    found = open_recording(path, reading["ignore"]).with_channels(reading["channels"])
    rate, window, hop = reading["rate"], reading["window"], reading["hop"]
    own = found.rate or reading["given_rate"] or rate
    grow = Fraction(1) if own == rate or rate is None else windows.ratio(rate, own)
    values = windows.loaded(found, grow)
    if values.shape[1] < window:
        raise UserError(f"{path}: has {_measure(values.shape[1], rate)}, but a sample {_measure(window, rate)}")
    starts = np.arange(0, values.shape[1] - window + 1, hop)
    x = np.stack([values[:, start : start + window] for start in starts])
    said = f"{path}: {counted(len(x), 'windows')} of {_measure(window, rate)}, one every {_measure(hop, rate)}"
    ends = {"start": starts, "stop": starts + window}
    places = {f"{end}_s" if rate else end: (at / rate if rate else at).tolist() for end, at in ends.items()}
    return x, places, said + ("" if grow == 1 else f"; resampled from {own:g} to {rate:g} Hz")
