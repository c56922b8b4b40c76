"""Arrays that need not be in memory, and what is known of them without reading them whole."""

from __future__ import annotations

import hashlib

import numpy as np

from crossmodal.data.dataset import ArrayLike, take

SAMPLED = 64  # rows of an array that its manifest hashes


def in_memory(values: ArrayLike) -> bool:
    """Whether an array lies in memory, and not in a file that is read as it is needed."""
    return isinstance(values, np.ndarray) and not isinstance(values, np.memmap)


def manifest(values: ArrayLike) -> str:
    """What stands for an array too large to hash: its type and shape, and the bytes of rows spread over it."""
    rows = np.unique(np.linspace(0, len(values) - 1, SAMPLED).astype(np.int64))
    sha = hashlib.sha256(np.ascontiguousarray(take(values, rows)))
    return f"{values.dtype} {values.shape} {sha.hexdigest()}"
