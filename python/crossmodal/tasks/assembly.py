"""The one road from a loader's raw arrays to normalised splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from crossmodal.data.arrays import in_memory, manifest
from crossmodal.data.augment import augmentations
from crossmodal.data.dataset import ArrayDataset, Augmentation, Variation, take
from crossmodal.data.normalizer import Normalizer, Scaling
from crossmodal.data.numeric import chunks, float_dtype, require_finite
from crossmodal.data.readers.tables import shown
from crossmodal.errors import UserError
from crossmodal.kinds import KINDS, REAL_KINDS
from crossmodal.naming import counted, title
from crossmodal.settings import ImagesConfig, RecordingsConfig, SplitConfig, TableConfig
from crossmodal.tasks import base
from crossmodal.tasks.base import About, Options, RawTask, Task
from crossmodal.tasks.checking import checked
from crossmodal.tasks.holding_out import divide, pooled
from crossmodal.tasks.overlaps import overlaps
from crossmodal.tasks.scoring import Part, examine, loss_and_metrics, scored_as

SCALED = {
    "channel": "z-scored per channel",
    "position": "z-scored per channel and position",
    "none": "left as they are",
}


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
    split: SplitConfig | None = None,
    table: TableConfig | None = None,
    recordings: RecordingsConfig | None = None,
    images: ImagesConfig | None = None,
    copies: bool = True,
) -> Task:
    """Load a task, set test and validation samples aside, and normalise.

    Args:
        name: a key of :func:`available`.
        data: for task "arrays": a table, a folder of recordings or images, an .npz or HDF5 file, a folder of .npy or .csv files,
            or NAME_TRAIN.ts.
        data_dir: a folder with data files, searched before the places where packages keep theirs.
        kind: for task "arrays": one of :data:`crossmodal.kinds.KINDS` instead of the inferred one.
        protocol: how to evaluate, where a task has several ways.
        loss: a name of :data:`crossmodal.scoring.losses.LOSSES` that is made for the kind of target, instead of the task's own.
        metrics: names of :data:`crossmodal.scoring.metrics.METRICS`, likewise; the first chooses the epoch.
        augment: names of :data:`crossmodal.data.augment.AUGMENTATIONS`, done to training samples in this order.
        split: how samples are divided (None: as by default), whole groups where there are groups, else stratified for
            classification, with at least one training sample left to every class, and for multilabel. Where it asks for folds and
            names none, the first one.
        table, recordings, images: for task "arrays": how its files are read (None: as by default).
        copies: whether files may be made, beside those of task "arrays", that are faster to read.

    Raises:
        UserError: unknown task, or an option or data that cannot be used, or data that are not where they should be.
    """
    entry = base.entry(name)
    if entry.own_data and data is None:
        raise UserError(f"data: task {name!r} reads your own data; name its file or folder with --data")
    if not entry.own_data and (data is not None or kind is not None):
        option = "data" if data is not None else "kind"
        raise UserError(f"{option}: task {name!r} has its own; data= and kind= belong to the task 'arrays'")
    forms = {"table": table, "recordings": recordings, "images": images}
    forms = {form: section for form, section in forms.items() if section is not None}
    for form, section in forms.items():
        if not entry.own_data and section != type(section)():
            raise UserError(f"{form}: settings of your own data, which task {name!r} does not read; take --task arrays")
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
        copies=copies,
        **forms,
    )
    miniature = base.check_files(name, options.data_dir)

    own: dict[str, Augmentation] = {}

    def read() -> RawTask:
        raw = entry.loader(options)
        own.update(raw.augmentations)
        told = {"loss": loss, "metrics": tuple(metrics) or None}
        return replace(raw, **{key: value for key, value in told.items() if value is not None})

    split = split or SplitConfig()
    if split.folds and split.fold is None:
        split = replace(split, fold=1)
    task = _assemble(name, title(name, data), read, split, options.protocol, entry.own_data)
    if miniature:
        said = "warning: these data are a miniature: no result on them stands for the real task."
        task = replace(task, miniature=True, description=f"{task.description}\n{said}")
    if augment:
        moving = [one for one in augment if one != "noise"]
        if task.kind == "dense" and moving:
            raise UserError(f"augment: {moving[0]} moves a sample, but not its dense target; take noise")
        task = replace(task, train=task.train.augmented(augmentations(augment, task.ndim, own)))
    return task


def _assemble(
    name: str, called: str, read: Callable[[], RawTask], split: SplitConfig, protocol: str, own_data: bool
) -> Task:
    raw = read()
    origin = raw.origin or f"task {name!r}"
    raw = checked(raw, origin)
    fingerprint = _digest(raw)
    if split.folds or split.fold == 0:
        raw = pooled(raw, origin)
    shared = _shared_groups(raw, origin, refused=own_data and not split.divide_groups)
    loss, metrics = loss_and_metrics(raw, origin)
    division = divide(raw, origin, split)
    rows = division.train
    parts = {
        "train": Part(raw.x_train, raw.y_train, raw.group_train, rows, raw.mask_train),
        "validation": Part(raw.x_val, raw.y_val, raw.group_val, mask=raw.mask_val),
        "test": Part(raw.x_test, raw.y_test, raw.group_test, mask=raw.mask_test),
    }
    for part, held in (("validation", division.validation), ("test", division.test)):
        if held is not None:
            parts[part] = replace(parts["train"], rows=held)
    notes = [*raw.notes, *shared, *division.notes, *examine(parts, raw, loss, metrics[0], origin)]
    kind, logits = raw.kind, scored_as(raw.kind, loss) == "mask"
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
            impute=raw.impute,
        )
    except UserError as error:
        raise UserError(f"{origin}: {error}") from None
    about = {
        "name": name,
        "title": called,
        "kind": kind,
        "input_shape": tuple(raw.x_train.shape[1:]),
        "output_shape": (len(raw.class_names),) if kind == "classification" else tuple(raw.y_train.shape[1:]),
        "class_names": raw.class_names,
        "class_values": raw.class_values,
        "loss": loss,
        "metrics": metrics,
        "normalizer": normalizer,
        "fingerprint": fingerprint,
        "group_names": raw.group_names,
        "test_rows": np.arange(len(parts["test"])) if parts["test"].rows is None else parts["test"].rows,
        "protocol": protocol,
        "steps": raw.steps,
        "equation": raw.equation,
        "level": raw.level,
        "about": raw.about,
    }
    scaling, vary = raw.normalize_x, {"train": raw.vary}
    del raw  # so that each array goes once its splits are made: the data may fill half the memory
    splits = {
        part: _dataset(parts.pop(part), kind, normalizer, f"{called}: {part}", about["fingerprint"], vary.get(part))
        for part in list(parts)
    }
    notes += overlaps(splits, has_groups=bool(about["group_names"]))
    return _described(Task(**about, **splits, description=""), origin, scaling, notes)


def _shared_groups(raw: RawTask, origin: str, refused: bool) -> list[str]:
    """Warnings about groups that the training part shares with another; raises UserError where any parts may not."""
    notes = []
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        groups = [getattr(raw, f"group_{part}") for part in (one, other)]
        shared = np.intersect1d(*groups) if all(part is not None for part in groups) else ()
        if not len(shared):
            continue
        names = shown([raw.group_names[group] for group in shared], 8)
        said = f"group_{one} and group_{other} share {counted(len(shared), 'groups')} ({names})"
        if refused:
            raise UserError(
                f"{origin}: {said}, so that figures would say nothing about new groups: leave the parts out, and whole groups are "
                "set aside, or take --split.divide_groups true"
            )
        notes += [f"warning: {said}: figures of the latter say nothing about new groups."] * (one == "train")
    return notes


def _dataset(
    part: Part, kind: str, normalizer: Normalizer, name: str, fingerprint: str, vary: Variation | None
) -> ArrayDataset:
    """A split: scaled at once where the arrays are in memory, else as its samples are read.

    Raises:
        UserError: a value lies so far from the training samples that scaling makes it infinite; its place is named.
    """
    kept = np.arange(len(part.x)) if part.rows is None else part.rows
    extras = {} if part.group is None else {"group": torch.from_numpy(part.groups.astype(np.int64))}

    def scale_y(y: np.ndarray, rows: np.ndarray | None = None) -> Tensor:
        if kind in REAL_KINDS:
            return normalizer.apply_y(y, rows)
        y = y if rows is None else y[rows]
        return torch.from_numpy(y).to(torch.int64 if kind == "classification" else torch.float32)

    if in_memory(part.x) and in_memory(part.y):
        x, y = normalizer.apply_x(part.x, part.rows), scale_y(part.y, part.rows)
        extras |= {} if part.mask is None else {"mask": torch.from_numpy(take(part.mask, kept))}
        for what, values in (("x", x), ("y", y)):
            require_finite(values.numpy(), f"{name}: normalised {what}")
        return ArrayDataset(x, y, extras=extras, fingerprint=fingerprint)
    extras |= {} if part.mask is None else {"mask": part.mask}
    return ArrayDataset(
        part.x,
        part.y,
        scale_x=normalizer.apply_x,
        scale_y=scale_y,
        rows=kept,
        extras=extras,
        vary=vary,
        fingerprint=fingerprint,
    )


def _digest(raw: RawTask) -> str:
    """Hash of all that a run learns from: the arrays' dtypes (of real numbers :func:`float_dtype`), shapes and values; what the
    labels mean; how values are scaled."""
    meaning = raw.class_names, raw.class_values, raw.normalize_x, raw.normalize_y
    sha = hashlib.sha256(json.dumps(meaning).encode())
    for x, y, group, mask in (
        (raw.x_train, raw.y_train, raw.group_train, raw.mask_train),
        (raw.x_val, raw.y_val, raw.group_val, raw.mask_val),
        (raw.x_test, raw.y_test, raw.group_test, raw.mask_test),
    ):
        for array, is_real in ((x, True), (y, raw.kind in REAL_KINDS), (group, False), (mask, False)):
            if array is not None:
                dtype = float_dtype(array.dtype) if is_real else array.dtype
                sha.update(f"{dtype} {array.shape}".encode())
                if not in_memory(array):
                    sha.update(manifest(array).encode())
                    continue
                for chunk in chunks(array):
                    sha.update(np.ascontiguousarray(chunk, dtype))
    return sha.hexdigest()


def _described(task: Task, origin: str, scaling: Scaling, notes: list[str]) -> Task:
    what = {
        "classification": f"classification into {task.num_outputs} classes",
        "multilabel": f"multi-label classification, {task.num_outputs} labels",
        "regression": f"regression of {counted(task.num_outputs, 'values')}",
        "dense": f"dense prediction of shape {task.output_shape}",
    }[task.kind]
    if task.class_names:
        what += f" ({shown(task.class_names)})"
    scaled = (
        SCALED[scaling]
        if isinstance(scaling, str)
        else "; ".join(
            f"channel {channel}: {SCALED[one] if isinstance(one, str) else 'less {:g}, over {:g}'.format(*one)}"
            for channel, one in enumerate(scaling)
        )
    )
    fitted = "z-scored" in scaled
    splits = {"train": task.train, "validation": task.validation, "test": task.test}
    rows = {
        "samples": f"{_counts(splits)}, each of shape {task.input_shape}, {scaled}"
        f"{' with the statistics of the train split' * fitted}.",
        **_features(task.about, task.input_shape),
        "target": _target(task, splits),
    }
    groups = {part: split.extra("group") for part, split in splits.items()}
    if groups["train"] is not None:
        rows["groups"] = _counts({part: values.unique() for part, values in groups.items()})
    rows |= task.about.rows
    lines = [
        f"{task.title}: {what}, from {origin}.",
        *(f"  {heading:<14}  {line}" for heading, line in rows.items() if line),
        *notes,
        f"loss: {task.loss}; metrics: {', '.join(task.metrics)}."
        + (f" Protocol: {task.protocol}." if task.protocol != "default" else ""),
    ]
    return replace(task, description="\n".join(lines))


def _counts(parts: Mapping[str, Sized]) -> str:
    return ", ".join(f"{len(content)} {part}" for part, content in parts.items())


def _features(about: About, shape: tuple[int, ...]) -> dict[str, str]:
    """Lines about what the values of a sample are."""
    if not about.features:
        return {}
    units = about.units or ("",) * len(about.features)
    named = [f"{name} [{unit}]" if unit else name for name, unit in zip(about.features, units, strict=True)]
    rows = {"channels" if len(named) == shape[0] else "features": f"{len(named)}: {shown(named)}"}
    if about.rate is not None:
        rows["rate"] = f"{about.rate:g} values per second; a sample is {shape[-1] / about.rate:g} s"
    return rows


def _target(task: Task, splits: Mapping[str, ArrayDataset]) -> str:
    """What is predicted: names, and how often each class or label occurs, or in which range values lie."""
    if task.kind == "dense":
        return ""
    called = f"{shown(task.about.targets)}: " if task.about.targets and task.kind != "multilabel" else ""
    if task.kind == "regression":
        y = task.normalizer.inverse_y(task.train.y)
        middle, spread = y.mean(0).tolist(), y.std(0, correction=0).tolist()
        return (
            called + ", ".join(f"{m:.4g} ± {s:.4g}" for m, s in zip(middle[:6], spread[:6], strict=True)) + " (train)"
        )
    y = torch.cat([split.y for split in splits.values()])
    counts = torch.bincount(y, minlength=task.num_outputs) if task.kind == "classification" else y.sum(0)
    names = task.class_names or tuple(map(str, range(task.num_outputs)))
    return called + shown([f"{name} {int(count)}" for name, count in zip(names, counts, strict=True)])
