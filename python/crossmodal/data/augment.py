"""Augmentations, by name: each turns one sample (C, L) or (C, H, W) into another of its shape, with the generator it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from crossmodal.data.dataset import Augmentation
from crossmodal.errors import UserError
from crossmodal.naming import unknown

NOISE = 0.1  # standard deviations of the (normalised) values
CROP = 8  # a crop is moved by up to an eighth of each axis
MASKED = 0.5  # share of samples of which something is blotted out,
MASKS, ROWS, COLUMNS = 2, 0.15, 0.2  # by at most so many masks of rows and columns, each of at most this part of them
HOLE = 0.5  # side of what cutout blots out, as a part of each axis
SHIFT = 0.1  # greatest shift, as a part of each axis


def flip(sample: Tensor, generator: np.random.Generator) -> Tensor:
    """Mirrors the last axis of every other sample."""
    return sample.flip(-1) if generator.random() < 0.5 else sample


def shift(sample: Tensor, generator: np.random.Generator) -> Tensor:
    """Moves a sample by up to a tenth along every axis; what is uncovered repeats the edge."""
    for axis in range(1, sample.ndim):
        length = sample.shape[axis]
        most = int(SHIFT * length)
        places = torch.arange(length) + int(generator.integers(-most, most + 1))
        sample = sample.index_select(axis, places.clamp(0, length - 1))
    return sample


def crop(sample: Tensor, generator: np.random.Generator) -> Tensor:
    """Cuts a sample of the old size out of one that zeros (means) surround, an eighth of each axis on either side."""
    for axis in range(1, sample.ndim):
        margin = sample.shape[axis] // CROP
        edge = sample.new_zeros(*sample.shape[:axis], margin, *sample.shape[axis + 1 :])
        first = int(generator.integers(2 * margin + 1))
        sample = torch.cat([edge, sample, edge], dim=axis).narrow(axis, first, sample.shape[axis])
    return sample


def cutout(sample: Tensor, generator: np.random.Generator) -> Tensor:
    """Sets a piece to zero (the mean) that is half as long as the sample along each axis and may reach over its edges, with its
    middle anywhere (DeVries and Taylor, 2017)."""
    inside = torch.ones(sample.shape[1:], dtype=torch.bool)
    for axis, length in enumerate(sample.shape[1:]):
        side = max(1, int(HOLE * length))
        places = torch.arange(length) - int(generator.integers(length)) + side // 2
        shape = [1] * axis + [length] + [1] * (sample.ndim - 2 - axis)
        inside = inside & ((places >= 0) & (places < side)).view(shape)
    return sample.masked_fill(inside, 0.0)


def noise(sample: Tensor, generator: np.random.Generator) -> Tensor:
    """Adds Gaussian noise of a tenth of a standard deviation."""
    return sample + NOISE * torch.from_numpy(generator.standard_normal(sample.shape, dtype=np.float32))


def spec_augment(sample: Tensor, generator: np.random.Generator) -> Tensor:
    """Blots rows (bands) and columns (frames) out of every other image, with its least value (Park et al., 2019)."""
    if generator.random() >= MASKED:
        return sample
    masked, least = sample.clone(), sample.min()
    for _ in range(generator.integers(1, MASKS + 1)):
        for axis, most in ((1, ROWS), (2, COLUMNS)):
            length = masked.shape[axis]
            width = int(generator.uniform(0, most) * length)
            masked.narrow(axis, int(generator.integers(length - width + 1)), width).fill_(least)
    return masked


AUGMENTATIONS: dict[str, Augmentation] = {
    "flip": flip,
    "shift": shift,
    "crop": crop,
    "cutout": cutout,
    "noise": noise,
    "spec_augment": spec_augment,
}


def augmentations(
    names: Sequence[str], ndim: int, own: Mapping[str, Augmentation] | None = None
) -> tuple[Augmentation, ...]:
    """The augmentations of those names.

    Args:
        names: keys of `AUGMENTATIONS`, or of `own`.
        ndim: axes of a sample beside the channels.
        own: those that the task brings.

    Raises:
        UserError: an unknown name, or one that does not suit samples with `ndim` axes beside the channels.
    """
    known = AUGMENTATIONS | dict(own or {})
    for name in names:
        if name not in known:
            raise UserError(unknown("augment", name, known))
        if name == "flip" and ndim == 1:
            raise UserError("augment: flip is for images; a series read backwards is another series")
        if name == "spec_augment" and ndim == 1:
            raise UserError("augment: spec_augment is for images, spectrograms above all")
    return tuple(known[name] for name in names)
