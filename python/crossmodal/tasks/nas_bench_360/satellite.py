"""Satellite: land cover from satellite image time series (Petitjean et al., 2012, as NAS-Bench-360 has them).

A pixel's vegetation index over a year, 46 values, and which of 24 kinds of land cover it belongs to.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossmodal.data.derived import New, derived
from crossmodal.data.readers import contents
from crossmodal.data.readers.pickles import read_pickle
from crossmodal.files import digest
from crossmodal.tasks.base import Options, RawTask, register
from crossmodal.tasks.nas_bench_360 import _public

STEPS, CLASSES = 46, 24
BATCH = 64
FILES = tuple(
    _public.remote(f"satellite_{part}.npy", f"satellite/satellite_{part}.npy", size)
    for part, size in (("train", 338_400_000), ("test", 37_600_000))
)


@register(
    "satellite",
    "satellite image time series (46 values), 24 kinds of land cover; 900,000 train, 100,000 test (NAS-Bench-360)",
    protocols=_public.PROTOCOLS,
    files=FILES,
)
def satellite(options: Options) -> RawTask:
    """A share of the 900,000 training samples validates; series are z-scored with the statistics of what is learned from.

    The public code takes raw values, which an embedding of single values with a LayerNorm behind it can hardly tell apart.
    """
    rows = (_rows(options.data_dir / file.path) for file in FILES)
    train, test = ((part["x"][:, None], part["y"]) for part in rows)
    raw = RawTask(
        kind="classification",
        **_public.parts(train=train, test=test),
        origin=f"satellite_train.npy and satellite_test.npy in {options.data_dir}",
    )
    if options.protocol == "released":
        said = "series are not normalised."
        return _public.released(raw, ("accuracy",), said, batch_size=BATCH, normalize_x="none")
    return raw


def _rows(path: Path) -> np.ndarray:
    """Series and labels of one of the two files, x float32 (n, 46) and y int64 (n,), mapped.

    The file is a pickled dictionary, which has to be read whole; that is done once.
    """

    def make(new: New) -> None:
        data, label = contents.arrays(read_pickle(path), path, {"data": (None, STEPS), "label": (None,)})
        label = contents.labels(label, f"{path}: label", 1, CLASSES, all_of_them=True)
        rows = new((len(data),), [("x", np.float32, (STEPS,)), ("y", np.int64)])
        rows["x"], rows["y"] = data, label

    return derived(path.with_suffix(".rows.npy"), {"file": digest(path), "version": 1}, make)
