from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from crossmodal.data.dataset import Batch
from crossmodal.errors import UserError
from crossmodal.scoring import losses


def test_each_gives_one_number_per_sample():
    target = torch.tensor([1, 0, 2])
    logits = torch.randn(3, 4)
    expected = -logits.log_softmax(1)[torch.arange(3), target]
    torch.testing.assert_close(losses.get("cross_entropy").per_sample(logits, target), expected)

    output, target = torch.randn(2, 3, 5), torch.randint(0, 2, (2, 3, 5)).float()
    p = output.sigmoid()
    expected = -(target * p.log() + (1 - target) * (1 - p).log()).flatten(1).mean(1)
    torch.testing.assert_close(losses.get("bce_with_logits").per_sample(output, target), expected)
    expected = -(4 * target * p.log() + (1 - target) * (1 - p).log()).flatten(1).mean(1)
    torch.testing.assert_close(losses.get("bce_with_logits_4").per_sample(output, target), expected)


def test_focal_and_log_cosh_by_hand():
    logits = torch.tensor([[0.0, 0.0], [0.0, 40.0]])
    assert losses.focal(logits, torch.tensor([1, 1])).tolist() == pytest.approx([0.5**3 * math.log(2), 0.0])
    output, target = torch.tensor([[0.5, -2.0], [0.0, 1000.0]]), torch.zeros(2, 2)
    expected = [(math.log(math.cosh(0.5)) + math.log(math.cosh(2))) / 2, (1000 - math.log(2)) / 2]
    assert losses.log_cosh(output, target).tolist() == pytest.approx(expected)
    mask = torch.tensor([[True, False], [True, False]])
    assert losses.log_cosh(output, target, mask).tolist() == pytest.approx([math.log(math.cosh(0.5)), 0.0], abs=1e-7)


def test_mse_and_relative_l2_by_hand():
    output, target = torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([[0.0, 8.0], [1.0, 1.0]])
    assert losses.mse(output, target).tolist() == [12.5, 0.0]
    assert losses.relative_l2(output, target).tolist() == [0.625, 0.0]


def test_rmse_and_nrmse_by_hand():
    target = torch.tensor([[[1.0, -1.0], [0.0, 10.0]]])
    output = torch.tensor([[[2.0, 0.0], [3.0, 6.0]]])  # off by (1, 1) and (3, -4)
    assert losses.rmse(output, target).item() == pytest.approx((27 / 4) ** 0.5)
    assert losses.nrmse(output, target).item() == pytest.approx((1 + 5 / 10) / 2)
    mask = torch.tensor([[[True, False], [False, True]]])
    assert losses.rmse(output, target, mask).item() == pytest.approx((17 / 2) ** 0.5)
    assert losses.nrmse(output, target, mask).item() == pytest.approx((1 + 4 / 10) / 2)
    for loss in (losses.rmse, losses.nrmse):  # the gradient of what is met exactly is zero, not NaN
        met = target.clone().requires_grad_()
        loss(met, target).sum().backward()
        assert not met.grad.any()


@pytest.mark.parametrize("name", losses.LOSSES)
def test_half_precision_is_computed_in_float32(name):
    loss = losses.get(name)
    if "classification" in loss.kinds:
        output, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    else:
        shape = (4, 3, 5) if loss.kinds == ("dense",) else (4, 3)
        output, target = torch.randn(shape), torch.rand(shape)
    low = loss.per_sample(output.bfloat16(), target)
    assert low.dtype == torch.float32
    assert low.shape == (4,)
    torch.testing.assert_close(low, loss.per_sample(output.bfloat16().float(), target))


def test_unknown_name():
    with pytest.raises(ValueError, match=r"loss: unknown name 'mes', did you mean 'mse'"):
        losses.get("mes")


def test_class_weights_are_scikit_learn_s_and_weigh_the_loss_as_torch_does():
    y, outputs = torch.tensor([0] * 6 + [1] * 2 + [2] * 4), torch.randn(12, 3)
    weights = losses.class_weights("balanced", "classification", "cross_entropy", y, 3)
    assert weights == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=y.numpy()))
    assert weights == pytest.approx(losses.class_weights("1,3,1.5", "classification", "cross_entropy", y, 3))
    batch = Batch(torch.zeros(12, 1, 1), y, torch.arange(12), torch.ones(12))
    found = losses.of_batch(losses.get("cross_entropy"), outputs, batch, None, weights)
    torch.testing.assert_close(found, F.cross_entropy(outputs, y, torch.tensor(weights), reduction="none"))
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 1, 1]])
    positive = losses.class_weights("balanced", "multilabel", "bce_with_logits", labels, 3)
    assert positive == (3.0, 3.0, 1.0)  # the last label has no samples without it
    batch, outputs = Batch(torch.zeros(4, 1, 1), labels, torch.arange(4), torch.ones(4)), torch.randn(4, 3)
    found = losses.of_batch(losses.get("bce_with_logits"), outputs, batch, None, positive)
    expected = F.binary_cross_entropy_with_logits(outputs, labels, pos_weight=torch.tensor(positive), reduction="none")
    torch.testing.assert_close(found, expected.mean(1))


@pytest.mark.parametrize("asked", ["1,2", "1,2,x", "1,2,-1", "1,2,nan", "even"])
def test_class_weights_that_are_none(asked):
    with pytest.raises(UserError, match="expected balanced or 3 positive numbers"):
        losses.class_weights(asked, "classification", "cross_entropy", torch.tensor([0, 1, 2]), 3)
    with pytest.raises(UserError, match="the target is regression with the loss mse"):
        losses.class_weights("balanced", "regression", "mse", torch.zeros(3, 1), 1)
