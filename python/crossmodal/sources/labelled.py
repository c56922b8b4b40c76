"""What labelled texts and labelled images have in common: a label each, classes, and a seeded choice of some."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T", bound="Labelled")


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Items with labels.

    Attributes:
        items: one per sample.
        labels: the class of each.
        class_names: in the order of their indices; at least two.
        origin: where the samples came from, for errors.
    """

    items: tuple
    labels: tuple[str, ...]
    class_names: tuple[str, ...]
    origin: str

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise ValueError(f"{self.origin}: a source needs at least two classes, got {list(self.class_names)}")

    def sample(self: T, limit: int, seed: int) -> T:
        """At most ``limit`` of the samples, chosen at random, in their old order; classes left without any are dropped."""
        if len(self.items) <= limit:
            return self
        kept = np.sort(np.random.default_rng(seed).permutation(len(self.items))[:limit])
        labels = tuple(self.labels[i] for i in kept)
        present = set(labels)
        return dataclasses.replace(
            self,
            items=tuple(self.items[i] for i in kept),
            labels=labels,
            class_names=tuple(name for name in self.class_names if name in present),
        )

    def label_tensor(self) -> Tensor:
        """Labels as indices, int64 ``(n,)``."""
        index = {name: i for i, name in enumerate(self.class_names)}
        return torch.tensor([index[label] for label in self.labels], dtype=torch.int64)
