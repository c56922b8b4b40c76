"""Training on windows of large fields: networks that keep the grid of the input learn as much from a part of it, at less cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from crossmodal.data.dataset import Batch
from crossmodal.scoring import losses
from crossmodal.training.objective import Objective, Position

SIDE = 128  # of a window


class Windows(Objective):
    """The task's loss; of dense targets whose sides are twice 128 and more on a random window of each sample, 128 along each axis.

    Not where the loss is one of whole fields in their own units. Predictions are of whole fields.
    """

    def __init__(self, task) -> None:
        super().__init__(task)
        large = task.kind == "dense" and min(task.input_shape[1:]) >= 2 * SIDE
        self.side = SIDE if large and not losses.get(task.loss).physical else None

    def losses(self, model: nn.Module, batch: Batch, position: Position) -> dict[str, Tensor]:
        return super().losses(model, self.window(batch), position)

    def window(self, batch: Batch) -> Batch:
        """The batch, or windows of it, drawn with torch's generator."""
        if self.side is None:
            return batch
        return windows(batch, self.side, lambda row, first, last: int(torch.randint(first, last + 1, ())))


def windows(batch: Batch, side: int, draw: Callable[[int, int, int], int]) -> Batch:
    """A window of each sample, the same part of input (B, C, *grid), target and mask.

    With a mask it begins where values that count begin, or between there and where it would reach over their end: padding
    teaches nothing.

    Args:
        side: along each axis, at most.
        draw: gives a whole number from `first` to `last`, both included, where a window of `row` begins.
    """
    mask = batch.extras.get("mask")
    given = {"x": batch.x, "y": batch.y} | ({} if mask is None else {"mask": mask})
    parts: dict[str, list[Tensor]] = {name: [] for name in given}
    for row in range(len(batch.x)):
        part = []
        for axis, size in enumerate(batch.x.shape[2:]):
            first, last, length = 0, size, min(side, size)
            if mask is not None and mask[row].any():
                counts = mask[row].any(0).nonzero()[:, axis]
                first, last = int(counts.min()), int(counts.max()) + 1
            start = min(draw(row, first, max(first, last - length)), size - length)
            part.append(slice(start, start + length))
        for name, values in given.items():
            parts[name].append(values[(row, slice(None), *part)])
    found = {name: torch.stack(values) for name, values in parts.items()}
    extras = batch.extras | ({} if mask is None else {"mask": found["mask"]})
    return replace(batch, x=found["x"], y=found["y"], extras=extras)
