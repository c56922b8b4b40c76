"""The VGG-like network of FSD50K's paper (Fonseca et al., 2022), for spectrograms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crossmodal.errors import UserError
from crossmodal.models.base import Model
from crossmodal.models.convolutions import BatchNorm

WIDTHS = ((32, 32, 32), (64, 64), (128, 128))  # of the convolutions between two poolings
SMALLEST = 34  # of which one value is left


class VGG(Model, name="vgg"):
    """Outputs (B, K) of images (B, C, H, W).

    Seven 3x3 convolutions without a margin, each with batch norm and ReLU, with two poolings between them; mean and greatest of
    each channel go into a linear map.

    Args:
        input_shape: (C, H, W), each side at least 34.
        num_outputs: K.

    Raises:
        UserError: the images are smaller.
    """

    def __init__(self, input_shape: tuple[int, int, int], num_outputs: int) -> None:
        super().__init__()
        if min(input_shape[1:]) < SMALLEST:
            raise UserError(f"vgg: expected images of at least {SMALLEST} x {SMALLEST}, got {tuple(input_shape)}")
        parts, channels = [], input_shape[0]
        for widths in WIDTHS:
            parts += [nn.MaxPool2d(2)] if parts else []
            for width in widths:
                parts += [nn.Conv2d(channels, width, 3), BatchNorm(width), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*parts)
        self.head = nn.Linear(2 * channels, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.head(torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1))
