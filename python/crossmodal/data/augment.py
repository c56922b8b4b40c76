"""Augmentations, by name: each turns one sample (C, L) or (C, H, W) into another of its shape, with the generator it is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from crossmodal.data.dataset import Augmentation
from crossmodal.errors import UserError
from crossmodal.naming import unknown

NOISE = 0.1  # standard deviations of the (normalised) values
CROP = 8  # a crop is moved by up to an eighth of each axis
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


def noise(sample: Tensor, generator: np.random.Generator) -> Tensor:
    """Adds Gaussian noise of a tenth of a standard deviation."""
    return sample + NOISE * torch.from_numpy(generator.standard_normal(sample.shape, dtype=np.float32))


AUGMENTATIONS: dict[str, Augmentation] = {"flip": flip, "shift": shift, "crop": crop, "noise": noise}


def augmentations(names: Sequence[str], ndim: int) -> tuple[Augmentation, ...]:
    """The augmentations of those names.

    Raises:
        UserError: an unknown name, or one that does not suit samples with `ndim` axes beside the channels.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            raise UserError(unknown("augment", name, AUGMENTATIONS))
        if name == "flip" and ndim == 1:
            raise UserError("augment: flip is for images; a series read backwards is another series")
    return tuple(AUGMENTATIONS[name] for name in names)
