from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossmodal.scoring import metrics
from crossmodal.tasks import KINDS


def test_accuracy_and_f1_by_hand():
    outputs = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0], [1.0, 0.0, 0.0]])
    targets = torch.tensor([0, 1, 1, 2])
    assert metrics.get("accuracy")(outputs, targets) == 0.5
    # class 0: precision 1/2, recall 1; class 1: 1, 1/2; class 2: 0, 0; a class that nobody names does not count
    assert metrics.get("macro_f1")(outputs, targets) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert metrics.get("macro_f1")(torch.nn.functional.pad(outputs, (0, 1)), targets) == pytest.approx(4 / 9)
    assert metrics.get("balanced_accuracy")(outputs, targets) == pytest.approx((1 + 0.5 + 0) / 3)


def test_ranking_metrics_on_labels():
    outputs = torch.tensor([[2.0, -1.0, 5.0], [1.0, 1.0, 4.0], [-1.0, 0.0, 3.0]])
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    # The third label always occurs: no curve can be drawn, so it does not count.
    assert metrics.get("auroc")(outputs, targets) == 1.0
    assert metrics.get("mean_average_precision")(outputs, targets) == 1.0
    assert metrics.get("auroc")(-outputs, targets) == 0.0
    assert math.isnan(metrics.get("auroc")(outputs[:, 2:], targets[:, 2:]))


def test_auroc_of_classes_is_one_against_the_rest():
    from sklearn.metrics import roc_auc_score

    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(50, 3, generator=generator), torch.randint(0, 3, (50,), generator=generator)
    expected = roc_auc_score(targets, outputs.double().softmax(1), multi_class="ovr")
    assert metrics.get("auroc")(outputs, targets) == pytest.approx(expected)


def test_f1_of_labels_is_that_of_scikit_learn_and_of_one_label_that_of_its_presence():
    from sklearn.metrics import f1_score

    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(40, 3, generator=generator), torch.randint(0, 2, (40, 3), generator=generator)
    macro_f1 = metrics.get("macro_f1")
    assert macro_f1(outputs, targets) == pytest.approx(f1_score(targets, outputs > 0, average="macro"))
    alone = f1_score(targets[:, 0], outputs[:, 0] > 0)
    assert macro_f1(outputs[:, :1], targets[:, :1]) == pytest.approx(alone)


@pytest.mark.parametrize("shape", [(5, 2, 9), (5, 2, 3, 4)])
def test_masks_are_scored_over_all_pixels_of_a_channel(shape):
    """The outputs of masks are probabilities."""
    from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score

    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.rand(shape, generator=generator), torch.rand(shape, generator=generator).round()
    by_hand = {
        "auroc": roc_auc_score,
        "mean_average_precision": average_precision_score,
        "macro_f1": lambda truth, value: f1_score(truth, value > 0.5),
        "iou": lambda truth, value: jaccard_score(truth, value > 0.5),
    }
    for name, score in by_hand.items():
        channels = [score(targets[:, c].flatten(), outputs[:, c].flatten()) for c in range(shape[1])]
        assert metrics.get(name)(outputs, targets) == pytest.approx(np.mean(channels)), name
    # A channel that is empty, and taken for empty, has no union.
    iou = metrics.get("iou")
    targets[:, 1], outputs[:, 1] = 0, 0
    assert iou(outputs, targets) == pytest.approx(by_hand["iou"](targets[:, 0].flatten(), outputs[:, 0].flatten()))
    assert math.isnan(iou(outputs[:, 1:], targets[:, 1:]))


def test_values_by_hand():
    outputs, targets = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[0.0, 8.0], [0.0, 1.0]])
    assert metrics.get("mse")(outputs, targets) == 6.5
    assert metrics.get("rmse")(outputs, targets) == 6.5**0.5
    assert metrics.get("mae")(outputs, targets) == 2.0
    assert metrics.get("relative_l2")(outputs, targets) == pytest.approx((5 / 8 + 1) / 2)
    assert metrics.get("r2")(targets, targets) == 1.0
    assert math.isnan(metrics.get("r2")(targets[:1], targets[:1]))


def test_relative_l2_of_a_target_of_zeros_is_relative_to_the_typical_norm():
    targets = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    outputs = targets + torch.tensor([[0.0, 1.0], [0.5, 0.0]])
    typical = (25 / 2) ** 0.5
    expected = pytest.approx((1 / 5 + 0.5 / typical) / 2)
    assert metrics.get("relative_l2")(outputs, targets) == expected
    # What normalising to float32 and back leaves of zero.
    assert metrics.get("relative_l2")(outputs, targets + torch.tensor([[0.0], [1e-7]])) == expected
    assert math.isnan(metrics.get("relative_l2")(outputs, torch.zeros(2, 2)))


def test_relative_l2_of_small_targets_is_their_own():
    targets = torch.tensor([[1e3], [0.1]])
    assert metrics.get("relative_l2")(targets + 0.1, targets) == pytest.approx((1e-4 + 1) / 2, rel=1e-3)


@given(st.integers(1, 60), st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_a_split_cut_into_pieces_gives_another_number_but_its_order_does_not(n, seed):
    generator = torch.Generator().manual_seed(seed)
    outputs, targets = torch.randn(n, 4, generator=generator), torch.randint(0, 4, (n,), generator=generator)
    order = torch.randperm(n, generator=generator)
    for name in ("accuracy", "macro_f1"):
        metric = metrics.get(name)
        assert metric(outputs, targets) == pytest.approx(metric(outputs[order], targets[order]))


def test_direction_and_error():
    accuracy, rmse = metrics.get("accuracy"), metrics.get("rmse")
    assert accuracy.better(0.9, 0.8)
    assert rmse.better(0.8, 0.9)
    assert accuracy.as_error(0.75) == ("error %", 25.0)
    assert rmse.as_error(0.75) == ("error", 0.75)


def test_every_kind_has_a_metric_and_every_metric_a_known_kind():
    kinds = {kind for metric in metrics.METRICS.values() for kind in metric.kinds}
    assert kinds == {*KINDS, "mask"}


def test_errors():
    with pytest.raises(ValueError, match=r"unknown name 'acuracy', did you mean 'accuracy'"):
        metrics.get("acuracy")
    with pytest.raises(ValueError, match="empty split"):
        metrics.get("accuracy")(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="3 and 2"):
        metrics.get("accuracy")(torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64))
    assert np.isfinite(metrics.get("macro_f1")(torch.tensor([[1.0, -1.0]]), torch.tensor([[0.0, 0.0]])))
