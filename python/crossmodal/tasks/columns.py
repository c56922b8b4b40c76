"""What the columns of a user's table or index say of samples: target, group and part of the split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossmodal.data.arrays import Chosen
from crossmodal.data.dataset import ArrayLike
from crossmodal.data.readers.tables import Table, shown
from crossmodal.data.tables import PARTS
from crossmodal.errors import UserError
from crossmodal.settings import TableConfig


def listed(names: str | None) -> list[str]:
    """Names that are separated by commas."""
    return [name.strip() for name in names.split(",")] if names else []


@dataclass(frozen=True)
class Roles:
    """Names of columns by what they are for."""

    targets: list[str]
    group: str | None
    split: str | None
    ignored: list[str]

    @classmethod
    def of(cls, told: TableConfig, table: Table, ignored_elsewhere: bool = False) -> Roles:
        """Those that the settings name.

        Args:
            told, table: the settings, and the table that has the columns.
            ignored_elsewhere: what is to be ignored may lie in other files, too.

        Raises:
            UserError: a column is not there, or named twice.
        """
        found = cls(listed(told.target), told.group, told.split, listed(told.ignore))
        for what, names in (
            ("target", found.targets),
            ("group", [found.group]),
            ("split", [found.split]),
            ("ignore", [] if ignored_elsewhere else found.ignored),
        ):
            table.require([name for name in names if name is not None], f"table.{what}")
        used = found.used
        for name in used:
            if used.count(name) > 1:
                raise UserError(f"table: column {name!r} is named for two purposes, or twice")
        return found

    @property
    def used(self) -> list[str]:
        """All of them."""
        return [*self.targets, *filter(None, (self.group, self.split)), *self.ignored]


def parts(table: Table, column: str) -> np.ndarray:
    """The part of each row, "train", "val" or "test".

    Raises:
        UserError: another value, or no row to learn from or to test with.
    """
    cells = table.text(column)
    for cell, place in zip(cells, table.places, strict=True):
        if cell.lower() not in PARTS:
            raise UserError(
                f"{table.path}, {place}: column {column!r} holds {cell!r}, expected train, validation or test"
            )
    found = np.array([PARTS[cell.lower()] for cell in cells])
    for part in ("train", "test"):
        if part not in found:
            raise UserError(
                f"{table.path}: column {column!r} has no {part} rows (it has {shown(np.unique(cells))}); without --table.split the "
                "split is made here"
            )
    return found


def divide(samples: dict[str, ArrayLike | None], part: np.ndarray | None) -> dict[str, ArrayLike]:
    """Arrays of all samples as those of a `RawTask`, by part; without parts all are in the training part."""
    present = {name: values for name, values in samples.items() if values is not None}
    if part is None:
        return {f"{name}_train": values for name, values in present.items()}
    rows = {one: np.flatnonzero(part == one) for one in ("train", "val", "test")}
    return {
        f"{name}_{one}": values[these] if isinstance(values, np.ndarray) else Chosen(values, these)
        for one, these in rows.items()
        if len(these)
        for name, values in present.items()
    }


def targets(table: Table, names: Sequence[str], kind: str | None) -> tuple[np.ndarray, str | None]:
    """Targets, and their kind where that is plain.

    Returns:
        One column: text as str, whole numbers as int64, others as float64, all (n,). Several: float64 (n, R), or zeros and ones
        int64 (n, K) that are labels.

    Raises:
        UserError: a cell is empty, or several columns are not numbers; names line and column.
    """
    columns = []
    for name in names:
        values = table.numbers(name)
        if values is None:
            cells = table.full_text(name, "the target")
            if len(names) > 1 or kind in ("regression", "multilabel"):
                what = "several targets are" if len(names) > 1 else f"{kind} is of"
                raise UserError(
                    f"{table.path}, {table.places[0]}: target {name!r} holds {cells[0]!r}, but {what} numbers"
                )
            return np.array(cells), kind
        if np.isnan(values).any():
            row = int(np.isnan(values).argmax())
            raise UserError(
                f"{table.path}, {table.places[row]}: target {name!r} has no value ({int(np.isnan(values).sum())} rows have "
                "none); take these rows out: what is not known cannot be learned or tested"
            )
        columns.append(values)
    found = np.stack(columns, axis=1)
    whole = bool((found == np.round(found)).all() and (np.abs(found) < 2**53).all())
    if len(names) == 1 and kind != "multilabel":
        return (found[:, 0].astype(np.int64) if whole and _without_point(table, names[0]) else found[:, 0]), kind
    labels = kind in (None, "multilabel") and whole and bool(np.isin(found, (0, 1)).all())
    return (found.astype(np.int64) if labels else found), kind or ("multilabel" if labels else "regression")


def _without_point(table: Table, name: str) -> bool:
    """Whether numbers are written as whole ones: 3, but not 3.0."""
    return all(cell.lstrip("+-").isdecimal() for cell in table.text(name))
