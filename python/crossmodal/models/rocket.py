"""Random convolutional kernels and a linear map of what they find: ROCKET (Dempster et al., DMKD 2020)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossmodal.models.base import Model

LENGTHS = (7, 9, 11)
MOST_VALUES = 2**22  # that are held at a time: 16 MiB of windows, and as much of what the kernels make of them


class Rocket(Model, name="rocket"):
    """Outputs (B, K) of series (B, C, L).

    Series are taken as they come, z-scored over the training samples: to scale each by itself, as those of the archive on which
    the method was published are, would take away what level and amplitude say (of japanese_vowels 82 % of the test samples in
    place of 99 % are then told right).

    Kernels are drawn as in the paper: length 7, 9 or 11, weights normal with their mean taken off, bias uniform in [-1, 1],
    dilation log-uniform up to the length of the series, padding for every other one. Of several channels a kernel takes some at
    random, log-uniform in number, with weights for each. A kernel gives two features: the share of positive values (PPV) and the
    greatest.

    Args:
        input_shape: (C, L).
        num_outputs: K.
        kernels: how many, drawn with torch's generator.

    Attributes:
        mean, std: of the features (2 * kernels,), by which they are standardised.
        linear: the map that is fitted.
    """

    def __init__(self, input_shape: tuple[int, int], num_outputs: int, kernels: int) -> None:
        super().__init__()
        self.input_shape = channels, length = tuple(input_shape)
        candidates = torch.tensor([one for one in LENGTHS if one <= length] or [length])
        lengths = candidates[torch.randint(len(candidates), (kernels,))]
        counts = 2 ** (torch.rand(kernels) * (lengths.clamp_max(channels) + 1).log2())
        most = min(channels, int(lengths.max()))
        taken = torch.arange(most) < counts.int()[:, None]
        present = (torch.arange(int(lengths.max())) < lengths[:, None])[:, None] & taken[:, :, None]
        weight = torch.randn(present.shape) * present
        weight -= present * weight.sum(2, keepdim=True) / lengths[:, None, None]
        furthest = (length - 1) / (lengths - 1).clamp_min(1)
        dilation = (2 ** (torch.rand(kernels) * furthest.clamp_min(1).log2())).long()
        padding = (lengths - 1) * dilation // 2 * (torch.rand(kernels) < 0.5)
        self.register_buffer("shape", torch.stack([lengths, dilation, padding], dim=1))
        self.register_buffer("channel", torch.rand(kernels, channels).argsort(1)[:, :most].contiguous())
        self.register_buffer("weight", weight)
        self.register_buffer("bias", torch.rand(kernels) * 2 - 1)
        self.register_buffer("mean", torch.zeros(2 * kernels))
        self.register_buffer("std", torch.ones(2 * kernels))
        self.linear = nn.Linear(2 * kernels, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear((self.features(x) - self.mean) / self.std)

    def features(self, x: Tensor) -> Tensor:
        """PPV of every kernel, then the greatest value of each: (B, 2 * kernels)."""
        samples = max(1, MOST_VALUES // (max(LENGTHS) * math.prod(self.input_shape)))
        return torch.cat([self._found(some) for some in x.split(samples)])

    def _found(self, x: Tensor) -> Tensor:
        found = x.new_empty(len(x), 2, len(self.bias))
        for rows, dilation, padding, weight in self._groups(max(1, MOST_VALUES // (len(x) * self.input_shape[1]))):
            # Not conv1d: oneDNN compiles and keeps a program of up to 1 MiB for each of the hundreds of shapes.
            kernels, channels, length = weight.shape
            padded = F.pad(x, (padding, padding))
            steps = padded.shape[-1] - (length - 1) * dilation
            windows = padded.as_strided((len(x), channels, length, steps), (*padded.stride()[:2], dilation, 1))
            windows = windows.reshape(len(x), channels * length, steps)
            weights = weight.reshape(1, kernels, -1).expand(len(x), -1, -1)
            values = torch.baddbmm(self.bias[rows, None], weights, windows)
            found[:, 0, rows] = (values > 0).to(x.dtype).mean(-1)
            found[:, 1, rows] = values.amax(-1)
        return found.flatten(1)

    def _groups(self, most: int) -> Iterator[tuple[Tensor, int, int, Tensor]]:
        """Kernels of one shape, at most so many at a time: which, dilation, padding, weights (kernels, C, length)."""
        shapes, of = self.shape.unique(dim=0, return_inverse=True)
        for number, (length, dilation, padding) in enumerate(shapes.tolist()):
            for rows in (of == number).nonzero()[:, 0].split(most):
                weight = self.weight.new_zeros(len(rows), self.input_shape[0], length)
                weight[torch.arange(len(rows), device=rows.device)[:, None], self.channel[rows]] = self.weight[
                    rows, :, :length
                ]
                yield rows, dilation, padding, weight
