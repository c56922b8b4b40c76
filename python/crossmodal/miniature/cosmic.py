"""Hubble's deep field, which scikit-image carries, with simulated cosmic rays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from crossmodal.miniature.base import register
from crossmodal.sources import photographs

# part: visits of the telescope, and pictures of each; of the last visit the level of the sky is not known.
EACH = {
    "train": (("10760/2", 5), ("12513/3", 5), ("9490/a3", 4)),
    "test": (("10260/5", 2), ("10342/3", 1), ("10407/3", 1), ("13057/1", 1), ("13364/95", 1)),
}
SIDE = 256
RAYS = (25, 60)  # in a picture
ELECTRONS = 4.0  # for one of the 256 grey levels


@register("cosmic", "pieces of Hubble's deep field, which scikit-image carries, with simulated tracks of cosmic rays")
def cosmic(folder: Path, rng: np.random.Generator) -> None:
    """A file for each picture, and levels of the sky for each visit."""
    field = photographs.pictures("the miniature of cosmic")["hubble_deep_field"].mean(2)
    for part, visits in EACH.items():
        for visit, each in visits:
            place = folder / "cosmic" / f"npy_{part}" / "f435w" / visit
            place.mkdir(parents=True)
            skies = rng.uniform(20, 60, each)
            top, left = (int(rng.integers(size - SIDE - 20)) for size in field.shape)
            for number, sky in enumerate(skies, 1):
                down, right = top + rng.integers(20), left + rng.integers(20)
                scene = ELECTRONS * field[down : down + SIDE, right : right + SIDE]
                np.save(place / f"{number}_0.npy", picture(scene, sky, rng))
            if visit != visits[-1][0]:
                np.save(place / "sky.npy", skies)


def picture(scene: np.ndarray, sky: float, rng: np.random.Generator) -> np.ndarray:
    """What a camera makes of a scene in electrons: the picture, the mask of cosmic rays, and what does not count; (3, H, W)."""
    light = rng.poisson(np.maximum(scene + sky, 0)) + 5 * rng.standard_normal(scene.shape) - sky
    rays = np.zeros(scene.shape)
    for _ in range(rng.integers(*RAYS)):
        length, angle = rng.exponential(6) + 1, rng.uniform(0, np.pi)
        along = np.linspace(0, length, int(2 * length) + 1)
        rows, columns = (
            np.rint(start + step * along).astype(int)
            for start, step in zip(rng.uniform(0, SIDE, 2), (np.sin(angle), np.cos(angle)), strict=True)
        )
        inside = (rows >= 0) & (rows < SIDE) & (columns >= 0) & (columns < SIDE)
        rays[rows[inside], columns[inside]] += rng.lognormal(6, 0.8)
    seen = gaussian_filter(rays, 0.4)  # charge that spreads to pixels beside
    struck = seen > 30
    bad = rng.random(scene.shape) < 1e-3
    bad[:, rng.integers(SIDE)] = True
    return np.stack([np.where(bad, 0, light + seen), struck & ~bad, bad]).astype(np.float32)
