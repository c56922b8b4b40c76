"""PDNET's dilated residual network for the distances of residues (Adhikari, Scientific Reports 2020; DEEPCON)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from crossmodal.models.base import Model
from crossmodal.models.convolutions import BatchNorm

DROPOUT, DILATIONS = 0.3, (1, 2, 4)


class PDNet(Model, name="pdnet"):
    """Fields (B, K, H, W) of images (B, C, H, W) of any size.

    Batch norm, ReLU and a 1x1 convolution; blocks of two 3x3 convolutions, the second of dilation 1, 2, 4, 1, ...; batch norm,
    ReLU and a 3x3 convolution. The benchmark records neither depth nor width; these are those of PDNET's own example.

    Args:
        input_shape: (C, H, W).
        num_outputs: K.
        distances: outputs are distances of pairs: not negative, and where they predict the same for both orders of a pair.
        blocks, width: how many, and their channels.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_outputs: int,
        distances: bool = False,
        blocks: int = 128,
        width: int = 16,
    ) -> None:
        super().__init__()
        self.distances = distances
        channels = input_shape[0]
        self.stem = nn.Sequential(BatchNorm(channels), nn.ReLU(), nn.Conv2d(channels, width, 1))
        self.blocks = nn.ModuleList(Block(width, DILATIONS[number % len(DILATIONS)]) for number in range(blocks))
        self.head = nn.Sequential(BatchNorm(width), nn.ReLU(), nn.Conv2d(width, num_outputs, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        x = self.head(x)
        if self.distances:
            x = F.relu(x)
            x = x if self.training else (x + x.mT) / 2
        return x


class Block(nn.Sequential):
    """(B, width, H, W) to what is added to it."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__(
            BatchNorm(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.Dropout(DROPOUT),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation),
        )
