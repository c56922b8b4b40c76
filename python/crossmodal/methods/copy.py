"""The last frame that is known, as the prediction of every later one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from crossmodal.kinds import POINT_KINDS
from crossmodal.methods.base import Method, register

if TYPE_CHECKING:
    from crossmodal.models.floors import Copy


@register
class CopyOfTheSample(Method):
    """The last channels of a sample, in the units of the targets. Nothing is learned, and the settings of training and encoder are
    not used."""

    name = "copy"
    description = "the last known frame again, a floor (fields)"
    uses_encoder = False
    unsuited: ClassVar = dict.fromkeys(POINT_KINDS, "a sample is nothing like its target; take mean")
    seeded = False

    def refuses(self, task) -> str | None:
        if task.normalizer.logits or task.input_shape[0] < task.num_outputs:
            return "a sample is nothing like its target; take mean"
        return f"{task.other_quantity}; take mean" if task.other_quantity else None

    def build(self, task, config) -> Copy:
        import torch

        from crossmodal.models.floors import Copy

        scaling, last = task.normalizer, slice(-task.num_outputs, None)
        x_mean, x_std = scaling.x_mean[last], scaling.x_std[last]
        y_mean, y_std = (torch.zeros(()), torch.ones(())) if scaling.y_mean is None else (scaling.y_mean, scaling.y_std)
        scale, shift = torch.broadcast_tensors(x_std / y_std, (x_mean - y_mean) / y_std)
        model = Copy(tuple(scale.shape))
        model.scale.copy_(scale)
        model.shift.copy_(shift)
        return model

    def fit(self, run) -> Copy:
        return run.model
