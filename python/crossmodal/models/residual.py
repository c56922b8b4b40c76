"""A small residual network (He et al., CVPR 2016) of series or images; with a way back up, a U-Net (Ronneberger et al., 2015)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossmodal.models.base import Model

GROUPS = 8  # of channels that are normalised together: batches may be small, and divided among processes


class ResidualNetwork(Model, name="residual"):
    """Outputs (B, K) of samples (B, *input_shape), by the mean over the last grid; or fields (B, K, *grid) on the grid of the
    input.

    Each level halves the grid of the one above it and doubles its channels, up to four times the width. A field is made on the way
    back: the level below, on the finer grid, joins what was there on the way down.

    Args:
        input_shape: (C, L) or (C, H, W).
        num_outputs: K.
        dense: whether outputs are fields.
        width: channels of the first level, a multiple of 8.
        depth: levels.
        kernel: length of the kernels along each axis, odd.
    """

    def __init__(
        self, input_shape: tuple[int, ...], num_outputs: int, dense: bool, width: int, depth: int, kernel: int
    ) -> None:
        super().__init__()
        convolution = nn.Conv1d if len(input_shape) == 2 else nn.Conv2d
        widths = [width * min(2**level, 4) for level in range(depth)]
        self.stem = convolution(input_shape[0], width, kernel, padding=kernel // 2)
        self.down = nn.ModuleList(
            Block(convolution, before, after, kernel, 1 if level == 0 else 2)
            for level, (before, after) in enumerate(zip([width, *widths], widths, strict=False))
        )
        self.up = None
        if dense:
            pairs = zip(widths[:0:-1], widths[-2::-1], strict=True)
            self.up = nn.ModuleList(Block(convolution, below + here, here, kernel) for below, here in pairs)
        self.head = convolution(width, num_outputs, 1) if dense else nn.Linear(widths[-1], num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x, levels = self.stem(x), []
        for block in self.down:
            x = block(x)
            levels.append(x)
        if self.up is None:
            return self.head(x.flatten(2).mean(2))
        for block, level in zip(self.up, reversed(levels[:-1]), strict=True):
            x = block(torch.cat([F.interpolate(x, level.shape[2:]), level], dim=1))
        return self.head(x)


class Block(nn.Module):
    """Two convolutions with group norm, and what they are added to: (B, before, *grid) to (B, after, *grid / stride)."""

    def __init__(self, convolution: type[nn.Module], before: int, after: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(before, after, kernel, stride=stride, padding=kernel // 2, bias=False),
            nn.GroupNorm(GROUPS, after),
            nn.ReLU(),
            convolution(after, after, kernel, padding=kernel // 2, bias=False),
            nn.GroupNorm(GROUPS, after),
        )
        same = before == after and stride == 1
        self.past = nn.Identity() if same else convolution(before, after, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.past(x))
