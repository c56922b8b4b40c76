"""Tasks from the data that ship inside scikit-learn.

They have no official split, so a fixed, stratified third is the test part: the same for every ``split_seed``, so that
results with different seeds are measured on the same samples.
"""

from __future__ import annotations

import numpy as np

from crossmodal.data.splitting import stratified_sample
from crossmodal.tasks.base import Options, RawTask, register

TEST_FRACTION = 1 / 3
TEST_SEED = 0


def _split(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(TEST_SEED)
    train = stratified_sample(y, len(y) - round(TEST_FRACTION * len(y)), rng)
    test = np.setdiff1d(np.arange(len(y)), train)
    return {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}


@register("digits", "handwritten digits (1 x 8 x 8 images), 10 classes; 1198 train, 599 test (our fixed split)")
def digits(options: Options) -> RawTask:
    from sklearn.datasets import load_digits

    data = load_digits()
    return RawTask(
        kind="classification",
        **_split(data.images[:, None], data.target),
        class_names=tuple(str(name) for name in data.target_names),
        origin="scikit-learn (load_digits)",
        notes=("test: a fixed stratified third; there is no official split.",),
    )


@register(
    "breast_cancer", "table of 30 cell measurements as a sequence, 2 classes; 379 train, 190 test (our fixed split)"
)
def breast_cancer(options: Options) -> RawTask:
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    return RawTask(
        kind="classification",
        **_split(data.data[:, None], data.target),
        class_names=tuple(str(name) for name in data.target_names),
        origin="scikit-learn (load_breast_cancer)",
        notes=("test: a fixed stratified third; there is no official split.",),
        normalize_x="position",  # every column of a table has its own unit
    )
