"""Batches, the same whatever the number of processes.

An epoch is a fixed list of global batches, drawn from the run's seed; each process takes its share of every batch. So
where a run stands is two numbers (epoch, batch), and a resumed or re-divided run meets the same samples in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from crossmodal import seeds
from crossmodal.step import Batch


@dataclass(frozen=True)
class Share:
    """A process's part of one global batch.

    rows: rows of the split. source_rows: rows of the source, as many, or empty without one. weights: 0 for a stand-in.
    first, total: the part starts at row `first` of a batch of `total`.
    """

    rows: list[int]
    source_rows: list[int]
    weights: list[float]
    first: int
    total: int


class BatchPlan:
    """The batches of every epoch.

    Args:
        samples: size of the training split.
        batch_size: samples per global batch; the last batch of an epoch holds what is left.
        accumulate: batches per optimizer step; the last step of an epoch takes what is left.
        seed: the run's seed.
        source_samples: size of the source, 0 without one. It is gone through in a new order each time round, one source
            sample for each target sample.
        rank, world: this process and how many there are.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        accumulate: int,
        seed: int,
        source_samples: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.samples, self.batch_size, self.accumulate, self.seed = samples, batch_size, accumulate, seed
        self.source_samples, self.rank, self.world = source_samples, rank, world
        self.batches = -(-samples // batch_size)
        self.steps = -(-self.batches // accumulate)

    def group_size(self, step: int) -> int:
        """Samples behind optimizer step `step` of an epoch, over all processes."""
        group = self.batch_size * self.accumulate
        return min(group, self.samples - step * group)

    def shares(self, epoch: int, start: int = 0) -> Iterator[Share]:
        """This process's share of the batches of an epoch, from batch `start` on."""
        order = seeds.permutation(self.samples, self.seed, "order", epoch)
        for batch in range(start, self.batches):
            rows = list(order[batch * self.batch_size : (batch + 1) * self.batch_size])
            source = self._source_rows(epoch * self.samples + batch * self.batch_size, len(rows))
            total = len(rows)
            first, last = self.rank * total // self.world, (self.rank + 1) * total // self.world
            weights = [1.0] * (last - first)
            if first == last:  # Fewer samples than processes: run one that does not count, so that all keep in step.
                first, last, weights = 0, 1, [0.0]
            yield Share(rows[first:last], source[first:last], weights, first, total)

    def _source_rows(self, position: int, count: int) -> list[int]:
        rows: list[int] = []
        while self.source_samples and len(rows) < count:
            lap, offset = divmod(position + len(rows), self.source_samples)
            order = seeds.permutation(self.source_samples, self.seed, "source", lap)
            rows += order[offset : offset + count - len(rows)]
        return rows


class _Samples(Dataset):
    def __init__(self, split, source) -> None:
        self.split, self.source = split, source

    def __getitems__(self, share: Share) -> tuple[Batch, Share]:
        rows = torch.tensor(share.rows)
        source = (None, None)
        if self.source is not None:
            source_rows = torch.tensor(share.source_rows)
            source = (self.source.inputs[source_rows], self.source.labels[source_rows])
        return Batch(self.split.x[rows], self.split.y[rows], rows, torch.tensor(share.weights), *source), share


class _Shares:
    """What a DataLoader expects of a batch sampler; where to start is set before each epoch."""

    def __init__(self, plan: BatchPlan) -> None:
        self.plan, self.epoch, self.start = plan, 0, 0

    def __iter__(self) -> Iterator[Share]:
        return self.plan.shares(self.epoch, self.start)

    def __len__(self) -> int:
        return self.plan.batches - self.start


def _as_is(item):
    return item


class TrainLoader:
    """Batches of a training split, with source samples beside them.

    Args:
        split, source: data with `.x, .y` and `.inputs, .labels`; source may be None.
        plan: which samples when.
        workers, pin_memory: as in `torch.utils.data.DataLoader`.
    """

    def __init__(self, split, source, plan: BatchPlan, workers: int = 0, pin_memory: bool = False) -> None:
        self._shares = _Shares(plan)
        # The loader draws a seed for its workers at every start; from a generator of its own, so that the model's random
        # numbers do not depend on how often a run was resumed.
        self._loader = DataLoader(
            _Samples(split, source),
            batch_sampler=self._shares,
            collate_fn=_as_is,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            generator=torch.Generator().manual_seed(seeds.derive(plan.seed, "workers")),
        )

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Batch, Share]]:
        """(batch, share) for each batch of an epoch, from batch `start` on."""
        self._shares.epoch, self._shares.start = epoch, start
        return iter(self._loader)


def eval_rows(samples: int, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[Tensor]:
    """Rows of a split for one process, in batches: a contiguous part of ceil(samples / world), filled up with the last row.

    Every process gets as many; the parts in order, cut to `samples`, are the split.
    """
    part = -(-samples // world)
    rows = torch.arange(rank * part, (rank + 1) * part).clamp_max(samples - 1)
    return iter(rows.split(batch_size))
