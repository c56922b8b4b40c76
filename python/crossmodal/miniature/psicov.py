"""Proteins that are none: helices, strands and loops that fold within a ball, and features that know something of it.

Two residues near each other are coupled the more, the more both of them may vary: what a score says of a distance can be told
only beside the entropies of its two residues, and from the scores around it, since scores are noisy.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from crossmodal.miniature.base import register

EACH = {"deepcov": 40, "psicov": 12}  # proteins of the two lists
LENGTHS = (56, 80)
DENSITY = 2.4  # radius of the ball over the cube root of the length, angstrom
# Of helices, strands and loops: angstrom along the axis from a residue to the next, radius around it, residues, share of turning.
KINDS = ((1.5, 2.3, (8, 16), 0.05), (3.3, 0.9, (4, 9), 0.05), (3.8, 0.0, (2, 6), 0.8))
TURNS = (100, 180, 0)  # degrees around the axis from a residue to the next
LETTERS = "ACDEFGHIKLMNPQRSTVWY"


@register(
    "psicov", "simulated helices, strands and loops within a ball; couplings of residues that are near, with noise"
)
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


def chain(rng: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of residues (L, 3) in angstrom, and the kind of each (L), a row of `KINDS`."""
    kinds: list[int] = []
    while len(kinds) < length:  # a loop after each helix and strand
        for kind in (int(rng.integers(2)), 2):
            kinds += [kind] * int(rng.integers(*KINDS[kind][2]))
    kinds = kinds[:length]
    axis, heading, places = np.zeros(3), np.array([1.0, 0.0, 0.0]), np.zeros((length, 3))
    for row, kind in enumerate(kinds):
        step, radius, _, turning = KINDS[kind]
        if kind == 2:  # loops lead back to the middle
            heading = heading - axis / (DENSITY * length ** (1 / 3))
        heading = heading + turning * rng.standard_normal(3)
        heading /= np.linalg.norm(heading)
        axis = axis + step * heading
        across = np.linalg.svd(heading[None])[2][1:]
        angle = np.deg2rad(TURNS[kind] * row)
        places[row] = axis + radius * (np.cos(angle) * across[0] + np.sin(angle) * across[1])
    return places, np.array(kinds)


def protein(rng: np.random.Generator) -> tuple[dict, np.ndarray]:
    """Features by name, and distances float32 (L, L) in angstrom."""
    length = int(rng.integers(*LENGTHS))
    places, kinds = chain(rng, length)
    distances = np.linalg.norm(places[:, None] - places, axis=2).astype(np.float32)
    buried = (distances < 10).mean(1)
    profile, entropy = rng.dirichlet(np.full(22, 0.3), length), rng.uniform(0.3, 1, length)
    coupled = np.outer(entropy, entropy) / (1 + np.exp((distances - 8) / 2))

    def pairs(noise: float) -> np.ndarray:
        score = coupled + noise * rng.standard_normal((length, length))
        return ((score + score.T) / 2).astype(np.float32)

    features = {
        "seq": "".join(LETTERS[column] for column in profile[:, :20].argmax(1)),
        "ss": (0.7 * np.eye(3)[kinds] + 0.3 * rng.dirichlet(np.ones(3), length)).T.astype(np.float32),
        "pssm": profile.astype(np.float32),
        "sa": (1 - buried + 0.1 * rng.standard_normal(length)).astype(np.float32),
        "entropy": entropy.astype(np.float32),
        "ccmpred": pairs(0.1),
        "freecon": pairs(0.2),
        "potential": pairs(0.4),
    }
    return features, distances
