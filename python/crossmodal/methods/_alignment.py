"""What ORCA minimises in its two stages; the formula is in `orca`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from crossmodal import seeds
from crossmodal.alignment import DISTANCES, Labelled, Labeller
from crossmodal.data.dataset import Batch, Dataset, fitting
from crossmodal.data.splitting import stratified_sample
from crossmodal.methods.orca import Options
from crossmodal.models.finetuned import FineTuned
from crossmodal.sources import Source
from crossmodal.training.objective import Objective, Position
from crossmodal.training.sharding import gathered

CHUNK = 64  # Samples whose tokens are held at a time.
AT_ONCE = (
    2**32
)  # Bytes of target samples of one step: 64 of PSICOV's maps, as the authors take, and the usual 1000 of others.


class Alignment(Objective):
    """The distance of target features to the source's, of a whole batch: every sample is given the same loss.

    Args:
        task: gives training samples and kind of target.
        source: samples of the pretraining modality.
        options: of the method.
        seed: of what source samples are taken, and of the clusters.

    Attributes:
        most: how many target samples one step takes.
    """

    predicts = False

    def __init__(self, task, source: Source, options: Options, seed: int) -> None:
        super().__init__(task)
        self.source, self.options, self.seed = source, options, seed
        self.label = Labeller(task.train, task.kind, seed)
        self.distance = DISTANCES[options.alignment]
        self.most = fitting(task.train, options.samples, AT_ONCE)
        self._source_features: Labelled | None = None

    def losses(self, model: FineTuned, batch: Batch, position: Position) -> dict[str, Tensor]:
        whole = gathered(batch)
        distance = self._between(model, whole)
        return {"loss": distance.float().expand(len(batch))}

    @torch.no_grad()
    def measure(self, model: FineTuned, split: Dataset) -> float:
        """The distance of a split with the weights as they are; where it is large, that of some samples."""
        rows = seeds.permutation(len(split), self.seed, "measured")[: self.most]
        device = next(model.parameters()).device
        return self._between(model, split.read(rows).to(device)).item()

    def _between(self, model: FineTuned, batch: Batch) -> Tensor:
        features, labels = features_of(model.embed, batch.x), self.label(batch.y)
        target = Labelled(features, labels, apart=True)
        return target.shares @ self.distance(self._source(model), target)

    def _source(self, model: FineTuned) -> Labelled:
        """Features of source samples, in which the classes keep their shares; computed once."""
        if self._source_features is None:
            labels = self.source.labels
            size = min(len(labels), max(self.options.samples, len(self.source.class_names)))
            rows = torch.from_numpy(stratified_sample(labels.numpy(), size, np.random.default_rng(self.seed)))
            inputs = self.source.inputs[rows].to(next(model.parameters()).device)
            self._source_features = Labelled(features_of(model.embed_source, inputs), labels[rows].to(inputs.device))
        return self._source_features


class Aligned(Objective):
    """The task's loss, after an alignment.

    Attributes:
        alignment: the first stage's objective.
        distances: what it measured `before` and `after` that stage.
    """

    def __init__(self, task, alignment: Alignment) -> None:
        super().__init__(task)
        self.alignment, self.description = alignment, alignment.source.description
        self.distances: dict[str, float] = {}

    def facts(self) -> dict[str, Any]:
        alignment = self.alignment
        return {
            "source": alignment.source.facts(),
            "alignment": {"distance": alignment.options.alignment, **self.distances},
        }

    def fingerprints(self) -> dict[str, str]:
        source = self.alignment.source
        return {f"source {source.name}": source.fingerprint}


def features_of(embed: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Tokens averaged over each sample, float32 (n, D); those of few samples are held at a time, with gradients too."""

    def of(part: Tensor) -> Tensor:
        return embed(part).float().mean(1)

    return torch.cat([checkpoint(of, part, use_reentrant=False) for part in inputs.split(CHUNK)])
