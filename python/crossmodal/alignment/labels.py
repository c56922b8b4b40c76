"""Labels for targets that are none: fields, sets of labels, real numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

from crossmodal import seeds
from crossmodal.data.dataset import Dataset, fitting

CLUSTERS = 10  # as in ORCA
FITTED = 10_000  # samples that clusters are found by
FINEST = 64  # cells per axis of two-dimensional fields that are compared; finer ones are averaged down to it


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
            targets = torch.cat([_flat(split.read(part).y) for part in rows.split(fitting(split, 256))])
            count = min(CLUSTERS, len(targets.unique(dim=0)))
            found = KMeans(count, random_state=seeds.derive(seed, "k-means") % 2**32).fit(targets.numpy())
            self.centers = torch.from_numpy(found.cluster_centers_)

    def __call__(self, y: Tensor) -> Tensor:
        """Labels int64 (B,) of targets (B, ...)."""
        if self.centers is None:
            return y
        return torch.cdist(_flat(y), self.centers.to(y.device)).argmin(1)


def _flat(y: Tensor) -> Tensor:
    """Targets (B, ...) as float64 (B, n)."""
    y = y.double()
    if y.ndim == 4 and max(y.shape[2:]) > FINEST:
        y = F.adaptive_avg_pool2d(y, [min(size, FINEST) for size in y.shape[2:]])
    return y.flatten(1)
