"""Proteins that are none: chains that fold back on themselves within a ball, and features that know something of it."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from crossmodal.miniature.base import register

EACH = {"deepcov": 8, "psicov": 3}  # proteins of the two lists
LENGTHS = (50, 90)
STEP, DENSITY = 3.8, 2.4  # angstrom from a residue to the next; radius of the ball over the cube root of the length
LETTERS = "ACDEFGHIKLMNPQRSTVWY"


@register("psicov", "simulated chains within a ball; coupling scores are high for residues that are near, with noise")
def psicov(folder: Path, rng: np.random.Generator) -> None:
    """The lists, and for each protein its two pickled files."""
    for part, each in EACH.items():
        names = [f"{part[:2]}{number:02d}A" for number in range(each)]
        for place in ("features", "distance"):
            (folder / "protein" / part / place).mkdir(parents=True)
        for name in names:
            features, distances = protein(rng)
            known = (len(distances), features["seq"], distances)
            (folder / "protein" / part / "features" / f"{name}.pkl").write_bytes(pickle.dumps(features, 4))
            (folder / "protein" / part / "distance" / f"{name}-cb.npy").write_bytes(pickle.dumps(known, 4))
        lines = [f"{name} {rng.integers(100, 999)}\n" for name in names]
        (folder / "protein" / f"{part}.lst").write_text("".join(lines))


def protein(rng: np.random.Generator) -> tuple[dict, np.ndarray]:
    """Features by name, and distances float32 (L, L) in angstrom."""
    length = int(rng.integers(*LENGTHS))
    places, heading = np.zeros((length, 3)), np.array([1.0, 0.0, 0.0])
    for row in range(1, length):
        heading = heading + 0.8 * rng.standard_normal(3) - places[row - 1] / (DENSITY * length ** (1 / 3))
        heading /= np.linalg.norm(heading)
        places[row] = places[row - 1] + STEP * heading
    distances = np.linalg.norm(places[:, None] - places, axis=2).astype(np.float32)
    buried = (distances < 10).mean(1)
    kinds = rng.dirichlet(np.ones(3), length)

    def pairs(noise: float) -> np.ndarray:
        score = 1 / (1 + np.exp((distances - 8) / 2)) + noise * rng.standard_normal((length, length))
        return ((score + score.T) / 2).astype(np.float32)

    features = {
        "seq": "".join(rng.choice(list(LETTERS), length)),
        "ss": kinds.T.astype(np.float32),
        "pssm": rng.uniform(0, 1, (length, 22)).astype(np.float32),
        "sa": (1 - buried + 0.1 * rng.standard_normal(length)).astype(np.float32),
        "entropy": rng.uniform(0, 1, length).astype(np.float32),
        "ccmpred": pairs(0.1),
        "freecon": pairs(0.2),
        "potential": pairs(1.0),
    }
    return features, distances
