"""Pictures of how far source and target features lie apart."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from crossmodal import seeds
from crossmodal.alignment import Labelled, Labeller, otdd
from crossmodal.data.dataset import fitting
from crossmodal.drawing import BLUE, GREY, ORANGE, PURPLE, over_epochs, panel
from crossmodal.training.objective import Position
from crossmodal.training.run import Run

SAMPLES, LEVELS = (
    100,
    8,
)  # Samples of either side (fewer large ones), and values of k, that distances are measured with.


def course(history: list[dict[str, Any]], distance: str, head: str) -> Figure:
    """The distance between source and target features over the epochs of an alignment."""
    figure, axis = panel(
        (4.8, 3.3), f"{distance} from the source to the target's classes over the epochs of the alignment."
    )
    figure.suptitle(head)
    records = [record for record in history if record["stage"] == "alignment"]
    axis.plot([record["epoch"] for record in records], [record["loss"] for record in records], color=PURPLE)
    axis.set(xlabel="epoch of the alignment", ylabel=f"{distance}, source to target classes", ylim=(0, None))
    over_epochs(axis)
    return figure


def between(levels: list[dict[str, float]], whole: float, head: str) -> Figure:
    """OTDD from the source to mixed samples, and from these to the target, as k falls.

    Args:
        levels: of `mixed_distances`.
        whole: OTDD from source to target.
    """
    figure, axis = panel(
        (4.8, 3.3), "Distances from the source to mixed samples and from these to the target, as k falls."
    )
    figure.suptitle(f"{head}, at most {SAMPLES} of them and of the source")
    k = [level["k"] for level in levels]
    axis.plot(k, [level["source"] for level in levels], marker=".", color=ORANGE, label="source to mixed")
    axis.plot(k, [level["target"] for level in levels], marker=".", color=BLUE, label="mixed to target")
    axis.axhline(whole, color=GREY, linestyle="--", linewidth=0.9, label="source to target")
    axis.set(xlabel="replaced patches k, falling", ylabel="OTDD", ylim=(0, None))
    axis.invert_xaxis()
    over_epochs(axis)
    axis.legend(loc="center right")
    return figure


@torch.no_grad()
def mixed_distances(run: Run) -> tuple[list[dict[str, float]], float]:
    """OTDD between source, mixed and target samples, at the values that k takes in a run, with the weights it ended with.

    Features are tokens averaged over a sample. A mixed sample belongs to the class of its target with weight 1 - lam and to that
    of its source with weight lam, as in the loss.

    Args:
        run: a run whose objective mixes; some of its training samples are looked at.

    Returns:
        by falling k: `k`, and OTDD from the `source` to mixed samples and from these to the `target`; and from source to target.
    """
    task, model, objective, epochs = run.task, run.model, run.objective, run.config.epochs
    device, seed = run.accelerator.device, run.config.split.seed
    count = fitting(task.train, SAMPLES)
    batch = task.train.read(seeds.permutation(len(task.train), seed, "pictured")[:count]).to(device)
    rows = seeds.permutation(len(objective.source), seed, "pictured source")
    chosen = objective.source.read(rows[torch.arange(len(batch)) % len(rows)]).to(device)
    tokens, source_tokens = model.embed(batch.x), model.embed_source(chosen.x)
    labels, source_labels = Labeller(task.train, task.kind, seed)(batch.y), chosen.y
    if objective.source.has_masks:  # classes are clusters of them, as of target fields
        masks = dataclasses.replace(objective.source, labels=objective.source.labels == 1)
        source_labels = Labeller(masks, "dense", seed)(chosen.y == 1)
    source_labels = -1 - source_labels
    source = Labelled(source_tokens.mean(1), source_labels)
    target = Labelled(tokens.mean(1), labels)
    first = {objective.k(epoch, epochs): epoch for epoch in reversed(range(epochs))}
    kept = np.unique(np.linspace(0, len(first) - 1, LEVELS).round().astype(int))
    levels = []
    for k in np.array(sorted(first, reverse=True))[kept].tolist():
        position = Position(first[k], epochs, seed=seed)
        found = objective.mix(model, batch, tokens, source_tokens.to(tokens.dtype), position)
        points, lam = found.tokens.mean(1).repeat(2, 1), found.lam
        weights = torch.tensor([1 - lam, lam], dtype=torch.float64).repeat_interleave(len(batch))
        mixed = Labelled(points, torch.cat([labels, source_labels]), weights)
        levels.append({"k": k, "source": otdd(source, mixed).item(), "target": otdd(target, mixed).item()})
    return levels, otdd(source, target).item()
