"""A user's folder of files that are samples, or hold some: listed by a table `index`, or in a folder for each class (or group, of
those with labels within)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossmodal.data.readers.tables import SUFFIXES as TABLES
from crossmodal.data.readers.tables import Table, read_table, shown
from crossmodal.data.tables import PARTS
from crossmodal.errors import UserError
from crossmodal.tasks import columns
from crossmodal.tasks.base import Options
from crossmodal.tasks.columns import Roles

DEEPEST = 3  # folders within one another: part, class, group


@dataclass(frozen=True)
class Listing:
    """The entries of a folder.

    Attributes:
        folder: where they lie.
        paths: the file of each entry.
        places: words that find it.
        y: the target of each, see `columns.targets`; None where an index names none.
        kind: of target, where that is plain.
        targets: names of what is predicted.
        group, part: of each, str (n,); None where there are none.
        index: the table that lists them; None where folders do.
        ignored: names that are not learned from.
    """

    folder: Path
    paths: list[Path]
    places: list[str]
    y: np.ndarray | None
    kind: str | None
    targets: tuple[str, ...]
    group: np.ndarray | None
    part: np.ndarray | None
    index: Table | None
    ignored: tuple[str, ...]

    def name(self, entry: int) -> str:
        """The file of an entry, from the folder on."""
        return self.paths[entry].relative_to(self.folder).as_posix()


def index_of(folder: Path) -> Path | None:
    """The table that lists the files of a folder."""
    found = [folder / f"index{suffix}" for suffix in TABLES if (folder / f"index{suffix}").is_file()]
    if len(found) > 1:
        raise UserError(
            f"{folder}: {found[0].name} and {found[1].name}: which one lists the files? Take the other away"
        )
    return found[0] if found else None


def first_file(folder: Path, suffixes: Sequence[str], whole: bool) -> Path | None:
    """The first file with one of these suffixes that a folder lists or holds in folders, or anywhere; None where there is none."""
    index = index_of(folder)
    files = _below(folder, whole) if index is None else named_files(read_table(index), "file", folder)
    return next((file for file in files if file.suffix.lower() in suffixes), None)


def _below(folder: Path, whole: bool) -> Iterator[Path]:
    """Files in the folders of a folder, or in all of it; of those of WFDB the heads, beside which values and labels lie."""
    for place, inner, files in os.walk(folder, followlinks=True):
        # No deeper than what is refused as too deep: links may go in circles.
        deep = len(Path(place).relative_to(folder).parts) > DEEPEST
        inner[:] = [] if deep else sorted(name for name in inner if not name.startswith("."))
        visible = sorted(name for name in files if not name.startswith("."))
        heads = [name for name in visible if name.lower().endswith(".hea")]
        if whole or Path(place) != folder:
            yield from (Path(place, name) for name in heads or visible)


def list_folder(options: Options, suffixes: Sequence[str], reserved: Sequence[str], needs_target: bool) -> Listing:
    """The entries of a folder of recordings or images.

    Args:
        options: `data` is the folder.
        suffixes: of files that are taken.
        reserved: columns of an index that say how files are read, and are no targets.
        needs_target: False where targets may be elsewhere.

    Raises:
        UserError: a file is not there, is none of these, or lies outside of the folder; a target is missing, or there is no
            telling which column it is. Names the line.
    """
    folder = options.data
    index = index_of(folder)
    if index is None:
        return _by_folders(options, suffixes)
    found = _by_index(options, read_table(index), reserved, needs_target)
    for path, place in zip(found.paths, found.places, strict=True):
        if path.suffix.lower() not in suffixes:
            raise UserError(f"{place}: {path.name}: expected one of {', '.join(suffixes)}, as the others are")
    return found


def named_files(index: Table, column: str, folder: Path) -> list[Path]:
    """The files that a column of an index names, from the folder on.

    Raises:
        UserError: no such column or file, or one outside of the folder; names the line.
    """
    index.require([column], f"{index.path}")
    paths = []
    for name, place in zip(index.full_text(column, "a file"), index.places, strict=True):
        inside = os.path.normpath(name.replace("\\", "/"))
        if os.path.isabs(inside) or inside.split("/")[0] == "..":
            raise UserError(
                f"{index.path}, {place}: the file {name!r} lies outside of {folder}; name files from that folder on"
            )
        if not (folder / inside).is_file():
            raise UserError(f"{index.path}, {place}: no such file: {folder / inside}")
        paths.append(folder / inside)
    return paths


def _by_index(options: Options, index: Table, reserved: Sequence[str], needs_target: bool) -> Listing:
    paths = named_files(index, "file", options.data)
    roles = Roles.of(options.table, index, ignored_elsewhere=True)
    group = roles.group or ("group" if "group" in index.names and "group" not in roles.used else None)
    split = roles.split or ("split" if "split" in index.names and "split" not in roles.used else None)
    names = roles.targets
    if not names:
        left = [n for n in index.names if n not in ("file", *reserved, group, split, *roles.ignored)]
        if len(left) > 1 or (needs_target and not left):
            raise UserError(
                f"table.target: which column of {index.path} is to be predicted? Name it with --table.target (columns: "
                f"{shown(index.names)})"
            )
        names = left
    y, kind = columns.targets(index, names, options.kind) if names else (None, options.kind)
    return Listing(
        options.data,
        paths,
        [f"{index.path}, {place}" for place in index.places],
        y,
        kind,
        tuple(names),
        None if group is None else np.array(index.full_text(group, "the group")),
        None if split is None else columns.parts(index, split),
        index,
        tuple(roles.ignored),
    )


def _by_folders(options: Options, suffixes: Sequence[str]) -> Listing:
    folder, labelled = (
        options.data,
        options.recordings.labels is not None,
    )  # within the files, so that folders are groups
    for key in ("target", "group", "split"):
        if getattr(options.table, key) is not None:
            raise UserError(
                f"table.{key}: {folder} has no table `index` ({', '.join('index' + s for s in TABLES)}) with columns"
            )
    paths = list(_below(folder, whole=True))
    levels = [path.relative_to(folder).parts[:-1] for path in paths]
    above = {level[0] if level else "files" for level in levels}
    others = sorted(name for name in above if name.lower() not in PARTS)
    is_split = bool(above) and (not others or {PARTS.get(name.lower()) for name in above} >= {"train", "test"})
    if is_split and others:
        raise UserError(
            f"{folder}: has folders of parts (train, test), and beside them {shown(others)}, which is none: move it elsewhere, "
            "as new samples for predict.py, or list files in index.csv"
        )
    part = np.array([PARTS[level[0].lower()] for level in levels]) if is_split else None
    levels = [level[1:] for level in levels] if is_split else levels
    for path, level in zip(paths, levels, strict=True):
        if not (0 if labelled else 1) <= len(level) <= 2:
            above = f"{folder}/PART" if is_split else f"{folder}"
            raise UserError(
                f"{path}: expected files in {above}/CLASS, or {above}/CLASS/GROUP; move it, or list files in index.csv"
            )
        if path.suffix.lower() not in suffixes:
            raise UserError(f"{path}: expected one of {', '.join(suffixes)}; move it away, or list files in index.csv")
    if part is not None and ("train" not in part or ("val" in part and "test" not in part)):
        raise UserError(f"{folder}: has the parts {shown(sorted(set(part)))}, expected train and test at least")
    deep = {len(level) for level in levels}
    if len(deep) == 2:
        raise UserError(
            f"{folder}: some files lie in more folders within one another than others; bring all to one depth"
        )
    return Listing(
        folder,
        paths,
        [str(path) for path in paths],
        None if labelled else np.array([level[0] for level in levels]),
        options.kind,
        ("folder",),
        np.array([level[-1] for level in levels]) if deep == {2} or (labelled and deep == {1}) else None,
        part,
        None,
        tuple(columns.listed(options.table.ignore)),
    )
