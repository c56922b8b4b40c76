"""Wide residual networks (Zagoruyko & Komodakis, BMVC 2016), for series and images, point and dense targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from crossmodal.models.base import Model
from crossmodal.models.convolutions import CONVOLUTION, BatchNorm, Head, SameConv

BLOCKS = 2  # in each of the three groups, which makes 16 layers: WRN-16
CONVOLUTIONS = 1 + 3 * BLOCKS * 2


class WideResNet(Model, name="wide_resnet"):
    """WRN-16: outputs (B, K) of samples (B, *input_shape), or fields (B, K, *grid), for which no grid is made coarser.

    Args:
        input_shape: (C, L) or (C, H, W).
        num_outputs: K.
        dense: whether outputs are fields.
        width: factor on the channels, 16, 32 and 64. With 4, 3 channels and 100 classes there are 2.77 M parameters.
        dropout: between the two convolutions of a block.
        kernels: length and dilation of each convolution, in order (None: 3 and 1).
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        dense: bool,
        width: int,
        dropout: float = 0.0,
        kernels: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        ndim, channels = len(input_shape) - 1, 16
        lengths = iter(kernels or [(3, 1)] * CONVOLUTIONS)
        kernel, dilation = next(lengths)
        self.stem = SameConv(ndim, input_shape[0], channels, kernel, 1, dilation)
        self.blocks = nn.ModuleList()
        for after, stride in zip((16 * width, 32 * width, 64 * width), (1, 1, 1) if dense else (1, 2, 2), strict=True):
            for number in range(BLOCKS):
                self.blocks.append(Block(ndim, channels, after, 1 if number else stride, dropout, lengths))
                channels = after
        self.norm = BatchNorm(channels)
        for module in self.modules():
            if isinstance(module, CONVOLUTION[ndim]):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.head = Head(ndim, channels, num_outputs, dense)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(F.relu(self.norm(x)))


class Block(nn.Module):
    """Norm, ReLU and convolution, twice, and what they are added to: (B, before, *grid) to (B, after, *grid / stride)."""

    def __init__(
        self, ndim: int, before: int, after: int, stride: int, dropout: float, lengths: Iterator[Sequence[int]]
    ) -> None:
        super().__init__()
        (first, first_dilation), (second, second_dilation) = next(lengths), next(lengths)
        self.norm1, self.norm2 = BatchNorm(before), BatchNorm(after)
        self.conv1 = SameConv(ndim, before, after, first, stride, first_dilation)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = SameConv(ndim, after, after, second, 1, second_dilation)
        same = before == after and stride == 1
        self.past = None if same else CONVOLUTION[ndim](before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(x))
        past = x if self.past is None else self.past(y)
        return past + self.conv2(self.dropout(F.relu(self.norm2(self.conv1(y)))))
