"""Reader of .csv files with a sample of one channel per row: what is taken for names, and what for values, is said or asked."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import mode

import numpy as np

from crossmodal.data.numeric import is_number, parse_number
from crossmodal.errors import UserError

ALIKE = 0.25  # a first row is odd where a smaller share of the others is monotonic, or evenly spaced, as it is
STEP_TOLERANCE = 0.05  # of the median step: wavelengths and ppm are rounded


def read_csv(path: Path, length: int | None = None, header: bool | None = None) -> tuple[np.ndarray, str]:
    """The samples of a file, and a sentence that says what was taken for names of columns and of rows.

    The first line is names where none of its cells is a number, where they are 0, 1, 2, ..., as pandas numbers columns, or
    where it names a column of numbers that are row names. The first column is row names where the first line lacks a name
    for it, where none of its cells is a number, or where it counts the rows and is one more than ``length``.

    Args:
        path: UTF-8, cells separated by commas, all rows of one width (a line of names may lack that of the row names).
        length: values per sample, where it is known.
        header: whether the first line is names of columns; None to find out.

    Returns:
        float64 ``(n, values)``, and the sentence.

    Raises:
        UserError: no such content, or a first line or column that could be one or the other; names file, line and column.
    """
    rows, wheres = read_cells(path)
    width = mode(len(cells) for cells in rows[1:] or rows)
    first, *others = rows
    lacks_corner = (
        len(first) == width - 1 and header is not False and (length == width - 1 or not any(map(is_number, first)))
    )
    if lacks_corner:
        first = ["", *first]
    for cells, where in zip([first, *others], wheres, strict=True):
        if len(cells) != width:
            raise UserError(f"{where}: {len(cells)} columns, but {width} in the others")

    row_names = lacks_corner or _are_row_names(first[0], [cells[0] for cells in others], length, width, path)
    start = 1 if row_names else 0
    if _is_nameless(first[0]) and not row_names and width > 1 and header is not False:
        takes = "" if length is None else f", and the run takes {length}"
        raise UserError(f"{wheres[0]}: a column without a name holds row names, which leaves {width - 1} values{takes}")
    if header is None and row_names and not is_number(first[0]):
        header = _is_nameless(first[0]) or is_number(rows[-1][0]) or None
    if header is None and not any(map(is_number, first[start:])):
        header = True
    taken = [cells[start:] for cells in (others if header else [first, *others])]
    if not taken:
        raise UserError(f"{path} has no rows of numbers, separated by commas")
    values = np.array([_numbers(c, where, start) for c, where in zip(taken, wheres[-len(taken) :], strict=True)])
    names = ", ".join(first[start : start + 4]) + (", ..." if width > start + 4 else "")
    if header is None:
        if width - start > 2 and first[start:] == [str(column) for column in range(width - start)]:
            header, values = True, values[1:]
        elif _is_odd(values[0], values[1:]):
            raise UserError(
                f"{wheres[0]}: {names}: names of columns, or a sample? --header yes or --header no says which"
            )
    if len(values) == 0:
        raise UserError(f"{path} has no rows of numbers below its line of names")
    return values, (
        f"{path}: {len(values)} samples of {values.shape[1]} values; "
        + (f"the first line is taken for names of columns ({names})" if header else "no line of names")
        + (", the first column for names of rows" if row_names else ", no row names")
    )


def read_labels(path: Path, samples: int) -> tuple[np.ndarray, str]:
    """Targets or groups of samples, and a sentence that says what was taken for what.

    Args:
        path: as for `read_csv`; or text, alone in its line or behind the row's name as pandas writes it.
        samples: how many there are: text in one more line begins with the name of the column.

    Returns:
        A column of text as str, of whole numbers as int64, of others as float64, each ``(n,)``; else float64 ``(n, values)``.

    Raises:
        UserError: see `read_csv`; or text in several columns.
    """
    rows, wheres = read_cells(path)
    if len(rows) == 1 or any(is_number(cells[-1]) for cells in rows[1:]):
        values, said = read_csv(path)
        if values.shape[1] == 1:
            values = values[:, 0].astype(np.int64) if (values == np.floor(values)).all() else values[:, 0]
        return values, said
    behind_names = len(rows[0]) == 2 and _is_nameless(rows[0][0])
    for cells, where in zip(rows, wheres, strict=True):
        if len(cells) != 1 + behind_names:
            raise UserError(f"{where}: expected one column of text, got {len(cells)} columns")
    taken = [cells[-1] for cells in rows]
    if named := behind_names or len(taken) == samples + 1:
        name = taken.pop(0)
    return np.array(taken), f"{path}: {len(taken)} labels; " + (
        f"the column is {name}" if named else "no line of names"
    )


def read_cells(path: Path, delimiter: str = ",") -> tuple[list[list[str]], list[str]]:
    """The rows of a table that are not blank, and where each stands, for errors.

    Raises:
        UserError: not a table in UTF-8, or an empty one; names the line.
    """
    rows: list[list[str]] = []
    places: list[str] = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            for cells in filter(None, reader):
                rows.append(cells)
                places.append(f"{path}, line {reader.line_num}")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from None
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from None
    if not rows:
        raise UserError(f"{path}: no rows of cells")
    return rows, places


def _is_nameless(corner: str) -> bool:
    return not corner.strip() or corner.startswith("Unnamed: 0")  # what pandas makes of it


def _numbers(cells: list[str], where: str, start: int) -> list[float]:
    values = []
    for column, cell in enumerate(cells, start):
        try:
            values.append(parse_number(cell))
        except ValueError as error:
            raise UserError(f"{where}: column {column}: {error}") from None
    return values


def _are_row_names(corner: str, column: list[str], length: int | None, width: int, path: Path) -> bool:
    """Whether the first column (``corner`` in the first line, ``column`` below) holds names or numbers of rows."""
    if width < 2 or not column or length not in (None, width - 1):
        return False
    if not any(map(is_number, column)) or (length is not None and _is_nameless(corner)):
        return True
    if not all(cell.strip().isdecimal() for cell in column):
        return False
    numbers = [int(cell) for cell in column]
    counts = numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    if _is_nameless(corner):
        return len(set(numbers)) == len(numbers)
    if length is None and counts and len(numbers) > 2:
        raise UserError(f"{path}: the first column counts the rows: take it out, or save the samples as .npy")
    return counts and length is not None


def _is_odd(first: np.ndarray, others: np.ndarray) -> bool:
    """Whether a row of numbers may be the names of the columns (wavelengths, ppm, 1, 2, 3, ...) of those below it."""
    if len(set(first.tolist())) < max(len(first), 2):
        return False
    whole = (others == np.round(others)) | np.isnan(others)
    if len(others) and (first == np.round(first)).all() and not whole.all(axis=1).any():
        return True
    found = others[np.isfinite(others)]
    if len(others) > 1 and len(found):
        low, high = found.min(), found.max()
        if max(first.min() - high, low - first.max()) > high - low:
            return True
    for least, likeness in ((3, _is_evenly_spaced), (6, _is_monotonic)):
        if len(first) >= least and likeness(first) and np.mean([likeness(row) for row in others] or [0]) < ALIKE:
            return True
    return False


def _is_monotonic(row: np.ndarray) -> bool:
    steps = np.diff(row)
    return bool((steps > 0).all() or (steps < 0).all())


def _is_evenly_spaced(row: np.ndarray) -> bool:
    steps = np.diff(row)
    middle = np.median(steps)
    return bool(_is_monotonic(row) and (np.abs(steps - middle) <= STEP_TOLERANCE * abs(middle)).all())
