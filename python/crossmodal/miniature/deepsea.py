"""A small DeepSEA, simulated: random DNA with planted motifs.

Each feature has a motif, a matrix of base frequencies; a sample that has the feature holds the motif some times, drawn from them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossmodal.miniature.base import register
from crossmodal.tasks.nas_bench_360.deepsea import BASES, FEATURES, LENGTH

SAMPLES = {"train": 600, "val": 120, "test": 240}
MOTIF = 12  # bases
SHARE = 0.12  # of the samples that have a feature
COPIES = (2, 5)
SURE = 0.9  # frequency of a motif's own base
UNKNOWN = 0.01  # share of samples with a stretch of unknown bases


@register("deepsea", "simulated DNA with planted motifs of 36 features")
def deepsea(folder: Path, rng: np.random.Generator) -> None:
    """deepsea_filtered.npz: x_PART uint8 (n, 1000, 4) and y_PART uint8 (n, 36), PART: train, val, test."""
    motifs = rng.integers(BASES, size=(FEATURES, MOTIF))
    arrays = {}
    for part, count in SAMPLES.items():
        y = (rng.random((count, FEATURES)) < SHARE).astype(np.uint8)
        bases = rng.integers(BASES, size=(count, LENGTH))
        for sample, feature in np.argwhere(y):
            for place in rng.integers(LENGTH - MOTIF, size=rng.integers(*COPIES)):
                kept = rng.random(MOTIF) < SURE
                bases[sample, place : place + MOTIF][kept] = motifs[feature][kept]
        x = (bases[..., None] == np.arange(BASES)).astype(np.uint8)
        for sample in np.flatnonzero(rng.random(count) < UNKNOWN):
            x[sample, : rng.integers(1, 100)] = 0
        arrays |= {f"x_{part}": x, f"y_{part}": y}
    np.savez(folder / "deepsea_filtered.npz", **arrays)
