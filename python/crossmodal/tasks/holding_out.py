"""Which training samples are learned from, and which validate: whole groups where there are any, else a stratified share."""

from __future__ import annotations

import numpy as np

from crossmodal.data.splitting import multilabel_sample, plain_sample, stratified_sample
from crossmodal.errors import UserError
from crossmodal.tasks.base import RawTask


def hold_out(
    raw: RawTask, origin: str, fraction: float, seed: int, train_size: int | None
) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Rows of the training part to learn from, those to validate with (None where the data bring their own), and notes.

    Args:
        raw: as `checking.checked` leaves it.
        fraction: share of the training part that is set aside.
        seed: of this choice, and of that of `train_size` samples (None: all).

    Raises:
        UserError: too few samples or groups.
    """
    smallest = len(raw.class_names) if raw.kind == "classification" else 1
    notes = []

    def sample(rows: np.ndarray, size: int, stage: int) -> np.ndarray:
        """``size`` of the rows; the rest are the other side of the cut."""
        rng = np.random.default_rng((seed, stage))
        if raw.kind == "classification":
            return rows[stratified_sample(raw.y_train[rows], size, rng)]
        if raw.kind == "multilabel":
            return rows[multilabel_sample(raw.y_train[rows], size, rng)]
        return rows[plain_sample(len(rows), size, rng)]

    rows = np.arange(len(raw.x_train))
    if train_size is not None:
        if not smallest <= train_size <= len(rows):
            raise UserError(
                f"split.train_size: expected {smallest} to {len(rows)} (the training part of {origin}), got {train_size}"
            )
        notes.append(f"only {train_size} of {len(rows)} samples of the training part are used (seed {seed}).")
        rows = sample(rows, train_size, 0)
    if raw.x_val is not None:
        return rows, None, notes
    if raw.group_train is not None:
        held, said = _groups(raw, rows, fraction, seed)
    else:
        size = max(min(max(1, round(fraction * len(rows))), len(rows) - smallest), 0)
        held = ~np.isin(rows, sample(rows, len(rows) - size, 1))
        how = "stratified " if raw.kind in ("classification", "multilabel") else ""
        said = f"validation: a {how}random share of the training part (seed {seed})."
    if not held.any():
        what = f"{len(rows)} training samples" if raw.group_train is None else "groups of the training part"
        raise UserError(
            f"{origin}: {what} leave none for validation (every class keeps a sample): give more, or a validation split of "
            "their own"
        )
    return rows[~held], rows[held], [*notes, said]


def _groups(raw: RawTask, rows: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, str]:
    """Whole groups until they hold the share that is asked for; those that would leave a class without a sample are passed over."""
    groups = raw.group_train[rows]
    names = np.random.default_rng((seed, 1)).permutation(np.unique(groups))
    size, held = fraction * len(rows), np.zeros(len(rows), bool)
    for name in names:
        trial = held | (groups == name)
        if raw.kind == "classification" and len(np.unique(raw.y_train[rows[~trial]])) < len(raw.class_names):
            continue
        if trial.all() or (held.any() and trial.sum() > size + 0.5 * (groups == name).sum()):
            continue
        held = trial
    chosen = [raw.group_names[one] for one in np.unique(groups[held])]
    return held, (
        f"validation: {len(chosen)} whole groups of the {len(names)} in the training part (seed {seed}): "
        f"{', '.join(chosen[:8])}{', ...' if len(chosen) > 8 else ''}."
    )
