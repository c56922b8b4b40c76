from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV

import crossmodal
from crossmodal import parsing, run
from crossmodal.methods.rocket import ALPHAS, _factor, ridge
from crossmodal.models import rocket
from crossmodal.models.rocket import Rocket
from tests.crossmodal import runs


@pytest.mark.parametrize("shape", [(1, 30), (4, 30), (2, 5), (1, 1)])
def test_features_are_those_of_the_kernels_one_by_one(shape, monkeypatch):
    """By hand, from weights, bias, dilation and padding; also where few values fit into memory at a time."""
    torch.manual_seed(0)
    model = Rocket(shape, 2, 200)
    x = torch.randn(6, *shape)
    expected = torch.empty(6, 2, 200)
    for kernel, (length, dilation, padding) in enumerate(model.shape.tolist()):
        padded = np.pad(x.numpy(), ((0, 0), (0, 0), (padding, padding)))
        reach, chosen = (length - 1) * dilation, padded[:, model.channel[kernel].numpy()]
        weight, bias = model.weight[kernel, :, :length].numpy(), model.bias[kernel].item()
        starts = range(padded.shape[2] - reach)
        windows = [chosen[:, :, start : start + reach + 1 : dilation] for start in starts]
        values = [(window * weight).sum((1, 2)) + bias for window in windows]
        values = np.stack(values, axis=1)
        expected[:, 0, kernel] = torch.from_numpy((values > 0).mean(1))
        expected[:, 1, kernel] = torch.from_numpy(values.max(1))
    torch.testing.assert_close(model.features(x), expected.flatten(1), atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(rocket, "MOST_VALUES", 6 * shape[1] * 3)
    torch.testing.assert_close(model.features(x), expected.flatten(1), atol=1e-5, rtol=1e-5)


def test_kernels_are_drawn_as_in_the_paper():
    torch.manual_seed(0)
    model = Rocket((8, 200), 2, 10_000)
    lengths, dilation, padding = model.shape.T
    assert {7, 9, 11} == set(lengths.tolist())
    reach = (lengths - 1) * dilation
    assert reach.max() < 200
    assert (padding == 0).float().mean() == pytest.approx(0.5, abs=0.02)
    assert padding[padding > 0].equal((reach // 2)[padding > 0])
    assert (dilation == 1).float().mean() == pytest.approx(1 / np.log2(199 / 8), abs=0.02)  # log-uniform
    assert model.weight.sum(2).abs().max() < 1e-5
    counts = (model.weight != 0).any(2).sum(1)
    assert (counts.min(), counts.max()) == (1, 8)
    assert -1 <= model.bias.min() < -0.99 < 0.99 < model.bias.max() <= 1
    torch.manual_seed(0)
    assert Rocket((8, 200), 2, 10_000).weight.equal(model.weight)


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_it_learns_a_frequency(tmp_path, kind):
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    steps = 0.4 * (1 + labels[:, None]) * np.arange(32) + rng.uniform(0, 6, (80, 1))
    x = (np.sin(steps) + 0.3 * rng.standard_normal((80, 32)))[:, None]
    y = {"classification": labels, "multilabel": np.stack([labels, 1 - labels], 1), "regression": labels * 4.0 + 7}[
        kind
    ]
    np.savez(tmp_path / "d.npz", x_train=x[:50], y_train=y[:50], x_test=x[50:], y_test=y[50:])
    settings = {"task": "arrays", "data": str(tmp_path / "d.npz"), "kind": kind, "method": "rocket"}
    settings |= {"output_dir": str(tmp_path / "run"), "rocket": {"kernels": 500}}
    results = run.train(parsing.from_dict(settings))
    assert results["test"] < 1 if kind == "regression" else results["test"] > 0.95
    assert results["test_loss"] < 0.3  # probabilities, not votes of one half and a bit
    if kind != "regression":
        found = crossmodal.load(tmp_path / "run").predict(x[50:])
        assert found.probabilities.numpy().max() > 0.9


@pytest.mark.parametrize("features", [5, 100])
def test_ridge_is_that_of_scikit_learn_and_knows_what_it_predicts_of_the_left_out(features):
    """With fewer and with more features than samples; the left-out by fits without them."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, features)), rng.normal(size=(30, 2))
    x -= x.mean(0)
    y += x[:, :2]
    weight, bias, left_out = ridge(torch.from_numpy(x), torch.from_numpy(y))
    fitted = RidgeCV(ALPHAS).fit(x, y)
    assert np.allclose(weight, fitted.coef_, atol=1e-8)
    assert np.allclose(bias, fitted.intercept_, atol=1e-8)
    for row in range(30):
        rest = np.arange(30) != row
        alone = Ridge(fitted.alpha_).fit(x[rest], y[rest]).predict(x[[row]])
        assert np.allclose(left_out[[row]], alone, atol=1e-8)


def test_certain_outputs_get_certain_probabilities():
    y = torch.arange(40) % 2
    right = 2.0 * torch.nn.functional.one_hot(y, 2).double() - 1
    assert _factor("classification", right, y) > 15
    assert _factor("classification", right * torch.randn(40, 1).double(), y) < 3
    assert _factor("multilabel", right, torch.stack([1 - y, y], 1)) > 15


def test_where_features_do_not_fit_into_memory_small_batches_are_learned_from(tmp_path, monkeypatch):
    monkeypatch.setattr("crossmodal.methods.rocket.MOST_FEATURES", 26 * 200)
    monkeypatch.setattr("crossmodal.methods.rocket.STANDARDISED", 10)
    settings = runs.settings(tmp_path, "none", method="rocket", epochs=20, optimizer__new_lr=1e-2)
    results = run.train(parsing.from_dict(settings | {"rocket": {"kernels": 300}}))
    assert results["steps"] == 20 * 3
    assert results["test"] == 1
    found = crossmodal.load(tmp_path / "run").model
    assert found.linear.weight.any()
    assert found.mean.any()
