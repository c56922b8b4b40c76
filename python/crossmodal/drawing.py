"""What all pictures have in common: a style that prints well and that the colour-blind can read, panels, files.

Figures are made without pyplot, so nothing is left open and no display is asked for. matplotlib is imported with this module, which
is imported where something is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from crossmodal.errors import sparing
from crossmodal.files import replacing

# Colours that people of every kind of colour vision tell apart (Okabe and Ito, 2008); yellow, which is faint on white, is left out.
BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#666666",
)
STYLE = {
    "axes.prop_cycle": matplotlib.cycler(color=[BLUE, RED, GREEN, ORANGE, PURPLE, SKY, "#000000"]),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "figure.titlesize": "medium",
    "font.size": 9.0,
    "image.cmap": "viridis",
    "legend.frameon": False,
    "legend.fontsize": "small",
    "pdf.fonttype": 42,  # letters stay letters, as journals ask
    "svg.fonttype": "none",
    "svg.hashsalt": "crossmodal",  # the same picture is the same file
    "text.parse_math": False,  # names from outside may hold dollars
}
DPI = 150
MOST_MARKED = 60  # Points of a line up to which each has a dot of its own.
LONGEST_NAME = 24  # Characters of a name on an axis.

Figures = dict[str, Figure]  # by file name


@contextmanager
def style() -> Iterator[None]:
    """Within it figures are made and saved in the style."""
    with matplotlib.rc_context(STYLE):
        yield


def of_training(run) -> str:
    """What a picture of the training split of a run is of."""
    return f"{run.task.title}, {run.config.method}: training split, n = {len(run.task.train)}"


def panels(
    rows: int, columns: int, size: tuple[float, float], about: str = "", **grid: Any
) -> tuple[Figure, np.ndarray]:
    """A figure of so many panels.

    Args:
        size: of the whole, in inches.
        about: what is to be seen, in a sentence, for those who cannot see it.
        grid: more for `Figure.subplots`.

    Returns:
        the figure and its axes (rows, columns).
    """
    figure = Figure(figsize=size, layout="constrained", label=about)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **grid)


def panel(size: tuple[float, float], about: str = "") -> tuple[Figure, Any]:
    """A figure of one panel, and its axes."""
    figure, axes = panels(1, 1, size, about)
    return figure, axes[0, 0]


def tiled(count: int, size: tuple[float, float], about: str = "") -> tuple[Figure, list[Any]]:
    """A figure of so many panels, each of that size in inches, at most three abreast."""
    across = min(count, 3)
    down = -(-count // across)
    figure, axes = panels(down, across, (size[0] * across, size[1] * down), about)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, list(axes.flat[:count])


def over_epochs(axis) -> None:
    """Whole numbers along x."""
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def column(history: list[dict[str, Any]], name: str) -> list[float]:
    """One number of every epoch, NaN where there is none."""
    return [np.nan if record.get(name) is None else record[name] for record in history]


def marker(points: int) -> str:
    """That of a line of so many points."""
    return "." if points <= MOST_MARKED else ""


def short(name: str) -> str:
    """A name as there is room for it."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def with_unit(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name


def save_all(figures: Figures, folder: Path, form: str = "png") -> None:
    """Writes pictures under their names; see `save`."""
    for name, figure in figures.items():
        save(figure, folder / name, form)


def save(figure: Figure, path: Path, form: str = "png") -> None:
    """Writes a picture, whole, with its title and what it shows in words, as PNG, and as "pdf" or "svg" beside it if told so."""
    title = " ".join((figure.get_suptitle() or "").split())
    for kind in dict.fromkeys(("png", form)):
        said = {"Title": title, "Subject" if kind == "pdf" else "Description": figure.get_label()}
        with replacing(path.with_suffix(f".{kind}")) as aside:
            figure.savefig(aside, dpi=DPI, metadata={key: value for key, value in said.items() if value})


def sparingly(figures: dict[str, Callable[[], Figure]], folder: Path, form: str = "png") -> None:
    """Makes pictures one after the other and writes each; one that cannot be made costs no other, see `sparing`."""
    for name, make in figures.items():
        with sparing(str(folder / name)):
            save(make(), folder / name, form)
