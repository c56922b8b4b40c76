"""Protocols: named ways of evaluating one task, which differ in what is predicted from what, or in how it is scored.

    default    the task's samples, its metrics over whole splits
    released   as the authors' public code evaluates, to set a figure beside a published one
    single     fields of an equation: one later frame from the first
    rollout    fields of an equation: a model of one step, from several frames to the next, is fed its own predictions
    markov     like rollout, from one frame to the next
    step       fields of an equation: each frame from the one before it

A task says which it has and brings the data of the chosen one; `steps` is how often a model is applied to its own output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crossmodal.data.normalizer import Normalizer

PROTOCOLS = ("default", "released", "single", "rollout", "markov", "step")


def predict(model: nn.Module, x: Tensor, steps: int, normalizer: Normalizer) -> Tensor:
    """Outputs of a model for samples x (B, C, ...), all normalised.

    Args:
        steps: 0: the outputs of x. T > 0: of T steps, (B, T * C', ...), frame by frame: each output, a frame of C' channels, takes
            its place behind those that x holds along its channels, and the oldest is dropped. A model that gives every frame at
            once (`models.base.Model`) is asked once.
    """
    if steps == 0 or getattr(model, "gives_every_frame", False):
        return model(x)
    frames = []
    for _ in range(steps):
        frames.append(model(x))
        x = normalizer.following(x, frames[-1])
    return torch.cat(frames, dim=1)
