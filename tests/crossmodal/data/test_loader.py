from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossmodal import seeds
from crossmodal.data.loader import BatchPlan, TrainLoader, eval_rows

SIZES = {
    "samples": st.integers(1, 40),
    "batch_size": st.integers(1, 9),
    "world": st.integers(1, 5),
    "epoch": st.integers(0, 3),
}


@given(**SIZES)
@settings(deadline=None, max_examples=60)
def test_processes_share_every_batch_exactly(samples, batch_size, world, epoch):
    alone = list(BatchPlan(samples, batch_size, 1, 7, source_samples=11).shares(epoch))
    shared = [list(BatchPlan(samples, batch_size, 1, 7, 11, rank, world).shares(epoch)) for rank in range(world)]
    assert sorted(row for share in alone for row in share.rows) == list(range(samples))
    assert all(len(shares) == len(alone) for shares in shared)
    for number, whole in enumerate(alone):
        parts = [shares[number] for shares in shared]
        counted = [(part.first, part.rows, part.source_rows) for part in parts if part.weights[0] == 1]
        counted.sort()
        assert [row for _, rows, _ in counted for row in rows] == whole.rows
        assert [row for *_, rows in counted for row in rows] == whole.source_rows
        assert all(part.rows and len(part.rows) == len(part.source_rows) == len(part.weights) for part in parts)
        assert {part.total for part in parts} == {len(whole.rows)}


def test_group_sizes_count_every_sample_once():
    plan = BatchPlan(samples=23, batch_size=4, accumulate=2, seed=0)
    assert (plan.batches, plan.steps) == (6, 3)
    assert [plan.group_size(step) for step in range(3)] == [8, 8, 7]


def test_source_is_gone_through_lap_by_lap():
    plan = BatchPlan(samples=10, batch_size=4, accumulate=1, seed=3, source_samples=7)
    rows = [row for epoch in range(3) for share in plan.shares(epoch) for row in share.source_rows]
    assert len(rows) == 30
    for lap in range(4):
        assert sorted(rows[7 * lap : 7 * lap + 7]) == list(range(7))
    assert rows[:7] != rows[7:14]


def test_a_source_may_be_smaller_than_a_batch():
    """Seven source samples a batch from three: two whole laps and the start of a third."""
    plan = BatchPlan(samples=14, batch_size=7, accumulate=1, seed=3, source_samples=3)
    first, second = (share.source_rows for share in plan.shares(0))
    rows = first + second
    assert len(first) == len(second) == 7
    for lap in range(4):
        assert sorted(rows[3 * lap : 3 * lap + 3]) == [0, 1, 2]


def test_start_in_the_middle_continues_the_epoch():
    plan = BatchPlan(samples=20, batch_size=3, accumulate=1, seed=0, source_samples=5)
    assert list(plan.shares(2, start=4)) == list(plan.shares(2))[4:]
    assert list(plan.shares(0)) != list(plan.shares(1))


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_gives_the_planned_samples_and_draws_nothing_from_the_global_stream(workers):
    split = SimpleNamespace(x=torch.arange(12.0).view(6, 1, 2), y=torch.arange(6))
    source = SimpleNamespace(inputs=torch.arange(10).view(5, 2), labels=torch.arange(5))
    plan = BatchPlan(6, 4, 1, 0, 5)
    before = torch.get_rng_state()
    batches = list(TrainLoader(split, source, plan, workers).epoch(1))
    assert torch.equal(torch.get_rng_state(), before)
    for (batch, share), planned in zip(batches, plan.shares(1), strict=True):
        assert share == planned
        assert batch.index.tolist() == planned.rows == batch.y.tolist()
        assert torch.equal(batch.x, split.x[planned.rows])
        assert torch.equal(batch.source_inputs, source.inputs[planned.source_rows])
        assert batch.source_labels.tolist() == planned.source_rows


def test_loader_without_source():
    split = SimpleNamespace(x=torch.zeros(3, 1, 2), y=torch.zeros(3))
    batch, _ = next(TrainLoader(split, None, BatchPlan(3, 2, 1, 0)).epoch(0))
    assert batch.source_inputs is None
    assert batch.to(torch.device("cpu")).source_labels is None


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
    assert sorted(seeds.permutation(9, 0, "x")) == list(range(9))
