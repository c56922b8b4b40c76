"""Which samples test, which validate, and which are learned from: whole groups where there are any, else stratified shares."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from crossmodal.data.arrays import in_memory
from crossmodal.data.readers.tables import shown
from crossmodal.data.splitting import assign_folds, grouped_sample, multilabel_sample, plain_sample, stratified_sample
from crossmodal.errors import UserError
from crossmodal.kinds import LABEL_KINDS
from crossmodal.naming import counted
from crossmodal.scoring.metric import FEWEST
from crossmodal.settings import SplitConfig
from crossmodal.tasks.base import RawTask

# Random streams of the choices; each fold's hold-out and each repeat of the folds has one beyond these.
TRAIN_SIZE, VALIDATION, TEST, FOLDS = 0, 1, 3, 4


@dataclass(frozen=True)
class Division:
    """Rows of the training part, int64: what is learned from, what validates and what tests (None: the data bring their own), and
    sentences about it."""

    train: np.ndarray
    validation: np.ndarray | None
    test: np.ndarray | None
    notes: list[str]


def pooled(raw: RawTask, origin: str) -> RawTask:
    """All parts as one training part.

    Raises:
        UserError: they are not in memory, or their targets differ.
    """
    parts = [part for part in ("train", "val", "test") if getattr(raw, f"x_{part}") is not None]
    if len(parts) == 1:
        return raw
    whole = {}
    for name in ("x", "y", "group", "mask"):
        arrays = [getattr(raw, f"{name}_{part}") for part in parts]
        whole |= {f"{name}_{part}": None for part in ("val", "test")}
        if arrays[0] is None:
            continue
        if raw.steps or not all(map(in_memory, arrays)):
            why = "its parts differ in their targets" if raw.steps else "its parts are read as they are needed"
            raise UserError(f"split: folds and a final model put all samples of {origin} together, but {why}")
        whole[f"{name}_train"] = np.concatenate(arrays)
    said = f"the parts that the data bring ({', '.join(parts)}) are put together, and divided anew."
    return replace(raw, **whole, notes=(*raw.notes, said))


def divide(raw: RawTask, origin: str, split: SplitConfig) -> Division:
    """Chooses test samples where the data bring none, `train_size` of the rest, and of these validation samples.

    Args:
        raw: as `checking.checked` leaves it, `pooled` for folds and for a final model.

    Raises:
        UserError: too few samples or groups.
    """
    groups = None if split.divide_groups else raw.group_train
    labels = raw.y_train if raw.kind in LABEL_KINDS else None
    smallest = len(raw.class_names) if raw.kind == "classification" else 1
    rows, notes, test = np.arange(len(raw.x_train)), [], None
    stratified = "stratified " * (labels is not None)
    if raw.group_train is not None and split.divide_groups:
        notes.append(
            "warning: groups are divided (split.divide_groups): samples of one group are in several parts, and figures say nothing "
            "about new groups."
        )

    def sample(rows: np.ndarray, size: int, *stream: int) -> np.ndarray:
        """``size`` of the rows; the rest are the other side of the cut."""
        rng = np.random.default_rng((split.seed, *stream))
        if raw.kind == "classification":
            return rows[stratified_sample(labels[rows], size, rng)]
        if raw.kind == "multilabel":
            return rows[multilabel_sample(labels[rows], size, rng)]
        return rows[plain_sample(len(rows), size, rng)]

    def strata_of(rows: np.ndarray) -> np.ndarray:
        """How much each of the rows counts for each class or label."""
        if labels is None:
            return np.zeros((len(rows), 0))
        return np.eye(len(raw.class_names))[labels[rows]] if labels.ndim == 1 else labels[rows]

    def hold_out(rows: np.ndarray, fraction: float, what: str, *stream: int) -> np.ndarray:
        """Which of the rows, bool, are set aside; every class keeps a sample among the others."""
        if groups is None:
            size = max(min(max(1, round(fraction * len(rows))), len(rows) - smallest), 0)
            held = ~np.isin(rows, sample(rows, len(rows) - size, *stream)) if size else np.zeros(len(rows), bool)
        else:
            held = np.zeros(len(rows), bool)
            if len(np.unique(groups[rows])) > 1:
                rng = np.random.default_rng((split.seed, *stream))
                held = grouped_sample(groups[rows], strata_of(rows), fraction * len(rows), rng)
        if not held.any():
            few = f"{len(rows)} training samples" if groups is None else "groups of the training part"
            raise UserError(
                f"{origin}: {few} leave none for {what} (every class keeps a sample): give more, or a {what} part of their own"
            )
        keep_classes(rows[~held], what)
        return held

    def keep_classes(kept: np.ndarray, what: str) -> None:
        if raw.kind != "classification":
            return
        lost = np.setdiff1d(np.unique(labels), np.unique(labels[kept]))
        if len(lost):
            named = [raw.class_names[one] for one in lost]
            of = "in too few groups" if groups is not None else "too rare"
            raise UserError(
                f"{origin}: the classes {named} are {of}: with a part set aside for {what} none of their samples is left to learn "
                "from; give more, or join or leave out these classes"
            )

    def named(rows: np.ndarray) -> str:
        """Which groups, of those in the training part, these rows are."""
        return shown([raw.group_names[one] for one in np.unique(groups[rows])], 8)

    def said(what: str, among: np.ndarray, held: np.ndarray, of: str) -> str:
        if groups is None:
            return (
                f"{what}: a {stratified}random share of {of} (seed {split.seed}), {len(held)} of {len(among)} samples."
            )
        count, total = (len(np.unique(groups[part])) for part in (held, among))
        return (
            f"{what}: {counted(count, 'whole groups')} of the {total} in {of} (seed {split.seed}), {len(held)} of {len(among)} "
            f"samples: {named(held)}."
        )

    fold = split.fold if split.folds else None
    if split.fold == 0:
        said_final = f"all {len(rows)} samples are learned from: none validates, and none tests."
        return Division(rows, rows[:0], rows[:0], [*notes, said_final])
    if fold is not None:
        units = len(rows) if groups is None else len(np.unique(groups))
        if units < split.folds:
            what = "samples" if groups is None else "groups"
            raise UserError(f"split.folds: expected at most {units}, the {what} of {origin}, got {split.folds}")
        repeat, number = divmod(fold - 1, split.folds)
        found = assign_folds(split.folds, labels, groups, len(rows), np.random.default_rng((split.seed, FOLDS, repeat)))
        test = np.flatnonzero(found == number)
        what = f"test: fold {number + 1} of {split.folds}" + f", repeat {repeat + 1} of {split.repeats}" * (
            split.repeats > 1
        )
        keep_classes(rows[found != number], "a fold")
        notes.append(
            said(what, rows, test, "all samples").replace(f"a {stratified}random share", f"a {stratified}random part")
        )
        rows = np.flatnonzero(found != number)
    elif raw.x_test is None:
        held = hold_out(rows, split.test_fraction, "test", TEST)
        notes.append(said("test", rows, rows[held], "all samples"))
        test, rows = rows[held], rows[~held]
        if groups is not None and len(np.unique(groups[test])) < FEWEST:
            notes.append(
                f"warning: fewer than {FEWEST} test groups do not tell how sure a figure is: take --split.folds "
                f"{min(5, len(np.unique(groups)))}, which tests on all groups."
            )
    if split.train_size is not None:
        if not smallest <= split.train_size <= len(rows):
            raise UserError(
                f"split.train_size: expected {smallest} to {len(rows)} (the training part of {origin}), got {split.train_size}"
            )
        if groups is None:
            kept = sample(rows, split.train_size, TRAIN_SIZE)
            what = f"{len(kept)} of {len(rows)} samples"
        else:
            kept = rows
            if split.train_size < len(rows):
                rng = np.random.default_rng((split.seed, TRAIN_SIZE))
                kept = rows[~grouped_sample(groups[rows], strata_of(rows), len(rows) - split.train_size, rng)]
            counts = [len(np.unique(groups[part])) for part in (kept, rows)]
            what = f"{counts[0]} of {counts[1]} groups, {len(kept)} of {len(rows)} samples,"
        keep_classes(kept, "split.train_size")
        notes.append(f"only {what} of the training part are used (seed {split.seed}).")
        rows = kept
    if raw.x_val is not None:
        return Division(rows, None, test, notes)
    held = hold_out(rows, split.validation_fraction, "validation", VALIDATION, *([] if fold is None else [fold]))
    notes.append(said("validation", rows, rows[held], "the training part"))
    return Division(rows[~held], rows[held], test, notes)
