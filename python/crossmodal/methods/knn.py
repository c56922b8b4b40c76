"""k nearest neighbours of the raw (z-scored) values: the oldest measure of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from crossmodal.errors import UserError
from crossmodal.methods.base import Method, register
from crossmodal.values import Count

if TYPE_CHECKING:
    from crossmodal.models.neighbours import Neighbours

CANDIDATES = (1, 3, 5, 9, 15, 25)


@dataclass
class Options:
    """The neighbours.

    Args:
        k: how many vote (null: of 1, 3, 5, 9, 15 and 25 what has the lowest error where each sample is left out in turn, the
            smaller in a tie). 1 is the yardstick of the literature on series.
    """

    k: Count | None = None


@register
class NearestNeighbours(Method):
    """Euclidean distance; neighbours are training and validation samples together, since no epoch is chosen, and they are
    saved with the model. The settings of training and encoder are not used."""

    name = "knn"
    description = "k nearest neighbours on the raw values, k by leaving one out"
    uses_encoder = False
    learns_validation = True
    Options = Options
    unsuited: ClassVar = {"dense": "it has one output per sample, not a field; take nft or tuned_cnn"}
    seeded = False

    def build(self, task, config) -> Neighbours:
        from crossmodal.models.neighbours import Neighbours

        samples, k = len(task.train) + len(task.validation), config.options.k or 1
        if k > samples:
            raise UserError(f"knn.k: expected at most {samples}, the samples that are learned from, got {k}")
        return Neighbours(task.input_shape, task.kind, task.num_outputs, samples, k)

    def fit(self, run) -> Neighbours:
        import torch

        task, options, size = run.task, run.config.options, run.config.loader.eval_batch_size
        model = run.model.to(run.accelerator.device)
        y = torch.cat([task.train.y, task.validation.y])
        model.x.copy_(torch.cat([task.train.x, task.validation.x]))
        model.y.copy_(torch.nn.functional.one_hot(y, task.num_outputs) if task.kind == "classification" else y)
        candidates = [k for k in CANDIDATES if k < len(y)]
        if options.k is None and candidates:
            own = torch.arange(len(y), device=model.x.device)[:, None]
            nearest = torch.cat([model.nearest(part, candidates[-1] + 1) for part in model.x.split(size)])
            # Without the sample itself, or without the furthest where others of the same values went before it.
            keep = nearest != own
            keep[keep.all(1), -1] = False
            others = nearest[keep].view(len(y), -1)
            model.k = min(candidates, key=lambda k: _error(task.kind, model.vote(others[:, :k]), model.y))
        return model


def _error(kind: str, outputs, y) -> float:
    """Share of wrong classes or labels, or mean squared error."""
    if kind == "regression":
        return (outputs - y).square().mean().item()
    if kind == "classification":
        return (outputs.argmax(1) != y.argmax(1)).float().mean().item()
    return ((outputs > 0) != (y > 0.5)).float().mean().item()
