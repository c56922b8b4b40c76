"""Training on windows of large fields: networks that keep the grid of the input learn as much from a part of it, at less cost."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from crossmodal.data.dataset import Batch
from crossmodal.scoring import losses
from crossmodal.training.objective import Objective, Position

SIDE = 128  # of a window


class Windows(Objective):
    """The task's loss; of dense targets whose sides are twice 128 and more on one random window of a batch, 128 along each axis.

    Not where the loss is one of whole fields in their own units. Predictions are of whole fields.
    """

    def __init__(self, task) -> None:
        super().__init__(task)
        large = task.kind == "dense" and min(task.input_shape[1:]) >= 2 * SIDE
        self.side = SIDE if large and not losses.get(task.loss).physical else None

    def losses(self, model: nn.Module, batch: Batch, position: Position) -> dict[str, Tensor]:
        return super().losses(model, self.window(batch), position)

    def window(self, batch: Batch) -> Batch:
        """The batch, or a window of it, drawn with torch's generator."""
        if self.side is None:
            return batch
        grid = batch.x.shape[2:]
        starts = [int(torch.randint(size - self.side + 1, ())) for size in grid]
        part = (..., *[slice(start, start + self.side) for start in starts])
        extras = {name: one[part] if name == "mask" else one for name, one in batch.extras.items()}
        return replace(batch, x=batch.x[part], y=batch.y[part], extras=extras)
