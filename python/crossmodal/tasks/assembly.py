"""The one road from a loader's raw arrays to normalised splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from crossmodal import naming
from crossmodal.data.arrays import in_memory, manifest
from crossmodal.data.augment import augmentations
from crossmodal.data.dataset import ArrayDataset, ArrayLike
from crossmodal.data.normalizer import Normalizer
from crossmodal.data.numeric import chunks, float_dtype, require_finite
from crossmodal.data.splitting import multilabel_sample, plain_sample, stratified_sample
from crossmodal.errors import UserError
from crossmodal.scoring import losses, metrics
from crossmodal.scoring.metrics import PER_GROUP
from crossmodal.tasks import base
from crossmodal.tasks.base import DEFAULTS, KINDS, REAL_KINDS, Options, RawTask, Task
from crossmodal.tasks.targets import encode_multilabel


def load(
    name: str,
    *,
    data: str | Path | None = None,
    data_dir: str | Path | None = None,
    kind: str | None = None,
    protocol: str | None = None,
    loss: str | None = None,
    metrics: Sequence[str] = (),
    augment: Sequence[str] = (),
    validation_fraction: float = 0.2,
    split_seed: int = 0,
    train_size: int | None = None,
) -> Task:
    """Load a task, set validation samples aside, and normalise.

    Args:
        name: a key of :func:`available`.
        data: for task "arrays": an .npz or HDF5 file, a folder of .npy or .csv files, or NAME_TRAIN.ts.
        data_dir: a folder with data files, searched before the places where packages keep theirs.
        kind: for task "arrays": one of :data:`KINDS` instead of the inferred one.
        protocol: how to evaluate, where a task has several ways.
        loss: a name of :data:`crossmodal.scoring.losses.LOSSES` that is made for the kind of target, instead of the task's own.
        metrics: names of :data:`crossmodal.scoring.metrics.METRICS`, likewise; the first chooses the epoch.
        augment: names of :data:`crossmodal.data.augment.AUGMENTATIONS`, done to training samples in this order.
        validation_fraction: share of the training part, in (0, 1), that becomes the validation split; whole groups where there
            are groups, else stratified for classification, with at least one training sample left to every class, and for
            multilabel. Unused where the data bring a validation split of their own.
        split_seed: seed of that choice and of ``train_size``.
        train_size: keep only so many samples of the training part (validation share included); drawn at random,
            stratified for classification, with at least one sample per class, and for multilabel.

    Raises:
        UserError: unknown task, or an option or data that cannot be used, or data that are not where they should be.
    """
    entry = base.entry(name)
    if entry.own_data and data is None:
        raise UserError(f"data: task {name!r} reads your own data; name its file or folder with --data")
    if not entry.own_data and (data is not None or kind is not None):
        option = "data" if data is not None else "kind"
        raise UserError(f"{option}: task {name!r} has its own; data= and kind= belong to the task 'arrays'")
    if kind is not None and kind not in KINDS:
        raise UserError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    if protocol is not None and protocol not in entry.protocols:
        raise UserError(f"protocol: task {name!r} has {', '.join(entry.protocols)}, got {protocol!r}")
    if data_dir is not None and not Path(data_dir).is_dir():
        raise UserError(f"data_dir: no such folder: {data_dir}")
    options = Options(
        data=None if data is None else Path(data),
        data_dir=None if data_dir is None else Path(data_dir),
        kind=kind,
        protocol=protocol or entry.protocols[0],
    )

    def read() -> RawTask:
        raw = entry.loader(options)
        told = {"loss": loss, "metrics": tuple(metrics) or None}
        return replace(raw, **{key: value for key, value in told.items() if value is not None})

    task = _assemble(name, read, validation_fraction, split_seed, train_size)
    if augment:
        moving = [one for one in augment if one != "noise"]
        if task.kind == "dense" and moving:
            raise UserError(f"augment: {moving[0]} moves a sample, but not its dense target; take noise")
        task = replace(task, train=task.train.augmented(augmentations(augment, task.ndim)))
    return task


def _assemble(
    name: str, read: Callable[[], RawTask], validation_fraction: float, split_seed: int, train_size: int | None
) -> Task:
    raw = read()
    origin = raw.origin or f"task {name!r}"
    _check(raw, origin)
    loss, metrics = _loss_and_metrics(raw, origin)
    kind, notes = raw.kind, list(raw.notes)
    rows, held_out = _hold_out(raw, origin, notes, validation_fraction, split_seed, train_size)
    parts = {
        "train": _Part(raw.x_train, raw.y_train, raw.group_train, rows),
        "validation": _Part(raw.x_val, raw.y_val, raw.group_val, None),
        "test": _Part(raw.x_test, raw.y_test, raw.group_test, None),
    }
    if held_out is not None:
        parts["validation"] = replace(parts["train"], rows=held_out)

    logits = _scored_as(kind, loss) == "mask"
    if logits:
        _check_shares(parts, origin)
    elif kind == "dense" and raw.loss is None and _are_zeros_and_ones(parts):
        notes.append("All targets are 0 or 1: if they are masks, --loss bce_with_logits is made for them.")
    notes += _unscored(parts, raw, metrics[0])
    if "relative_l2" in (loss, metrics[0]):
        notes += _zero_targets(parts, loss, metrics[0], origin)
    try:
        normalizer = Normalizer.fit(
            raw.x_train,
            raw.y_train if kind in REAL_KINDS else None,
            rows=rows,
            per_x=raw.normalize_x,
            per_y="none" if logits else raw.normalize_y,
            resample=raw.resample,
            fill_missing=raw.fill_missing,
            logits=logits,
        )
    except ValueError as error:
        raise UserError(f"{origin}: {error}") from None

    outputs = (len(raw.class_names),) if kind == "classification" else raw.y_train.shape[1:]
    about = {
        "input_shape": tuple(raw.x_train.shape[1:]),
        "output_shape": tuple(outputs),
        "class_names": raw.class_names,
        "class_values": raw.class_values or (tuple(range(len(raw.class_names))) if kind == "classification" else ()),
        "fingerprint": _digest(raw),
        "protocol": raw.protocol,
        "steps": raw.steps,
    }
    scaling = raw.normalize_x
    del raw  # so that each array goes once its splits are made: the data may fill half the memory
    task = Task(
        name=name,
        kind=kind,
        **{
            part: _dataset(parts.pop(part), kind, normalizer, f"{name}: {part}", about["fingerprint"])
            for part in list(parts)
        },
        loss=loss,
        metrics=metrics,
        normalizer=normalizer,
        description="",
        **about,
    )
    return _described(task, origin, scaling, notes)


@dataclass(frozen=True)
class _Part:
    """Samples, targets and groups, and which of them belong to a split (None: all)."""

    x: ArrayLike
    y: ArrayLike
    group: np.ndarray | None
    rows: np.ndarray | None

    def __len__(self) -> int:
        return len(self.x) if self.rows is None else len(self.rows)

    def targets(self) -> Iterator[np.ndarray]:
        """Targets in pieces."""
        return chunks(self.y, self.rows)


def _dataset(part: _Part, kind: str, normalizer: Normalizer, name: str, fingerprint: str) -> ArrayDataset:
    """A split: scaled at once where the arrays are in memory, else as its samples are read.

    Raises:
        UserError: a value lies so far from the training samples that scaling makes it infinite; its place is named.
    """
    rows = np.arange(len(part.x)) if part.rows is None else part.rows
    extras = {} if part.group is None else {"group": torch.from_numpy(part.group[rows].astype(np.int64))}

    def scale_y(y: np.ndarray, rows: np.ndarray | None = None) -> Tensor:
        if kind in REAL_KINDS:
            return normalizer.apply_y(y, rows)
        y = y if rows is None else y[rows]
        return torch.from_numpy(y).to(torch.int64 if kind == "classification" else torch.float32)

    if in_memory(part.x) and in_memory(part.y):
        x, y = normalizer.apply_x(part.x, part.rows), scale_y(part.y, part.rows)
        for what, values in (("x", x), ("y", y)):
            require_finite(values.numpy(), f"{name}: normalised {what}")
        return ArrayDataset(x, y, extras=extras, fingerprint=fingerprint)
    return ArrayDataset(
        part.x, part.y, scale_x=normalizer.apply_x, scale_y=scale_y, rows=rows, extras=extras, fingerprint=fingerprint
    )


def _hold_out(
    raw: RawTask,
    origin: str,
    notes: list[str],
    validation_fraction: float,
    split_seed: int,
    train_size: int | None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows of the training part to learn from, and those to validate with (None where the data bring their own)."""
    smallest = len(raw.class_names) if raw.kind == "classification" else 1

    def sample(rows: np.ndarray, size: int, stage: int) -> np.ndarray:
        """``size`` of the rows; the rest are the other side of the cut."""
        rng = np.random.default_rng((split_seed, stage))
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
        notes.append(f"only {train_size} of {len(rows)} samples of the training part are used (seed {split_seed}).")
        rows = sample(rows, train_size, 0)
    if raw.x_val is not None:
        return rows, None
    if raw.group_train is not None:
        return _hold_out_groups(raw, rows, origin, notes, validation_fraction, split_seed)
    size = min(max(1, round(validation_fraction * len(rows))), len(rows) - smallest)
    if size < 1:
        raise UserError(
            f"{origin}: {len(rows)} training samples leave none for validation (every class keeps one): "
            "give more samples, or a validation split of their own"
        )
    kept = sample(rows, len(rows) - size, 1)
    how = "stratified " if raw.kind in ("classification", "multilabel") else ""
    notes.append(f"validation: a {how}random share of the training part (seed {split_seed}).")
    return kept, np.setdiff1d(rows, kept)


def _hold_out_groups(
    raw: RawTask, rows: np.ndarray, origin: str, notes: list[str], validation_fraction: float, split_seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Whole groups until they hold the share that is asked for; those that would leave a class without a sample are passed over."""
    groups = raw.group_train[rows]
    names = np.random.default_rng((split_seed, 1)).permutation(np.unique(groups))
    size, held = validation_fraction * len(rows), np.zeros(len(rows), bool)
    for name in names:
        trial = held | (groups == name)
        if raw.kind == "classification" and len(np.unique(raw.y_train[rows[~trial]])) < len(raw.class_names):
            continue
        if trial.all() or (held.any() and trial.sum() > size + 0.5 * (groups == name).sum()):
            continue
        held = trial
    if not held.any():
        raise UserError(
            f"{origin}: no group of the {len(names)} in the training part can be set aside for validation (every class keeps a "
            "sample): give more groups, or a validation split of their own"
        )
    chosen = [raw.group_names[one] if raw.group_names else str(one) for one in np.unique(groups[held])]
    notes.append(
        f"validation: {len(chosen)} whole groups of the {len(names)} in the training part (seed {split_seed}): "
        f"{', '.join(chosen[:8])}{', ...' if len(chosen) > 8 else ''}."
    )
    return rows[~held], rows[held]


def _loss_and_metrics(raw: RawTask, origin: str) -> tuple[str, tuple[str, ...]]:
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
        if base != name and raw.group_train is None:
            raise UserError(f"metric: {name} needs groups, which {origin} does not have (group_train, group_test)")
        return name

    loss = settle("loss", DEFAULTS[raw.kind][0] if raw.loss is None else raw.loss, raw.kind, losses.LOSSES)
    scored_as = _scored_as(raw.kind, loss)
    names = raw.metrics or DEFAULTS[scored_as][1]
    if not raw.metrics and raw.group_train is not None:
        names = (*names, names[0] + PER_GROUP)
    return loss, tuple(settle("metric", name, scored_as, metrics.METRICS) for name in names)


def _scored_as(kind: str, loss: str) -> str:
    return "mask" if kind == "dense" and loss == "bce_with_logits" else kind


def _unscored(parts: dict[str, _Part], raw: RawTask, metric: str) -> list[str]:
    """Warnings about labels that cannot be learned, and about what the metric cannot see in a split."""
    notes = []
    if raw.kind == "multilabel":
        unused = np.flatnonzero(~_occurring(parts["train"], 0)[0]).tolist()
        if unused:
            named = [raw.class_names[i] if raw.class_names else i for i in unused]
            notes.append(f"warning: no training sample has the labels {named}.")
    for part in ("validation", "test"):
        if metric in ("auroc", "mean_average_precision"):
            what = {"classification": "classes", "multilabel": "labels"}.get(raw.kind, "channels")
            occurs, fails = _occurring(parts[part], len(raw.class_names))
            constant = np.flatnonzero(~(occurs & fails)).tolist()
            names = [raw.class_names[i] if raw.class_names else i for i in constant]
            if len(constant) == len(occurs):
                notes.append(
                    f"warning: the {part} part cannot be scored by {metric}: all its {what} occur always or never."
                )
            elif constant:
                notes.append(
                    f"warning: the {part} {metric} leaves out the {what} {names}, which occur always or never there."
                )
        elif metric == "r2" and len(parts[part]) < 2:
            notes.append(f"warning: the {part} part cannot be scored by r2: it has one sample.")
    return notes


def _occurring(part: _Part, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Which classes, labels or channels occur somewhere in these targets, and which are somewhere absent."""
    occurs = fails = np.False_
    for chunk in part.targets():
        truth = chunk[:, None] == np.arange(classes) if chunk.ndim == 1 else chunk > 0.5
        others = tuple(axis for axis in range(truth.ndim) if axis != 1)
        occurs, fails = occurs | truth.any(axis=others), fails | ~truth.all(axis=others)
    return occurs, fails


def _are_zeros_and_ones(parts: dict[str, _Part]) -> bool:
    return all(((chunk == 0) | (chunk == 1)).all() for part in parts.values() for chunk in part.targets())


def _check_shares(parts: dict[str, _Part], origin: str) -> None:
    for part, content in parts.items():
        for chunk in content.targets():
            for value in (chunk.min(), chunk.max()):
                if not 0 <= value <= 1:
                    raise UserError(
                        f"{origin}: loss bce_with_logits needs targets from 0 to 1, but a {part} target holds {value}; "
                        "take --loss mse"
                    )


def _zero_targets(parts: dict[str, _Part], loss: str, metric: str, origin: str) -> list[str]:
    """What there is to say about targets of zeros, to which no error can be relative.

    Raises:
        UserError: the loss is relative and there is one, or the metric is and all of a split's are zero.
    """
    notes = []
    for part, content in parts.items():
        total = len(content)
        zeros = sum(int((~chunk.reshape(len(chunk), -1).any(axis=1)).sum()) for chunk in content.targets())
        if zeros and loss == "relative_l2":
            raise UserError(
                f"{origin}: loss relative_l2: {zeros} of {total} {part} targets are zero, to which no error can be "
                "relative; take --loss mse"
            )
        if zeros == total:
            raise UserError(f"{origin}: metric relative_l2: all {part} targets are zero; take --metric rmse or mae")
        if zeros and part != "train":
            notes.append(
                f"{zeros} of {total} {part} targets are zero: {metric} takes their errors relative to the root mean "
                "square of the norms."
            )
    return notes


def _digest(raw: RawTask) -> str:
    """Hash of all that a run learns from: the arrays' dtypes (of real numbers :func:`float_dtype`), shapes and values; what the
    labels mean; how values are scaled."""
    meaning = raw.class_names, raw.class_values, raw.normalize_x, raw.normalize_y
    sha = hashlib.sha256(json.dumps(meaning).encode())
    for x, y, group in (
        (raw.x_train, raw.y_train, raw.group_train),
        (raw.x_val, raw.y_val, raw.group_val),
        (raw.x_test, raw.y_test, raw.group_test),
    ):
        for array, is_real in ((x, True), (y, raw.kind in REAL_KINDS), (group, False)):
            if array is not None:
                dtype = float_dtype(array.dtype) if is_real else array.dtype
                sha.update(f"{dtype} {array.shape}".encode())
                if not in_memory(array):
                    sha.update(manifest(array).encode())
                    continue
                for chunk in chunks(array):
                    sha.update(np.ascontiguousarray(chunk, dtype))
    return sha.hexdigest()


def _check(raw: RawTask, origin: str) -> None:
    """Numbers and shapes of all parts, and labels: the same for every loader.

    What a user's own file may hold beside that, NaN for one, is looked for where it is read: the place is named there.
    """
    if raw.kind not in KINDS:
        raise UserError(f"{origin}: kind must be one of {', '.join(KINDS)}, got {raw.kind!r}")
    if raw.kind == "classification" and len(raw.class_names) < 2:
        raise UserError(f"{origin}: classification needs at least two classes, got {list(raw.class_names)}")
    parts = {"train": (raw.x_train, raw.y_train), "val": (raw.x_val, raw.y_val), "test": (raw.x_test, raw.y_test)}
    groups = {"train": raw.group_train, "val": raw.group_val, "test": raw.group_test}
    for part, (x, y) in parts.items():
        if groups[part] is not None and (x is None or groups[part].shape != (len(x),)):
            raise UserError(f"{origin}: group_{part}: expected one group per sample, got shape {groups[part].shape}")
        if x is None and y is None:
            continue
        if x is None or y is None:
            raise UserError(
                f"{origin}: missing {'x' if x is None else 'y'}_{part}: x_{part} and y_{part} come together"
            )
        if len(x) == 0:
            raise UserError(f"{origin}: the {part} split is empty")
        if len(x) != len(y):
            raise UserError(f"{origin}: {len(x)} samples in x_{part} but {len(y)} in y_{part}")
        for name, array, like in (("x", x, raw.x_train), ("y", y, raw.y_train)):
            expected = like.shape[1:]
            if name == "y" and part != "train" and raw.steps:
                expected = (raw.steps * expected[0], *expected[1:])
            if array.shape[1:] != expected:
                raise UserError(
                    f"{origin}: {name}_{part} has entries of shape {array.shape[1:]}, {name}_train of {like.shape[1:]}"
                )
        _check_targets(raw, y, f"{origin}: y_{part}")
    if raw.kind == "classification":
        counts = np.bincount(raw.y_train, minlength=len(raw.class_names))
        if (counts == 0).any():
            empty = [raw.class_names[index] for index in np.flatnonzero(counts == 0)]
            raise UserError(f"{origin}: no training sample of the classes {empty}")


def _check_targets(raw: RawTask, y: np.ndarray, name: str) -> None:
    dimensions = {"classification": 1, "multilabel": 2, "regression": 2, "dense": raw.x_train.ndim}[raw.kind]
    if y.ndim != dimensions:
        raise UserError(f"{name}: {raw.kind} targets have {dimensions} dimension(s), got shape {y.shape}")
    if raw.kind == "classification":
        if y.dtype.kind not in "iu":
            raise UserError(f"{name}: class labels must be whole numbers, got {y.dtype}")
        bad = np.flatnonzero((y < 0) | (y >= len(raw.class_names)))
        if len(bad):
            raise UserError(f"{name}: label {y[bad[0]]} at index {bad[0]} is not in 0..{len(raw.class_names) - 1}")
    if raw.kind == "multilabel":
        encode_multilabel(y, name)
        if raw.class_names and len(raw.class_names) != y.shape[1]:
            raise UserError(f"{name}: {y.shape[1]} columns, but {len(raw.class_names)} class_names")


def _described(task: Task, origin: str, scaling: str, notes: list[str]) -> Task:
    what = {
        "classification": f"classification into {task.num_outputs} classes",
        "multilabel": f"multi-label classification, {task.num_outputs} labels",
        "regression": f"regression of {task.num_outputs} value(s)",
        "dense": f"dense prediction of shape {task.output_shape}",
    }[task.kind]
    if task.class_names:
        shown = ", ".join(task.class_names[:12]) + (", ..." if len(task.class_names) > 12 else "")
        what += f" ({shown})"
    scaled = {
        "channel": "z-scored per channel",
        "position": "z-scored per channel and position",
        "none": "left as they are",
    }
    lines = [
        f"{task.name}: {what}, from {origin}.",
        f"samples: {len(task.train)} train, {len(task.validation)} validation, {len(task.test)} test, "
        f"each of shape {task.input_shape}, {scaled[scaling]}"
        + ("." if scaling == "none" else " with the statistics of the train split."),
        *notes,
        f"loss: {task.loss}; metrics: {', '.join(task.metrics)}."
        + (f" Protocol: {task.protocol}." if task.protocol != "default" else ""),
    ]
    return replace(task, description="\n".join(lines))
