"""OTDD, MMD and L2: against definitions, and where others fail."""

from __future__ import annotations

import math

import geomloss
import pytest
import torch
from torch import Tensor

from crossmodal.alignment import DISTANCES, Labelled, distances, l2, label_distances, mmd, otdd, sinkhorn


def cloud(seed: int, n: int = 24, classes: int = 3, scale: float = 0.3, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    """Points (n, 4) and labels that are neither sorted nor consecutive."""
    generator = torch.Generator().manual_seed(seed)
    points = scale * (torch.randn(n, 4, generator=generator, dtype=torch.float64) + shift)
    return points, 3 * (torch.arange(n) % classes) - 1


def test_value_label_distances_and_gradient_are_those_of_geomloss():
    """At squares and at the joint cost; geomloss comes near the optimum by cooling slowly."""
    slow = {"p": 2, "blur": 0.1**0.5, "scaling": 0.998, "backend": "tensorized", "debias": True}
    (x, x_labels), (y, y_labels) = cloud(0, scale=0.2), cloud(1, n=20, classes=2, scale=0.2, shift=1.5)
    y.requires_grad_()
    source, target = Labelled(x, x_labels), Labelled(y, y_labels)

    def squares(a: Tensor, b: Tensor) -> Tensor:
        return (a.unsqueeze(2) - b.unsqueeze(1)).square().sum(3)

    groups = [cloud[labels == c].detach() for cloud, labels in ((x, x_labels), (y, y_labels)) for c in labels.unique()]
    between = torch.zeros(5, 5, dtype=torch.float64)
    divergence = geomloss.SamplesLoss(cost=squares, **slow)
    for i, j in torch.combinations(torch.arange(5)).tolist():
        between[i, j] = between[j, i] = divergence(groups[i][None], groups[j][None]).item()
    torch.testing.assert_close(label_distances(source, target), between[:3, 3:], rtol=1e-5, atol=1e-5)

    def cost(a: Tensor, b: Tensor) -> Tensor:  # the last column is the class
        labels = between[a[0, :, -1].long()][:, b[0, :, -1].long()]
        return squares(a[..., :-1], b[..., :-1]) / 2 + labels / 2

    x_class = torch.unique(x_labels, return_inverse=True)[1]
    y_class = torch.unique(y_labels, return_inverse=True)[1] + 3
    expected = geomloss.SamplesLoss(cost=cost, **slow)(
        torch.cat([x, x_class[:, None]], 1)[None], torch.cat([y, y_class[:, None]], 1)[None]
    )
    found = otdd(source, target)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), y)
    (gradient,) = torch.autograd.grad(found.sum(), y)
    assert expected_gradient.abs().max() > 1e-2
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-5)


def test_point_masses_by_hand():
    """|x - x'|^2 / 2 between points, and their squared distance as that of their labels: together |x - x'|^2."""
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]], requires_grad=True)
    one = torch.zeros(1, dtype=torch.int64)
    value = otdd(Labelled(x, one), Labelled(y, one))
    value.sum().backward()
    assert value.item() == pytest.approx(25.0)
    assert y.grad.tolist() == [pytest.approx([3.0, 4.0])]  # of the points' half; labels are constants
    assert l2(Labelled(x, one), Labelled(y, one)).item() == pytest.approx(5.0)
    # Of two points the mean squared distance is their own: kernels exp(-4), exp(-2), exp(-1), exp(-1/2), exp(-1/4).
    expected = 2 * (5 - sum(math.exp(-(2.0**power)) for power in (2, 1, 0, -1, -2)))
    assert mmd(Labelled(x, one), Labelled(y, one)).item() == pytest.approx(expected)


@pytest.mark.parametrize(("scale", "dtype"), [(1e-3, torch.float32), (1.0, torch.float64), (1e5, torch.float32)])
def test_a_divergence_is_never_negative_and_zero_of_equal_sets(scale, dtype):
    points, labels = cloud(2, n=12, scale=scale, shift=1e3)
    points = points.to(dtype)
    near = (points + 1e-3 * scale * torch.randn(points.shape, generator=torch.manual_seed(0))).to(dtype)
    rounding = 1e-6 + 1e-12 * scale**2
    source = Labelled(points, labels)
    mixed_up = torch.randperm(len(points), generator=torch.manual_seed(1))
    for same in (Labelled(points, labels), Labelled(points[mixed_up], labels[mixed_up])):
        assert abs(otdd(source, same).item()) <= rounding
    assert otdd(source, Labelled(points.repeat(2, 1), labels.repeat(2))).item() == pytest.approx(0, abs=rounding)
    for other, apart in ((near, False), (near, True), (points[:1], False), (points[:1].repeat(5, 1), True)):
        target = other.clone().requires_grad_()
        value = otdd(source, Labelled(target, labels[: len(other)], apart=apart))
        value.sum().backward()
        assert value.isfinite().all()
        assert value.min() >= -rounding
        assert target.grad.isfinite().all()
    assert otdd(source, Labelled(points + scale, labels)).item() > rounding


@pytest.mark.parametrize("name", DISTANCES)
def test_small_and_odd_sets(name):
    """One sample in a class, one in all, all points in one place, an empty class: finite, with a gradient."""
    distance = DISTANCES[name]
    (x, x_labels), (y, _) = cloud(3), cloud(4)
    for y_labels in (torch.arange(24), torch.tensor([7] * 23 + [99])):
        for points in (y, y[:1].repeat(24, 1), x[:1].repeat(24, 1)):
            target = points.clone().requires_grad_()
            value = distance(Labelled(x, x_labels), Labelled(target, y_labels)).sum()
            value.backward()
            assert value.isfinite()
            assert target.grad.isfinite().all()
    alone = Labelled(x[:1], x_labels[:1])
    assert distance(alone, Labelled(x[:1].clone(), x_labels[:1])).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", DISTANCES)
def test_weights_are_numbers_of_samples(name):
    """Points of weight 0 are not there, one of weight 2 is there twice."""
    (x, x_labels), (y, y_labels) = cloud(5), cloud(6, n=8)
    weights = torch.tensor([1, 2, 0, 3, 1, 0, 1, 1])
    one = DISTANCES[name](Labelled(x, x_labels), Labelled(y, y_labels, weights))
    repeated = Labelled(y.repeat_interleave(weights, 0), y_labels.repeat_interleave(weights))
    if name == "mmd":  # its bandwidth counts points
        assert one.item() == pytest.approx(DISTANCES[name](Labelled(x, x_labels), repeated).item(), rel=0.1)
    else:
        assert one.item() == pytest.approx(DISTANCES[name](Labelled(x, x_labels), repeated).item(), rel=1e-6)


@pytest.mark.parametrize("name", ["otdd", "l2"])
def test_classes_apart_are_data_sets_of_their_own(name):
    distance = DISTANCES[name]
    (x, x_labels), (y, y_labels) = cloud(7), cloud(8, n=20, classes=4, shift=0.5)
    y.requires_grad_()
    source, target = Labelled(x, x_labels), Labelled(y, y_labels, apart=True)
    singly = torch.cat(
        [distance(source, Labelled(y[y_labels == c], y_labels[y_labels == c])) for c in y_labels.unique()]
    )
    together = distance(source, target)
    torch.testing.assert_close(together, singly, rtol=1e-6, atol=1e-6)
    weights = torch.arange(4.0, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(weights @ together, y)
    (expected,) = torch.autograd.grad(weights @ singly, y)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
    assert target.shares.tolist() == [0.25] * 4


@pytest.mark.parametrize("name", ["mmd", "l2"])
def test_gradients_of_mmd_and_l2(name):
    (x, x_labels), (y, y_labels) = cloud(9, n=6), cloud(10, n=5, shift=0.5)
    y.requires_grad_()
    function = DISTANCES[name]
    if (
        name == "mmd"
    ):  # the bandwidth is a constant of a step, but finite differences would move it: it is held by far points
        x = torch.cat([x, x + 1e4])
        x_labels = x_labels.repeat(2)
    assert torch.autograd.gradcheck(lambda y: function(Labelled(x, x_labels), Labelled(y, y_labels)), y, rtol=1e-3)


def test_what_belongs_to_the_source_is_computed_once(monkeypatch):
    calls = []
    for name in ("transport", "self_transport"):
        original = getattr(distances, name)
        monkeypatch.setattr(
            distances, name, lambda cost, *rest, of=original: (calls.append(tuple(cost.shape)), of(cost, *rest))[1]
        )
    source = Labelled(*cloud(11))
    for seed in (12, 13):
        calls.clear()
        otdd(source, Labelled(*cloud(seed, n=10), apart=True))
        assert ((24, 24) in calls) == (seed == 12)


def test_chunks_change_nothing(monkeypatch):
    source, target = Labelled(*cloud(14)), cloud(15)
    whole = otdd(source, Labelled(*target))
    monkeypatch.setattr(sinkhorn, "CHUNK", 100)
    assert otdd(Labelled(*cloud(14)), Labelled(*target)).item() == whole.item()
