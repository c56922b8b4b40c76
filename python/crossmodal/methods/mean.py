"""The mean of the targets that were learned from, whatever the sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossmodal.methods.base import Method, register

if TYPE_CHECKING:
    from crossmodal.models.floors import Constant

LEAST = 1e-6  # share of a class or label that does not occur, so that logits are finite


@register
class MeanOfTargets(Method):
    """Of training and validation samples together, since no epoch is chosen; for fields at each place, of the values that count.
    For classes and labels (and masks) how often each occurs. In a roll-out every frame is the mean frame. The settings of training
    and encoder are not used.
    """

    name = "mean"
    description = "the mean of the training targets, whatever the sample: a floor"
    uses_encoder = False
    learns_validation = True
    seeded = False

    def build(self, task, config) -> Constant:
        from crossmodal.models.floors import Constant

        return Constant(task.output_shape)

    def fit(self, run) -> Constant:
        import torch

        task, model, size = run.task, run.model, run.config.loader.eval_batch_size
        total = torch.zeros(task.output_shape, dtype=torch.float64)
        count = torch.zeros_like(total)
        # The frames of a roll-out's validation part are many times those of one target.
        for part in (task.train,) if task.steps else (task.train, task.validation):
            for rows in torch.arange(len(part)).split(size):
                batch = part.read(rows)
                y = batch.y
                if task.kind == "classification":
                    y = torch.nn.functional.one_hot(y, task.num_outputs)
                counts = batch.extras.get("mask", torch.ones_like(y))
                total += (y * counts).sum(0, dtype=torch.float64)
                count += counts.sum(0)
        # Where none counts, as beyond the longest protein, the mean of all places.
        mean = torch.where(count > 0, total / count, total.sum() / count.sum())
        if task.kind == "classification":
            mean = mean.clamp(LEAST, 1 - LEAST).log()
        elif task.kind == "multilabel" or task.normalizer.logits:
            mean = mean.clamp(LEAST, 1 - LEAST).logit()
        model.output.copy_(mean)
        return model
