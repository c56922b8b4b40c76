"""What every loader's arrays are held to, once: the parts fit one another, numbers are numbers, targets are what their kind has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crossmodal.data.arrays import with_channel
from crossmodal.data.dataset import ArrayLike
from crossmodal.data.numeric import require_numbers
from crossmodal.data.readers.tables import shown
from crossmodal.errors import UserError
from crossmodal.tasks import targets
from crossmodal.tasks.base import RawTask

PARTS = ("train", "val", "test")
Arrays = dict[str, ArrayLike]  # by part


def checked(raw: RawTask, origin: str) -> RawTask:
    """The same task with its kind inferred where none is given, inputs with a channel axis, targets and groups encoded.

    Raises:
        UserError: names the array, and index and value where there is one.
    """
    x, y, group, mask = (
        {part: values for part in PARTS if (values := getattr(raw, f"{name}_{part}")) is not None}
        for name in ("x", "y", "group", "mask")
    )
    for part in sorted(x.keys() ^ y.keys()):
        raise UserError(f"{origin}: missing {'x' if part in y else 'y'}_{part}: x_{part} and y_{part} come together")
    for part in sorted(x.keys() ^ group.keys()) if group else ():
        raise UserError(f"{origin}: {'missing ' if part in x else ''}group_{part}: every part has groups, or none has")
    x = {part: _inputs(values, f"{origin}: x_{part}", raw.impute) for part, values in x.items()}
    spatial = x["train"].shape[2:]
    for part in x:
        if y[part].shape[:1] != x[part].shape[:1]:
            raise UserError(f"{origin}: {len(x[part])} samples in x_{part}, but y_{part} is of shape {y[part].shape}")
    y = {part: _in_memory(values, raw.kind, spatial) for part, values in y.items()}
    notes = list(raw.notes)
    if raw.kind is None:
        named = f"{origin}: {'the target (' + shown(raw.about.targets) + ')' if raw.about.targets else 'y_train'}"
        kind, reason = targets.infer_kind(y["train"], spatial, named)
        raw = replace(raw, kind=kind)
        notes.insert(0, reason)
    if raw.kind == "classification":
        y, raw = _classes(raw, y, origin)
    else:
        encode = {"multilabel": targets.multilabel, "regression": targets.values, "dense": targets.dense}[raw.kind]
        y = {part: encode(values, f"{origin}: y_{part}", spatial) for part, values in y.items()}
        names = raw.class_names if raw.kind == "multilabel" else ()
        if names and len(names) != y["train"].shape[1]:
            raise UserError(f"{origin}: y_train: {y['train'].shape[1]} columns, but {len(names)} class_names")
        raw = replace(raw, class_names=names)
    _check_shapes(x, y, raw.steps, origin)
    for part in y if mask else ():
        found = mask.get(part)
        if found is None or found.dtype != np.bool_ or found.shape != y[part].shape:
            got = "none" if found is None else f"{found.dtype} of shape {found.shape}"
            raise UserError(
                f"{origin}: mask_{part}: expected booleans of shape {y[part].shape}, like y_{part}, got {got}"
            )
    if group:
        codes, names = _groups(group, x, origin)
        raw = replace(raw, group_names=names, **{f"group_{part}": values for part, values in codes.items()})
    arrays = {f"{name}_{part}": values for name, of in (("x", x), ("y", y)) for part, values in of.items()}
    return replace(raw, **arrays, notes=tuple(notes))


def _inputs(values: ArrayLike, name: str, missing: bool) -> ArrayLike:
    """Real, finite inputs ``(n, L)``, ``(n, C, L)`` or ``(n, C, H, W)``, the first with a channel axis."""
    if values.ndim not in (2, 3, 4) or 0 in values.shape:
        raise UserError(
            f"{name}: expected samples of shape (n, L), (n, C, L) or (n, C, H, W), at least one, got {values.shape}"
        )
    if _channels_last(values.shape):
        high, wide, channels = values.shape[1:]
        raise UserError(
            f"{name}: expected shape (n, C, H, W), but {values.shape} looks like images with their channels last: "
            f"transpose(0, 3, 1, 2) makes {(len(values), channels, high, wide)} of them; if these really are {high} channels "
            f"of {wide} x {channels}, swapaxes(2, 3) makes that plain"
        )
    require_numbers(values, name, missing=missing)
    return with_channel(values) if values.ndim == 2 else values


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Whether this is the shape of images with 1, 3 or 4 channels on the last axis: sides that are larger and alike.

    Channels first, such a shape would be as many channels as rows, of a strip a few values wide.
    """
    if len(shape) != 4 or shape[3] not in (1, 3, 4):
        return False
    short, long = sorted(shape[1:3])
    return short > 4 and long <= 2 * short


def _in_memory(values: ArrayLike, kind: str | None, spatial: tuple[int, ...]) -> ArrayLike:
    """Targets in memory, but for fields, which may be as large as the inputs."""
    field = kind in (None, "dense") and targets.is_dense_shape(values.shape, spatial)
    return values if field or isinstance(values, np.ndarray) else np.asarray(values[:])


def _classes(raw: RawTask, y: Arrays, origin: str) -> tuple[Arrays, RawTask]:
    """Labels as indices of classes: of those that are named, else of those that occur in the training part."""
    labels = {part: targets.labels(values, f"{origin}: y_{part}") for part, values in y.items()}
    classes = np.unique(labels["train"])
    if raw.class_names:
        is_text = labels["train"].dtype.kind == "U"
        classes = np.array(raw.class_names) if is_text else np.arange(len(raw.class_names))
    names = raw.class_names or tuple(map(str, classes.tolist()))
    if len(names) < 2:
        raise UserError(f"{origin}: classification needs at least two classes, got {list(names)}")
    y = {part: targets.encode(values, classes, f"{origin}: y_{part}") for part, values in labels.items()}
    absent = np.flatnonzero(np.bincount(y["train"], minlength=len(names)) == 0)
    if len(absent):
        raise UserError(f"{origin}: no training sample of the classes {[names[index] for index in absent]}")
    return y, replace(raw, class_names=names, class_values=tuple(classes.tolist()))


def _check_shapes(x: Arrays, y: Arrays, steps: int, origin: str) -> None:
    """Each part like the training part; targets of a roll-out hold ``steps`` frames."""
    for part in x:
        channels, *rest = y["train"].shape[1:] or (None,)
        frames = (channels * steps, *rest) if steps and part != "train" else y["train"].shape[1:]
        for name, shape, expected in (("x", x[part].shape[1:], x["train"].shape[1:]), ("y", y[part].shape[1:], frames)):
            if shape != expected:
                raise UserError(
                    f"{origin}: {name}_{part} has entries of shape {shape}, expected {expected} as in {name}_train"
                )


def _groups(group: Arrays, x: Arrays, origin: str) -> tuple[Arrays, tuple[str, ...]]:
    """Groups of each part as whole numbers, and their names."""
    found = {}
    for part, values in group.items():
        found[part] = targets.labels(np.asarray(values[:]), f"{origin}: group_{part}").astype(str)
        if len(found[part]) != len(x[part]):
            raise UserError(f"{origin}: group_{part}: expected one group per sample, got {len(found[part])}")
    names = np.unique(np.concatenate(list(found.values())))
    codes = {part: np.searchsorted(names, values) for part, values in found.items()}
    return codes, tuple(names.tolist())
