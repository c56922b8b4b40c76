from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeCV

import crossmodal
from crossmodal import parsing, run
from tests.crossmodal import runs


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_it_learns_and_says_what_it_is(tmp_path, kind):
    settings = runs.settings(tmp_path, "none", kind, method="linear")
    results = run.train(parsing.from_dict(settings))
    data = np.load(settings["data"])
    called = "ridge" if kind == "regression" else "logistic"
    assert results["called"] == f"{called} regression, raw values"
    assert results["validation"] is results["best_epoch"] is None
    assert results["test"] < data["y_test"].std() / 3 if kind == "regression" else results["test"] > 0.8


@pytest.mark.parametrize("classes", [2, 3])
def test_it_predicts_what_scikit_learn_predicts(tmp_path, classes):
    """Fitted on training and validation samples together, whatever their order."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 1, 8)), rng.integers(0, classes, 60)
    x[:, 0, :classes] += np.eye(classes)[y]
    np.savez(tmp_path / "d.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    settings = {
        "task": "arrays",
        "data": str(tmp_path / "d.npz"),
        "method": "linear",
        "output_dir": str(tmp_path / "run"),
    }
    run.train(parsing.from_dict(settings))
    predictor = crossmodal.load(tmp_path / "run")
    scaled = [predictor.normalizer.apply_x(part).flatten(1).numpy() for part in (x[:40], x[40:])]
    fitted = LogisticRegression(max_iter=5000).fit(scaled[0], y[:40])
    found = predictor.predict(x[40:])
    assert found.predictions.tolist() == fitted.predict(scaled[1]).tolist()
    assert np.allclose(found.probabilities, fitted.predict_proba(scaled[1]), atol=1e-3)


def test_a_label_that_every_sample_has(tmp_path):
    """scikit-learn makes a constant of it."""
    path = runs.write_data(tmp_path, "multilabel")
    with np.load(path) as data:
        changed = {key: np.concatenate([data[key], np.ones((len(data[key]), 1))], 1) for key in ("y_train", "y_test")}
        np.savez(path, **dict(data) | changed)
    settings = {"task": "arrays", "data": str(path), "method": "linear", "output_dir": str(tmp_path / "run")}
    run.train(parsing.from_dict(settings | {"kind": "multilabel"}))
    assert crossmodal.load(tmp_path / "run").predict(np.load(path)["x_test"]).predictions[:, 2].all()


def test_ridge_is_that_of_scikit_learn(tmp_path):
    settings = runs.settings(tmp_path, "none", "regression", method="linear")
    run.train(parsing.from_dict(settings))
    data, predictor = np.load(settings["data"]), crossmodal.load(tmp_path / "run")
    x, test = (predictor.normalizer.apply_x(data[f"x_{part}"]).flatten(1).numpy() for part in ("train", "test"))
    fitted = RidgeCV(alphas=np.logspace(-3, 3, 13)).fit(x, data["y_train"])
    assert np.allclose(predictor.predict(data["x_test"]).predictions, fitted.predict(test), atol=1e-3)
