"""What DeepSEA learns by, beside the task's loss."""

from __future__ import annotations

from torch import Tensor, nn

from crossmodal.data.dataset import Batch
from crossmodal.training.objective import Objective, Position

SPARSITY = 1e-8  # of DeepSEA's units, by their absolute values


class Sparse(Objective):
    """The task's loss and the absolute values of DeepSEA's units."""

    def losses(self, model: nn.Module, batch: Batch, position: Position) -> dict[str, Tensor]:
        """See `Objective.losses`."""
        units = model.units(batch.x)
        return {"loss": self.task_loss(model.head(units), batch) + SPARSITY * units.float().abs().sum(1)}
