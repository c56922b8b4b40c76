"""Source "photographs": crops of photographs, labelled by the photograph they are from.

Natural images, which is what image encoders were pretrained on. The photographs lie in scikit-image's wheel; those are
taken whose page says that they are in the public domain or under CC0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossmodal.data.readers.images import read_image
from crossmodal.files import package_file
from crossmodal.sources.images import LabelledImages

FILES = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "rocket.jpg",
)
CROPS = 50  # of each
SHORTEST, LONGEST = 0.25, 0.75  # side of a crop, as a part of the photograph's shorter side


def load() -> LabelledImages:
    """The crops, squares of random size and place; always the same ones.

    Raises:
        UserError: scikit-image is not installed.
    """
    rng = np.random.default_rng(0)
    whole = pictures()
    names = tuple(whole)
    items = []
    for photograph in whole.values():
        height, width = photograph.shape[:2]
        for _ in range(CROPS):
            side = int(rng.uniform(SHORTEST, LONGEST) * min(height, width))
            top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
            items.append(photograph[top : top + side, left : left + side])
    return LabelledImages(tuple(items), tuple(np.repeat(names, CROPS).tolist()), names, "photographs")


def pictures(needed_by: str = "source 'photographs'") -> dict[str, np.ndarray]:
    """The photographs by name, each `(H, W, 3)` uint8.

    Raises:
        UserError: scikit-image is not installed.
    """
    folder = package_file("scikit-image", "data", needed_by=needed_by, module="skimage")
    return {Path(file).stem: read_image(folder / file) for file in FILES}
