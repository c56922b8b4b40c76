"""Figures of other works, from `published.yaml`, each with its source."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from crossmodal.files import read_yaml
from crossmodal.report.grid import table_lines

FILE = Path(__file__).with_suffix(".yaml")
PROTOCOLS = ("default", "released", "single")  # those of the figures


def markdown(tasks: Collection[str] | None = None) -> str:
    """What others printed of tasks (None: of all there are), with sources; empty where there is nothing."""
    known = read_yaml(FILE)
    figures = [
        (line["method"], line["source"], line[task], task)
        for task in known["errors"]
        for line in known["figures"]
        if task in line and (tasks is None or task in tasks)
    ]
    if not figures:
        return ""
    shown = list(dict.fromkeys(task for *_, task in figures))
    sources = list(dict.fromkeys(source for _, source, *_ in figures))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for method, source, figure, task in figures:
        cells.setdefault((method, source), {})[task] = str(figure)
    heads = ["from elsewhere", *(f"{task}, {known['errors'][task]}" for task in shown)]
    body = [
        [f"{method} [{sources.index(source) + 1}]", *(found.get(task, "") for task in shown)]
        for (method, source), found in cells.items()
    ]
    lines = [
        "Not measured here: as printed by others, on sets of other sizes, grids and splits, with other encoders and budgets.",
        "",
        *table_lines(heads, body),
        "",
        *(f"[{place}] {known['sources'][source]}" for place, source in enumerate(sources, 1)),
    ]
    return "\n".join(lines) + "\n"
