from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

import crossmodal
from crossmodal import parsing, run
from crossmodal.errors import UserError
from crossmodal.methods.knn import CANDIDATES


def settings(folder, kind="classification", n=60, repeated=False, **options):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n + 30, 2, 6))
    y = (x[:, 0].sum(1) + rng.normal(size=n + 30) > 0).astype(int)
    if repeated:
        x[1:20] = x[0]
    if kind == "multilabel":
        y = np.stack([y, 1 - y, x[:, 1, 0] > 0], 1).astype(np.float32)
    if kind == "regression":
        y = x[:, 0].sum(1) + 100
    np.savez(folder / "d.npz", x_train=x[:n], y_train=y[:n], x_test=x[n:], y_test=y[n:])
    values = {"task": "arrays", "data": str(folder / "d.npz"), "kind": kind, "method": "knn"}
    return x, y, values | {"output_dir": str(folder / "run"), "knn": options}


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_it_is_that_of_scikit_learn_and_k_what_leaves_the_least_error(tmp_path, kind):
    x, y, values = settings(tmp_path, kind)
    results = run.train(parsing.from_dict(values))
    predictor = crossmodal.load(tmp_path / "run")
    scaled = predictor.normalizer.apply_x(x).flatten(1).double().numpy()
    kin = KNeighborsRegressor if kind == "regression" else KNeighborsClassifier
    errors = {}
    for k in CANDIDATES:
        found = cross_val_predict(kin(k), scaled[:60], y[:60], cv=LeaveOneOut())
        errors[k] = ((found - y[:60]) ** 2).mean()
    assert results["k"] == min(errors, key=errors.get) > 1
    fitted = kin(results["k"]).fit(scaled[:60], y[:60])
    assert np.allclose(
        predictor.predict(x[60:]).predictions.reshape(y[60:].shape), fitted.predict(scaled[60:]), atol=1e-4
    )


def test_samples_that_are_there_twice(tmp_path):
    """Each is left out itself, and not its double."""
    _, _, values = settings(tmp_path, repeated=True)
    assert 0 < run.train(parsing.from_dict(values))["test"] < 1


def test_k_of_choice(tmp_path):
    x, y, values = settings(tmp_path, k=1)
    assert run.train(parsing.from_dict(values))["k"] == 1
    assert (crossmodal.load(tmp_path / "run").predict(x[:60]).predictions.numpy() == y[:60]).all()
    with pytest.raises(UserError, match=r"knn.k: expected at most 60, the samples that are learned from, got 61"):
        run.train(parsing.from_dict(values | {"knn": {"k": 61}, "overwrite": True}))
