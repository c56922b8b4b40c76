from __future__ import annotations

import pytest
import torch

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
