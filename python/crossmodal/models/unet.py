"""The U-Net (Ronneberger et al., MICCAI 2015) as PDEBench trains it (Takamoto et al., NeurIPS 2022), for series and images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossmodal.models.base import Model

LEVELS, GROUPS = 4, 8
SMALLEST = 2 * 2**LEVELS  # side of the grid; at the bottom two values are left of it, which batch norm needs


class UNet(Model, name="unet"):
    """Fields (B, Cout, *grid) of fields (B, C, *grid), on grids of any size.

    Four times a block and a max-pooling that halves the grid, a block at the bottom, and four times a transposed convolution that
    doubles it and a block that sees what was there on the way down. A block is twice a convolution of length 3 without bias, batch
    norm and tanh. A side that 16 does not divide is continued by its outermost values, and the output cut back.

    Args:
        input_shape: (C, L) or (C, H, W).
        out_channels: Cout.
        width: channels of the first level; each level has twice those of the one above it.
        norm: "batch", which is PDEBench's, or "group", which looks at each sample alone, in eight groups of channels.
    """

    def __init__(self, input_shape: tuple[int, ...], out_channels: int, width: int, norm: str) -> None:
        super().__init__()
        ndim = len(input_shape) - 1
        convolution, up, self.pool = (
            (nn.Conv1d, nn.ConvTranspose1d, nn.MaxPool1d(2)),
            (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d(2)),
        )[ndim - 1]

        def block(before: int, after: int) -> nn.Sequential:
            parts = []
            for channels in (before, after):
                batch = nn.BatchNorm1d if ndim == 1 else nn.BatchNorm2d
                parts += [
                    convolution(channels, after, 3, padding=1, bias=False),
                    batch(after) if norm == "batch" else nn.GroupNorm(GROUPS, after),
                    nn.Tanh(),
                ]
            return nn.Sequential(*parts)

        widths = [width * 2**level for level in range(LEVELS + 1)]
        self.down = nn.ModuleList(map(block, [input_shape[0], *widths[:-2]], widths[:-1]))
        self.bottom = block(widths[-2], widths[-1])
        self.up = nn.ModuleList(up(2 * here, here, 2, stride=2) for here in reversed(widths[:-1]))
        self.joined = nn.ModuleList(block(2 * here, here) for here in reversed(widths[:-1]))
        self.head = convolution(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        grid, levels = x.shape[2:], []
        missing = [max(-size % 2**LEVELS, SMALLEST - size) for size in reversed(grid)]
        before = [count // 2 for count in missing]
        x = F.pad(
            x,
            [side for one, count in zip(before, missing, strict=True) for side in (one, count - one)],
            mode="replicate",
        )
        for block in self.down:
            levels.append(block(x))
            x = self.pool(levels[-1])
        x = self.bottom(x)
        for up, block, level in zip(self.up, self.joined, reversed(levels), strict=True):
            x = block(torch.cat([up(x), level], dim=1))
        for axis, (one, size) in enumerate(zip(reversed(before), grid, strict=True), 2):
            x = x.narrow(axis, one, size)
        return self.head(x)
