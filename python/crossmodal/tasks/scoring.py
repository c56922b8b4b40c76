"""Which loss and metrics a task has, and what they have to say about its targets before anything is learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from crossmodal import naming
from crossmodal.data.dataset import ArrayLike
from crossmodal.data.numeric import chunks
from crossmodal.data.readers.tables import shown
from crossmodal.errors import UserError
from crossmodal.scoring import losses, metrics
from crossmodal.scoring.metrics import PER_GROUP
from crossmodal.tasks.base import DEFAULTS, RawTask

RANKED = ("auroc", "mean_average_precision")  # which need samples with a class or label, and without
RELATIVE = {"relative_l2", "nrmse"}  # to the size of a target


@dataclass(frozen=True)
class Part:
    """Samples (n, ...), targets (n, ...), groups int64 (n,) and masks like the targets, and which of them belong to a split (None:
    all)."""

    x: ArrayLike
    y: ArrayLike
    group: np.ndarray | None
    rows: np.ndarray | None = None
    mask: ArrayLike | None = None

    def __len__(self) -> int:
        return len(self.x) if self.rows is None else len(self.rows)

    def targets(self) -> Iterator[np.ndarray]:
        """Targets in pieces."""
        return chunks(self.y, self.rows)

    @property
    def groups(self) -> np.ndarray:
        """The group of each sample, int64; without groups all are in one."""
        if self.group is None:
            return np.zeros(len(self), np.int64)
        return self.group if self.rows is None else self.group[self.rows]


def scored_as(kind: str, loss: str) -> str:
    """The kind of target, "mask" for dense ones whose loss takes values from 0 to 1."""
    return "mask" if kind == "dense" and loss == "bce_with_logits" else kind


def loss_and_metrics(raw: RawTask, origin: str) -> tuple[str, tuple[str, ...]]:
    """Names of loss and metrics, by default those of the kind.

    Raises:
        UserError: an unknown name, or one that is not made for the kind of target; those that are follow.
    """

    def settle(role: str, name: str, kind: str, table: dict) -> str:
        valid = [one for one, entry in table.items() if kind in entry.kinds]
        base = metrics.plain_name(name)
        if base not in table:
            raise UserError(naming.unknown(role, name, valid))
        if base not in valid:
            kinds = ", ".join(table[base].kinds)
            hint = " (a mask with --loss bce_with_logits)" if kind == "dense" and "mask" in table[base].kinds else ""
            raise UserError(
                f"{role}: {name} is made for {kinds}, but the target is {kind}{hint}; expected one of {', '.join(valid)}"
            )
        if base != name and metrics.get(name).grouped and raw.group_train is None:
            raise UserError(f"metric: {name} needs groups, which {origin} does not have (group_train, group_test)")
        return name

    loss = settle("loss", DEFAULTS[raw.kind][0] if raw.loss is None else raw.loss, raw.kind, losses.LOSSES)
    kind = scored_as(raw.kind, loss)
    names = raw.metrics or DEFAULTS[kind][1]
    if not raw.metrics and raw.group_train is not None:
        names = (*names, names[0] + PER_GROUP)
    return loss, tuple(settle("metric", name, kind, metrics.METRICS) for name in names)


def examine(parts: dict[str, Part], raw: RawTask, loss: str, metric: str, origin: str) -> list[str]:
    """What there is to say about targets that loss or first metric cannot do with.

    Raises:
        UserError: they can do with none of them.
    """
    notes = []
    parts = {part: content for part, content in parts.items() if len(content)}
    if scored_as(raw.kind, loss) == "mask":
        _check_shares(parts, origin)
    elif raw.kind == "dense" and raw.loss is None and _are_zeros_and_ones(parts):
        notes.append("All targets are 0 or 1: if they are masks, --loss bce_with_logits is made for them.")
    if raw.kind == "multilabel":
        unused = np.flatnonzero(~_occurring(parts["train"], 0)[0].any(0)).tolist()
        if unused:
            named = [raw.class_names[i] if raw.class_names else i for i in unused]
            notes.append(f"warning: no training sample has the labels {named}.")
    for part in [part for part in parts if part != "train"]:
        notes += [f"warning: the {part} {said}" for said in _unscored(parts[part], raw, metric)]
    if not RELATIVE.isdisjoint((loss, metrics.plain_name(metric))):
        notes += _zero_targets(parts, loss, metric, origin)
    return notes


def _unscored(part: Part, raw: RawTask, metric: str) -> list[str]:
    """What the metric cannot see in a split: classes, labels or channels that occur always or never, groups of one sample."""
    name = metrics.plain_name(metric)
    what = {"classification": "classes", "multilabel": "labels"}.get(raw.kind, "channels")
    of, sizes = np.unique(part.groups, return_counts=True)
    apart = of if metric.endswith(PER_GROUP) else [None]  # figures of groups, else one of all
    if name in RANKED:
        occurs, fails = _occurring(part, len(raw.class_names))
        rows = [slice(None) if one is None else part.groups == one for one in apart]
        scored = np.array([occurs[these].any(0) & fails[these].any(0) for these in rows])
        why = f"all its {what} occur always or never"
    elif name == "r2":
        counts = sizes if apart is of else [len(part) if metrics.get(metric).pooled is None else len(of)]
        scored = np.array(counts)[:, None] > 1
        why = "it has one sample" if apart is not of else "each of its groups has one sample"
    else:
        return []
    if not scored.any():
        return [f"part cannot be scored by {metric}: {why}."]
    if apart is of:
        lost = [raw.group_names[one] for one in of[~scored.any(1)]]
        return (
            [f"{metric} leaves out {len(lost)} of {len(of)} groups, which have no {name}: {shown(lost, 8)}."]
            if lost
            else []
        )
    left = np.flatnonzero(~scored[0]).tolist() if name in RANKED else []
    named = [raw.class_names[i] if raw.class_names else i for i in left]
    return [f"{metric} leaves out the {what} {named}, which occur always or never there."] if left else []


def _occurring(part: Part, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Which classes, labels or channels occur in each sample, and which are somewhere absent; bool (n, K)."""
    found = []
    for chunk in part.targets():
        truth = chunk[:, None] == np.arange(classes) if chunk.ndim == 1 else chunk > 0.5
        pixels = tuple(range(2, truth.ndim))
        found.append((truth.any(axis=pixels), ~truth.all(axis=pixels)))
    occurs, fails = (np.concatenate(pieces) for pieces in zip(*found, strict=True))
    return occurs, fails


def _are_zeros_and_ones(parts: dict[str, Part]) -> bool:
    return all(((chunk == 0) | (chunk == 1)).all() for part in parts.values() for chunk in part.targets())


def _check_shares(parts: dict[str, Part], origin: str) -> None:
    for part, content in parts.items():
        for chunk in content.targets():
            for value in (chunk.min(), chunk.max()):
                if not 0 <= value <= 1:
                    raise UserError(
                        f"{origin}: loss bce_with_logits needs targets from 0 to 1, but a {part} target holds {value}; "
                        "take --loss mse"
                    )


def _zero_targets(parts: dict[str, Part], loss: str, metric: str, origin: str) -> list[str]:
    """What there is to say about targets of zeros, to which no error can be relative.

    Raises:
        UserError: the loss is relative and there is one, or the metric is and all of a split's are zero.
    """
    notes = []
    for part, content in parts.items():
        total = len(content)
        axes = 2 if loss == "nrmse" else 1  # which takes each channel of a sample for itself
        zeros = 0
        for chunk in content.targets():
            nothing = ~chunk.reshape(*chunk.shape[:axes], -1).any(axis=-1)
            zeros += int(nothing.reshape(len(chunk), -1).any(axis=1).sum())
        if zeros and loss in RELATIVE:
            raise UserError(
                f"{origin}: loss {loss}: {zeros} of {total} {part} targets are zero, to which no error can be "
                "relative; take --loss mse"
            )
        if zeros == total:
            raise UserError(f"{origin}: metric {metric}: all {part} targets are zero; take --metric rmse or mae")
        if zeros and part != "train":
            notes.append(
                f"{zeros} of {total} {part} targets are zero: {metric} takes their errors relative to the root mean "
                "square of the norms."
            )
    return notes
