"""Heads: from the features of an encoder to the outputs of a task."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from crossmodal.errors import UserError
from crossmodal.models.embedders import resize


class PooledHead(nn.Module):
    """Mean over the tokens, then a linear map: features ``(B, N, F)`` to ``(B, num_outputs)``."""

    def __init__(self, feature_width: int, num_outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_width, num_outputs)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features.mean(dim=1))


class DenseHead(nn.Module):
    """A linear map from each token to the values of its patch, folded back to the input's axes, 1D or 2D.

    The fold (a pixel shuffle) gives a map over the encoder's canvas; what covers only zero padding is cropped, and the
    map is brought to the size of the output where that is another than the canvas's, as with images that the encoder
    resizes.

    Args:
        feature_width: F.
        output_shape: ``(C_out, L)`` or ``(C_out, H, W)``.
        grid: tokens per axis, N in all, row-major.
        stride: canvas values per token and axis.
        canvas_size: size per axis of the canvas, at most ``grid * stride``.
        restore: brings a map ``(B, C_out, *canvas_size)`` to a size; antialiased (bi)linear by default.

    Raises:
        UserError: if the numbers of axes differ.
    """

    def __init__(
        self,
        feature_width: int,
        output_shape: tuple[int, ...],
        *,
        grid: tuple[int, ...],
        stride: tuple[int, ...],
        canvas_size: tuple[int, ...],
        restore: Callable[[Tensor, tuple[int, ...]], Tensor] = resize,
    ) -> None:
        super().__init__()
        if restore is resize and len(output_shape) != len(grid) + 1:
            raise UserError(
                f"output_shape must have a channel axis and {len(grid)} more, like the input, got {tuple(output_shape)}"
            )
        self.output_shape = tuple(output_shape)
        self.grid = tuple(grid)
        self.stride = tuple(stride)
        self.canvas_size = tuple(canvas_size)
        self.restore = restore
        self._build(feature_width)

    @property
    def last(self) -> nn.Module:
        """The layer that gives the outputs."""
        return self.linear

    def _build(self, feature_width: int) -> None:
        self.linear = nn.Linear(feature_width, self.output_shape[0] * math.prod(self.stride))

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``(B, N, F)`` to ``(B, *output_shape)``."""
        out = self._field(features)
        for axis, length in enumerate(self.canvas_size):
            out = out.narrow(2 + axis, 0, length)
        return self.restore(out, self.output_shape[1:])

    def _field(self, features: Tensor) -> Tensor:
        """A map ``(B, C_out, *cells)`` over the padded canvas, `stride` values per token and axis."""
        batch, axes = len(features), len(self.grid)
        patches = self.linear(features).view(batch, *self.grid, self.output_shape[0], *self.stride)
        # (B, grid..., C, stride...) -> (B, C, grid_0, stride_0, grid_1, stride_1)
        order = [0, axes + 1]
        for axis in range(axes):
            order += [1 + axis, axes + 2 + axis]
        return patches.permute(order).reshape(batch, self.output_shape[0], *self._cells)

    @property
    def _cells(self) -> tuple[int, ...]:
        return tuple(cells * stride for cells, stride in zip(self.grid, self.stride, strict=True))


class UpsamplingHead(DenseHead):
    """A decoder in the place of the linear map: the map of tokens grows about twofold from stage to stage, up to the canvas.

    A stage is linear interpolation, a convolution over three cells along each axis, GroupNorm and GELU; its width is half of
    that before, from 256 to no less than 16. Unlike under the linear map, neighbouring tokens see each other, so that patches
    have no seams. There is one stage at least. Arguments are those of :class:`DenseHead`.
    """

    WIDEST, NARROWEST, GROUPS = 256, 16, 8

    def _build(self, feature_width: int) -> None:
        stages = max(1, math.ceil(math.log2(max(self.stride))))
        # From grid to canvas by equal factors: 7, 14, 28, ... 224 for Swin; any stride has its own.
        self.sizes = [
            tuple(
                round(cells * stride ** (stage / stages)) for cells, stride in zip(self.grid, self.stride, strict=True)
            )
            for stage in range(1, stages + 1)
        ]
        convolution = nn.Conv1d if len(self.grid) == 1 else nn.Conv2d
        width = self.WIDEST
        self.narrow = convolution(feature_width, width, 1)
        self.stages = nn.ModuleList()
        for _ in range(stages):
            before, width = width, max(width // 2, self.NARROWEST)
            self.stages.append(
                nn.Sequential(convolution(before, width, 3, padding=1), nn.GroupNorm(self.GROUPS, width), nn.GELU())
            )
        self.out = convolution(width, self.output_shape[0], 1)

    @property
    def last(self) -> nn.Module:
        return self.out

    def _field(self, features: Tensor) -> Tensor:
        field = self.narrow(features.transpose(1, 2).unflatten(2, self.grid))
        for size, stage in zip(self.sizes, self.stages, strict=True):
            field = stage(F.interpolate(field, size, mode="linear" if len(size) == 1 else "bilinear"))
        return self.out(field)


DENSE_HEADS = {"linear": DenseHead, "upsampling": UpsamplingHead}
