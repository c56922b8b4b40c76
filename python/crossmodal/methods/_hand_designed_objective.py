"""What two of the specialists learn by, beside the task's loss."""

from __future__ import annotations

import numpy as np
import torch
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


class Cropped(Objective):
    """The task's loss of square pieces of fields, from another place in each epoch.

    Of a sample with a mask a piece begins where values that count begin, or between there and where it would reach over their end.

    Args:
        side: of the pieces, at most.
    """

    def __init__(self, task, side: int) -> None:
        super().__init__(task)
        self.side = side

    def losses(self, model: nn.Module, batch: Batch, position: Position) -> dict[str, Tensor]:
        """See `Objective.losses`."""
        mask = batch.extras.get("mask")
        parts: dict[str, list[Tensor]] = {"x": [], "y": [], "mask": []}
        for row, number in enumerate(batch.index.tolist()):
            # By sample and epoch: the same piece whatever batch and process it falls to.
            generator = np.random.default_rng((position.seed, position.epoch, number))
            piece: list[int | slice] = [row]
            for axis, size in enumerate(batch.x.shape[2:]):
                first, last, side = 0, size, min(self.side, size)
                if mask is not None and mask[row].any():
                    counts = mask[row].any(0).any(1 - axis).nonzero()
                    first, last = int(counts[0]), int(counts[-1]) + 1
                start = min(int(generator.integers(first, max(first, last - side) + 1)), size - side)
                piece += [slice(start, start + side)]
            piece.insert(1, slice(None))
            for name, values in (("x", batch.x), ("y", batch.y), ("mask", mask)):
                if values is not None:
                    parts[name].append(values[tuple(piece)])
        extras = batch.extras | ({"mask": torch.stack(parts["mask"])} if mask is not None else {})
        cropped = Batch(torch.stack(parts["x"]), torch.stack(parts["y"]), batch.index, batch.weight, extras)
        return {"loss": self.task_loss(model(cropped.x), cropped)}
