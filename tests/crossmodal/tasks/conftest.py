"""Small data sets that the tests write to disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

RNG_SEED = 7


def arrays(x_shape=(3, 8), y=None, n_train=20, n_test=6) -> dict[str, np.ndarray]:
    """``x_*`` normally distributed with samples of ``x_shape``; ``y`` makes the targets of ``n`` samples, or two classes."""
    rng = np.random.default_rng(RNG_SEED)
    y = y or (lambda n: np.arange(n) % 2)
    return {
        "x_train": rng.normal(3.0, 2.0, (n_train, *x_shape)),
        "y_train": y(n_train),
        "x_test": rng.normal(3.0, 2.0, (n_test, *x_shape)),
        "y_test": y(n_test),
    }


@pytest.fixture
def save(tmp_path):
    """Write arrays to an .npz file; returns its path."""

    def write(data: dict[str, np.ndarray], name: str = "my.npz") -> Path:
        np.savez(tmp_path / name, **data)
        return tmp_path / name

    return write


@pytest.fixture
def write_ts(tmp_path):
    """Write one .ts file, or the two of a pair; returns the path of the (training) file."""

    def write(text: str, test: str | None = None) -> Path:
        (tmp_path / "Toy_TRAIN.ts").write_text(text)
        if test is not None:
            (tmp_path / "Toy_TEST.ts").write_text(test)
        return tmp_path / "Toy_TRAIN.ts"

    return write
