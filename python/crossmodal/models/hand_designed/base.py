"""What the networks share."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from crossmodal.models.base import Model


class Specialist(Model, name="specialist"):
    """A network that is rebuilt from the shape of its samples and the number of its outputs.

    Args:
        input_shape: (C, L) or (C, H, W).
        num_outputs: classes, labels, values, or channels of a field.
        more: what else its constructor takes, as JSON values.
    """

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, **more: Any) -> None:
        super().__init__()
        self._spec = {"input_shape": list(input_shape), "num_outputs": num_outputs, **more}

    def spec(self) -> dict[str, Any]:
        return self._spec


class _OneValue:
    """Batch norm that goes by its running statistics where a channel has one value, of which there is no deviation: the last
    batch of an epoch may hold a single sample."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


class BatchNorm1d(_OneValue, nn.BatchNorm1d):
    pass


class BatchNorm2d(_OneValue, nn.BatchNorm2d):
    pass


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a model looks at the other samples of a batch."""
    return any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in model.modules())
