"""Heads: from the features of an encoder to the outputs of a task."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from crossmodal.errors import UserError
from crossmodal.models.embedders import resize

POOLED_KINDS = ("classification", "multilabel", "regression")


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
        self.linear = nn.Linear(feature_width, self.output_shape[0] * math.prod(self.stride))

    def forward(self, features: Tensor) -> Tensor:
        """Map features ``(B, N, F)`` to ``(B, *output_shape)``."""
        batch, axes = len(features), len(self.grid)
        patches = self.linear(features).view(batch, *self.grid, self.output_shape[0], *self.stride)
        # (B, grid..., C, stride...) -> (B, C, grid_0, stride_0, grid_1, stride_1)
        order = [0, axes + 1]
        for axis in range(axes):
            order += [1 + axis, axes + 2 + axis]
        cells = [cells * stride for cells, stride in zip(self.grid, self.stride, strict=True)]
        out = patches.permute(order).reshape(batch, self.output_shape[0], *cells)
        for axis, length in enumerate(self.canvas_size):
            out = out.narrow(2 + axis, 0, length)
        return self.restore(out, self.output_shape[1:])


def build_head(
    kind: str,
    feature_width: int,
    num_outputs: int,
    *,
    output_shape: tuple[int, ...] | None = None,
    grid: tuple[int, ...],
    stride: tuple[int, ...],
    canvas_size: tuple[int, ...],
    restore: Callable[[Tensor, tuple[int, ...]], Tensor] = resize,
) -> nn.Module:
    """Head for a kind of target: mean pooling and a linear map, or a :class:`DenseHead` for ``"dense"``.

    Args:
        kind: ``"classification"``, ``"multilabel"``, ``"regression"`` or ``"dense"``.
        feature_width: F.
        num_outputs: classes, labels, values, or channels of a dense output.
        output_shape: dense only: ``(num_outputs, L)`` or ``(num_outputs, H, W)``.
        grid, stride, canvas_size, restore: see :class:`DenseHead`; unused otherwise.

    Raises:
        UserError: unknown ``kind``, or a dense head without a fitting ``output_shape``.
    """
    if num_outputs < 1:
        raise UserError(f"num_outputs must be at least 1, got {num_outputs}")
    if kind in POOLED_KINDS:
        return PooledHead(feature_width, num_outputs)
    if kind != "dense":
        raise UserError(f"kind must be one of {(*POOLED_KINDS, 'dense')}, got {kind!r}")
    if output_shape is None or output_shape[0] != num_outputs:
        raise UserError(f"output_shape of a dense head must start with num_outputs={num_outputs}, got {output_shape}")
    return DenseHead(feature_width, output_shape, grid=grid, stride=stride, canvas_size=canvas_size, restore=restore)
