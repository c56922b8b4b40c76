"""DeepSEA's network for DNA (Zhou and Troyanskaya, Nature Methods 2015)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossmodal.models.base import Model

WIDTHS, KERNEL, DROPOUTS, HIDDEN = (320, 480, 960), 8, (0.2, 0.2, 0.5), 925
LONGEST = 0.9  # of a column of weights


class DeepSEA(Model, name="deepsea"):
    """Outputs (B, K) of series (B, C, L): three convolutions of length 8 with ReLU and dropout, a maximum over each four values
    after the first two, and two linear maps with 925 units between them; no biases.

    After each step of the optimizer no linear unit's weights are longer than 0.9, nor those of a convolution for one pair of
    channels (Keras' `MaxNorm(0.9)`, as the benchmark has it).

    Args:
        input_shape: (C, L).
        num_outputs: K.
    """

    def __init__(self, input_shape: tuple[int, int], num_outputs: int) -> None:
        super().__init__()
        channels, length = input_shape
        self.convolutions = nn.ModuleList()
        for width in WIDTHS:
            self.convolutions.append(nn.Conv1d(channels, width, KERNEL, bias=False))
            channels = width
        for _ in WIDTHS[1:]:
            length = -(-length // 4)
        self.hidden = nn.Linear(channels * length, HIDDEN, bias=False)
        self.head = nn.Linear(HIDDEN, num_outputs, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.units(x))

    def units(self, x: Tensor) -> Tensor:
        """The 925 units between the two linear maps, (B, 925)."""
        for number, (convolution, share) in enumerate(zip(self.convolutions, DROPOUTS, strict=True)):
            x = F.relu(convolution(F.pad(x, ((KERNEL - 1) // 2, KERNEL // 2))))
            if number < len(WIDTHS) - 1:
                x = F.max_pool1d(F.pad(x, (0, -x.shape[-1] % 4)), 4)  # of values that are not negative
            x = F.dropout(x, share, self.training)
        return F.relu(self.hidden(x.flatten(1)))

    @torch.no_grad()
    def constrain(self) -> None:
        for module in (*self.convolutions, self.hidden, self.head):
            weight = module.weight
            length = weight.norm(dim=-1, keepdim=True)
            weight.mul_(length.clamp_max(LONGEST) / length.clamp_min(1e-7))
