"""The residual network for series of Wang et al. (IJCNN 2017), point and dense targets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from crossmodal.models.base import Model
from crossmodal.models.convolutions import BatchNorm, Head, SameConv

LENGTHS = (8, 5, 3)  # of the kernels of a block


class SeriesResNet(Model, name="series_resnet"):
    """Outputs (B, K) of series (B, C, L), or fields (B, K, L): three blocks of three convolutions, each with batch norm.

    Args:
        input_shape: (C, L).
        num_outputs: K.
        dense: whether outputs are fields.
        width: channels of the first block; the others have twice as many.
        dropout: after each convolution.
        kernels: length and dilation of each convolution, in order (None: 8, 5 and 3 without dilation).
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
        kernels = kernels or [(length, 1) for length in LENGTHS] * 3
        widths = [input_shape[0], width, 2 * width, 2 * width]
        self.blocks = nn.ModuleList(
            Block(before, after, dropout, kernels[3 * number : 3 * number + 3])
            for number, (before, after) in enumerate(pairwise(widths))
        )
        self.head = Head(1, widths[-1], num_outputs, dense)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Block(nn.Module):
    """Three convolutions, added to their input: (B, before, L) to (B, after, L)."""

    def __init__(self, before: int, after: int, dropout: float, kernels: Sequence[Sequence[int]]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number, (kernel, dilation) in enumerate(kernels):
            layers += [
                SameConv(1, after if number else before, after, kernel, dilation=dilation, bias=True),
                nn.Dropout(dropout),
                BatchNorm(after),
                nn.ReLU() if number < 2 else nn.Identity(),
            ]
        self.body = nn.Sequential(*layers)
        self.past = nn.Identity() if before == after else nn.Sequential(nn.Conv1d(before, after, 1), BatchNorm(after))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.past(x))
