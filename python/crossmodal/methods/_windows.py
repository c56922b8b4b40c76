"""Training on windows of large fields: networks that keep the grid of the input learn as much from a part of it, at less cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from crossmodal.data.dataset import Batch
from crossmodal.scoring import losses
from crossmodal.training.objective import Objective, Position

SIDE = 128  # of a window


class Windows(Objective):
    """The task's loss; of dense targets whose sides are twice `side` and more on a window of each sample, each epoch another.

    Not where the loss is one of whole fields in their own units. Predictions are of whole fields.

    Args:
        task: see `Objective`.
        side: of a window, along each axis.
    """

    def __init__(self, task, side: int = SIDE) -> None:
        super().__init__(task)
        large = task.kind == "dense" and min(task.input_shape[1:]) >= 2 * side
        self.side = side if large and not losses.get(task.loss).physical else None

    def learned_from(self, batch: Batch, position: Position) -> Batch:
        """A window of each sample, the same part of input (B, C, *grid), target and mask; or the batch, where there are none.

        With a mask it begins where values that count begin, or between there and where it would reach over their end: padding
        teaches nothing.
        """
        if self.side is None:
            return batch
        mask = batch.extras.get("mask")
        given = {"x": batch.x, "y": batch.y} | ({} if mask is None else {"mask": mask})
        parts: dict[str, list[Tensor]] = {name: [] for name in given}
        for row, number in enumerate(batch.index.tolist()):
            # By sample and epoch: the same window whatever batch and process it falls to.
            draws, part = np.random.default_rng((position.seed, position.epoch, number)), []
            for axis, size in enumerate(batch.x.shape[2:]):
                first, last = 0, size
                if mask is not None and mask[row].any():
                    counts = mask[row].any(0).nonzero()[:, axis]
                    first, last = int(counts.min()), int(counts.max()) + 1
                start = int(draws.integers(first, max(first, last - self.side) + 1))
                start = min(start, size - self.side)
                part.append(slice(start, start + self.side))
            for name, values in given.items():
                parts[name].append(values[(row, slice(None), *part)])
        found = {name: torch.stack(values) for name, values in parts.items()}
        extras = batch.extras | ({} if mask is None else {"mask": found["mask"]})
        return replace(batch, x=found["x"], y=found["y"], extras=extras)
