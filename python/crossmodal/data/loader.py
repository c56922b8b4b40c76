"""Batches, the same whatever the number of processes.

An epoch is a fixed list of global batches, drawn from the run's seed; each process takes its share of every batch. So
where a run stands is two numbers (epoch, batch), and a resumed or re-divided run meets the same samples in the same order.
Where classes are balanced, an epoch has as many samples as ever, and as many of each class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from crossmodal import seeds
from crossmodal.data.dataset import Batch, Dataset


@dataclass(frozen=True)
class Share:
    """A process's part of one global batch.

    rows: int64 (B,), rows of the split. companions: as many rows of each companion data set. counts: whether the rows count;
    a stand-in does not. first: at which row of the batch the part starts. seeds: int64 (B,), of the augmentation.
    """

    rows: Tensor
    companions: dict[str, Tensor]
    counts: bool
    first: int
    seeds: Tensor


class BatchPlan:
    """The batches of every epoch.

    Args:
        samples: size of the training split.
        batch_size: samples per global batch; the last batch of an epoch holds what is left.
        accumulate: batches per optimizer step; the last step of an epoch takes what is left.
        seed: the run's seed.
        companions: sizes of data sets of which one sample goes with each training sample. Each is gone through in a new order
            each time round.
        rank, world: this process and how many there are.
        classes: int64 (samples,): the class of each, of which every epoch shall hold equally many, the rare ones several times
            over (class-balanced sampling, Kang et al., ICLR 2020); None: each sample once.
        most: optimizer steps after which an epoch ends, if it has not before.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        accumulate: int,
        seed: int,
        companions: Mapping[str, int] | None = None,
        rank: int = 0,
        world: int = 1,
        classes: Tensor | None = None,
        most: int | None = None,
    ) -> None:
        self.members = [] if classes is None else [torch.nonzero(classes == one)[:, 0] for one in classes.unique()]
        self.samples, self.batch_size, self.accumulate, self.seed = samples, batch_size, accumulate, seed
        self.companions, self.rank, self.world = dict(companions or {}), rank, world
        self.batches = -(-samples // batch_size)
        if most is not None:
            self.batches = min(self.batches, most * accumulate)
        self.steps = -(-self.batches // accumulate)

    def group_size(self, step: int) -> int:
        """Samples behind optimizer step `step` of an epoch, over all processes."""
        group = self.batch_size * self.accumulate
        return min(group, self.samples - step * group)

    def shares(self, epoch: int, start: int = 0) -> Iterator[Share]:
        """This process's share of the batches of an epoch, from batch `start` on."""
        order = seeds.permutation(self.samples, self.seed, "order", epoch)
        drawn, times = self._balanced(epoch) if self.members else (torch.arange(self.samples), torch.zeros(1))
        # A sample that comes several times in an epoch is changed in another way each time.
        changes = [
            seeds.derive(self.seed, "augment", epoch, *([lap] if lap else [])) for lap in range(int(times.max()) + 1)
        ]
        changes = torch.tensor(changes)[times.long()].expand(self.samples)
        for batch in range(start, self.batches):
            places = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            total, position = len(places), epoch * self.samples + batch * self.batch_size
            first, last = self.rank * total // self.world, (self.rank + 1) * total // self.world
            counts = first < last
            if not counts:  # Fewer samples than processes: run one that does not count, so that all keep in step.
                first, last = 0, 1
            companions = {name: self._companions(name, position, total)[first:last] for name in self.companions}
            own = places[first:last]
            yield Share(drawn[own], companions, counts, first, changes[own])

    def _balanced(self, epoch: int) -> tuple[Tensor, Tensor]:
        """The rows of an epoch, class by class, and how often each came before; int64 (samples,) both.

        Of a class all samples come once before one comes again.
        """
        share, more = divmod(self.samples, len(self.members))
        luckier = seeds.permutation(len(self.members), self.seed, "luckier", epoch)[:more].tolist()
        rows, times = [], []
        for number, members in enumerate(self.members):
            count = share + (number in luckier)
            laps = range(-(-count // len(members)))
            found = [members[seeds.permutation(len(members), self.seed, "class", number, epoch, lap)] for lap in laps]
            rows.append(torch.cat([members[:0], *found])[:count])
            times.append(torch.arange(count) // len(members))
        return torch.cat(rows), torch.cat(times)

    def _companions(self, name: str, position: int, count: int) -> Tensor:
        parts: list[Tensor] = []
        while count:
            lap, offset = divmod(position, self.companions[name])
            part = seeds.permutation(self.companions[name], self.seed, name, lap)[offset : offset + count]
            parts.append(part)
            position, count = position + len(part), count - len(part)
        return torch.cat(parts)


class _Samples(torch.utils.data.Dataset):
    def __init__(self, split: Dataset, companions: Mapping[str, Dataset]) -> None:
        self.split, self.companions = split, companions

    def __getitems__(self, share: Share) -> tuple[Batch, Share]:
        batch = self.split.read(share.rows, share.seeds)
        extras = {name: self.companions[name].read(rows) for name, rows in share.companions.items()}
        return replace(batch, weight=batch.weight * share.counts, extras=batch.extras | extras), share


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
    """Batches of a training split, with samples of companion data sets beside them.

    Args:
        split: what is learned from.
        companions: data sets by name; a batch has theirs, of the same size, as `extras[name]`.
        plan: which samples when.
        workers, pin_memory: as in `torch.utils.data.DataLoader`.
    """

    def __init__(
        self,
        split: Dataset,
        companions: Mapping[str, Dataset],
        plan: BatchPlan,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self._shares = _Shares(plan)
        # The loader draws a seed for its workers at every start; from a generator of its own, so that the model's random
        # numbers do not depend on how often a run was resumed.
        self._loader = DataLoader(
            _Samples(split, companions),
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


def eval_rows(samples: int, batch_size: int, rank: int, world: int) -> Iterator[Tensor]:
    """Rows of a split for one process, in batches: a contiguous part of ceil(samples / world), filled up with the last row.

    Every process gets as many; the parts in order, cut to `samples`, are the split.
    """
    part = -(-samples // world)
    rows = torch.arange(rank * part, (rank + 1) * part).clamp_max(samples - 1)
    return iter(rows.split(batch_size))
