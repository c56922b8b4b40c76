"""Protocols: named ways of evaluating one task, which differ in what is predicted from what, or in how it is scored.

    default    the task's samples, its metrics over whole splits
    released   as the authors' public code evaluates, to set a figure beside a published one
    single     fields of an equation: one later frame from one frame
    rollout    fields of an equation: a model of one step is fed its own predictions, frame after frame

A task says which it has and brings the data of the chosen one; `steps` is how often a model is applied to its own output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crossmodal.data.normalizer import Normalizer

PROTOCOLS = ("default", "released", "single", "rollout")


def predict(model: nn.Module, x: Tensor, steps: int, normalizer: Normalizer) -> Tensor:
    """Outputs of a model for samples x (B, C, ...), all normalised.

    Args:
        steps: 0: the outputs of x. T > 0: of T steps, each made from the output before it, (B, T * C, ...), frame by frame.
    """
    if steps == 0:
        return model(x)
    frames = []
    for _ in range(steps):
        frames.append(model(x))
        x = normalizer.as_input(frames[-1])
    return torch.cat(frames, dim=1)
