"""One table of a comparison: a row for each method, a column for each task; as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from crossmodal.naming import by_protocol
from crossmodal.report import statistics, tables

LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX |= {sign: f"${sign}$" for sign in "<>|"} | {sign: f"\\{sign}" for sign in "&%$#_{}"}
COLUMNS = (
    "task",
    "protocol",
    "method",
    "metric",
    "error",
    "mean",
    "std",
    "seeds",
    "failed",
    "best",
    "average_rank",
    "seconds",
)


@dataclass
class Grid:
    """What a comparison found.

    Attributes:
        tasks: by the name of each task, what `tables.summarise` gives.
        methods: names of the rows, in order.
        failed: by (task, method), how many of its runs failed.
        unsuited: by (task, method), why the method cannot do the task.
        tests: how many tests the choice of the bold figures took, see `statistics.mark_best`.
        ranks: average rank of each method that has a figure in every task, over all its test samples; empty for a single task.
    """

    tasks: dict[str, dict[str, Any]]
    methods: list[str]
    failed: dict[tuple[str, str], int] = field(default_factory=dict)
    unsuited: dict[tuple[str, str], str] = field(default_factory=dict)
    tests: int = 0
    ranks: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tests = statistics.mark_best(list(self.tasks.values()))
        ranked, means = self.means()
        if len(self.tasks) > 1 and len(ranked) > 1:
            self.ranks = dict(zip(ranked, map(float, statistics.average_ranks(means)), strict=True))

    def means(self) -> tuple[list[str], np.ndarray]:
        """The methods that have a mean in every task, over all its test samples, and their errors (tasks, methods)."""
        rows = {name: [self.row(task, name) for task in self.tasks] for name in self.methods}
        fewer = {row["method"] for _, row in self.fewer()}
        ranked = [
            name
            for name, found in rows.items()
            if name not in fewer and all(row and row["mean"] is not None for row in found)
        ]
        errors = [[rows[name][place]["mean"] for name in ranked] for place in range(len(self.tasks))]
        return ranked, np.array(errors, dtype=float).reshape(len(self.tasks), len(ranked))

    def row(self, task: str, method: str) -> dict[str, Any] | None:
        """A method's row in the table of a task, None where no run of it came to its end."""
        return self.tasks[task]["methods"].get(method)

    def label(self, method: str) -> str:
        """How the row is called: a method may name what it is on its task."""
        rows = [self.row(task, method) for task in self.tasks]
        labels = {row["label"] for row in rows if row}
        return labels.pop() if len(labels) == 1 else method

    def cell(self, task: str, method: str, bold: str) -> str:
        """Mean, deviation, and how many seeds these are of where some are missing; `bold` is the form of the best."""
        table, row = self.tasks[task], self.row(task, method)
        if row is None:
            return "failed" if (task, method) in self.failed else ""
        if row["mean"] is None:
            return "NaN"
        form = tables.form_of(table)
        text = bold.format(f"{row['mean']:{form}}") if row["best"] else f"{row['mean']:{form}}"
        if row["std"] is not None:
            text += f" ± {row['std']:{form}}"
        short = row["seeded"] and len(row["seeds"]) < len(table["seeds"])
        return text + (f" ({len(row['seeds'])} of {len(table['seeds'])})" if short else "")

    def rows(self, bold: str) -> tuple[list[str], list[list[str]]]:
        """Heads of the columns, and the cells of each method."""
        heads = [
            "method",
            *(f"{by_protocol(task, table['protocol'])}, {table['label']}" for task, table in self.tasks.items()),
        ]
        heads += ["average rank"] * bool(self.ranks)
        body = []
        for name in self.methods:
            cells = [self.label(name), *(self.cell(task, name, bold) for task in self.tasks)]
            if self.ranks:
                cells.append(f"{self.ranks[name]:.2f}" if name in self.ranks else "")
            body.append(cells)
        return heads, body

    def caption(self) -> str:
        """What the figures are."""
        counts = sorted({len(table["seeds"]) for table in self.tasks.values()})
        seeds = f"{' or '.join(map(str, counts))} seed{'s' * (counts != [1])}"
        metrics = ", ".join(f"{task} by {table['metric']}" for task, table in self.tasks.items())
        return f"Test errors, mean ± standard deviation over {seeds}, lower is better ({metrics})."

    def notes(self) -> list[str]:
        """What the figures do and do not say, a sentence each."""
        if self.tests:
            lines = [
                "Bold: lower than every other of its task, each paired t-test over the seeds at p < 0.05 after Holm's "
                f"correction for the {self.tests} test{'s' * (self.tests != 1)} of the table. Seeds are of training; the test "
                "samples are the same" + (", and who has fewer is not compared." if self.fewer() else ".")
            ]
        else:
            lines = ["Nothing is bold: tests need two methods and three seeds or more."]
        if self.ranks:
            left = [self.label(name) for name in self.methods if name not in self.ranks]
            without = f"; without {', '.join(left)}, not in all of them or on fewer samples" if left else ""
            lines.append(f"Ranks are of the means, over {len(self.tasks)} tasks (1: lowest error){without}.")
        lines += [f"{task} is {tables.MINIATURE}." for task, table in self.tasks.items() if table.get("miniature")]
        return lines + self.gaps()

    def gaps(self) -> list[str]:
        """Which figures are missing or rest on fewer samples, and why, a sentence each."""
        methods: dict[tuple[str, str], list[str]] = {}
        for (task, method), reason in self.unsuited.items():
            methods.setdefault((task, reason), []).append(method)
        lines = [f"{', '.join(names)} cannot do {task}: {reason}." for (task, reason), names in methods.items()]
        for (task, method), count in self.failed.items():
            lines.append(f"{count} run{'s' * (count > 1)} of {method} on {task} failed.")
        for task, row in self.fewer():
            table = self.tasks[task]
            others = [f"{name} {error:{tables.form_of(table)}}" for name, error in row.get("others", {}).items()]
            of_others = f", on which the others have: {', '.join(others)}" if others else ""
            lines.append(
                f"{row['label']} on {task}: {row['samples']} of the {table['samples']} test samples{of_others}."
            )
        return lines

    def fewer(self) -> list[tuple[str, dict[str, Any]]]:
        """The rows of methods that were tested on fewer samples than others, each with its task."""
        return [
            (task, row)
            for task, table in self.tasks.items()
            for row in table["methods"].values()
            if row["samples"] < table["samples"]
        ]


def markdown(grid: Grid) -> str:
    """As Markdown, with caption and notes."""
    heads, body = grid.rows("**{}**")
    lines = [grid.caption(), "", *table_lines(heads, body), "", *grid.notes()]
    return "\n".join(lines) + "\n"


def table_lines(heads: list[str], body: list[list[str]]) -> list[str]:
    """A Markdown table: names left, figures right."""
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in (heads, *body)]
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return [f"| {' | '.join(row)} |" for row in (escaped[0], rule, *escaped[1:])]


def latex(grid: Grid) -> str:
    """As a LaTeX table (package booktabs), with caption and notes."""
    heads, body = grid.rows("\0{}\1")
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(' '.join((grid.caption(), *grid.notes())))}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        r"\toprule",
        " & ".join(map(_latex, heads)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_latex, row)) + r" \\" for row in body),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex(text: str) -> str:
    escaped = "".join(LATEX.get(sign, sign) for sign in text)
    return escaped.replace("\0", r"\textbf{").replace("\1", "}")


def comma_separated(grid: Grid) -> str:
    """As CSV, a line for each task and method, with all digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for task, table in grid.tasks.items():
        for method in grid.methods:
            row = grid.row(task, method)
            line = {"task": task, "protocol": table["protocol"], "method": method, "metric": table["metric"]}
            line |= {"error": table["label"], "seeds": 0, "failed": grid.failed.get((task, method), 0)}
            line["average_rank"] = grid.ranks.get(method, "")
            if row is not None:
                line |= {key: row[key] for key in ("mean", "std", "best", "seconds")} | {"seeds": len(row["seeds"])}
            writer.writerow({key: "" if value is None else value for key, value in line.items()})
    return text.getvalue()
