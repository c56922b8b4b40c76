"""Series as images, for encoders that were pretrained on images."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossmodal.models.embedders import resize

LEAST = 1e-4  # of a spectrogram's greatest magnitude: 80 dB below it


class SeriesImages(nn.Module):
    """Draws series ``(B, C, L)`` as images ``(B * images, colours, H, W)`` in the encoder's own scale; nothing is learned here.

    ``pieces`` (after TiViT, Roschmann et al., 2025): pieces of sqrt(L) steps, each overlapping the next by half, are the rows.
    ``spectrogram``: the logarithm of the magnitude of a short-time Fourier transform (Hann window of 2 sqrt(L) steps, hops of a
    quarter of it), frequencies from top to bottom, time from left to right.

    The values of each image are brought to [0, 1] by its least and greatest, then raised to the power 0.8.
    A robust scaling before that, which TiViT has, would be undone by it. Sides that grow repeat values (nearest
    neighbour), sides that shrink average them, so that no step of a long series is passed over.

    Args:
        input_shape: ``(C, L)``.
        image_size: ``(H, W)``.
        series: what is drawn.
        channels: ``images``: each channel is a grey image of its own; ``colours``: together they are one, of C colours, which
            take the statistics of red, green, blue, red, ... in turn. A single channel is a grey image in either case.
        mean, std: statistics of the pretrained model's colours, by which images are normalised.

    Attributes:
        images: images of a sample.
        colours: channels of an image, all the same where it is grey.
    """

    def __init__(
        self,
        input_shape: tuple[int, int],
        image_size: tuple[int, int],
        *,
        series: Literal["pieces", "spectrogram"],
        channels: Literal["images", "colours"],
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        count, self.length = input_shape
        self.image_size, self.series = tuple(image_size), series
        self.grey = channels == "images" or count == 1
        self.images, self.colours = (count, len(mean)) if self.grey else (1, count)
        self.axes = (-2, -1) if self.grey else (-3, -2, -1)  # of an image, before its grey is repeated
        for name, values in (("mean", mean), ("std", std)):
            turns = torch.tensor([values[colour % len(values)] for colour in range(self.colours)])
            self.register_buffer(name, turns.view(-1, 1, 1), persistent=False)
        width = math.isqrt(self.length)
        starts = torch.arange(0, max(1, self.length - width // 2), max(1, width // 2))
        # The last piece may reach beyond the end, and repeats the last value there.
        steps = (starts[:, None] + torch.arange(width)).clamp_max(self.length - 1)
        self.register_buffer("steps", steps, persistent=False)  # of each value of the pieces

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        grid = x[..., self.steps] if self.series == "pieces" else self._spectrogram(x)
        low, high = grid.amin(self.axes, keepdim=True), grid.amax(self.axes, keepdim=True)
        smallest = torch.finfo(grid.dtype).tiny
        # Clamped, since the derivative of the power has no limit at 0.
        grid = ((grid - low) / (high - low).clamp_min(smallest)).clamp_min(1e-6).pow(0.8)
        grid = F.adaptive_avg_pool2d(grid, [min(pair) for pair in zip(grid.shape[-2:], self.image_size, strict=True)])
        images = F.interpolate(grid, self.image_size, mode="nearest-exact")
        if self.grey:
            images = images.view(-1, 1, *self.image_size).expand(-1, self.colours, -1, -1)
        return (images - self.mean) / self.std

    def restore(self, field: Tensor) -> Tensor:
        """Series ``(B, Cout, L)`` of a field over the images ``(B, Cout, H, W)``: each step is the mean of the places where it was
        drawn, or of a spectrogram that of the frequencies at its time."""
        if self.series == "spectrogram":
            return resize(field.mean(2), (self.length,))
        rows, width = self.steps.shape
        hop = max(1, width // 2)
        fold = partial(F.fold, output_size=(1, (rows - 1) * hop + width), kernel_size=(1, width), stride=(1, hop))
        values = resize(field, (rows, width)).transpose(2, 3)
        sums, counts = fold(values.flatten(1, 2)), fold(values.new_ones(1, width, rows))
        return (sums / counts)[:, :, 0, : self.length]

    def _spectrogram(self, x: Tensor) -> Tensor:
        window = 2 * math.isqrt(self.length)
        spectrum = torch.stft(
            (x - x.mean(-1, keepdim=True)).flatten(0, 1),
            window,
            hop_length=max(1, window // 4),
            window=torch.hann_window(window, device=x.device),
            pad_mode="constant",
            return_complex=True,
        )
        magnitude = spectrum.abs().unflatten(0, x.shape[:2])
        return (magnitude / magnitude.amax(self.axes, keepdim=True).clamp_min(1e-12)).clamp_min(LEAST).log()
