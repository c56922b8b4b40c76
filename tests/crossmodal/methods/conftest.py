"""A tiny encoder with a head, a source and a batch, and any objective that mixes them."""

from __future__ import annotations

import pytest
import torch

from crossmodal.data.dataset import ArrayDataset, Batch
from crossmodal.methods import _token_mixing, cutmix, mixup, pare
from crossmodal.methods._patch_replacement import PatchReplacement
from crossmodal.models import encoders
from crossmodal.models.finetuned import FineTuned
from crossmodal.sources.base import Source
from tests.crossmodal.runs import toy_task

B, TOKENS = 5, 8
OBJECTIVES = {
    "pare": (PatchReplacement, pare.Options),
    "mixup": (_token_mixing.TokenMixup, mixup.Options),
    "cutmix": (_token_mixing.TokenCutMix, cutmix.Options),
}


@pytest.fixture
def model(tiny_bert):
    encoder = encoders.load(tiny_bert, layers=1)
    encoder.attach((2, 16), 2)
    return FineTuned(encoder, "classification", 3)


@pytest.fixture
def source():
    inputs, labels = torch.randint(5, 60, (B, TOKENS)), torch.tensor([0, 1, 2, 3, 0])
    return Source("toy", "text", inputs, labels, ("a", "b", "c", "d"), "hash", "")


@pytest.fixture
def batch(source):
    x, y = torch.randn(B, 2, 16), torch.tensor([0, 1, 2, 0, 1])
    return Batch(x, y, torch.arange(B), torch.ones(B), {"source": source.read(torch.arange(B))})


@pytest.fixture
def mixing(model, source, batch):
    """`mixing(method="pare", **options)`: the objective; it learns from the samples of the batch."""
    task = toy_task(train=ArrayDataset(batch.x, batch.y))

    def make(method: str = "pare", **options):
        objective, of = OBJECTIVES[method]
        return objective(task, model, source, of(**options))

    return make


@pytest.fixture
def rows_of():
    """`rows_of(batch, first, last)`: those rows, as another process has them."""

    def cut(batch: Batch, first: int, last: int) -> Batch:
        return batch._each(lambda part: part[first:last] if isinstance(part, torch.Tensor) else cut(part, first, last))

    return cut
