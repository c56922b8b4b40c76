"""Source "scipy_docs": what the documentation of scipy's public functions says about them, labelled by subpackage.

Real English prose with labels that come for free: the summary and the Notes of each docstring, without signatures,
parameters, formulas and code. The texts are taken from the installed scipy at first use, so they change with its
version, and are kept in the cache folder afterwards.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import scipy

from crossmodal import cache
from crossmodal.errors import UserError
from crossmodal.sources.text import LabelledTexts

# Ten subpackages with enough functions, each with the modules whose public functions it is known by.
MODULES = {
    "fft": ("scipy.fft",),
    "integrate": ("scipy.integrate",),
    "interpolate": ("scipy.interpolate",),
    "linalg": ("scipy.linalg",),
    "ndimage": ("scipy.ndimage",),
    "optimize": ("scipy.optimize",),
    "signal": ("scipy.signal",),
    "sparse": ("scipy.sparse", "scipy.sparse.csgraph", "scipy.sparse.linalg"),
    "special": ("scipy.special",),
    "stats": ("scipy.stats",),
}
TEXTS_PER_CLASS = 120
MIN_CHARACTERS = 40  # shorter ones say nothing ("See scipy.linalg.inv.")
# Part of the cache's file name: a change of the rules below must not meet texts made by the old ones.
RULES_VERSION = 1

_UNDERLINE = re.compile(r"-{3,}|={3,}")
_SIGNATURE = re.compile(r"(\w+(, \w+)* = )?[\w.]+\(.*\)\s*(->.*)?")
# In this order: what each pattern matches, and what is left of it.
_MARKUP = (
    (re.compile(r":math:`([^`]*)`"), r"\1"),
    (re.compile(r":[\w:]+:`([^`<]*?)\s*(?:<[^>]*>)?`"), r"\1"),  # :func:`name`, :ref:`words <target>`
    (re.compile(r"\s*\[#?\w*\]_"), ""),
    (re.compile(r"`+"), ""),
    (re.compile(r"(?<!\S)\*{1,2}(\w[^*]*)\*{1,2}(?![\w*])"), r"\1"),
)


def load() -> LabelledTexts:
    """The texts, from the cache or from scipy's docstrings; up to 120 per class, in a fixed order."""
    path = cache.folder() / f"scipy_docs-{scipy.__version__}-{RULES_VERSION}.json"
    texts = _read_cached(path)
    if texts is None:
        texts = extract()
        content = {
            "texts": texts.items,
            "labels": texts.labels,
            "class_names": texts.class_names,
            "sha256": texts.sha256,
        }
        cache.write(path, json.dumps(content))
    return texts


def _read_cached(path: Path) -> LabelledTexts | None:
    """The cached texts; None where there are none, or where the file is damaged (it is then made anew)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        items, labels, names = (tuple(map(str, content[key])) for key in ("texts", "labels", "class_names"))
        texts = LabelledTexts(items, labels, names, "scipy_docs")
        intact = content["sha256"] == texts.sha256 and len(items) == len(labels) and set(labels) == set(names)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return texts if intact else None


def extract() -> LabelledTexts:
    """Take the texts from scipy's docstrings.

    Raises:
        UserError: there are no docstrings (Python run with ``-OO``).
    """
    items: list[str] = []
    labels: list[str] = []
    for label, modules in MODULES.items():
        texts = {text: None for module in modules for text in _texts(module)}  # a dictionary: once each, in order
        if not texts:
            raise UserError(f"scipy.{label} has no docstrings; they are missing when Python runs with -OO")
        chosen = _spread(list(texts), TEXTS_PER_CLASS)
        items += chosen
        labels += [label] * len(chosen)
    return LabelledTexts(tuple(items), tuple(labels), tuple(MODULES), "scipy_docs")


def _spread(values: list[str], most: int) -> list[str]:
    """At most ``most`` of the values, evenly spaced: names that sort together are about the same thing."""
    if len(values) <= most:
        return values
    return [values[i * len(values) // most] for i in range(most)]


def _texts(module_name: str) -> Iterator[str]:
    module = importlib.import_module(module_name)
    for name in sorted(module.__all__):
        member = getattr(module, name)
        if not _is_function(member):
            continue
        text = prose(member.__doc__ or "")
        if len(text) >= MIN_CHARACTERS:
            yield text


def _is_function(member: object) -> bool:
    """Functions of every make (ufuncs and dispatchers too); not classes, nor the distribution objects of scipy.stats."""
    return isinstance(member, Callable) and not inspect.isclass(member) and hasattr(member, "__name__")


def prose(docstring: str) -> str:
    """Summary and Notes of a docstring in numpydoc style, as one line of plain words."""
    sections = _sections(inspect.cleandoc(docstring).splitlines())
    text = " ".join(line for title, lines in sections if title in ("", "Notes") for line in _plain(lines))
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())


def _sections(lines: list[str]) -> list[tuple[str, list[str]]]:
    """Split at titles (a line with dashes below); the part before the first title has the title ``""``."""
    sections: list[tuple[str, list[str]]] = [("", [])]
    underlined = [bool(_UNDERLINE.fullmatch(line.strip())) for line in [*lines[1:], ""]]
    for i, line in enumerate(lines):
        if line.strip() and underlined[i]:
            sections.append((line.strip(), []))
        elif i == 0 or not underlined[i - 1]:
            sections[-1][1].append(line)
    return sections


def _plain(lines: list[str]) -> Iterator[str]:
    """The running text among the lines of a section."""
    block_indent: int | None = None  # inside a directive or code block: everything indented deeper than this
    in_session = False
    for line in lines:
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if text == "**Array API Standard Support**":
            return  # the same boilerplate in hundreds of docstrings, always at the end
        if not text:
            in_session = False
            continue
        if block_indent is not None:
            if indent > block_indent:
                continue
            block_indent = None
        if text.startswith(">>>"):
            in_session = True
        if in_session:
            continue
        if text.startswith(".. "):
            block_indent = indent
            continue
        if text.endswith("::"):
            block_indent = indent
            text = text[:-1]
        if _SIGNATURE.fullmatch(text) or set(text) <= set("=-+| "):
            continue
        yield text
