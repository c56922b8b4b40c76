"""The residual network for ECG of Hong et al. (2020), after Hannun et al. (Nature Medicine 2019): 97 convolutions along a
series."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from crossmodal.models.base import Model
from crossmodal.models.convolutions import BatchNorm

KERNEL, GROUPS, DROPOUT = 16, 32, 0.5
HALVED, DOUBLED = 6, 12  # after so many blocks the length is halved, the channels are doubled


class ResNet1D(Model, name="resnet1d"):
    """Outputs (B, K) of series (B, C, L).

    A convolution, and blocks of two: batch norm, ReLU, dropout, grouped convolution, twice. What goes past a block is halved by
    taking the greater of two values, and filled up with channels of zeros.

    Args:
        input_shape: (C, L).
        num_outputs: K.
        width: channels of the first blocks, a multiple of 32.
        blocks: how many.
    """

    def __init__(self, input_shape: tuple[int, int], num_outputs: int, width: int = 128, blocks: int = 48) -> None:
        super().__init__()
        self.stem = nn.Sequential(Convolution(input_shape[0], width), BatchNorm(width), nn.ReLU())
        self.blocks = nn.ModuleList()
        for number in range(blocks):
            after = width * 2 if number and number % DOUBLED == 0 else width
            self.blocks.append(Block(width, after, 2 if number % HALVED == 1 else 1, first=number == 0))
            width = after
        self.norm, self.head = BatchNorm(width), nn.Linear(width, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(F.relu(self.norm(x)).mean(-1))


class Convolution(nn.Conv1d):
    """Of length 16, with zeros around the series so that ceil(L / stride) values come out."""

    def __init__(self, before: int, after: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(before, after, KERNEL, stride=stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(_padded(x, KERNEL, self.stride[0]))


def _padded(x: Tensor, kernel: int, stride: int) -> Tensor:
    length = x.shape[-1]
    missing = max(0, (-(-length // stride) - 1) * stride + kernel - length)
    return F.pad(x, (missing // 2, missing - missing // 2))


class Block(nn.Module):
    """(B, before, L) to (B, after, ceil(L / stride)); `first`: batch norm and ReLU went before it already."""

    def __init__(self, before: int, after: int, stride: int, first: bool) -> None:
        super().__init__()
        self.stride, self.more = stride, after - before
        opening = [] if first else [BatchNorm(before), nn.ReLU(), nn.Dropout(DROPOUT)]
        self.body = nn.Sequential(
            *opening,
            Convolution(before, after, stride, GROUPS),
            BatchNorm(after),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            Convolution(after, after, 1, GROUPS),
        )

    def forward(self, x: Tensor) -> Tensor:
        past = F.max_pool1d(_padded(x, self.stride, self.stride), self.stride)
        return self.body(x) + F.pad(past, (0, 0, self.more // 2, self.more - self.more // 2))
