"""A run as one page for people: report.html, made of what lies in the run's folder. It needs nothing else, neither a network nor
a script, and everything that comes from outside is escaped."""

from __future__ import annotations

import base64
import functools
import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from crossmodal import methods, parsing
from crossmodal.errors import sparing
from crossmodal.files import write_text
from crossmodal.naming import counted
from crossmodal.scoring import metrics
from crossmodal.scoring.metric import wilson
from crossmodal.settings import flatten
from crossmodal.training.folder import PICTURES, RunFolder
from crossmodal.training.progress import duration
from crossmodal.values import shown

DPI = 96  # of a page, by definition
MOST_ROWS = 15  # of a table that is not folded
MOST_FOLDS = 10  # whose pictures are shown
ABOUT = {"rollout.gif": "The first test sample of the roll-out, frame after frame: target, prediction, error."}


@dataclass(frozen=True)
class Picture:
    """A picture within the page: its file, what it is of, what is to be seen in words, size on the page, and content."""

    name: str
    title: str
    about: str
    size: tuple[int, int]
    source: str


def write(folder: RunFolder) -> None:
    """Writes the page of a finished run; that it cannot be written must not cost the run, and is warned of."""
    with sparing(str(folder.report)):
        write_text(folder.report, render(folder))


def render(folder: RunFolder) -> str:
    """The page, of a run or of several folds."""
    results, config = folder.read_results(), parsing.load(folder.config)
    metric, several = metrics.get(results["metric"]), results.get("folds")
    folds = [RunFolder(folder.path / name) for name in several["runs"]] if several else []
    history = folder.read_metrics() if folder.metrics.is_file() else []
    return _template().render(
        results=results,
        config=config,
        title=f"{results['title']}, {results['method']}",
        told=_told(results["description"]),
        warnings=results["warnings"],
        metric=metric,
        description=methods.get(results["method"]).description,
        verdict=results.get("verdict"),
        folds=[(run.path.name, run.read_results(), pictures(run)) for run in folds],
        history=[record for record in history if "validation" in record],
        pictures=pictures(folder),
        changed=parsing.changed(config),
        settings=flatten(config.to_dict()),
        command=command(config),
    )


def command(config) -> str:
    """The line that does a run again, in another folder."""
    words = [f"--{key} {shlex.quote(shown(value))}" for key, value in parsing.changed(config).items()]
    names = {"task": config.task, "method": config.method}
    if methods.get(config.method).uses_encoder:
        names["encoder"] = config.encoder
    return " ".join(
        ["pare-train", *(f"--{key} {shlex.quote(value)}" for key, value in names.items()), *words, "--output_dir again"]
    )


def pictures(folder: RunFolder) -> list[Picture]:
    """Those of a run that are there."""
    names = (*PICTURES, *folder.read_results()["pictures"])
    return [_picture(folder.path / name) for name in names if (folder.path / name).is_file()]


def _picture(path: Path) -> Picture:
    with Image.open(path) as image:
        said, dots, form = image.info, image.info.get("dpi", (DPI, DPI))[0], image.get_format_mimetype()
        size = tuple(round(length * DPI / dots) for length in image.size)
    source = f"data:{form};base64,{base64.b64encode(path.read_bytes()).decode()}"
    about = said.get("Description", ABOUT.get(path.name, path.stem))
    return Picture(path.name, said.get("Title", ""), about, size, source)


def _told(description: str) -> dict[str, Any]:
    """What was said of the data before training: `first` (a line), `rows` of a table (heading, text), `notes`, and among these
    `warnings`."""
    first, *lines = description.splitlines()
    rows = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in lines if line.startswith("  ")]
    notes = [line for line in lines if not line.startswith("  ")]
    warnings = [line for line in notes if line.startswith("warning")]
    return {
        "first": first,
        "rows": [(row[0], row[-1] if len(row) > 1 else "") for row in rows],
        "notes": [line for line in notes if line not in warnings],
        "warnings": warnings,
    }


# ----- how things are written --------------------------------------------------------------------------------------------------


def number(value: float | None, signed: bool = False) -> str:
    """A figure with four digits."""
    if value is None or math.isnan(value):
        return "undefined"
    return f"{value:+.3g}" if signed else f"{value:#.4g}".rstrip(".")


def interval(bounds: list[float] | None, signed: bool = False) -> str:
    """Both ends."""
    return "none" if bounds is None else f"{number(bounds[0], signed)} to {number(bounds[1], signed)}"


def recall_interval(one: dict[str, Any]) -> str:
    """Wilson's, of the recall of a class."""
    return interval(None if one["recall"] is None else list(wilson(one["recall"], one["samples"])))


@functools.cache
def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "interval": interval,
        "recall_interval": recall_interval,
        "duration": duration,
        "setting": shown,
    }
    environment.globals |= {"MOST_ROWS": MOST_ROWS, "MOST_FOLDS": MOST_FOLDS, "counted": counted}
    return environment.get_template("page.html")
