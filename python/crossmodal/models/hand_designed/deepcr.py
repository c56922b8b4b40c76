"""deepCR's network for masks of cosmic rays (Zhang and Bloom, ApJ 2020): a U-Net of two levels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from crossmodal.models.base import Model


class DeepCR(Model, name="deepcr"):
    """Fields (B, K, H, W) of images (B, C, H, W) of any size: logits of masks.

    Twice a 3x3 convolution and ReLU, on the grid, on half of it, and on the grid again, where a transposed convolution joins
    what was there; a 1x1 convolution. The weights of the convolutions are written as length and direction (weight norm).

    Args:
        input_shape: (C, H, W).
        num_outputs: K.
        width: channels on the grid, of which half of it has twice.
    """

    def __init__(self, input_shape: tuple[int, int, int], num_outputs: int, width: int = 32) -> None:
        super().__init__()

        def twice(before: int, after: int) -> nn.Sequential:
            first, second = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
            return nn.Sequential(weight_norm(first), nn.ReLU(), weight_norm(second), nn.ReLU())

        self.down, self.bottom, self.joined = (
            twice(input_shape[0], width),
            twice(width, 2 * width),
            twice(2 * width, width),
        )
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.head = nn.Conv2d(width, num_outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = self.down(F.pad(x, (0, width % 2, 0, height % 2)))
        below = self.up(self.bottom(F.max_pool2d(x, 2)))
        return self.head(self.joined(torch.cat([x, below], dim=1)))[..., :height, :width]
