"""DenseNet-BC (Huang et al., CVPR 2017), as it is for small images: every layer sees the outputs of all before it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossmodal.errors import UserError
from crossmodal.models.base import Model
from crossmodal.models.convolutions import BatchNorm

BLOCKS, SMALLEST = 3, 4


class DenseNet(Model, name="densenet"):
    """Outputs (B, K) of images (B, C, H, W).

    A 3x3 convolution to twice the growth, three blocks with half the channels (a 1x1 convolution) and half the grid between
    them, batch norm, ReLU, the mean over the grid, a linear map. A layer of a block: batch norm, ReLU, 1x1 convolution to four
    times the growth, batch norm, ReLU, 3x3 convolution to the growth, which joins what is there.

    Args:
        input_shape: (C, H, W), each side at least 4.
        num_outputs: K.
        depth: layers with weights: 4 and twice those of the blocks; 100 and a growth of 24 are the benchmark's for CIFAR-100.
        growth: channels that a layer adds.

    Raises:
        UserError: the images are smaller.
    """

    def __init__(self, input_shape: tuple[int, int, int], num_outputs: int, depth: int = 100, growth: int = 24) -> None:
        super().__init__()
        if min(input_shape[1:]) < SMALLEST:
            raise UserError(f"densenet: expected images of at least {SMALLEST} x {SMALLEST}, got {tuple(input_shape)}")
        channels = 2 * growth
        parts: list[nn.Module] = [nn.Conv2d(input_shape[0], channels, 3, padding=1, bias=False)]
        for block in range(BLOCKS):
            if block:
                half = channels // 2
                parts += [BatchNorm(channels), nn.ReLU(), nn.Conv2d(channels, half, 1, bias=False), nn.AvgPool2d(2)]
                channels = half
            for _ in range((depth - 4) // (2 * BLOCKS)):
                parts.append(Layer(channels, growth))
                channels += growth
        self.features = nn.Sequential(*parts, BatchNorm(channels), nn.ReLU())
        self.head = nn.Linear(channels, num_outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class Layer(nn.Module):
    """(B, channels, H, W) to (B, channels + growth, H, W)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.first, self.second = BatchNorm(channels), BatchNorm(4 * growth)
        self.narrow = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.wide = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.wide(F.relu(self.second(self.narrow(F.relu(self.first(x))))))
        return torch.cat([x, new], dim=1)
