"""Labels for targets that are none: fields, sets of labels, real numbers."""

from __future__ import annotations

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from crossmodal import seeds
from crossmodal.data.dataset import Dataset

CLUSTERS = 10  # as in ORCA
FITTED = 10_000  # samples that clusters are found by


class Labeller:
    """The label of a sample by its target: its class, else the cluster that its target is nearest to (k-means, k = 10).

    Args:
        split: training samples.
        kind: kind of target.
        seed: of the samples that are looked at, where they are many, and of k-means.
    """

    def __init__(self, split: Dataset, kind: str, seed: int) -> None:
        self.centers: Tensor | None = None
        if kind != "classification":
            rows = seeds.permutation(len(split), seed, "clusters")[:FITTED].sort().values
            targets = torch.cat([split.read(part).y.flatten(1) for part in rows.split(256)]).double()
            count = min(CLUSTERS, len(targets.unique(dim=0)))
            found = KMeans(count, random_state=seeds.derive(seed, "k-means") % 2**32).fit(targets.numpy())
            self.centers = torch.from_numpy(found.cluster_centers_)

    def __call__(self, y: Tensor) -> Tensor:
        """Labels int64 (B,) of targets (B, ...)."""
        if self.centers is None:
            return y
        return torch.cdist(y.flatten(1).double(), self.centers.to(y.device)).argmin(1)
