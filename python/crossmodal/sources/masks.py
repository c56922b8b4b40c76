"""Images with masks of what is in the foreground: PASCAL VOC's segmentations (Everingham et al., 2010), as they are published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from crossmodal.data.readers.images import look_at, read_levels
from crossmodal.errors import UserError
from crossmodal.sources.images import LabelledImages

IMAGES, MASKS = "JPEGImages", "SegmentationClass"
LISTS = ("trainval", "train", "val")  # of ImageSets/Segmentation: the first that is there
KINDS = 20  # of things, from 1; 0 is the background
IGNORED = 255


@dataclass(frozen=True)
class MaskedImages(LabelledImages):
    """Images whose masks lie beside them; their classes are those of pixels, and the label of an image says nothing."""


def voc(path: Path) -> MaskedImages:
    """The images that ImageSets/Segmentation lists (trainval.txt, else train.txt or val.txt) in a folder such as VOC2012.

    Raises:
        UserError: there is no list; or it names an image that is not there, or has no mask.
    """
    places = [path / "ImageSets" / "Segmentation" / f"{name}.txt" for name in LISTS]
    listed = next((place for place in places if place.is_file()), None)
    if listed is None:
        raise UserError(f"{path}: expected a list of images, {places[0].relative_to(path)}")
    names = listed.read_text(encoding="utf-8", errors="replace").split()
    if not names:
        raise UserError(f"{listed}: no images")
    items = []
    for name in names:
        image, mask = path / IMAGES / f"{name}.jpg", path / MASKS / f"{name}.png"
        for file in (image, mask):
            if name != Path(name).name or not file.is_file():
                raise UserError(f"{listed} lists {name!r}, but there is no file {file}")
        items.append(image)
    return MaskedImages(tuple(items), ("foreground",) * len(items), ("background", "foreground"), str(path))


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A mask ``(H, W)`` uint8: 0 background, 1 foreground, :data:`IGNORED`.

    Args:
        path: an image with the number of a kind of thing for each pixel, which stand for colours of a palette or of grey.
        size: ``(H, W)`` of its image.

    Raises:
        UserError: see `read_levels`; or it has another size, or other numbers.
    """
    values = read_levels(path)
    if values.shape != size:
        raise UserError(f"{path}: expected a mask of the size of its image, {size}, got {values.shape}")
    wrong = (values > KINDS) & (values != IGNORED)
    if wrong.any():
        raise UserError(f"{path}: expected numbers from 0 to {KINDS}, or {IGNORED}, got {values[wrong][0]}")
    return np.where(values == IGNORED, IGNORED, values > 0).astype(np.uint8)


def to_masks(images: MaskedImages, size: tuple[int, int]) -> Tensor:
    """The masks of the images, of that size by the nearest pixel; uint8 ``(n, 1, *size)``."""
    found = torch.empty(len(images.items), 1, *size, dtype=torch.uint8)
    for index, item in enumerate(images.items):
        path = item.parents[1] / MASKS / f"{item.stem}.png"
        mask = torch.from_numpy(read_mask(path, look_at(item)[0]))
        found[index, 0] = interpolate(mask[None, None], size=size, mode="nearest-exact")[0, 0]
    return found
