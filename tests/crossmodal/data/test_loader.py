from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossmodal import seeds
from crossmodal.data.augment import augmentations
from crossmodal.data.dataset import ArrayDataset
from crossmodal.data.loader import BatchPlan, TrainLoader, eval_rows

SIZES = {
    "samples": st.integers(1, 40),
    "batch_size": st.integers(1, 9),
    "world": st.integers(1, 5),
    "epoch": st.integers(0, 3),
}


def plan(samples: int, batch_size: int, source: int = 0, **options) -> BatchPlan:
    return BatchPlan(samples, batch_size, 1, 7, {"source": source} if source else {}, **options)


def listed(shares) -> list[tuple]:
    return [(s.first, s.counts, s.rows.tolist(), s.companions["source"].tolist(), s.seeds.tolist()) for s in shares]


@given(**SIZES)
@settings(deadline=None, max_examples=60)
def test_processes_share_every_batch_exactly(samples, batch_size, world, epoch):
    alone = list(plan(samples, batch_size, 11).shares(epoch))
    shared = [list(plan(samples, batch_size, 11, rank=rank, world=world).shares(epoch)) for rank in range(world)]
    assert sorted(torch.cat([share.rows for share in alone]).tolist()) == list(range(samples))
    assert all(len(shares) == len(alone) for shares in shared)
    for number, whole in enumerate(alone):
        parts = [shares[number] for shares in shared]
        counted = sorted((part for part in parts if part.counts), key=lambda part: part.first)
        assert torch.equal(torch.cat([part.rows for part in counted]), whole.rows)
        assert torch.equal(torch.cat([part.companions["source"] for part in counted]), whole.companions["source"])
        assert all(0 < len(part.rows) == len(part.companions["source"]) for part in parts)
        assert torch.equal(torch.cat([part.seeds for part in counted]), whole.seeds)


def test_group_sizes_count_every_sample_once():
    plan = BatchPlan(samples=23, batch_size=4, accumulate=2, seed=0)
    assert (plan.batches, plan.steps) == (6, 3)
    assert [plan.group_size(step) for step in range(3)] == [8, 8, 7]
    short = BatchPlan(samples=23, batch_size=4, accumulate=2, seed=0, most=2)
    assert (short.batches, short.steps) == (4, 2)
    assert [share.rows.tolist() for share in short.shares(1)] == [share.rows.tolist() for share in plan.shares(1)][:4]


@given(**SIZES, classes=st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_balanced_epochs_hold_equally_many_of_each_class(samples, batch_size, world, epoch, classes):
    """By class counts of their own, whoever shares the batches and wherever they start; none comes twice before all came once."""
    of = torch.arange(samples) % classes % 3 * 2  # classes that differ in size, with gaps in their numbers
    shared = [plan(samples, batch_size, rank=rank, world=world, classes=of) for rank in range(world)]
    alone = plan(samples, batch_size, classes=of)
    shares = list(alone.shares(epoch))
    rows = torch.cat([share.rows for share in shares])
    assert torch.equal(torch.cat([share.rows for share in alone.shares(epoch, 2)] + [rows[:0]]), rows[2 * batch_size :])
    parts = [list(one.shares(epoch)) for one in shared]
    for number, whole in enumerate(shares):
        counted = [part[number] for part in parts if part[number].counts]
        assert torch.equal(torch.cat([part.rows for part in counted]), whole.rows)
        assert torch.equal(torch.cat([part.seeds for part in counted]), whole.seeds)
    assert len(rows) == samples
    counts = of[rows].bincount()[of.unique()]
    assert counts.max() - counts.min() <= 1
    for one in of.unique():
        times = rows[of[rows] == one].bincount(minlength=samples)[of == one]
        assert times.max() - times.min() <= 1
    pairs = list(zip(rows.tolist(), torch.cat([share.seeds for share in shares]).tolist(), strict=True))
    assert len(set(pairs)) == samples  # each time with another augmentation
    if samples > 20:
        assert rows.tolist() != torch.cat([share.rows for share in alone.shares(epoch + 1)]).tolist()


def test_companions_are_gone_through_lap_by_lap():
    rows = [
        row
        for epoch in range(3)
        for share in plan(10, 4, 7).shares(epoch)
        for row in share.companions["source"].tolist()
    ]
    assert len(rows) == 30
    for lap in range(4):
        assert sorted(rows[7 * lap : 7 * lap + 7]) == list(range(7))
    assert rows[:7] != rows[7:14]


def test_companions_may_be_fewer_than_a_batch():
    """Seven of them a batch from three: two whole laps and the start of a third."""
    first, second = (share.companions["source"].tolist() for share in plan(14, 7, 3).shares(0))
    rows = first + second
    assert len(first) == len(second) == 7
    for lap in range(4):
        assert sorted(rows[3 * lap : 3 * lap + 3]) == [0, 1, 2]


def test_start_in_the_middle_continues_the_epoch():
    one = plan(20, 3, 5)
    assert listed(one.shares(2, start=4)) == listed(one.shares(2))[4:]
    assert listed(one.shares(0)) != listed(one.shares(1))


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_gives_the_planned_samples_and_draws_nothing_from_the_global_stream(workers):
    split = ArrayDataset(torch.arange(12.0).view(6, 1, 2), torch.arange(6), extras={"group": torch.arange(6) // 2})
    source = ArrayDataset(torch.arange(10).view(5, 2), torch.arange(5))
    one = plan(6, 4, 5)
    before = torch.get_rng_state()
    batches = list(TrainLoader(split, {"source": source}, one, workers).epoch(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert listed(share for _, share in batches) == listed(one.shares(1))
    for batch, share in batches:
        assert batch.index.tolist() == share.rows.tolist() == batch.y.tolist()
        assert torch.equal(batch.x, split.x[share.rows])
        assert batch.extras["group"].tolist() == [row // 2 for row in share.rows.tolist()]
        companion = batch.to(torch.device("cpu")).extras["source"]
        assert torch.equal(companion.x, source.x[share.companions["source"]])
        assert companion.y.tolist() == share.companions["source"].tolist()
        assert batch.weight.tolist() == [1.0] * len(batch)


def test_stand_ins_do_not_count():
    one = ArrayDataset(torch.zeros(1, 1, 2), torch.zeros(1))
    batch, share = next(TrainLoader(one, {}, plan(1, 2, rank=0, world=2)).epoch(0))
    assert (batch.weight.tolist(), share.counts) == ([0.0], False)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_augmentation_does_not_depend_on_how_an_epoch_is_divided(world):
    """The same bytes for one process and for several, for batches from the start and from the middle; others in another epoch."""
    split = ArrayDataset(torch.randn(7, 2, 9), torch.arange(7)).augmented(augmentations(["shift", "noise"], 1))

    def samples(epoch: int, world: int = 1, start: int = 0) -> dict[int, torch.Tensor]:
        found = {}
        for rank in range(world):
            for batch, _ in TrainLoader(split, {}, plan(7, 3, rank=rank, world=world)).epoch(epoch, start):
                found |= {int(row): x for row, x in zip(batch.index, batch.x, strict=True)}
        return found

    whole = samples(0)
    for row, x in (samples(0, world) | samples(0, world, start=1)).items():
        assert torch.equal(x, whole[row])
        assert not torch.equal(x, split.x[row])
        assert not torch.equal(x, samples(1)[row])


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_eval_rows_cover_the_split_in_order(samples, batch_size, world):
    parts = [torch.cat(list(eval_rows(samples, batch_size, rank, world))) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    assert torch.cat(parts)[:samples].tolist() == list(range(samples))


def test_streams_differ_by_name_and_repeat():
    assert seeds.derive(0, "a", 1) == seeds.derive(0, "a", 1) != seeds.derive(0, "a", 2)
    assert seeds.derive(0, "a") != seeds.derive(1, "a")
    assert 0 <= seeds.derive(5, "b") < 2**63
    assert sorted(seeds.permutation(9, 0, "x").tolist()) == list(range(9))


def test_a_crop_is_the_sample_moved_into_zeros():
    sample = torch.arange(1.0, 1 + 3 * 16 * 24).view(3, 16, 24)
    (crop,) = augmentations(["crop"], 2)
    seen = set()
    for seed in range(40):
        cut = crop(sample, np.random.default_rng(seed))
        assert cut.shape == sample.shape
        kept = cut[0].nonzero()
        top, left = kept.min(0).values.tolist()
        height, width = (kept.max(0).values + 1 - kept.min(0).values).tolist()
        rows, columns = (16 - height if top == 0 else 0), (24 - width if left == 0 else 0)
        assert torch.equal(
            cut[:, top : top + height, left : left + width], sample[:, rows : rows + height, columns : columns + width]
        )
        seen |= {("rows", top or -rows), ("columns", left or -columns)}
    assert seen == {("rows", move) for move in range(-2, 3)} | {("columns", move) for move in range(-3, 4)}
