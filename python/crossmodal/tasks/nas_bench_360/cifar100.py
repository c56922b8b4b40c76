"""CIFAR-100 (Krizhevsky, 2009): photographs of 32 x 32 pixels, 100 classes. The one task of NAS-Bench-360 whose modality image
encoders know."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossmodal.data.download import Remote
from crossmodal.data.readers.pickles import read_pickle
from crossmodal.errors import UserError
from crossmodal.tasks.base import Options, RawTask, register
from crossmodal.tasks.nas_bench_360 import _public

CLASSES, SIDE = 100, 32
BATCH = 32
# Mean and deviation of each colour, from 0 to 255: those of the public code, 0.5071 and so on.
COLOURS = tuple((255 * mean, 255 * std) for mean, std in ((0.5071, 0.2675), (0.4867, 0.2565), (0.4408, 0.2761)))
FILES = tuple(
    Remote(
        f"cifar-100-python/{name}",
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        169_001_437,
        "md5:eb9058c3a382ffc7106e4002c42a8d85",
        unpack="",
        how="the python version of CIFAR-100, of which several places keep a copy",
    )
    for name in ("train", "test", "meta")
)


@register(
    "cifar100",
    "photographs (3 x 32 x 32), 100 classes; 50,000 train, 10,000 test (NAS-Bench-360)",
    protocols=_public.PROTOCOLS,
    files=FILES,
)
def cifar100(options: Options) -> RawTask:
    """A fifth of the training samples validates, as in NAS-Bench-360."""
    train, test, meta = (options.data_dir / file.path for file in FILES)
    raw = RawTask(
        kind="classification",
        **_public.parts(train=_images(train), test=_images(test)),
        class_names=_names(meta),
        origin=str(train.parent),
        normalize_x=COLOURS,
    )
    if options.protocol == "released":
        return _public.released(raw, ("accuracy",), batch_size=BATCH)
    return raw


def _images(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, 3, 32, 32) and labels int64 (n,)."""
    data, label = _public.arrays(read_pickle(path), path, {"data": (None, 3 * SIDE * SIDE), "fine_labels": (None,)})
    if data.dtype != np.uint8:
        raise UserError(f"{path}: data: expected uint8, got {data.dtype}")
    label = _public.labels(label, f"{path}: fine_labels", 0, CLASSES - 1)
    return data.reshape(-1, 3, SIDE, SIDE), label


def _names(path: Path) -> tuple[str, ...]:
    names = _public.entries(read_pickle(path), path, ("fine_label_names",))["fine_label_names"]
    if not isinstance(names, list) or {*map(type, names)} - {str, bytes} or len(set(names)) != CLASSES:
        raise UserError(f"{path}: expected fine_label_names, a list of {CLASSES} different names")
    return tuple(name.decode("latin1") if isinstance(name, bytes) else name for name in names)
