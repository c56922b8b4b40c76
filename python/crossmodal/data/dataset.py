"""What a split is to everything above it: rows in, a batch out; where the numbers lie is the data set's own business."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

AT_ONCE = 2**30  # bytes of samples that are read at once, where that many are


@dataclass(frozen=True)
class Batch:
    """Samples of one process.

    x: float32 (B, C, L) or (B, C, H, W). y: targets, batch first. index: int64 (B,), rows of the split.
    weight: float32 (B,), 0 for a stand-in that must not count, else 1.
    extras: what else belongs to the samples, batch first: `group` int64 (B,), `mask` of the shape of y (0 where a value must
    not count); and the batches of companion data sets (see `loader.TrainLoader`).
    """

    x: Tensor
    y: Tensor
    index: Tensor
    weight: Tensor
    extras: dict[str, Tensor | Batch] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`."""
        return self._each(
            lambda part: part.to(device, non_blocking=True) if isinstance(part, Tensor) else part.to(device)
        )

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, as DataLoader asks for it."""
        return self._each(lambda part: part.pin_memory())

    def _each(self, change: Callable[[Any], Any]) -> Batch:
        extras = {name: change(part) for name, part in self.extras.items()}
        return Batch(change(self.x), change(self.y), change(self.index), change(self.weight), extras)


class Dataset(Protocol):
    """The samples of a split.

    fingerprint: sha256 of what is learned from, or of a manifest of it where hashing every byte would take minutes.
    """

    fingerprint: str

    def __len__(self) -> int: ...

    def read(self, rows: Tensor, seeds: Tensor | None = None) -> Batch:
        """The samples of those rows, int64 (B,). `seeds` augment them, int64 (B,): each by a generator of (seed, row), so that a
        sample is changed the same way whatever batch and process it falls to; None leaves them as they are."""
        ...


class ArrayLike(Protocol):
    """Rows of numbers that may lie in memory, in a memory-mapped file, in HDF5 or in a folder of files."""

    shape: tuple[int, ...]
    ndim: int
    dtype: np.dtype

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> np.ndarray: ...


Augmentation = Callable[[Tensor, np.random.Generator], Tensor]  # one sample (C, ...) to one of the same shape
# The same for raw samples, before they are scaled, with their row in the array.
Variation = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


class ArrayDataset:
    """Samples and targets from arrays, in memory or not; scaled when they are read.

    Args:
        x, y: n samples `(n, C, ...)` and targets `(n, ...)`, in memory (tensors, scaled already) or an
            `ArrayLike`.
        scale_x, scale_y: from raw rows to the tensors a model takes; unused for tensors.
        rows: which rows belong to this split, int64 `(m,)` (None: all), for arrays that are not tensors.
        extras: more arrays of n rows, by the name they have in `Batch.extras`.
        vary: change of a raw sample that comes before these; for arrays that are not tensors.
    """

    def __init__(
        self,
        x: Tensor | ArrayLike,
        y: Tensor | ArrayLike,
        *,
        scale_x: Callable[[np.ndarray], Tensor] = torch.as_tensor,
        scale_y: Callable[[np.ndarray], Tensor] = torch.as_tensor,
        rows: np.ndarray | None = None,
        extras: dict[str, Tensor | ArrayLike] | None = None,
        vary: Variation | None = None,
        fingerprint: str = "",
    ) -> None:
        self._x, self._y, self._rows = x, y, rows
        self._scale_x, self._scale_y = scale_x, scale_y
        self._extras = extras or {}
        self._vary = vary
        self.augmentations: tuple[Augmentation, ...] = ()
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self._x) if self._rows is None else len(self._rows)

    def read(self, rows: Tensor, seeds: Tensor | None = None) -> Batch:
        """See `Dataset.read`."""
        scale = self._scale_x
        if seeds is not None and self._vary is not None:

            def scale(raw: np.ndarray) -> Tensor:
                return self._scale_x(self._varied(raw, rows, seeds))

        x = self._take(self._x, rows, scale)
        if seeds is not None and self.augmentations:
            x = torch.stack([self._augmented(*one) for one in zip(x, seeds.tolist(), rows.tolist(), strict=True)])
        extras = {name: self._take(values, rows, torch.as_tensor) for name, values in self._extras.items()}
        return Batch(x, self._take(self._y, rows, self._scale_y), rows, torch.ones(len(rows)), extras)

    def _take(self, values: Tensor | ArrayLike, rows: Tensor, scale: Callable[[np.ndarray], Tensor]) -> Tensor:
        if isinstance(values, Tensor):
            return values[rows]
        return scale(take(values, rows.numpy() if self._rows is None else self._rows[rows.numpy()]))

    def _varied(self, raw: np.ndarray, rows: Tensor, seeds: Tensor) -> np.ndarray:
        changed = [
            self._vary(one, int(row if self._rows is None else self._rows[row]), np.random.default_rng((seed, row, 1)))
            for one, seed, row in zip(raw, seeds.tolist(), rows.tolist(), strict=True)
        ]
        return np.stack(changed)

    def _augmented(self, sample: Tensor, seed: int, row: int) -> Tensor:
        generator = np.random.default_rng((seed, row))
        for change in self.augmentations:
            sample = change(sample, generator)
        return sample

    def augmented(self, augmentations: Sequence[Augmentation]) -> ArrayDataset:
        """The same samples with other augmentations."""
        other = copy.copy(self)
        other.augmentations = tuple(augmentations)
        return other

    def subset(self, rows: np.ndarray) -> ArrayDataset:
        """Those of its samples, int64 `(m,)`, with their extras."""

        def chosen(values: Tensor | ArrayLike) -> Tensor | ArrayLike:
            return values[torch.from_numpy(rows)] if isinstance(values, Tensor) else values

        other = copy.copy(self)
        other._x, other._y = chosen(self._x), chosen(self._y)
        other._extras = {name: chosen(values) for name, values in self._extras.items()}
        other._rows = rows if self._rows is None else self._rows[rows]
        return other

    @property
    def in_memory(self) -> bool:
        """Whether its samples are, scaled already."""
        return isinstance(self._x, Tensor)

    @property
    def x(self) -> Tensor:
        """All samples at once, for data that fit in memory."""
        return self._x if isinstance(self._x, Tensor) else self.read(torch.arange(len(self))).x

    @property
    def y(self) -> Tensor:
        """All targets at once."""
        return self._y if isinstance(self._y, Tensor) else self._take(self._y, torch.arange(len(self)), self._scale_y)

    def extra(self, name: str) -> Tensor | None:
        """All of what `Batch.extras` holds under that name; None where it holds nothing."""
        values = self._extras.get(name)
        return None if values is None else self._take(values, torch.arange(len(self)), torch.as_tensor)


def fitting(split: Dataset, most: int, size: int = AT_ONCE) -> int:
    """How many samples can be read at once: `most`, or fewer where these would take more than `size` bytes."""
    one = split.read(torch.arange(1))
    each = sum(part.numel() * part.element_size() for part in (one.x, one.y, *one.extras.values()))
    return max(1, min(most, size // each))


def take(values: ArrayLike, rows: np.ndarray) -> np.ndarray:
    """Rows of an array, in any order and also twice.

    They are asked for in ascending order and once each: HDF5 takes no other, and files on a disk are read faster so.
    """
    if type(values) is np.ndarray:
        return values[rows]
    ascending, places = np.unique(rows, return_inverse=True)
    found = np.asarray(values[ascending])
    return found if np.array_equal(places, np.arange(len(found))) else found[places]
