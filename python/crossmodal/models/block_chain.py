"""Chains of residual blocks that differ in number, width and depth: the search space of DenseNAS (Fang et al., CVPR 2020).

For series and images, point and dense targets; of the latter no block makes the grid coarser.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from crossmodal.models.base import Model
from crossmodal.models.convolutions import CONVOLUTION, BatchNorm, Head, SameConv

FIRST = 32  # channels of the stem


class BlockChain(Model, name="block_chain"):
    """Outputs (B, K) of samples (B, *input_shape), or fields (B, K, *grid).

    Args:
        input_shape: (C, L) or (C, H, W).
        num_outputs: K.
        dense: whether outputs are fields.
        blocks: of each its channels, residual layers and stride.
    """

    def __init__(
        self, input_shape: Sequence[int], num_outputs: int, dense: bool, blocks: Sequence[Sequence[int]]
    ) -> None:
        super().__init__()
        ndim, before = len(input_shape) - 1, FIRST
        layers: list[nn.Module] = [SameConv(ndim, input_shape[0], before, 3), BatchNorm(before), nn.ReLU()]
        for channels, depth, stride in blocks:
            for number in range(depth):
                layers.append(Layer(ndim, before, channels, 1 if number or dense else stride))
                before = channels
        self.body = nn.Sequential(*layers)
        self.head = Head(ndim, before, num_outputs, dense)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Layer(nn.Module):
    """The basic block of ResNet: (B, before, *grid) to (B, after, *grid / stride)."""

    def __init__(self, ndim: int, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            SameConv(ndim, before, after, 3, stride),
            BatchNorm(after),
            nn.ReLU(),
            SameConv(ndim, after, after, 3),
            BatchNorm(after),
        )
        same = before == after and stride == 1
        self.past = (
            nn.Identity()
            if same
            else nn.Sequential(CONVOLUTION[ndim](before, after, 1, stride, bias=False), BatchNorm(after))
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.past(x))
