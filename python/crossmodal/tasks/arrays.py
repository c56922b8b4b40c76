"""Bring your own modality: task "arrays" reads the user's arrays.

``data`` is an ``.npz`` file or a folder of ``.npy`` files with

- ``x_train``, ``x_test`` and optionally ``x_val``: real numbers ``(n, L)``, ``(n, C, L)`` or ``(n, C, H, W)``;
- ``y_train``, ``y_test`` and optionally ``y_val``: see :func:`crossmodal.tasks.targets.infer_kind`;
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

from crossmodal.naming import nearest
from crossmodal.tasks.archive import load_ts_pair
from crossmodal.tasks.array_files import normalised_bytes, read_npy, read_npz
from crossmodal.tasks.base import Options, RawTask, register
from crossmodal.tasks.normalizer import SCALINGS
from crossmodal.tasks.numeric import require_finite, require_real
from crossmodal.tasks.targets import (
    class_values,
    encode_classes,
    encode_dense,
    encode_multilabel,
    encode_values,
    infer_kind,
)

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("x_val", "y_val", "class_names", "normalize")


@register("arrays", "your own data: --data my.npz, a folder of .npy files, or NAME_TRAIN.ts", own_data=True)
def arrays(options: Options) -> RawTask:
    if options.data.suffix == ".ts":
        return load_ts_pair(options.data, kind=options.kind)
    return from_arrays(read_arrays(options.data, REQUIRED, OPTIONAL), options.kind, str(options.data))


def read_arrays(path: str | Path, required: Iterable[str], optional: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Read named arrays from an .npz file or a folder of .npy files, without unpickling anything.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a required array is missing, one has another name, or one cannot be read; file and array are named.
    """
    path, required, optional = Path(path), tuple(required), tuple(optional)
    if not path.exists():
        raise FileNotFoundError(f"data: no such file or folder: {path}")
    if path.is_dir():
        return _read_folder(path, required, optional)
    if path.suffix != ".npz":
        raise ValueError(f"data: expected an .npz file, a folder of .npy files or NAME_TRAIN.ts, got {path}")
    return read_npz(path, lambda names: _wanted(required, optional, names, path))


def _read_folder(path: Path, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, np.ndarray]:
    present = [file.stem for file in sorted(path.glob("*.npy"))]
    found: dict[str, np.ndarray] = {}
    for key in _wanted(required, optional, present, path):
        reserved = sum(normalised_bytes(array.shape, array.dtype) for array in found.values())
        found[key] = read_npy(path / f"{key}.npy", reserved)
    return found


def _wanted(required: tuple[str, ...], optional: tuple[str, ...], present: list[str], path: Path) -> list[str]:
    """The keys to read; ValueError where a required one is missing, or one is there that nobody would read."""
    missing = [key for key in required if key not in present]
    if missing:
        raise ValueError(f"{path}: missing {', '.join(missing)}; found: {', '.join(present) or 'nothing'}")
    valid = (*required, *optional)
    unknown = [key for key in present if key not in valid]
    if unknown:
        named = "; ".join(f"{key!r}{nearest(key.lower(), valid)}" for key in unknown)
        raise ValueError(f"{path}: holds arrays of unknown name: {named} (expected: {', '.join(valid)})")
    return [*required, *(key for key in optional if key in present)]


def from_arrays(data: dict[str, np.ndarray], kind: str | None = None, origin: str = "arrays") -> RawTask:
    """Check arrays (see the head of this module) and encode their targets.

    Raises:
        TypeError, ValueError: names the array, and index and value where there is one.
    """
    if ("x_val" in data) != ("y_val" in data):
        missing = "y_val" if "x_val" in data else "x_val"
        raise ValueError(f"{origin}: missing {missing}: x_val and y_val come together")
    parts = ("train", "val", "test") if "x_val" in data else ("train", "test")
    x = {part: _inputs(data[f"x_{part}"], f"{origin}: x_{part}") for part in parts}
    y = {part: data[f"y_{part}"] for part in parts}
    for part in parts:
        if y[part].ndim == 0:
            raise ValueError(f"{origin}: y_{part}: expected a target per sample, got the single value {y[part]}")
    spatial = x["train"].shape[2:]
    if kind is None:
        kind, reason = infer_kind(y["train"], spatial, f"{origin}: y_train")
    else:
        reason = f"{kind}: as told."
    notes, values = [reason], ()
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
        class_names=names if kind in ("classification", "multilabel") else (),
        class_values=values,
        origin=origin,
        notes=tuple(notes),
        normalize_x=_normalize(data.get("normalize"), origin),
    )


def _inputs(values: np.ndarray, name: str) -> np.ndarray:
    if values.ndim not in (2, 3, 4):
        raise ValueError(f"{name}: expected shape (n, L), (n, C, L) or (n, C, H, W), got {values.shape}")
    if 0 in values.shape:
        raise ValueError(f"{name}: empty, its shape is {values.shape}")
    if _channels_last(values.shape):
        high, wide, channels = values.shape[1:]
        raise ValueError(
            f"{name}: expected shape (n, C, H, W), but {values.shape} looks like images with their channels last: "
            f"transpose(0, 3, 1, 2) makes {(len(values), channels, high, wide)} of them; if these really are {high} channels "
            f"of {wide} x {channels}, swapaxes(2, 3) makes that plain"
        )
    require_finite(require_real(values, name), name)
    return values[:, None] if values.ndim == 2 else values


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
        raise ValueError(
            f"{origin}: class_names must be different strings of shape (K,), got {values.dtype} of shape {values.shape}"
        )
    return tuple(values.tolist())


def _normalize(value: np.ndarray | None, origin: str) -> str:
    if value is None:
        return "channel"
    if value.ndim != 0 or str(value) not in SCALINGS:
        raise ValueError(f"{origin}: normalize must be one of the strings {', '.join(SCALINGS)}, got {value!r}")
    return str(value)
