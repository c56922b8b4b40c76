"""The Fourier neural operator (Li et al., ICLR 2021) of the package neuraloperator, for fields on a periodic grid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from crossmodal.errors import MissingPackage
from crossmodal.models.base import Model

PROJECTION = 128  # channels between the last layer and the output


class FNO(Model, name="fno"):
    """Fields (B, Cout, *grid) of fields (B, C, *grid); computed in float32 in any precision, since a spectrum needs it.

    Positions along each axis, from 0 to 1, go in as further channels, unless the samples hold them already.

    Args:
        input_shape: (C, L) or (C, H, W).
        out_channels: Cout.
        modes: Fourier modes kept along each axis, counted from the mean; all of them where the grid has no more.
        width: channels of the hidden fields.
        layers: Fourier layers.
        padding: cells of zeros around the hidden fields, on either side, for fields that are not periodic.
        positions: whether to add them.

    Raises:
        MissingPackage: neuraloperator is not installed.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        out_channels: int,
        modes: int,
        width: int,
        layers: int,
        padding: int = 0,
        positions: bool = True,
    ) -> None:
        try:
            from neuralop.models import FNO as Network
        except ImportError as error:
            raise MissingPackage("fno", "neuraloperator", "fno") from error
        super().__init__()
        channels, *grid = input_shape
        padded = [size + 2 * padding for size in grid]
        self.network = Network(
            # Frequencies of both signs, but along the last axis, where those of a real field are conjugate.
            n_modes=(*(min(2 * modes, size) for size in padded[:-1]), min(modes, padded[-1] // 2 + 1)),
            in_channels=channels + (len(grid) if positions else 0),
            out_channels=out_channels,
            hidden_channels=width,
            n_layers=layers,
            lifting_channel_ratio=0,
            projection_channel_ratio=(PROJECTION + 0.5) / width,  # the product is rounded down
            positional_embedding=None,  # its own stays on the device that it met first
            domain_padding=[padding / size for size in grid] if padding else None,
            use_channel_mlp=False,
            channel_mlp_skip=None,
            conv_module=SpectralConvolution,
        )
        places = torch.meshgrid(*(torch.arange(size) / size for size in grid), indexing="ij")
        self.register_buffer("positions", torch.stack(places) if positions else torch.zeros(0, *grid), persistent=False)
        self.register_state_dict_post_hook(_without_metadata)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.network(torch.cat([x.float(), self.positions.expand(len(x), *self.positions.shape)], dim=1))


def _without_metadata(module: nn.Module, state: dict[str, Any], prefix: str, local: Any) -> None:
    """The network's arguments, which neuraloperator puts among the tensors of its state."""
    state.pop("_metadata", None)


class SpectralConvolution(nn.Module):
    """A linear map of channels for each of the lowest Fourier modes; (B, in, *grid) to (B, out, *grid).

    It takes the place of neuraloperator's own, whose complex weights fused optimizers refuse, and which in 2.0.0 puts the
    frequencies of an odd number of rows back in the wrong place.

    Args:
        n_modes: frequencies kept along each axis; of the last one those that are not negative.
        unused: what neuraloperator hands to a convolution beside these.
    """

    def __init__(self, in_channels: int, out_channels: int, n_modes: tuple[int, ...], **unused: Any) -> None:
        super().__init__()
        self.n_modes = n_modes
        deviation = (in_channels + out_channels) ** -0.5
        self.real, self.imaginary = (
            nn.Parameter(deviation * torch.randn(in_channels, out_channels, *n_modes)) for _ in range(2)
        )
        self.bias = nn.Parameter(2**0.5 * deviation * torch.randn(out_channels, *[1] * len(n_modes)))

    def forward(self, x: Tensor, output_shape: None = None) -> Tensor:
        axes, grid = tuple(range(2, x.ndim)), x.shape[2:]
        rows = [
            torch.arange(-(count // 2), count - count // 2, device=x.device) % size
            for count, size in zip(self.n_modes[:-1], grid[:-1], strict=True)
        ]
        kept = (..., *rows, slice(self.n_modes[-1]))
        spectrum = torch.fft.rfftn(x, dim=axes, norm="forward")
        mapped = spectrum.new_zeros(len(x), len(self.bias), *spectrum.shape[2:])
        mapped[kept] = torch.einsum("bi...,io...->bo...", spectrum[kept], torch.complex(self.real, self.imaginary))
        if axes[:-1]:
            mapped = torch.fft.ifftn(mapped, dim=axes[:-1], norm="forward")
        # A real field has no imaginary part at the mean and at the highest frequency of an even grid. What a GPU makes of
        # one is undefined (pytorch issue 154496).
        mapped[..., 0].imag.zero_()
        if grid[-1] % 2 == 0:
            mapped[..., -1].imag.zero_()
        return torch.fft.irfft(mapped, grid[-1], norm="forward") + self.bias

    def transform(self, x: Tensor, output_shape: None = None) -> Tensor:
        """The field on the grid of the output, which is that of the input."""
        return x
