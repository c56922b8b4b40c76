"""A user's table: a row is a sample, columns of numbers and categories are its values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.data.readers.tables import read_table, shown
from crossmodal.data.tables import Schema, understand
from crossmodal.errors import UserError
from crossmodal.naming import counted
from crossmodal.tasks import columns, oddities
from crossmodal.tasks.base import About, Options, RawTask
from crossmodal.tasks.columns import Roles

UNNAMED = "the first column, which has no name"
SCALES = 1e3  # ratio of deviations from which on it is said that columns differ in scale


def load_table(path: Path, options: Options) -> RawTask:
    """The task of a table; see `crossmodal.settings.TableConfig`.

    Raises:
        UserError: a column is missing, or holds what it cannot be used for; names line and column.
    """
    table = read_table(path)
    if len(table.names) < 2:
        raise UserError(
            f"{path}: has a single column, {shown(table.names)}; commas, semicolons or tabs separate the cells of a row"
        )
    roles = Roles.of(options.table, table)
    if not roles.targets:
        raise UserError(
            f"table.target: which column of {path} is to be predicted? Name it with --table.target (columns: "
            f"{shown(table.names)})"
        )
    if options.kind == "dense":
        raise UserError(f"kind: the targets of a table are columns, not fields; {path} cannot be dense")
    y, kind = columns.targets(table, roles.targets, options.kind)
    wanted = [name for name in table.names if name not in roles.used]
    schema, rows, notes = understand(table, wanted, options.table.missing == "indicator")
    x = schema.encode(table)
    part = None if roles.split is None else columns.parts(table, roles.split)
    notes += oddities.said(x, y, table.places.__getitem__, schema.names, roles.targets, kind)
    notes += _unlearned(schema, x, part)
    numbers = set(wanted)
    spread = np.nanstd(x, axis=0)[[name in numbers for name in schema.names]]
    spread = spread[spread > 0]
    if len(spread) and spread.max() > SCALES * spread.min():
        rows["scales"] = f"deviations from {spread.min():.2g} to {spread.max():.2g}: each column is scaled by its own"
    rows["ignored"] = shown([*[UNNAMED] * table.has_row_names, *roles.ignored])
    group = None if roles.group is None else np.array(table.full_text(roles.group, "the group"))
    multilabel = kind == "multilabel"
    return RawTask(
        kind=kind,
        **columns.divide({"x": x, "y": y, "group": group}, part),
        class_names=tuple(roles.targets) if multilabel else (),
        origin=str(path),
        notes=tuple(notes),
        normalize_x="position",
        impute=True,
        about=About(
            features=schema.names,
            targets=tuple(roles.targets),
            rows=rows,
            reading={"form": "table", "features": schema.to_dict()},
        ),
    )


def _unlearned(schema: Schema, x: np.ndarray, part: np.ndarray | None) -> list[str]:
    """Categories that no training sample has."""
    if part is None:
        return []
    categories = [index for index, name in enumerate(schema.names) if "=" in name]
    unmet = [schema.names[i] for i in categories if not x[part == "train", i].any()]
    return [f"warning: no training sample has {shown(unmet)}: nothing is learned of it."] if unmet else []


def read_rows(path: Path, reading: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, list], str]:
    """Samples (n, values) of a table as the run's own was read; where each is from, the line or row and what the columns that were
    not learned from say of it, by name; and a sentence that says what was taken.

    Raises:
        UserError: a column is missing, or holds what training did not meet.
    """
    schema = Schema.from_dict(reading["features"])
    used = {feature.name for feature in schema.features}
    table = read_table(path, used)
    kept = [name for name in table.names if name not in used]
    unused = [*[UNNAMED] * table.has_row_names, *kept]
    said = (
        f"{table.path}: {counted(len(table), 'rows')}; columns by name: {shown([one.name for one in schema.features])}"
    )
    x = schema.encode(table)
    holes = np.isnan(x).sum(axis=0)
    missing = [f"{name} {count}" for name, count in zip(schema.names, holes, strict=True) if count]
    said += f"; not used: {shown(unused)}" if unused else ""
    said += f"; empty cells, for which the training median stands in: {shown(missing)}" if missing else ""
    unit = table.places[0].split()[0]
    places = {"": table.text("")} if table.has_row_names else {}
    places |= {unit: [int(place.split()[1]) for place in table.places]} | {name: table.text(name) for name in kept}
    return x, places, said
