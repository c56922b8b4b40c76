"""What kind of target an array holds, and its encoding by kind."""

from __future__ import annotations

import numpy as np

from crossmodal.data.arrays import with_channel
from crossmodal.data.dataset import ArrayLike
from crossmodal.data.numeric import require_numbers
from crossmodal.data.readers.tables import shown
from crossmodal.errors import UserError


def infer_kind(y: np.ndarray, spatial: tuple[int, ...], name: str) -> tuple[str, str]:
    """Infer the kind of task from training targets, by the first rule that fits.

    1. strings, or whole numbers (or booleans) in one column: classification;
    2. zeros and ones in several columns, unless they are floats of the spatial shape of the inputs: multilabel;
    3. numbers with the spatial shape of the inputs, with or without a channel axis: dense;
    4. other numbers of shape ``(n,)`` or ``(n, R)``: regression.

    Args:
        y: targets of the training samples.
        spatial: ``(L,)`` or ``(H, W)`` of the inputs.
        name: what errors call the array.

    Returns:
        The kind, and a sentence that says why, and what else it could have been.

    Raises:
        UserError: no rule fits.
    """
    told = "; --kind overrides it"
    one_column = y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)
    whole = y.dtype.kind in "biu"
    if y.dtype.kind in "US" and one_column:
        return "classification", f"classification: {name} holds strings."
    if whole and one_column:
        return "classification", f"classification: {name} holds whole numbers, one per sample{told}."
    zeros_and_ones = y.dtype.kind in "biuf" and y.ndim == 2 and not one_column and bool(np.isin(y, (0, 1)).all())
    if zeros_and_ones and (whole or y.shape[1:] != spatial):
        reason = f"multilabel: {name} holds zeros and ones in {y.shape[1]} columns{told}."
        if y.shape[1:] == spatial:
            reason += " They have the spatial shape of the inputs: if they are masks, take --kind dense."
        if (y.sum(axis=1) == 1).all():
            reason += " Every row has exactly one 1: if these are one-hot classes, take --kind classification."
        return "multilabel", reason
    if y.dtype.kind in "biuf" and is_dense_shape(y.shape, spatial):
        reason = f"dense: {name} has the spatial shape of the inputs, {spatial}"
        if zeros_and_ones:
            reason += ", and holds zeros and ones: if they are labels, take --kind multilabel"
        return "dense", reason + (told if y.ndim == 2 and not zeros_and_ones else "") + "."
    if y.dtype.kind in "biuf" and y.ndim in (1, 2):
        reason = f"regression: {name} holds real numbers, {1 if y.ndim == 1 else y.shape[1]} per sample"
        if y.dtype.kind == "f" and one_column and np.isfinite(y).all() and (y == np.round(y)).all():
            reason += ", all of them whole: if they are class labels, take --kind classification"
        return "regression", reason + "."
    raise UserError(
        f"{name}: cannot tell the kind of target from dtype {y.dtype} and shape {y.shape}; expected labels (n,), zeros "
        f"and ones (n, K), real numbers (n,) or (n, R), or a field of shape (n, *{spatial}) or (n, Cout, *{spatial})"
    )


def is_dense_shape(shape: tuple[int, ...], spatial: tuple[int, ...]) -> bool:
    """Whether targets of this shape are fields on the inputs' positions, with or without a channel axis."""
    return len(shape) - 1 - len(spatial) in (0, 1) and shape[-len(spatial) :] == spatial


def labels(y: np.ndarray, name: str) -> np.ndarray:
    """Labels ``(n,)`` as int64 or str, from one column of whole numbers or strings, or from one-hot rows.

    Raises:
        UserError: no labels, or labels that int64 or UTF-8 do not hold; names index and value.
    """
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    numbers = y.dtype.kind in "biuf"
    if (y.ndim != 1 and not (y.ndim == 2 and numbers)) or not (numbers or y.dtype.kind in "US"):
        raise UserError(f"{name}: expected labels (n,), whole numbers or strings, got {y.dtype} of shape {y.shape}")
    if y.ndim == 2:
        one_hot = np.isin(y, (0, 1)).all(axis=1) & (y.sum(axis=1) == 1)
        _all(one_hot, y, name, "labels (n,) or one-hot rows")
        return y.argmax(axis=1)
    if y.dtype.kind == "S":
        try:
            y = np.char.decode(y, "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{name}: {error.object!r} is not text in UTF-8; save strings (dtype U)") from None
    if y.dtype.kind == "U":
        different = np.unique(y)
        stripped, counts = np.unique(np.char.strip(different), return_counts=True)
        if (counts > 1).any():
            alike = [label for label in different.tolist() if label.strip() == stripped[counts.argmax()]]
            raise UserError(f"{name}: labels that differ in blanks alone: {', '.join(map(repr, alike))}")
        return y
    if y.dtype.kind == "f":
        _all(y == np.round(y), y, name, "labels, whole numbers")
    # Beyond int64 they would be wrapped round, without a word, to other labels.
    if y.dtype.kind in "uf":
        _all(
            y < 2**63 if y.dtype.kind == "u" else np.abs(y.astype(np.float64)) < 2.0**63, y, name, "labels within int64"
        )
    return y.astype(np.int64)


def _all(valid: np.ndarray, y: np.ndarray, name: str, expected: str) -> None:
    """Raises UserError where one of the values is not valid; names the first of them."""
    if not valid.all():
        first = tuple(np.argwhere(~valid)[0].tolist())
        place = first[0] if len(first) == 1 else first
        raise UserError(f"{name}: expected {expected}, but the value at index {place} is {y[first].tolist()}")


def encode(y: np.ndarray, classes: np.ndarray, name: str) -> np.ndarray:
    """Index of every label in ``classes`` (in any order), int64 ``(n,)``.

    Raises:
        UserError: a label is not among the classes; names index and value.
    """
    if (y.dtype.kind == "U") != (classes.dtype.kind == "U"):
        raise UserError(f"{name}: labels are {y.dtype}, but the classes of the training part are {classes.dtype}")
    order = np.argsort(classes)
    place = np.searchsorted(classes[order], y).clip(max=len(classes) - 1)
    index = order[place]
    unknown = classes[index] != y
    if unknown.any():
        first = int(unknown.argmax())
        raise UserError(
            f"{name}: label {y[first].item()!r} at index {first} is not a class of the training part ({shown(classes)})"
            + ("; if these are values, not labels, take --kind regression" if y.dtype.kind != "U" else "")
        )
    return index.astype(np.int64)


def multilabel(y: np.ndarray, name: str, spatial: tuple[int, ...] = ()) -> np.ndarray:
    """Zeros and ones ``(n, K)`` as float32.

    Raises:
        UserError: another shape or value; names index and value.
    """
    if y.ndim != 2 or y.shape[1] == 0 or y.dtype.kind not in "biuf":
        raise UserError(f"{name}: expected zeros and ones of shape (n, K), got {y.dtype} of shape {y.shape}")
    _all(np.isin(y, (0, 1)), y, name, "zeros and ones")
    return y.astype(np.float32)


def values(y: np.ndarray, name: str, spatial: tuple[int, ...] = ()) -> np.ndarray:
    """Regression targets ``(n,)`` or ``(n, R)`` as finite numbers ``(n, R)``."""
    if y.ndim not in (1, 2) or 0 in y.shape[1:]:
        raise UserError(f"{name}: expected regression targets of shape (n,) or (n, R), got {y.shape}")
    require_numbers(y, name)
    return y[:, None] if y.ndim == 1 else y


def dense(y: ArrayLike, name: str, spatial: tuple[int, ...]) -> ArrayLike:
    """Dense targets ``(n, *spatial)`` or ``(n, Cout, *spatial)``, finite, with channel axis, in their own dtype."""
    if not is_dense_shape(y.shape, spatial) or 0 in y.shape[1:]:
        raise UserError(
            f"{name}: expected a field with the spatial shape of the inputs, (n, *{spatial}) or (n, Cout, *{spatial}), "
            f"got {y.shape}"
        )
    require_numbers(y, name)
    return with_channel(y) if y.ndim == len(spatial) + 1 else y
