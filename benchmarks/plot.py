"""Pictures and the README's table from the records: `python -m benchmarks.plot [--csv PATH] [--readme README.md]`.

Draws `benchmarks/results/<device>-{speedup,roofline,memory,growth}.png` and rewrites what stands between the two markers in the
README, so that no figure is typed by hand.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch

matplotlib.use("Agg", force=False)
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks import growth
from benchmarks.cases import shape_in_words
from benchmarks.heap import FRESH
from benchmarks.measure import LIMIT, honest_ms
from benchmarks.records import OK, ROOT, Row, read, results_path, write_aside

BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"
COLOURS = {"ours": "tab:green", "paper": "tab:red", "rival": "tab:gray", LIMIT: "black"}
HEADLINE_CASES = 2


def newest_run(rows: Sequence[Row], suite: str = "standard") -> list[Row]:
    """Rows of the last run of a suite, or of the last run at all where that suite was never run.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("the records are empty: run python -m benchmarks.run first")
    runs = [row.run for row in rows if row.suite == suite] or [row.run for row in rows]
    return [row for row in rows if row.run == runs[-1]]


def timed(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.status == OK and row.operation == "replace" and not row.sweep and honest_ms(row)]


def by_case(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        name = row.case if row.threads == 1 else f"{row.case}, {row.threads} threads"
        groups.setdefault(f"{name}, fresh heap" if row.heap == FRESH else name, []).append(row)
    return groups


def headline(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The cases on which most providers were timed: where every rival is."""
    groups = by_case([row for row in timed(rows) if row.heap != FRESH])
    most = sorted(groups, key=lambda name: -len(groups[name]))[:HEADLINE_CASES]
    return {name: group for name, group in groups.items() if name in most}


# ---------------------------------------------------------------------------------------------------------------------
# Pictures.
# ---------------------------------------------------------------------------------------------------------------------


def _axes(count: int, width: float = 6.2, height: float = 4.2) -> tuple[Figure, list]:
    figure, axes = plt.subplots(1, count, figsize=(width * count, height), squeeze=False, layout="constrained")
    return figure, list(axes[0])


def _bars(axis, rows: Sequence[Row], values: Sequence[float], text: str) -> None:
    names = [row.provider for row in rows]
    axis.barh(names, values, color=[COLOURS[row.family] for row in rows])
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.margins(x=0.15)
    for position, value in enumerate(values):
        axis.text(value, position, " " + text.format(value), va="center", fontsize=8)


def speedup(rows: Sequence[Row]) -> Figure | None:
    """Times faster than the paper's algorithm, forward and backward together, one panel per headline case."""
    panels = {name: [row for row in group if row.over_paper] for name, group in headline(rows).items()}
    panels = {name: group for name, group in panels.items() if group}
    if not panels:
        return None
    figure, axes = _axes(len(panels))
    for axis, (name, group) in zip(axes, panels.items(), strict=True):
        group = sorted(group, key=lambda row: -row.over_paper)
        _bars(axis, group, [row.over_paper for row in group], "{:.3g}x")
        axis.set_title(f"{name}: {_shape(group[0])}", fontsize=9)
        axis.set_xlabel("times faster than the paper's algorithm (forward + backward)")
    return figure


def roofline(rows: Sequence[Row]) -> Figure | None:
    """GB/s of both passes against what reading and copying alone reach in the same run."""
    panels = {name: [r for r in group if r.forward_gbs and r.backward_gbs] for name, group in headline(rows).items()}
    panels = {name: group for name, group in panels.items() if len(group) > 1}
    if not panels:
        return None
    figure, axes = _axes(len(panels))
    for axis, (name, group) in zip(axes, panels.items(), strict=True):
        group = sorted(group, key=lambda row: -row.forward_gbs)
        places = range(len(group))
        colours = [COLOURS[row.family] for row in group]
        axis.barh([p - 0.2 for p in places], [r.forward_gbs for r in group], 0.38, color=colours)
        axis.barh([p + 0.2 for p in places], [r.backward_gbs for r in group], 0.38, color=colours, alpha=0.5)
        axis.set_yticks(list(places), [row.provider for row in group])
        axis.invert_yaxis()
        axis.axvline(group[0].read_gbs, color="tab:blue", ls="--", lw=1, label="read, arrays of 256 MiB")
        axis.axvline(group[0].copy_gbs, color="tab:orange", ls="--", lw=1, label="copy, arrays of 256 MiB")
        axis.set_title(f"{name}: {_shape(group[0])}; solid forward, pale backward", fontsize=9)
        axis.set_xlabel("GB/s of the bytes that must be moved; limit: nothing but that")
        axis.legend(fontsize=7)
    return figure


def memory(rows: Sequence[Row]) -> Figure | None:
    """Peak memory of both passes beyond inputs and outputs."""
    panels = {
        name: [row for row in group if row.peak_beyond_outputs_mib is not None]
        for name, group in headline(rows).items()
    }
    panels = {name: group for name, group in panels.items() if group}
    if not panels:
        return None
    figure, axes = _axes(len(panels))
    for axis, (name, group) in zip(axes, panels.items(), strict=True):
        group = sorted(group, key=lambda row: row.peak_beyond_outputs_mib)
        # A logarithmic axis has no place for nothing at all.
        _bars(axis, group, [max(row.peak_beyond_outputs_mib, 0.1) for row in group], "{:.3g}")
        axis.set_title(f"{name}: {_shape(group[0])}", fontsize=9)
        axis.set_xlabel("peak MiB beyond inputs and outputs (forward + backward)")
    return figure


def growth_picture(rows: Sequence[Row]) -> Figure | None:
    """Time over N, k, B and D with the fitted exponents."""
    found = growth.curves(rows)
    quantities = [quantity for quantity in growth.SIZE_OF if any(curve.quantity == quantity for curve in found)]
    if not quantities:
        return None
    figure, axes = _axes(len(quantities), 3.8, 3.8)
    for axis, quantity in zip(axes, quantities, strict=True):
        for curve in (curve for curve in found if curve.quantity == quantity):
            label = f"{curve.provider}: {quantity}^{curve.exponent:.2f}"
            axis.loglog(curve.sizes, curve.ms, marker="o", ms=4, label=label)
        axis.set_xlabel(quantity)
        axis.set_ylabel("ms, forward + backward")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    return figure


PICTURES = {"speedup": speedup, "roofline": roofline, "memory": memory, "growth": growth_picture}


def draw(rows: Sequence[Row], csv: Path) -> list[Path]:
    """Writes the pictures for which there are rows beside the CSV; returns their paths."""
    paths = []
    for name, picture in PICTURES.items():
        figure = picture(rows)
        if figure is None:
            continue
        content = io.BytesIO()
        figure.savefig(content, dpi=110)
        plt.close(figure)
        path = csv.with_name(f"{csv.stem}-{name}.png")
        write_aside(path, content.getvalue())
        paths.append(path)
    return paths


# ---------------------------------------------------------------------------------------------------------------------
# The README's table.
# ---------------------------------------------------------------------------------------------------------------------


def markdown(rows: Sequence[Row], pictures: Sequence[Path] = (), readme: Path | None = None) -> str:
    """A table of the whole operator: one line per case, default and exact form beside the paper's algorithm."""
    any_row = rows[0]
    lines = [
        f"{any_row.device}; torch {any_row.torch}; float32 unless said; 1 thread; medians of CPU time, forward + backward; commit "
        f"{any_row.commit or 'unknown'}, {any_row.date[:10]}."
        if any_row.threads == 1 and any_row.forward_cpu_ms
        else f"{any_row.device}; torch {any_row.torch}; medians, forward + backward; commit {any_row.commit or 'unknown'}, "
        f"{any_row.date[:10]}.",
        "",
        "| case | shape | ours | ours, exact form | the paper's algorithm | times faster (default / exact) | best rival | times "
        "faster than it | memory beyond outputs: ours / paper |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    settled_first = sorted(timed(rows), key=lambda row: row.heap == FRESH)
    for name, group in by_case(settled_first).items():
        named = {row.provider: row for row in group}
        ours, exact, paper = named.get("pare"), named.get("pare-exact"), named.get("paper")
        if ours is None:
            continue
        faster = " / ".join(f"{row.over_paper:.3g}x" for row in (ours, exact) if row is not None and row.over_paper)
        cells = [
            name,
            _shape(ours),
            _ms(ours),
            _ms(exact),
            _ms(paper),
            faster,
            ours.best_rival,
            f"{ours.over_best_rival:.3g}x" if ours.over_best_rival else "",
            " / ".join(_mib(row) for row in (ours, paper) if row is not None),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    fits = growth.curves(rows)
    ours = [curve for curve in fits if curve.provider == "pare"]
    if ours:
        powers = ", ".join(f"{curve.quantity}^{curve.exponent:.2f}" for curve in ours)
        lines += ["", f"Growth of the default form, fitted: {powers}."]
    if pictures and readme is not None:
        lines.append("")
        for path in pictures:
            relative = os.path.relpath(path, readme.parent)
            lines.append(f"![{path.stem.rsplit('-', 1)[1]}]({relative})")
    return "\n".join(lines)


def rewrite(readme: Path, content: str) -> None:
    """Puts `content` between the markers of the README.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a marker is missing, or there are several, or they are in the wrong order.
    """
    if not readme.exists():
        raise FileNotFoundError(f"--readme: no file {readme}")
    text = readme.read_text(encoding="utf-8")
    for marker in (BEGIN, END):
        if text.count(marker) != 1:
            raise ValueError(f"{readme}: the marker {marker} must stand there once, found {text.count(marker)} times")
    before, rest = text.split(BEGIN)
    if END not in rest:
        raise ValueError(f"{readme}: the marker {END} must come after {BEGIN}")
    after = rest.split(END)[1]
    write_aside(readme, f"{before}{BEGIN}\n{content}\n{END}{after}".encode())


def _shape(row: Row) -> str:
    return shape_in_words(row) + ("" if row.dtype == "float32" else f", {row.dtype}")


def _ms(row: Row | None) -> str:
    return "" if row is None else f"{honest_ms(row):.3g} ms"


def _mib(row: Row) -> str:
    return "?" if row.peak_beyond_outputs_mib is None else f"{row.peak_beyond_outputs_mib:.3g} MiB"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__.split("\n")[0])
    parser.add_argument("--csv", type=Path, metavar="PATH", help="default: the records of this machine's CPU")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", metavar="PATH", help="default: README.md")
    parser.add_argument("--no-readme", action="store_true", help="pictures only")
    parser.add_argument("--suite", default="standard", help="the suite whose last run is drawn (default: standard)")
    options = parser.parse_args(arguments)
    csv = options.csv or results_path(torch.device("cpu"))
    try:
        rows = newest_run(read(csv), options.suite)
        pictures = draw(rows, csv)
        for path in pictures:
            print(path)
        if not options.no_readme:
            rewrite(options.readme, markdown(rows, pictures, options.readme))
            print(options.readme)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
