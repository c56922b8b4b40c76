"""Features of texts in the public format: what NAS-Bench-360's 1D tasks are mixed with in the public code.

The files it downloads are not published any more. Nobody needs them: of any labelled text
(:mod:`crossmodal.sources.text`) the encoder's own embedding makes the same kind of features while it trains.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from crossmodal.data.readers.npy import read_npy
from crossmodal.errors import UserError
from crossmodal.sources.labelled import Labelled


@dataclass(frozen=True)
class TextFeatures(Labelled):
    """Features with labels; ``items`` are arrays ``(M, D)``."""


def read_features(path: Path) -> TextFeatures:
    """Features ``(n, M, D)`` from `text_xs.npy` (or another name with `_xs`) and labels ``(n,)`` from `text_ys.npy` beside it.

    Labels are whole numbers from 0 on; those that do not occur are no classes.

    Raises:
        UserError: a file is missing, damaged, or holds something else.
    """
    if "_xs" not in path.name:
        raise UserError(
            f"source.name: expected text features in a file with _xs in its name, their labels beside it with _ys, got {path}"
        )
    y_path = path.with_name(path.name.replace("_xs", "_ys"))
    if not y_path.exists():
        raise UserError(f"source.name: no labels beside {path}: expected {y_path.name}")
    x, y = read_npy(path), read_npy(y_path)
    if x.ndim != 3 or x.dtype.kind != "f" or 0 in x.shape:
        raise UserError(f"{path}: expected floats of shape (n, tokens, width), got {x.dtype} of shape {x.shape}")
    if y.shape != x.shape[:1] or y.dtype.kind not in "iuf" or (y != np.floor(y)).any() or (y < 0).any():
        raise UserError(
            f"{y_path}: expected whole numbers of shape ({len(x)},), from 0 on, got {y.dtype} of shape {y.shape}"
        )
    labels = tuple(str(int(label)) for label in y)
    return TextFeatures(tuple(x), labels, tuple(sorted(set(labels), key=int)), str(path))


def to_inputs(found: TextFeatures, width: int) -> tuple[Tensor, str]:
    """Features float32 ``(n, M, width)`` and their sha256.

    Raises:
        UserError: they have another width, or are not finite.
    """
    values = np.stack(found.items).astype(np.float32)
    if values.shape[2] != width:
        raise UserError(
            f"{found.origin}: features are {values.shape[2]} wide, but the encoder's tokens {width}; expected "
            "those of this encoder"
        )
    if not np.isfinite(values).all():
        raise UserError(f"{found.origin}: holds NaN or infinity")
    return torch.from_numpy(values), hashlib.sha256(values).hexdigest()
