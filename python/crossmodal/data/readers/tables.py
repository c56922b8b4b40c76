"""Reader of tables whose columns have names: .csv, .tsv and .parquet."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.data.arrays import free_memory
from crossmodal.data.numeric import is_number, parse_number
from crossmodal.data.readers.csv import read_cells
from crossmodal.errors import MissingPackage, UserError
from crossmodal.naming import nearest

SUFFIXES = (".csv", ".tsv", ".parquet")
MISSING = {"", "na", "n/a", "#n/a", "<na>", "nan", "null", "none", "?"}  # in a column of numbers, in any case
MEMORY = 12  # times the size of a text file that its cells take, about


class Table:
    """Columns by name, each of text or of numbers.

    Attributes:
        path: the file.
        names: of the columns, in order, but for a first one without a name, which `text("")` has.
        places: where each row stands in the file, in words.
    """

    def __init__(self, path: Path, columns: dict[str, list[str] | np.ndarray], places: Sequence[str]) -> None:
        self.path, self._columns, self.places = path, columns, list(places)
        self._numbers: dict[str, np.ndarray | None] = {}
        self.names = tuple(filter(None, columns))

    def __len__(self) -> int:
        return len(self.places)

    @property
    def has_row_names(self) -> bool:
        """Whether there is a first column without a name, as pandas writes the names of rows."""
        return "" in self._columns

    def require(self, names: Sequence[str], what: str) -> None:
        """Raises UserError where a column is not there; `what` says who asks for it."""
        for name in names:
            if name not in self._columns:
                raise UserError(
                    f"{what}: {self.path} has no column {name!r}{nearest(name, self.names)} (columns: {shown(self.names)})"
                )

    def text(self, name: str) -> list[str]:
        """The cells of a column as text, without blanks around it."""
        column = self._columns[name]
        if isinstance(column, list):
            return column
        return ["" if value != value else str(value) for value in column.tolist()]

    def full_text(self, name: str, what: str) -> list[str]:
        """The same, of a column in which no cell may be empty; `what` says what it is for."""
        cells = self.text(name)
        for cell, place in zip(cells, self.places, strict=True):
            if not cell:
                raise UserError(f"{self.path}, {place}: column {name!r} is empty; {what} is needed in every row")
        return cells

    def numbers(self, name: str) -> np.ndarray | None:
        """The values of a column as float64 (n,), NaN where a cell is empty; None where it holds text.

        Raises:
            UserError: a cell among numbers is none, or infinite; names line and column.
        """
        if name in self._numbers:
            return self._numbers[name]
        column = self._columns[name]
        column = self._parsed(name, column) if isinstance(column, list) else column.astype(np.float64)
        self._numbers[name] = column
        if column is not None and np.isinf(column).any():
            row = int(np.isinf(column).argmax())
            raise UserError(f"{self.path}, {self.places[row]}: column {name!r} holds {column[row]}, expected a number")
        return column

    def _parsed(self, name: str, cells: list[str]) -> np.ndarray | None:
        if not any(
            "_" in cell or (len(cell) > 15 and cell.isdecimal()) for cell in cells
        ):  # which `parse_number` refuses
            with contextlib.suppress(ValueError):
                return np.array(list(map(float, cells)))
        values, wrong = np.full(len(cells), np.nan), []
        for row, cell in enumerate(cells):
            if cell.lower() in MISSING:
                continue
            try:
                values[row] = parse_number(cell)
            except ValueError as error:
                wrong.append((row, error))
        found = int(np.isfinite(values).sum())
        if found > 4 * len(wrong) and wrong:
            row, error = wrong[0]
            raise UserError(
                f"{self.path}, {self.places[row]}: column {name!r}: {error}, as {found} others in that column are"
            )
        return None if wrong or not found else values


def read_table(path: Path, known: Collection[str] = ()) -> Table:
    """A table: .csv (separated by commas or semicolons, then with decimal commas if you like), .tsv or .parquet.

    Args:
        path: the file.
        known: names of columns that may be numbers, as those of spectra are: a first line of these is one of names.

    Raises:
        UserError: no such content; names line and column.
        MissingPackage: .parquet, and pyarrow is not installed.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_text(path, known)
    if not len(table):
        raise UserError(f"{path}: no rows below the names of the columns")
    return table


def _read_text(path: Path, known: Collection[str]) -> Table:
    rows, places = read_rows(path)
    names = rows.pop(0)
    if all(is_number(name) for name in names) and not set(known).issuperset(names):
        raise UserError(f"{path}: the first line must name the columns, got numbers: {shown(names)}")
    return table_of(path, names, rows, places[1:])


def read_rows(path: Path) -> tuple[list[list[str]], list[str]]:
    """The cells of a text file, without blanks around them, and where each row stands, in words.

    Tabs separate them in .tsv; else what the first line has most of: commas, semicolons, tabs. With semicolons, decimal commas
    become points.

    Raises:
        UserError: not a table in UTF-8, or an empty one; names the line.
    """
    size, free = path.stat().st_size, free_memory()
    if size * MEMORY > free:
        raise UserError(
            f"{path}: {size / 2**30:.1f} GiB of text do not fit into the memory that is free; save it as .parquet or .npy"
        )
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(path)
    rows, places = read_cells(path, delimiter)
    clean = _decimal if delimiter == ";" else str
    return [[clean(cell.strip()) for cell in cells] for cells in rows], [
        place.removeprefix(f"{path}, ") for place in places
    ]


def table_of(path: Path, names: Sequence[str], rows: Sequence[Sequence[str]], places: Sequence[str]) -> Table:
    """The table of rows of cells.

    Raises:
        UserError: a row has more or fewer cells than there are names, or names are missing or given twice.
    """
    for cells, place in zip(rows, places, strict=True):
        if len(cells) != len(names):
            raise UserError(f"{path}, {place}: {len(cells)} cells, but {len(names)} in the first line")
    columns = map(list, zip(*rows, strict=True)) if rows else ([] for _ in names)
    return Table(path, _named(path, names, columns), places)


def _delimiter(path: Path) -> str:
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        line = file.readline()
    return max(",;\t", key=line.count)  # the first of them where there is none


def _decimal(cell: str) -> str:
    """A number with a decimal comma as one with a point; other cells as they are."""
    whole, comma, part = cell.partition(",")
    return f"{whole}.{part}" if comma and part[:1].isdigit() and is_number(f"{whole}.{part}") else cell


def _named(path: Path, names: Sequence[str], columns: Iterable[Any]) -> dict[str, Any]:
    """Columns by name; the name of a first one without any, in which pandas writes the names of the rows, is empty."""
    found: dict[str, Any] = {}
    for number, (name, column) in enumerate(zip(names, columns, strict=True)):
        if number == 0 and (not name or name.startswith("Unnamed: 0") or name == "__index_level_0__"):
            name = ""
        elif not name or name in found:
            said = f"{name!r} is the name of two" if name else f"column {number + 1} has no name"
            raise UserError(f"{path}: the first line must name the columns, each by a name of its own: {said}")
        found[name] = column
    return found


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
        import pyarrow.types as kinds
    except ImportError:
        raise MissingPackage(f"{path}", "pyarrow", "parquet") from None
    try:
        head = pyarrow.parquet.read_metadata(path)
        fits = 8 * head.num_rows * head.num_columns <= free_memory()
        table = pyarrow.parquet.read_table(path) if fits else None
        if table is not None:
            table.validate(full=True)  # text in UTF-8, too
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not a Parquet file, or a damaged one: {error}") from None
    if table is None:
        raise UserError(
            f"{path}: {head.num_rows} rows of {head.num_columns} columns do not fit into the memory that is free"
        )
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if kinds.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if kinds.is_integer(column.type) or kinds.is_floating(column.type):
            columns.append(column.to_numpy(zero_copy_only=False))
        elif kinds.is_nested(column.type) or kinds.is_binary(column.type):
            raise UserError(f"{path}: column {name!r} is of type {column.type}, expected numbers or text")
        else:
            truth = {True: "true", False: "false", None: ""}
            columns.append(
                [truth[v] if v is None or v is True or v is False else str(v).strip() for v in column.to_pylist()]
            )
    names = list(table.column_names)
    if "__index_level_0__" in names:  # which pandas writes last
        names.insert(0, names.pop())
        columns.insert(0, columns.pop())
    return Table(path, _named(path, names, columns), [f"row {row}" for row in range(table.num_rows)])


def shown(names: Sequence[object], most: int = 12) -> str:
    """Names in a row, the first few of many."""
    return ", ".join(map(str, names[:most])) + (f", ... ({len(names)} in all)" if len(names) > most else "")
