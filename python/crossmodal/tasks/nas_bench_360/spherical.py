"""Spherical CIFAR-100: the photographs projected onto a sphere and turned at random (Cohen et al., ICLR 2018, of MNIST), on a grid
of 60 x 60 angles."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossmodal.data.derived import New, derived
from crossmodal.data.readers import contents
from crossmodal.data.readers.pickles import read_pickle
from crossmodal.errors import UserError
from crossmodal.files import digest
from crossmodal.tasks.base import Options, RawTask, register
from crossmodal.tasks.nas_bench_360 import _public

CLASSES, SIDE = 100, 60
BATCH = 16
FILE = _public.remote("s2_cifar100.gz", "spherical/s2_cifar100.gz", 272_000_000)


@register(
    "spherical",
    "photographs of CIFAR-100 on a sphere (3 x 60 x 60), 100 classes; 50,000 train, 10,000 test (NAS-Bench-360)",
    protocols=_public.PROTOCOLS,
    files=(FILE,),
)
def spherical(options: Options) -> RawTask:
    """A fifth of the training samples validates, as in NAS-Bench-360. Colours are z-scored; public code divides them by 255."""
    path = options.data_dir / FILE.path
    rows = _rows(path)
    first = int(rows["train"].sum())
    x, y = rows["x"], rows["y"]
    raw = RawTask(
        kind="classification",
        **_public.parts(train=(x[:first], y[:first]), test=(x[first:], y[first:])),
        class_names=tuple(map(str, range(CLASSES))),
        origin=str(path),
    )
    if options.protocol == "released":
        return _public.released(raw, ("accuracy",), batch_size=BATCH, normalize_x=((0.0, 255.0),) * 3)
    return raw


def _rows(path: Path) -> np.ndarray:
    """Images x uint8 (n, 3, 60, 60), labels y int64 (n,), and whether they are of the training part, which comes first; mapped.

    The file is a pickle in a gzip, which has to be read whole; that is done once.
    """

    def make(new: New) -> None:
        parts = []
        for part, found in contents.entries(read_pickle(path), path, ("train", "test")).items():
            name = f"{path}: {part}"
            shapes = {"images": (None, 3, SIDE, SIDE), "labels": (None,)}
            images, label = contents.arrays(found, name, shapes)
            low, high = images.min(), images.max()
            if not (low >= 0 and high <= 255):
                raise UserError(f"{name}: images: expected values from 0 to 255, got {low} to {high}")
            parts.append((images, contents.labels(label, f"{name}: labels", 0, CLASSES - 1)))
        whole = all((images == images.astype(np.uint8)).all() for images, _ in parts)
        total = sum(len(label) for _, label in parts)
        fields = [("x", np.uint8 if whole else np.float32, (3, SIDE, SIDE)), ("y", np.int64), ("train", np.bool_)]
        rows, first = new((total,), fields), len(parts[0][1])
        for part, (images, label) in zip((rows[:first], rows[first:]), parts, strict=True):
            part["x"], part["y"] = images, label
        rows["train"] = np.arange(total) < first

    return derived(path.with_name("s2_cifar100.rows.npy"), {"file": digest(path), "version": 1}, make)
