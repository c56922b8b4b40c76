from __future__ import annotations

import pytest
import torch

from crossmodal.alignment import Labeller
from crossmodal.data.dataset import ArrayDataset


def split(y: torch.Tensor) -> ArrayDataset:
    return ArrayDataset(torch.zeros(len(y), 1, 4), y)


def test_classes_are_their_own_labels():
    y = torch.tensor([2, 0, 2])
    assert Labeller(split(y), "classification", 0)(y) is y


@pytest.mark.parametrize(
    ("kind", "shape"), [("multilabel", (3,)), ("regression", (2,)), ("dense", (1, 4)), ("dense", (2, 3, 3))]
)
def test_other_targets_fall_into_ten_clusters(kind, shape):
    centers = 10 * torch.randn(10, *shape, generator=torch.manual_seed(0))
    y = centers.repeat(6, *[1] * len(shape)) + 0.01 * torch.randn(60, *shape)
    label = Labeller(split(y), kind, 0)
    found = label(y)
    assert found.tolist() == found[:10].repeat(6).tolist()
    assert sorted(found[:10].tolist()) == list(range(10))
    assert torch.equal(label(centers), found[:10])  # samples that were not there
    assert torch.equal(Labeller(split(y), kind, 0)(y), found)


def test_fewer_kinds_of_target_than_clusters(recwarn):
    y = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    labels = Labeller(split(y), "multilabel", 0)(y)
    assert labels[0] == labels[2] != labels[1] == labels[3]
    assert not recwarn.list


def test_fine_fields_are_compared_by_their_means():
    """128 x 128 points as 64 x 64 cells; noise within them that averages out says nothing."""
    y = torch.zeros(4, 1, 128, 128)
    y[1:3] = 3.0
    y[2:, :, ::2], y[2:, :, 1::2] = y[2:, :, ::2] + 1, y[2:, :, 1::2] - 1
    labels = Labeller(split(y), "dense", 0)
    assert labels.centers.shape[1] == 64 * 64
    found = labels(y)
    assert found[0] == found[3] != found[1] == found[2]
