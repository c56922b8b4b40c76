"""What the search of DASH minimises, and how it treats the gradient of the shares of the kernels."""

from __future__ import annotations

import torch

from crossmodal.methods._windows import Windows
from crossmodal.models.dash import Supernet

PENALTY = 1e-5  # on what a kernel reaches


class KernelSearch(Windows):
    """The task's loss, of kernels and of their shares at once.

    The gradient of a mixture's logits is brought to the norm 1 / scale, and what each kernel reaches, times 1e-5, is added to it.

    Args:
        task: see `Objective`.
        supernet: the network that is searched in.
        scale: the greater, the slower the shares are learned.
    """

    predicts = False

    def __init__(self, task, supernet: Supernet, scale: float) -> None:
        super().__init__(task)
        dense = task.kind == "dense"
        reach = [10 * length if dense else dilation * (length - 1) + 1 for length, dilation in supernet.choices]
        self.scale = scale
        self.register_buffer("reach", torch.tensor(reach, dtype=torch.float32), persistent=False)

    def before_step(self, model: Supernet) -> None:
        gradient = model.architecture.grad
        gradient /= self.scale * (gradient.norm(dim=1, keepdim=True) + 1e-8)
        gradient += PENALTY * self.reach
