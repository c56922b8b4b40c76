"""What labelled texts and labelled images have in common: a label each, classes, and a seeded choice of some."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from crossmodal.data.splitting import stratified_sample
from crossmodal.errors import UserError

T = TypeVar("T", bound="Labelled")


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Items with labels.

    Attributes:
        items: one per sample.
        labels: the class of each.
        class_names: in the order of their indices; at least two.
        origin: where the samples came from, for errors.
        note: what was taken for what where they were read, for descriptions.
    """

    items: tuple
    labels: tuple[str, ...]
    class_names: tuple[str, ...]
    origin: str
    note: str = ""

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise UserError(f"{self.origin}: a source needs at least two classes, got {list(self.class_names)}")

    def sample(self: T, per_class: int | None, most: int, seed: int) -> T:
        """A random choice, in the old order, that leaves no class empty.

        Args:
            per_class: at most so many samples of each class; None for at most ``most`` in all, with the classes' shares kept
                (and at least one of each).
            seed: seed of the choice.
        """
        labels, rng = np.array(self.labels), np.random.default_rng(seed)
        if per_class is not None:
            each = [rng.permutation(np.flatnonzero(labels == name))[:per_class] for name in self.class_names]
            kept = np.sort(np.concatenate(each))
        else:
            kept = stratified_sample(labels, min(max(most, len(self.class_names)), len(labels)), rng)
        if len(kept) == len(labels):
            return self
        return dataclasses.replace(
            self, items=tuple(self.items[i] for i in kept), labels=tuple(self.labels[i] for i in kept)
        )

    def label_tensor(self) -> Tensor:
        """Labels as indices, int64 ``(n,)``."""
        index = {name: i for i, name in enumerate(self.class_names)}
        return torch.tensor([index[label] for label in self.labels], dtype=torch.int64)
