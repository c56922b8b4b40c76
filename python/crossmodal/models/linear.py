"""One linear map on the values of a sample."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from crossmodal.models.base import Model


class Linear(Model, name="linear"):
    """Outputs (B, K) of samples (B, *input_shape), flattened.

    Args:
        input_shape: (C, L) or (C, H, W).
        num_outputs: K.
        called: what fitted it, for tables.
    """

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, called: str) -> None:
        super().__init__()
        self.input_shape, self.called = tuple(input_shape), called
        self.linear = nn.Linear(math.prod(input_shape), num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))

    def spec(self) -> dict[str, Any]:
        return {
            "input_shape": list(self.input_shape),
            "num_outputs": self.linear.out_features,
            "called": self.called,
        }

    def facts(self) -> dict[str, Any]:
        return {"called": self.called}
