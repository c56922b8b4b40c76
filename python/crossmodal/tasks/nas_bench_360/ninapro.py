"""NinaPro DB5: hand gestures from the muscles of the forearm (Pizzolato et al., 2017, as NAS-Bench-360 has them).

16 electrodes, 52 steps at 200 Hz, and which of 18 gestures was made.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossmodal.data.readers import contents
from crossmodal.data.readers.npy import read_npy
from crossmodal.tasks.base import Options, RawTask, register
from crossmodal.tasks.nas_bench_360 import _public

STEPS, ELECTRODES, GESTURES = 52, 16, 18
BATCH = 16
PARTS = ("train", "val", "test")
FILES = tuple(
    _public.remote(f"ninaPro/{what}_{part}.npy", f"ninapro/{what}_{part}.npy")
    for part in PARTS
    for what in ("ninapro", "label")
)


@register(
    "ninapro",
    "muscle signals of the forearm (16 electrodes x 52 steps, as an image), 18 gestures; 3956 samples (NAS-Bench-360)",
    protocols=_public.PROTOCOLS,
    files=FILES,
)
def ninapro(options: Options) -> RawTask:
    """Samples are images of 16 x 52, z-scored with the statistics of what is learned from (public code takes them as they are)."""
    folder = options.data_dir / "ninaPro"
    parts = {part: _part(folder, part) for part in PARTS}
    raw = RawTask(
        kind="classification",
        **_public.parts(**parts),
        class_names=tuple(map(str, range(GESTURES))),
        origin=str(folder),
    )
    if options.protocol != "released":
        return raw
    learned = map(np.concatenate, zip(parts["train"], parts["val"], strict=True))
    changes = _public.parts(train=learned) | {"normalize_x": "none"}
    return _public.released(raw, ("accuracy",), "samples are not normalised.", batch_size=BATCH, **changes)


def _part(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Samples (n, 1, 16, 52) and labels int64 (n,) from 0 to 17."""
    path, label_path = folder / f"ninapro_{part}.npy", folder / f"label_{part}.npy"
    found = {path.name: read_npy(path), label_path.name: read_npy(label_path)}
    data, label = contents.arrays(found, folder, {path.name: (None, STEPS, ELECTRODES), label_path.name: (None,)})
    return data.swapaxes(1, 2)[:, None], contents.labels(label, str(label_path), 0, GESTURES - 1)
