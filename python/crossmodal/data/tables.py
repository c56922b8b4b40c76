"""From the columns of a table to numbers: which become what is settled once, and done alike to tables of new samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossmodal.data.readers.tables import Table, shown
from crossmodal.errors import UserError
from crossmodal.naming import nearest

MOST_LEVELS = 20  # of a column of categories; more are names, dates or prose
PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Feature:
    """What becomes of a column.

    Attributes:
        name: of the column.
        levels: categories, in order; empty for numbers.
        indicator: whether a column of zeros and ones says where numbers are missing.
    """

    name: str
    levels: tuple[str, ...] = ()
    indicator: bool = False

    @property
    def names(self) -> list[str]:
        """Of the columns that it becomes: two categories are one column of zeros and ones."""
        if self.levels:
            return [f"{self.name}={level or '(empty)'}" for level in self._shown]
        return [self.name, *([f"{self.name} is missing"] if self.indicator else [])]

    @property
    def _shown(self) -> tuple[str, ...]:
        return self.levels[1:] if len(self.levels) == 2 else self.levels

    def encode(self, table: Table) -> np.ndarray:
        """The columns that it becomes, float64 (n, k), NaN where a number is missing.

        Raises:
            UserError: a category that training did not meet, or text where it met numbers; names line and column.
        """
        if self.levels:
            cells = table.text(self.name)
            for cell, place in zip(cells, table.places, strict=True):
                if cell not in self.levels:
                    raise UserError(
                        f"{table.path}, {place}: column {self.name!r} holds {cell!r}, which training did not meet (it met: "
                        f"{shown([level or '(empty)' for level in self.levels], MOST_LEVELS)})"
                    )
            return (np.array(cells)[:, None] == np.array(self._shown)).astype(np.float64)
        values = table.numbers(self.name)
        if values is None:
            cells = table.text(self.name)
            if any(cells):
                row = next(row for row, cell in enumerate(cells) if cell)
                raise UserError(
                    f"{table.path}, {table.places[row]}: column {self.name!r} holds {cells[row]!r}, expected a number"
                )
            values = np.full(len(table), np.nan)
        return np.stack([values, *([np.isnan(values)] if self.indicator else [])], axis=1).astype(np.float64)


@dataclass(frozen=True)
class Schema:
    """The columns of a table that are learned from, in the order of the samples' values."""

    features: tuple[Feature, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the values of a sample."""
        return tuple(name for feature in self.features for name in feature.names)

    def encode(self, table: Table) -> np.ndarray:
        """Samples float64 (n, values); columns are found by their names.

        Raises:
            UserError: a column is missing; and see `Feature.encode`.
        """
        present = set(table.names)
        missing = [feature.name for feature in self.features if feature.name not in present]
        if missing:
            free = [name for name in table.names if name not in {feature.name for feature in self.features}]
            hints = "; ".join(f"{name!r}{nearest(name, free)}" for name in missing)
            raise UserError(
                f"{table.path}: lacks columns that were learned from: {hints} (it has {shown(table.names)})"
            )
        return np.concatenate([feature.encode(table) for feature in self.features], axis=1)

    def to_dict(self) -> list[dict[str, Any]]:
        """As JSON takes it."""
        return [{"name": one.name, "levels": list(one.levels), "indicator": one.indicator} for one in self.features]

    @classmethod
    def from_dict(cls, values: Sequence[Mapping[str, Any]]) -> Schema:
        """Inverse of `to_dict`."""
        return cls(tuple(Feature(str(v["name"]), tuple(map(str, v["levels"])), bool(v["indicator"])) for v in values))


def understand(table: Table, names: Sequence[str], indicators: bool) -> tuple[Schema, dict[str, str], list[str]]:
    """What becomes of the columns with these names; headings and lines for the table before training; and warnings.

    Raises:
        UserError: a column of text with more than `MOST_LEVELS` categories; or none is left.
    """
    features, notes = [], []
    categories, missing, empty = [], [], []
    for name in names:
        values = table.numbers(name)
        if values is not None:
            holes = int(np.isnan(values).sum())
            features.append(Feature(name, indicator=indicators and holes > 0))
            missing += [f"{name} {holes}"] if holes else []
            known = np.unique(values[~np.isnan(values)])
            if len(table) > 9 and len(known) == len(table) and np.array_equal(known, known[0] + np.arange(len(table))):
                notes.append(
                    f"warning: column {name!r} counts the rows: if these are row numbers, --table.ignore {name} leaves them out."
                )
            continue
        cells = table.text(name)
        if not any(cells):
            empty.append(name)
            continue
        levels = tuple(sorted(set(cells)))
        if len(levels) > MOST_LEVELS:
            raise UserError(
                f"{table.path}: column {name!r} holds text with {len(levels)} different values ({shown(levels, 3)}): up to "
                f"{MOST_LEVELS} are categories, more are names, dates or prose, from which nothing is learned; leave it out with "
                f"--table.ignore {name}, or if it says who or where a row is from, name it with --table.group {name}"
            )
        features.append(Feature(name, levels))
        categories.append(f"{name} ({shown([level or '(empty)' for level in levels], 6)})")
        if set(map(str.lower, levels)) <= PARTS.keys() and len(levels) > 1:
            notes.append(
                f"warning: column {name!r} names parts of the data ({', '.join(levels)}), and is learned from; "
                f"--table.split {name} splits by it."
            )
    if not features:
        raise UserError(f"{table.path}: no column is left to learn from (columns: {shown(table.names)})")
    filled = "; the median of the training samples stands in" + (", and a column says where" if indicators else "")
    rows = {
        "categories": "; ".join(categories),
        "missing values": shown(missing) + filled if missing else "",
        "empty columns": shown(empty) + ", left out" if empty else "",
    }
    return Schema(tuple(features)), {heading: line for heading, line in rows.items() if line}, notes
