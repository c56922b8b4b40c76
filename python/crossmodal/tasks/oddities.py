"""What looks wrong in a user's own data, in plain words: it may be meant, so it is said, not refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from crossmodal.data.readers.tables import shown

MOST_WHOLE = 20  # different whole numbers that are still likely to be labels


def said(
    x: np.ndarray,
    y: np.ndarray,
    place: Callable[[int], str],
    features: Sequence[str] = (),
    targets: Sequence[str] = (),
    kind: str | None = None,
    *,
    constant: bool = True,
) -> list[str]:
    """Warnings about samples and targets.

    Args:
        x: numbers (n, F) of a table, NaN where one is missing, or (n, C, ...).
        y: targets (n,) or (n, R); fields are passed over.
        place: from the number of a sample to words that find it.
        features: names of the columns or channels (else they are numbered).
        targets: names of what is predicted.
        kind: of target, where it is known.
        constant: whether to look for columns and channels that are.
    """
    return [*(_constant(x, features) if constant else ()), *_doubled(x, y, place), *_targets(y, place, targets, kind)]


def _constant(x: np.ndarray, features: Sequence[str]) -> list[str]:
    # Of a series of one channel a value may well be the same in each sample: only columns that have names are looked at.
    if x.dtype.kind not in "biuf" or len(x) < 2 or (x.ndim == 2 and not features):
        return []
    axes = (0, *range(2, x.ndim))
    low, high = np.fmin.reduce(x, axis=axes), np.fmax.reduce(x, axis=axes)
    dull = np.flatnonzero(low == high).tolist()
    names = [f"{features[i] if features else i} (always {low[i]:.6g})" for i in dull]
    what = "columns" if x.ndim == 2 else "channels"
    return [f"warning: constant {what}, which say nothing: {shown(names, 6)}."] if dull else []


def _doubled(x: np.ndarray, y: np.ndarray, place: Callable[[int], str]) -> list[str]:
    first: dict[bytes, int] = {}
    pairs = []
    for row, sample in enumerate(x):
        key = hashlib.sha256(np.ascontiguousarray(sample)).digest()
        if key in first:
            pairs.append((first[key], row))
        first.setdefault(key, row)
    if not pairs:
        return []
    against = [(one, other) for one, other in pairs if not np.array_equal(y[one], y[other])]
    one, other = (against or pairs)[0]
    also = f", {len(against)} with another target" if against else ""
    return [
        f"warning: copies of other samples: {len(pairs)} of {len(x)}{also} (first: {place(other)} copies {place(one)}): what is "
        "learned from one half of a pair is known of the other; give copies one group, or take them out."
    ]


def _targets(y: np.ndarray, place: Callable[[int], str], names: Sequence[str], kind: str | None) -> list[str]:
    if y.ndim > 2 or kind == "dense":
        return []
    columns = y[:, None] if y.ndim == 1 else y
    name = dict(enumerate(names))
    notes = []
    for column, values in enumerate(columns.T):
        found, counts = np.unique(values, return_counts=True)
        called = f"target {name[column]!r}" if column in name else "the target" if y.ndim == 1 else f"target {column}"
        if len(found) == 1:
            notes.append(f"warning: {called} is {found[0]} in all samples: there is nothing to learn.")
        if kind in ("regression", "multilabel") or y.ndim == 2 or values.dtype.kind == "f":
            continue
        if values.dtype.kind in "iu" and len(found) > MOST_WHOLE and kind is None:
            notes.append(
                f"warning: {called} has {len(found)} different whole numbers, each taken for a class: if they are quantities, "
                "take --kind regression."
            )
        elif (single := found[counts == 1].tolist()) and len(found) > 1:
            rows = [int(np.flatnonzero(values == one)[0]) for one in single[:3]]
            where = ", ".join(f"{one!r} ({place(row)})" for one, row in zip(single, rows, strict=False))
            notes.append(
                f"warning: {called}: one sample alone in {len(single)} of {len(found)} classes ({where}): it cannot be both "
                "learned and tested."
            )
    return notes
