"""Embedders: cut a sample of any modality into patches and map each patch to a token of a pretrained encoder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossmodal.errors import UserError

if TYPE_CHECKING:
    from crossmodal.models.series_images import SeriesImages

DEFAULT_TARGET_TOKENS = 64


def default_patch_size(size: tuple[int, ...], target_tokens: int) -> tuple[int, ...]:
    """Patch size that cuts ``size`` into at most ``target_tokens`` patches.

    One axis: the smallest divisor ``s`` of ``L`` with ``L / s <= target_tokens``, the rule of ORCA and PaRe. Where that
    is more than twice as coarse as needed (a prime ``L`` would leave a single token), ``ceil(L / target_tokens)``;
    the last patch is then zero-padded. Two axes: the same rule for a square patch, with common divisors of H and W.

    Args:
        size: ``(L,)`` or ``(H, W)``.
        target_tokens: most tokens wanted.

    Returns:
        Patch size per axis, same length as ``size``.
    """
    finest = next(s for s in range(1, max(size) + 1) if math.prod(-(-length // s) for length in size) <= target_tokens)
    exact = next((s for s in range(finest, 2 * finest + 1) if all(length % s == 0 for length in size)), finest)
    return (exact,) * len(size)


def tile_channels(weight: Tensor, channels: int) -> Tensor:
    """Repeat a patch kernel ``(D, C0, *patch)`` along its input channels, cut to ``channels``: R, G, B, R, G, ...

    The kernel is not rescaled by the number of channels, as in PaRe.
    """
    copies = -(-channels // weight.shape[1])
    return weight.repeat(1, copies, *(1,) * (weight.ndim - 2))[:, :channels]


def resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize ``(B, C, L)`` or ``(B, C, H, W)`` to ``size`` by antialiased (bi)linear interpolation; dtype is kept."""
    if x.shape[2:] == size:
        return x
    # torch antialiases only 4-d tensors, on the CPU only in float32 and float64.
    image = x.unsqueeze(2) if len(size) == 1 else x
    image = image.to(torch.promote_types(x.dtype, torch.float32))
    image = F.interpolate(image, size=(1, *size)[-2:], mode="bilinear", antialias=True)
    return (image.squeeze(2) if len(size) == 1 else image).to(x.dtype)


class PatchEmbedder(nn.Module):
    """Patchify by a convolution whose stride is its kernel, then LayerNorm and position embeddings.

    Sizes that the patch does not divide are zero-padded at the end (right, bottom). Tokens are in row-major order.
    The projection starts as torch starts a convolution, with a bias: under a LayerNorm a zero bias would leave of each
    patch its direction alone and lose its amplitude. The position embeddings start at zero. Encoders overwrite what their
    pretrained embedding offers.

    Args:
        input_shape: ``(C, L)`` or ``(C, H, W)`` of one sample.
        width: token width D.
        patch_size: patch length per axis.
        image_size: ``(H, W)`` to which samples are resized first (antialiased bilinear); None keeps their size.
        imaging: what draws series as images of ``image_size`` first; the tokens of a sample are those of its images, one image
            after the other, with the same positions in each.
        norm_eps: epsilon of the LayerNorm; None leaves the LayerNorm out.
        positions: whether learned position embeddings are added.

    Attributes:
        grid: patches per axis of a sample, or of one of its images.
        images: images of a sample that is drawn; else 1.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int,
        patch_size: tuple[int, ...],
        *,
        image_size: tuple[int, int] | None = None,
        imaging: SeriesImages | None = None,
        norm_eps: float | None = None,
        positions: bool = True,
    ) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.image_size = image_size
        self.imaging = imaging
        self.images, channels = (1, input_shape[0]) if imaging is None else (imaging.images, imaging.colours)
        self.patch_size = tuple(patch_size)
        canvas = self.canvas_size
        self.grid = tuple(-(-length // patch) for length, patch in zip(canvas, self.patch_size, strict=True))
        convolution = nn.Conv1d if len(canvas) == 1 else nn.Conv2d
        self.projection = convolution(channels, width, kernel_size=self.patch_size, stride=self.patch_size)
        self.norm = nn.Identity() if norm_eps is None else nn.LayerNorm(width, eps=norm_eps)
        self.position_embeddings = nn.Parameter(torch.zeros(math.prod(self.grid), width)) if positions else None

    @property
    def canvas_size(self) -> tuple[int, ...]:
        """``(L,)`` or ``(H, W)`` of what is cut into patches, before padding."""
        return self.image_size or self.input_shape[1:]

    @property
    def num_tokens(self) -> int:
        return self.images * math.prod(self.grid)

    def forward(self, x: Tensor) -> Tensor:
        """Embed samples ``(B, *input_shape)`` as tokens ``(B, N, D)``.

        Raises:
            UserError: if the samples have another shape than this embedder was built for.
        """
        if x.shape[1:] != self.input_shape:
            raise UserError(f"x must have shape (B, {', '.join(map(str, self.input_shape))}), got {tuple(x.shape)}")
        if self.imaging is not None:
            x = self.imaging(x)
        x = x.to(self.projection.weight.dtype)
        x = resize(x, self.canvas_size)
        padding = []
        for length, patch, cells in zip(self.canvas_size, self.patch_size, self.grid, strict=True):
            padding = [0, cells * patch - length, *padding]  # F.pad counts from the last axis
        tokens = self.projection(F.pad(x, padding)).flatten(2).transpose(1, 2)
        tokens = self.norm(tokens)
        if self.position_embeddings is not None:
            tokens = tokens + self.position_embeddings
        return tokens.reshape(-1, self.num_tokens, tokens.shape[2])

    def sheet(self, x: Tensor) -> Tensor:
        """What is cut into patches, for pictures: samples as they are, or their images one below the other."""
        if self.imaging is None:
            return x
        images = self.imaging(x.to(self.projection.weight.device)).to(x.device)
        return torch.cat(images.unflatten(0, (len(x), -1)).unbind(1), dim=2)

    def restore(self, field: Tensor, size: tuple[int, ...]) -> Tensor:
        """A field over the canvas, ``(B, Cout, *canvas_size)``, as one over the axes of the input, ``(B, Cout, *size)``."""
        return resize(field if self.imaging is None else self.imaging.restore(field), size)
