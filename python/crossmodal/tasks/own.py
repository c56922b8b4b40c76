"""Bring your own modality: task "arrays" reads the user's table, recordings, images or arrays.

Tables are read by :mod:`crossmodal.tasks.tables`, folders of recordings and images, which a table ``index`` lists or which lie in
folders of classes, by :mod:`crossmodal.tasks.recordings` and :mod:`crossmodal.tasks.pictures`. Arrays are an ``.npz`` or HDF5 file,
or a folder of ``.npy`` and ``.csv`` files (or of folders with one ``.npy`` file per sample), with

- ``x_train``, ``x_test`` and optionally ``x_val``: real numbers ``(n, L)``, ``(n, C, L)`` or ``(n, C, H, W)``;
- or ``x`` and ``y`` alone (and ``group``): a test part is then split off;
- ``y_train``, ``y_test`` and optionally ``y_val``: see :func:`crossmodal.tasks.targets.infer_kind`;
- optionally ``group_train``, ``group_test`` (and ``group_val``): a whole number or string per sample, the same for samples of one
  recording, patient or clip (in a ``.csv`` file, as labels, a column of numbers or of text);
- optionally ``class_names``: strings; labels are then these names or their indices;
- optionally ``normalize``: the string "channel" (the default), "position" (a table, whose columns have units of their
  own) or "none";

and nothing else (an array of another name may be a misspelt one); or the ``NAME_TRAIN.ts`` of a pair of files in the
format of the UCR/UEA archive. Nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.data.arrays import RowFiles, in_memory
from crossmodal.data.dataset import ArrayLike
from crossmodal.data.normalizer import SCALINGS
from crossmodal.data.readers import ARCHIVES, read_archive
from crossmodal.data.readers.csv import read_csv, read_labels
from crossmodal.data.readers.npy import normalised_bytes, read_npy
from crossmodal.data.readers.recordings import SUFFIXES as RECORDINGS
from crossmodal.data.readers.tables import SUFFIXES as TABLES
from crossmodal.errors import UserError
from crossmodal.naming import nearest
from crossmodal.tasks import oddities
from crossmodal.tasks.base import Options, RawTask, register
from crossmodal.tasks.folders import first_file, index_of
from crossmodal.tasks.pictures import SUFFIXES as IMAGES
from crossmodal.tasks.pictures import load_images, read_pictures
from crossmodal.tasks.recordings import load_recordings, read_recording
from crossmodal.tasks.tables import load_table, read_rows
from crossmodal.tasks.ucr import load_ts_pair

NO_SUCH = {
    "table": "no table (.csv, .tsv, .parquet), nor a folder with a table `index`",
    "recordings": "no folder of recordings (in folders of classes, listed by index.csv, or with --recordings.labels COLUMN within)",
    "images": "no folder of images",
}
FORMS = {"recordings": RECORDINGS, "images": IMAGES}
REQUIRED = ("x_train", "y_train", "x_test", "y_test")
WHOLE = {"x": "x_train", "y": "y_train", "group": "group_train"}  # of data without a test part
OPTIONAL = ("x_val", "y_val", "group_train", "group_test", "group_val", "class_names", "normalize")


@register(
    "arrays",
    "your own data: --data with a table (.csv, .tsv, .parquet), a folder of recordings or images, arrays (.npz, .h5, a folder of "
    ".npy or .csv files), or NAME_TRAIN.ts",
    own_data=True,
)
def arrays(options: Options) -> RawTask:
    path = options.data
    if not path.exists():
        raise UserError(f"data: no such file or folder: {path}")
    if path.is_file() and path.suffix.lower() in TABLES:
        _refuse(options, "recordings", "images")
        return load_table(path, options)
    form = _folder_form(path, options.recordings.labels is not None) if path.is_dir() else None
    if form == "recordings":
        _refuse(options, "images")
        return load_recordings(options)
    if form == "images":
        _refuse(options, "recordings")
        return load_images(options)
    _refuse(options, "table", "recordings", "images")
    if path.suffix == ".ts":
        return load_ts_pair(path, kind=options.kind)
    return from_arrays(read_arrays(path), options.kind, str(path))


def _folder_form(folder: Path, labelled: bool) -> str | None:
    """What a folder holds: recordings or images that a table lists or that lie in folders of classes, or recordings with labels
    within; None: arrays."""
    named = {entry.stem for entry in folder.iterdir()}
    if named & {*REQUIRED, "x", "y"} and index_of(folder) is None:
        return None
    first = first_file(folder, [suffix for known in FORMS.values() for suffix in known], whole=labelled)
    return None if first is None else next(form for form, known in FORMS.items() if first.suffix.lower() in known)


def _refuse(options: Options, *sections: str) -> None:
    """Raises UserError where settings are given for another form of data than this."""
    for name in sections:
        section = getattr(options, name)
        given = [item.name for item in dataclasses.fields(section) if getattr(section, item.name) != item.default]
        if given:
            raise UserError(f"{name}.{given[0]}: {options.data} is {NO_SUCH[name]}")


def read_arrays(path: Path) -> dict[str, ArrayLike]:
    """The arrays of an .npz or HDF5 file or a folder of .npy and .csv files, without unpickling anything.

    Raises:
        UserError: no such file or folder; a required array is missing, one has another name, or one cannot be read; file and
            array are named.
    """
    if path.is_dir():
        return _read_folder(path)
    if path.suffix not in ARCHIVES:
        raise UserError(
            f"data: expected a table ({', '.join(TABLES)}), a folder of recordings or images, an .npz or .h5 file, a folder of "
            f".npy files or NAME_TRAIN.ts, got {path}"
        )
    return read_archive(path, lambda names: _wanted(names, path))


def _read_folder(path: Path) -> dict[str, ArrayLike]:
    tables = [file.stem for file in sorted(path.glob("*.csv"))]
    present = [file.stem for file in sorted(path.glob("*.npy"))] + tables
    present += [entry.name for entry in sorted(path.iterdir()) if entry.is_dir() and any(entry.glob("*.npy"))]
    found: dict[str, ArrayLike] = {}
    for key in _wanted(present, path):
        if (path / key).is_dir():
            found[key] = RowFiles(sorted((path / key).glob("*.npy")), read_npy)
        elif key in tables:
            of = f"x{key[key.find('_') :]}" if "_" in key else "x"  # which says how many there are
            table = path / f"{key}.csv"
            found[key], said = read_csv(table) if key == of else read_labels(table, len(found.get(of, ())))
            print(said)
        else:
            reserved = sum(normalised_bytes(array.shape, array.dtype) for array in found.values())
            found[key] = read_npy(path / f"{key}.npy", reserved)
    return found


def _wanted(present: list[str], path: Path) -> list[str]:
    """The keys to read; an error where a required one is missing, or one is there that nobody would read."""
    required, optional = REQUIRED, OPTIONAL
    if {"x", "y"} <= set(present):
        required, optional = ("x", "y"), ("group", "class_names", "normalize")
    missing = [key for key in required if key not in present]
    if missing:
        raise UserError(
            f"{path}: missing {', '.join(missing)}; found: {', '.join(present)}"
            if present
            else f"{path}: no arrays ({', '.join(REQUIRED)}), nor recordings or images in folders of classes or listed in index.csv"
        )
    valid = (*required, *optional)
    unknown = [key for key in present if key not in valid]
    if unknown:
        named = "; ".join(f"{key!r}{nearest(key.lower(), valid)}" for key in unknown)
        raise UserError(f"{path}: holds arrays of unknown name: {named} (expected: {', '.join(valid)})")
    return [key for key in valid if key in present]


def from_arrays(data: dict[str, ArrayLike], kind: str | None, origin: str) -> RawTask:
    """The task of arrays with the names that the head of this module lists; they are checked as those of any task are.

    Raises:
        UserError: class_names or normalize are none.
    """
    data = {WHOLE.get(key, key): values for key, values in data.items()}
    names, normalize = data.pop("class_names", np.zeros(0, str)), data.pop("normalize", np.array("channel"))
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) != len(names):
        raise UserError(
            f"{origin}: class_names must be different strings (K,), got {names.dtype} of shape {names.shape}"
        )
    if normalize.size != 1 or str(normalize.item()) not in SCALINGS:
        raise UserError(f"{origin}: normalize must be one of the strings {', '.join(SCALINGS)}, got {normalize!r}")
    notes = [] if kind is None else [f"{kind}: set by --kind."]
    x = data["x_train"]
    if x.ndim == 2 and x.dtype.kind in "iuf" and len(x) > 2 and (np.diff(np.asarray(x[:, 0], np.float64)) == 1).all():
        notes.append("warning: the first column of x_train counts the samples: if these are row numbers, take it out.")
    if x.ndim == 3:
        notes.append(f"x_train {x.shape} is read as (samples, channels, length); images have shape (n, C, H, W).")
        if x.shape[1] >= 4 * x.shape[2]:
            notes.append(
                f"warning: x_train has {x.shape[1]} channels of {x.shape[2]} values: if these are {x.shape[2]} channels of "
                f"{x.shape[1]} values, swapaxes(1, 2) puts them right."
            )
    y = data["y_train"]
    if in_memory(x) and in_memory(y) and x.ndim > 1 and 0 not in x.shape and y.shape[:1] == x.shape[:1]:
        notes += oddities.said(x, y, "x_train[{}]".format, kind=kind)
    return RawTask(
        kind=kind,
        **data,
        class_names=tuple(names.tolist()),
        origin=origin,
        notes=tuple(notes),
        normalize_x=str(normalize.item()),
    )


def suffixes(reading: Mapping[str, Any]) -> tuple[str, ...]:
    """Of the files that `read_new` reads for a run whose own were read so."""
    return ({"table": TABLES} | FORMS).get(reading.get("form"), ())


def read_new(path: Path, reading: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, list], list[str]]:
    """New samples from a file like those that a run learned from, or from all of a folder.

    Args:
        path: the file or folder.
        reading: of the run's data, `About.reading`.

    Returns:
        Samples (n, ...); where each is from, columns of n values by name: the `file`, unless it is a single table, and what there
        is to say of a sample within it; and sentences that say what was taken.

    Raises:
        UserError: a column or channel is missing, or holds what training did not meet; or the folder holds no such file; or the
            run's record of them is damaged.
    """
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes(reading) and file.is_file())
        if not files:
            raise UserError(f"{path}: holds no {', '.join(suffixes(reading))} files")
    try:
        read = {"table": read_rows, "recordings": read_recording, "images": read_pictures}[reading["form"]]
        found = [read(file, reading) for file in files]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"results.json: reading: damaged ({type(error).__name__}: {error})") from None
    samples, inside, said = (list(ones) for ones in zip(*found, strict=True))
    if path.is_dir() or reading["form"] != "table":
        names = [file.relative_to(path).as_posix() if path.is_dir() else file.name for file in files]
        inside = [{"file": [name] * len(x)} | at for name, x, at in zip(names, samples, inside, strict=True)]
    places = {
        column: [value for x, at in zip(samples, inside, strict=True) for value in at.get(column, [""] * len(x))]
        for column in dict.fromkeys(column for at in inside for column in at)
    }
    return np.concatenate(samples), places, said
