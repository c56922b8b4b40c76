"""What predicts without looking, or by looking at what is known already: what every method has to beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crossmodal.models.base import Model


class Constant(Model, name="constant"):
    """The same outputs (B, ...) whatever the sample.

    Args:
        output_shape: (K,), or (Cout, *grid).
    """

    def __init__(self, output_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.output = nn.Parameter(torch.zeros(output_shape), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.output.expand(len(x), *self.output.shape).clone()


class Copy(Model, name="copy"):
    """The last channels of a sample (B, C, *grid), which are its last frame, as normalised outputs (B, Cout, *grid).

    Args:
        scale_shape: of one scale and shift from normalised inputs to normalised outputs, (Cout, ...), broadcastable to an output.
    """

    def __init__(self, scale_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(scale_shape), requires_grad=False)
        self.shift = nn.Parameter(torch.zeros(scale_shape), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, -len(self.scale) :] * self.scale + self.shift
