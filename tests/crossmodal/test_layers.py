"""Imports point one way: a room knows the rooms below it, and none above."""

from __future__ import annotations

import ast
from pathlib import Path

import crossmodal

ROOT = Path(crossmodal.__file__).parent
# From the bottom to the top; modules and rooms of one line know nothing of one another.
LAYERS = [
    ["errors", "seeds", "parsers"],
    ["kinds", "naming", "values"],
    ["files"],
    ["cache", "drawing"],
    ["data", "pde"],
    ["scoring", "alignment"],
    ["models", "settings"],
    ["tasks", "sources"],
    ["training"],
    ["methods"],
    ["parsing"],
    ["report"],
    ["verdict"],
    ["folds"],
    ["run", "predict"],
    ["evaluate", "jobs"],
    ["plans"],
    ["compare", "generate"],
    ["miniature"],
    ["cli"],
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def imported(path: Path) -> set[str]:
    """Rooms of the package that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("crossmodal.")}
    return found


def test_imports_point_one_way():
    wrong = []
    for path in ROOT.rglob("*.py"):
        place = path.relative_to(ROOT)
        room = place.parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        assert room in LEVEL, f"{room} has no place in the order of rooms"
        for other in imported(path) - {room}:
            if other in LEVEL and LEVEL[other] >= LEVEL[room]:
                wrong.append(f"{place} imports {other}")
    assert wrong == []


def test_the_trainer_knows_no_method():
    """Nor do the loader, checkpoints, progress and pictures: not even by its words."""
    words = {"pare", "gate", "gumbel", "mixing", "schedule_k", "lam"}
    for path in [*(ROOT / "training").glob("*.py"), *(ROOT / "data").rglob("*.py"), *(ROOT / "report").glob("*.py")]:
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not names & words, path
