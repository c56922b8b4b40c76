"""Bring your own modality: task "arrays" reads the user's arrays.

``data`` is an ``.npz`` or HDF5 file, or a folder of ``.npy`` and ``.csv`` files (or of folders with one ``.npy`` file per sample),
with

- ``x_train``, ``x_test`` and optionally ``x_val``: real numbers ``(n, L)``, ``(n, C, L)`` or ``(n, C, H, W)``;
- ``y_train``, ``y_test`` and optionally ``y_val``: see :func:`crossmodal.tasks.targets.infer_kind`;
- optionally ``group_train``, ``group_test`` (and ``group_val``): a whole number or string per sample, the same for samples of one
  recording, patient or clip;
- optionally ``class_names``: strings; labels are then these names or their indices;
- optionally ``normalize``: the string "channel" (the default), "position" (a table, whose columns have units of their
  own) or "none";

and nothing else (an array of another name may be a misspelt one); or the ``NAME_TRAIN.ts`` of a pair of files in the
format of the UCR/UEA archive. Nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from crossmodal.data.arrays import RowFiles, with_channel
from crossmodal.data.dataset import ArrayLike
from crossmodal.data.normalizer import SCALINGS
from crossmodal.data.numeric import require_finite, require_real
from crossmodal.data.readers import ARCHIVES, read_archive
from crossmodal.data.readers.csv import read_csv
from crossmodal.data.readers.npy import normalised_bytes, read_npy
from crossmodal.errors import UserError
from crossmodal.naming import nearest
from crossmodal.tasks.base import Options, RawTask, register
from crossmodal.tasks.targets import (
    class_values,
    encode_classes,
    encode_dense,
    encode_multilabel,
    encode_values,
    infer_kind,
    is_dense_shape,
)
from crossmodal.tasks.ucr import load_ts_pair

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("x_val", "y_val", "group_train", "group_test", "group_val", "class_names", "normalize")


@register(
    "arrays",
    "your own data: --data my.npz, an .h5 file, a folder of .npy or .csv files, or NAME_TRAIN.ts",
    own_data=True,
)
def arrays(options: Options) -> RawTask:
    if options.data.suffix == ".ts":
        return load_ts_pair(options.data, kind=options.kind)
    return from_arrays(read_arrays(options.data, REQUIRED, OPTIONAL), options.kind, str(options.data))


def read_arrays(path: str | Path, required: Iterable[str], optional: Iterable[str] = ()) -> dict[str, ArrayLike]:
    """Read named arrays from an .npz or HDF5 file or a folder of .npy and .csv files, without unpickling anything.

    Raises:
        UserError: no such file or folder.
        UserError: a required array is missing, one has another name, or one cannot be read; file and array are named.
    """
    path, required, optional = Path(path), tuple(required), tuple(optional)
    if not path.exists():
        raise UserError(f"data: no such file or folder: {path}")
    if path.is_dir():
        return _read_folder(path, required, optional)
    if path.suffix not in ARCHIVES:
        raise UserError(f"data: expected an .npz or .h5 file, a folder of .npy files or NAME_TRAIN.ts, got {path}")
    return read_archive(path, lambda names: _wanted(required, optional, names, path))


def _read_folder(path: Path, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, ArrayLike]:
    tables = [file.stem for file in sorted(path.glob("*.csv"))]
    present = [file.stem for file in sorted(path.glob("*.npy"))] + tables
    present += [entry.name for entry in sorted(path.iterdir()) if entry.is_dir() and any(entry.glob("*.npy"))]
    found: dict[str, ArrayLike] = {}
    for key in _wanted(required, optional, present, path):
        if (path / key).is_dir():
            found[key] = RowFiles(sorted((path / key).glob("*.npy")), read_npy)
            continue
        if key in tables:
            table, said = read_csv(path / f"{key}.csv")
            print(said)
            found[key] = _column(table) if key.startswith(("y_", "group_")) and table.shape[1] == 1 else table
            continue
        reserved = sum(normalised_bytes(array.shape, array.dtype) for array in found.values())
        found[key] = read_npy(path / f"{key}.npy", reserved)
    return found


def _column(table: np.ndarray) -> np.ndarray:
    """A table of one column as one number per row; whole numbers, which a table cannot tell from others, as labels."""
    column = table[:, 0]
    return column.astype(np.int64) if (column == np.floor(column)).all() else column


def _wanted(required: tuple[str, ...], optional: tuple[str, ...], present: list[str], path: Path) -> list[str]:
    """The keys to read; ValueError where a required one is missing, or one is there that nobody would read."""
    missing = [key for key in required if key not in present]
    if missing:
        raise UserError(f"{path}: missing {', '.join(missing)}; found: {', '.join(present) or 'nothing'}")
    valid = (*required, *optional)
    unknown = [key for key in present if key not in valid]
    if unknown:
        named = "; ".join(f"{key!r}{nearest(key.lower(), valid)}" for key in unknown)
        raise UserError(f"{path}: holds arrays of unknown name: {named} (expected: {', '.join(valid)})")
    return [*required, *(key for key in optional if key in present)]


def from_arrays(data: dict[str, ArrayLike], kind: str | None = None, origin: str = "arrays") -> RawTask:
    """Check arrays (see the head of this module) and encode their targets.

    Raises:
        UserError: names the array, and index and value where there is one.
    """
    if ("x_val" in data) != ("y_val" in data):
        missing = "y_val" if "x_val" in data else "x_val"
        raise UserError(f"{origin}: missing {missing}: x_val and y_val come together")
    if "group_val" in data and "x_val" not in data:
        raise UserError(f"{origin}: group_val comes with x_val and y_val, which are missing")
    parts = ("train", "val", "test") if "x_val" in data else ("train", "test")
    x = {part: _inputs(data[f"x_{part}"], f"{origin}: x_{part}") for part in parts}
    y = {part: _targets(data[f"y_{part}"], kind, x[part].shape[2:]) for part in parts}
    for part in parts:
        if y[part].ndim == 0:
            raise UserError(f"{origin}: y_{part}: expected a target per sample, got the single value {y[part]}")
    spatial = x["train"].shape[2:]
    if kind is None:
        kind, reason = infer_kind(y["train"], spatial, f"{origin}: y_train")
    else:
        reason = f"{kind}: set by --kind."
    groups, about = _groups(data, parts, origin)
    notes, values = [reason, *about], ()
    names = _class_names(data.get("class_names"), origin)

    if kind == "classification":
        labels = {part: class_values(y[part], f"{origin}: y_{part}") for part in parts}
        classes = np.unique(labels["train"])
        if names and labels["train"].dtype.kind != "U":
            classes = np.arange(len(names))
        elif names:
            classes = np.array(names)
        y = {part: encode_classes(labels[part], classes, f"{origin}: y_{part}") for part in parts}
        values = tuple(classes.tolist())
        names = names or tuple(map(str, values))
    elif kind == "multilabel":
        y = {part: encode_multilabel(y[part], f"{origin}: y_{part}") for part in parts}
    elif kind == "regression":
        y = {part: encode_values(y[part], f"{origin}: y_{part}") for part in parts}
    else:
        y = {part: encode_dense(y[part], spatial, f"{origin}: y_{part}") for part in parts}
    if data["x_train"].ndim == 2 and _counts(data["x_train"][:, 0]):
        notes.append("warning: the first column of x_train counts the samples: if these are row numbers, take it out.")
    if data["x_train"].ndim == 3:
        notes.append(
            f"x_train {data['x_train'].shape} is read as (samples, channels, length); images have shape (n, C, H, W)."
        )
    return RawTask(
        kind=kind,
        x_train=x["train"],
        y_train=y["train"],
        x_test=x["test"],
        y_test=y["test"],
        x_val=x.get("val"),
        y_val=y.get("val"),
        **groups,
        class_names=names if kind in ("classification", "multilabel") else (),
        class_values=values,
        origin=origin,
        notes=tuple(notes),
        normalize_x=_normalize(data.get("normalize"), origin),
    )


def _targets(values: ArrayLike, kind: str | None, spatial: tuple[int, ...]) -> ArrayLike:
    """Targets in memory, but for fields, which may be as large as the inputs."""
    field = kind in (None, "dense") and is_dense_shape(values.shape, spatial)
    return values if field or isinstance(values, np.ndarray) else np.asarray(values[:])


def _groups(data: dict[str, ArrayLike], parts: tuple[str, ...], origin: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Groups of each part as whole numbers, and what there is to say about them."""
    given = [part for part in parts if f"group_{part}" in data]
    if not given:
        return {}, []
    if given != list(parts):
        missing = next(part for part in parts if part not in given)
        raise UserError(f"{origin}: missing group_{missing}: every part has groups, or none has")
    found = {part: np.asarray(data[f"group_{part}"][:]) for part in parts}
    for part, values in found.items():
        if values.ndim != 1 or values.dtype.kind not in "iuU":
            raise UserError(
                f"{origin}: group_{part}: expected a whole number or string per sample, got {values.dtype} of shape "
                f"{values.shape}"
            )
    names = np.unique(np.concatenate([values.astype(str) for values in found.values()]))
    codes = {part: np.searchsorted(names, values.astype(str)) for part, values in found.items()}
    counts = ", ".join(f"{len(np.unique(values))} {part}" for part, values in codes.items())
    notes = [f"groups: {counts}; samples of one group stay in one part."]
    for part in parts[1:]:
        shared = np.intersect1d(codes["train"], codes[part])
        if len(shared):
            shown = ", ".join(names[shared[:8]]) + (", ..." if len(shared) > 8 else "")
            notes.append(
                f"warning: {len(shared)} groups are in the training part and the {part} part ({shown}): figures of it say "
                "nothing about new groups."
            )
    return {f"group_{part}": values for part, values in codes.items()} | {"group_names": tuple(names.tolist())}, notes


def _inputs(values: ArrayLike, name: str) -> ArrayLike:
    if values.ndim not in (2, 3, 4):
        raise UserError(f"{name}: expected shape (n, L), (n, C, L) or (n, C, H, W), got {values.shape}")
    if 0 in values.shape:
        raise UserError(f"{name}: empty, its shape is {values.shape}")
    if _channels_last(values.shape):
        high, wide, channels = values.shape[1:]
        raise UserError(
            f"{name}: expected shape (n, C, H, W), but {values.shape} looks like images with their channels last: "
            f"transpose(0, 3, 1, 2) makes {(len(values), channels, high, wide)} of them; if these really are {high} channels "
            f"of {wide} x {channels}, swapaxes(2, 3) makes that plain"
        )
    require_finite(require_real(values, name), name)
    return with_channel(values) if values.ndim == 2 else values


def _counts(column: np.ndarray) -> bool:
    return len(column) > 2 and bool((np.diff(column.astype(np.float64)) == 1).all())


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Whether this is the shape of images with 1, 3 or 4 channels on the last axis: sides that are larger and alike.

    Channels first, such a shape would be as many channels as rows, of a strip a few values wide.
    """
    if len(shape) != 4 or shape[3] not in (1, 3, 4):
        return False
    short, long = sorted(shape[1:3])
    return short > 4 and long <= 2 * short


def _class_names(values: np.ndarray | None, origin: str) -> tuple[str, ...]:
    if values is None:
        return ()
    if values.ndim != 1 or values.dtype.kind != "U" or len(set(values.tolist())) != len(values):
        raise UserError(
            f"{origin}: class_names must be different strings of shape (K,), got {values.dtype} of shape {values.shape}"
        )
    return tuple(values.tolist())


def _normalize(value: np.ndarray | None, origin: str) -> str:
    if value is None:
        return "channel"
    if value.ndim != 0 or str(value) not in SCALINGS:
        raise UserError(f"{origin}: normalize must be one of the strings {', '.join(SCALINGS)}, got {value!r}")
    return str(value)
