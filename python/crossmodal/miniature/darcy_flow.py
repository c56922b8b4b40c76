"""Darcy flow, by the generator of the real task's equation on its every fifth point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.io import savemat

from crossmodal.miniature.base import register
from crossmodal.pde.base import get

EACH = {1: 20, 2: 6}  # samples of the two files
STORED, STEP, SIDE = 421, 5, 85


@register(
    "darcy_flow", "solutions of the same equation, with the same kind of media, on the 85 x 85 points that are read"
)
def darcy_flow(folder: Path, rng: np.random.Generator) -> None:
    """The two MATLAB files, of version 5; the points between those that are read repeat them."""
    for number, each in EACH.items():
        fields = get("darcy_flow").solve(rng.spawn(each), SIDE)
        whole = {
            name: values.repeat(STEP, 1).repeat(STEP, 2)[:, :STORED, :STORED].astype(np.float32)
            for name, values in fields.items()
        }
        with open(folder / f"piececonst_r421_N1024_smooth{number}.mat", "wb") as file:
            savemat(file, whole, do_compression=True)
            file.seek(0)
            file.write(b"MATLAB 5.0 MAT-file".ljust(116))  # scipy writes the date here
