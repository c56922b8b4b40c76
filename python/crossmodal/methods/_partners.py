"""Which source sample a target sample is mixed with, where it is not any; by mean tokens, as the embedders give them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from crossmodal import sources
from crossmodal.data.dataset import Batch, fitting
from crossmodal.models.finetuned import FineTuned

NEIGHBOURS = 8  # from which one is drawn: always the nearest would be few source samples, over and over
CHUNK = 256
MOST_SAMPLES = 4096  # of the training split, for the mean tokens of its classes


class Nearest:
    """One of the source samples whose mean tokens are nearest to the target sample's now (Euclidean).

    Source tokens come from the frozen pretrained embedding, so theirs are computed once.
    """

    def __init__(self, task, model: FineTuned, source: sources.Source) -> None:
        self.means = source_means(model, source)

    def choose(self, tokens: Tensor, batch: Batch, drawn: Tensor) -> Tensor:
        """Rows of the source, int64 (B,), for target tokens (B, N, D); `drawn`: (B,) in [0, 1)."""
        distance = torch.cdist(
            tokens.float().mean(1), self.means.to(tokens.device), compute_mode="donot_use_mm_for_euclid_dist"
        )
        nearest = distance.topk(min(NEIGHBOURS, len(self.means)), largest=False).indices
        return nearest.gather(1, pick(drawn, nearest.shape[1]).to(nearest.device).unsqueeze(1)).squeeze(1)

    def facts(self) -> dict[str, Any]:
        return {}


class ByClass:
    """A source sample of the class that stands in for the target's.

    Classes are assigned before training so that the distances between their mean tokens sum to the least (Hungarian method), source
    classes as often as it takes.
    """

    def __init__(self, task, model: FineTuned, source: sources.Source) -> None:
        classes = len(task.class_names) or task.num_outputs
        found = list(_means_of_target(task, model))
        targets = class_means(torch.cat([means for means, _ in found]), torch.cat([y for _, y in found]), classes)
        names = source.class_names
        distance = torch.cdist(targets, class_means(source_means(model, source), source.labels, len(names)))
        times = -(-classes // len(names))
        _, column = linear_sum_assignment(distance.repeat(1, times).numpy())
        self.source_class = [int(one) % len(names) for one in column]
        self.rows = [(source.labels == one).nonzero().squeeze(1) for one in self.source_class]
        labels = task.class_names or tuple(map(str, range(classes)))
        self.assigned = {label: names[one] for label, one in zip(labels, self.source_class, strict=True)}

    def choose(self, tokens: Tensor, batch: Batch, drawn: Tensor) -> Tensor:
        """As of `Nearest`."""
        own = [self.rows[label] for label in batch.y.tolist()]
        return torch.stack([rows[pick(one, len(rows))] for rows, one in zip(own, drawn, strict=True)])

    def facts(self) -> dict[str, Any]:
        return {"source_classes": self.assigned}


PARTNERS = {"nearest": Nearest, "class": ByClass}


def pick(drawn: Tensor, count: int) -> Tensor:
    """Whole numbers below `count` for numbers in [0, 1]."""
    return (drawn * count).long().clamp_max(count - 1)


@torch.no_grad()
def source_means(model: FineTuned, source: sources.Source) -> Tensor:
    """Mean token of each source sample, float32 (S, D)."""
    return torch.cat([model.embed_source(part).float().mean(1) for part in source.inputs.split(CHUNK)])


@torch.no_grad()
def _means_of_target(task, model: FineTuned) -> Iterator[tuple[Tensor, Tensor]]:
    for rows in torch.arange(min(len(task.train), MOST_SAMPLES)).split(fitting(task.train, CHUNK)):
        batch = task.train.read(rows)
        yield model.embed(batch.x).float().mean(1), batch.y


def class_means(means: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(n, D) and int64 (n,) to (classes, D); of a class without samples, the mean of all."""
    of = [means[labels == one] for one in range(classes)]
    return torch.stack([(own if len(own) else means).mean(0) for own in of])
