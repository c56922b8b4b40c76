"""What two of the specialists learn by, beside the task's loss."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from crossmodal.data.dataset import Batch
from crossmodal.methods._windows import windows
from crossmodal.training.objective import Objective, Position

SPARSITY = 1e-8  # of DeepSEA's units, by their absolute values


class Sparse(Objective):
    """The task's loss and the absolute values of DeepSEA's units."""

    def losses(self, model: nn.Module, batch: Batch, position: Position) -> dict[str, Tensor]:
        """See `Objective.losses`."""
        units = model.units(batch.x)
        return {"loss": self.task_loss(model.head(units), batch) + SPARSITY * units.float().abs().sum(1)}


class Cropped(Objective):
    """The task's loss of square pieces of fields, from another place in each epoch; see `windows`.

    Args:
        side: of the pieces, at most.
    """

    def __init__(self, task, side: int) -> None:
        super().__init__(task)
        self.side = side

    def losses(self, model: nn.Module, batch: Batch, position: Position) -> dict[str, Tensor]:
        """See `Objective.losses`."""
        # By sample and epoch: the same piece whatever batch and process it falls to.
        draws = [np.random.default_rng((position.seed, position.epoch, number)) for number in batch.index.tolist()]
        piece = windows(batch, self.side, lambda row, first, last: int(draws[row].integers(first, last + 1)))
        return {"loss": self.task_loss(model(piece.x), piece)}
