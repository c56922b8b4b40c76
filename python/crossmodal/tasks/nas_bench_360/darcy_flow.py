"""Darcy flow (Li et al., ICLR 2021): the pressure in a medium of two permeabilities, from the medium; 85 x 85 points."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossmodal.data.readers import contents
from crossmodal.data.readers.mat import read_mat
from crossmodal.errors import UserError
from crossmodal.tasks.base import About, Options, RawTask, register
from crossmodal.tasks.nas_bench_360 import _public

STEP = 5  # of the 421 points of an axis every so-many-th is taken
SIDE = 85
TRAIN, VALIDATION, TEST = 900, 100, 100
BATCH = 4
FILES = tuple(
    _public.remote(name, name, 1_600_000_000, how="the authors of the Fourier neural operator have it in Darcy_421.zip")
    for name in ("piececonst_r421_N1024_smooth1.mat", "piececonst_r421_N1024_smooth2.mat")
)


@register(
    "darcy_flow",
    "Darcy flow: pressure from the medium (3 x 85 x 85 with coordinates); 900 train, 100 validation, 100 test (NAS-Bench-360)",
    protocols=_public.PROTOCOLS,
    files=FILES,
)
def darcy_flow(options: Options) -> RawTask:
    """The first 1000 samples of one file, of which the last tenth validates as in NAS-Bench-360, and the first 100 of the other.
    Medium and pressure are z-scored point by point."""
    first, second = (options.data_dir / file.path for file in FILES)
    x, y = _fields(first, TRAIN + VALIDATION)
    kept = len(x) - max(len(x) * VALIDATION // (TRAIN + VALIDATION), 1)
    raw = RawTask(
        kind="dense",
        **_public.parts(train=(x[:kept], y[:kept]), val=(x[kept:], y[kept:]), test=_fields(second, TEST)),
        origin=f"{first.name} and {second.name} in {options.data_dir}",
        loss="relative_l2",
        metrics=("relative_l2", "rmse"),
        normalize_x=("position", "none", "none"),
        normalize_y="position",
        about=About(features=("permeability", "x", "y"), targets=("pressure",)),
    )
    if options.protocol == "released":
        return _public.released(raw, ("relative_l2",), batch_size=BATCH, x_train=x, y_train=y)
    return raw


def _fields(path: Path, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Media and coordinates (n, 3, 85, 85), and pressures (n, 1, 85, 85), of the first samples of a file; float32."""
    index = (slice(most), slice(None, None, STEP), slice(None, None, STEP))
    coeff, sol = (read_mat(path, name, index) for name in ("coeff", "sol"))
    for name, values in (("coeff", coeff), ("sol", sol)):
        contents.array(values, f"{path}: every {STEP}th point of {name}", (None, SIDE, SIDE))
    if len(coeff) != len(sol):
        raise UserError(f"{path}: {len(coeff)} samples in coeff, but {len(sol)} in sol")
    axis = np.linspace(0, 1, SIDE)
    place = np.broadcast_to(np.stack(np.meshgrid(axis, axis)), (len(coeff), 2, SIDE, SIDE))
    return np.concatenate([coeff[:, None], place], axis=1, dtype=np.float32), sol[:, None].astype(np.float32)
