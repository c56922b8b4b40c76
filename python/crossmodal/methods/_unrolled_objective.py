"""Whole trajectories that a model predicts from their first frames on, and what is minimised over them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crossmodal.data.dataset import ArrayDataset, Batch
from crossmodal.errors import UserError
from crossmodal.methods._unrolled import Unrolling
from crossmodal.training.objective import Objective, Position


class Trajectories:
    """The trajectories that a training part's single steps are cut from: x, the first of their samples; y, all frames after it,
    (B, T * C, ...).

    Args:
        steps: a part whose groups are trajectories, rows of one group in the order of time.
        task: gives its name and the scales of samples.

    Raises:
        UserError: there are no groups, or they are not all that.
    """

    def __init__(self, steps: ArrayDataset, task) -> None:
        self.steps, self.fingerprint = steps, steps.fingerprint
        group = steps.extra("group")
        groups, counts = torch.unique_consecutive(torch.arange(1) if group is None else group, return_counts=True)
        self.length = int(counts[0])
        whole = group is not None and bool((counts == self.length).all()) and len(groups.unique()) == len(groups)
        if whole:
            first = steps.read(torch.arange(self.length))
            follows = task.normalizer.following(first.x[:-1], first.y[:-1])
            whole = torch.allclose(follows, first.x[1:], atol=1e-3)
        if not whole:
            raise UserError(f"learn: {task.title} has no whole trajectories to learn from here; take `steps`")
        self._first = torch.arange(len(groups)) * self.length

    def __len__(self) -> int:
        return len(self._first)

    def read(self, rows: Tensor, seeds: Tensor | None = None) -> Batch:
        """See `Dataset.read`."""
        first = self._first[rows]
        frames = self.steps.read((first[:, None] + torch.arange(self.length)).flatten()).y
        batch = self.steps.read(first, seeds)
        return Batch(batch.x, frames.reshape(len(rows), -1, *frames.shape[2:]), rows, batch.weight, batch.extras)


class UnrolledObjective(Objective):
    """The task's loss of the last frames of a roll-out; the gradient goes through these (the push-forward of PDEBench, after
    Brandstetter et al., ICLR 2022)."""

    def __init__(self, task, options: Unrolling, summed: bool) -> None:
        super().__init__(task)
        self.channels, self.unroll, self.summed = task.num_outputs, options.unroll, summed

    def losses(self, model: nn.Module, batch: Batch, position: Position) -> dict[str, Tensor]:
        """See `Objective.losses`."""
        x, steps = batch.x, batch.y.shape[1] // self.channels
        scored = min(steps, self.unroll or steps)
        frames = []
        for step in range(steps):
            with torch.set_grad_enabled(step >= steps - scored):
                frames.append(model(x))
            if step < steps - 1:
                x = self.normalizer.following(x, frames[-1])
        target = batch.y[:, -scored * self.channels :]
        asked = Batch(batch.x, target, batch.index, batch.weight)
        loss = self.task_loss(torch.cat(frames[-scored:], dim=1), asked)
        return {"loss": scored * loss if self.summed else loss}
