"""Thresholds of probabilities: what is chosen, what it changes, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score

import crossmodal
from crossmodal import evaluate, parsing, predict, run
from crossmodal.data.dataset import Batch
from crossmodal.errors import UserError
from crossmodal.scoring import metrics, thresholds
from crossmodal.training import outcomes
from crossmodal.training.folder import RunFolder


@pytest.mark.parametrize(("by", "score"), [("f1", f1_score), ("balanced_accuracy", balanced_accuracy_score)])
def test_no_other_threshold_is_better(by, score):
    rng = np.random.default_rng(0)
    for _ in range(12):
        truth = rng.random(25) < 0.3
        truth[:2] = [True, False]
        probability = np.round(rng.random(25) * 0.6 + 0.2 * truth, 1)  # with ties
        found = thresholds.best(truth, probability, by)
        others = [score(truth, probability > cut) for cut in (-1, *np.arange(0.05, 1, 0.1), 0.5)]
        assert score(truth, probability > found) == max(others)
        assert found == 0.5 or score(truth, probability > 0.5) < max(others)


def test_a_threshold_of_what_says_nothing_is_a_half():
    for truth, probability in (([1, 1], [0.1, 0.2]), ([0, 0], [0.8, 0.9]), ([0, 1], [np.nan, 0.2])):
        assert thresholds.best(np.array(truth, bool), np.array(probability), "f1") == 0.5
    assert 0 < thresholds.best(np.array([True, False]), np.array([1.0, 1.0 - 1e-9]), "f1") < 1


def test_the_mean_of_a_group_is_held_against_the_threshold_itself():
    probability = torch.tensor([0.2, 0.5, 0.2, 0.2], dtype=torch.float64)  # groups of mean 0.35 and 0.2
    outputs = torch.stack([torch.zeros(4), probability.logit()], 1)
    batch = Batch(
        torch.zeros(4, 1, 1),
        torch.tensor([1, 1, 0, 0]),
        torch.arange(4),
        torch.ones(4),
        {"group": torch.arange(4) // 2},
    )
    shift = thresholds.shift("classification", (0.3,))
    for name, value in {
        "accuracy_of_groups": 1.0,
        "accuracy": 0.75,
        "accuracy_of_group_votes": 0.5,
        "auroc": 0.75,
    }.items():
        metric = metrics.get(name)
        found = {key: values.numpy() for key, values in metric.measure(outputs, batch, shift).items()}
        assert metric.figure(found) == value, name
        low, _ = metric.resampled([found])
        assert len(low) or metric.grouped


def write(path, kind: str, samples: int = 1000):
    """Two labels or one of two classes, rare ones, that the first two columns tell with some noise."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, 6))
    y = (x[:, :2] + rng.standard_normal((samples, 2)) > 1.6).astype(int)
    np.savez(path, x=x, y=y[:, 0] if kind == "classification" else y)
    return path


def settings(folder, kind: str, method: str = "linear", **changes) -> dict:
    values = {"task": "arrays", "data": str(write(folder / "my.npz", kind)), "kind": kind, "method": method}
    values |= {"device": "cpu", "threads": 1, "thresholds": "f1", "metric": "macro_f1,auroc,brier"}
    return values | {"output_dir": str(folder / "run")} | changes


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_thresholds_of_a_run(tmp_path, capsys, kind):
    """Chosen on validation, on samples that the method has not learned from; test, evaluate and predict hold to them."""
    results = run.train(parsing.from_dict(settings(tmp_path, kind, verdict=kind == "multilabel")))
    assert "thresholds, by f1 on 160 validation samples: " in capsys.readouterr().out
    given = results["thresholds"]
    assert len(given) == (1 if kind == "classification" else 2)
    assert max(given) < 0.5
    again = evaluate.evaluate(tmp_path / "run")
    assert (again["value"], again["metrics"]) == (results["test"], results["test_metrics"])
    other = dict(settings(tmp_path, kind), output_dir=str(tmp_path / "half"), thresholds=None, verdict=False)
    half = run.train(parsing.from_dict(other))
    assert results["test"] > half["test"]
    with np.load(tmp_path / "my.npz") as data:
        x, y = data["x"], data["y"]
    found = crossmodal.load(tmp_path / "run").predict(x)
    probability = found.probabilities[:, 1:] if kind == "classification" else found.probabilities
    assert np.array_equal(found.predictions.reshape(len(y), -1), probability.numpy() > np.array(given))
    rows = outcomes.load(tmp_path / "run" / "test.npz").rows
    score = f1_score(y[rows], found.predictions.numpy()[rows], average="macro")
    assert score == pytest.approx(results["test"])
    np.savez(tmp_path / "new.npz", x=x[:4])
    predict.main([str(tmp_path / "run"), str(tmp_path / "new.npz"), "-o", str(tmp_path / "out.csv")])
    assert "predicted where the probability is above " in capsys.readouterr().out


def test_folds_choose_each_for_itself_and_the_final_model_takes_the_median(tmp_path, capsys):
    values = settings(tmp_path, "classification", split={"folds": 3, "final": True}, verdict=False)
    results = run.train(parsing.from_dict(values))
    folds = [RunFolder(tmp_path / "run" / f"fold-{one}").read_results()["thresholds"] for one in (1, 2, 3)]
    assert len({*map(tuple, folds)}) == 3
    assert results["thresholds"] == np.median(folds, axis=0).tolist()
    assert crossmodal.load(tmp_path / "run").thresholds == tuple(results["thresholds"])
    assert "the medians of the chosen ones" in capsys.readouterr().out
    values = settings(tmp_path, "classification", split={"final": True, "fold": 0}, output_dir=str(tmp_path / "all"))
    assert run.train(parsing.from_dict(values))["thresholds"] == []
    assert "thresholds: there is no validation part to choose them on, so 1/2 stays" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "asked", "message"),
    [
        ("regression", "f1", "thresholds: they are for labels and for two classes, my.npz has regression targets"),
        ("multilabel", "0.3", "thresholds: expected f1, balanced_accuracy or 2 numbers separated by commas, between 0 and 1"),
        ("classification", "1", "thresholds: expected f1, balanced_accuracy or a number between 0 and 1, got '1'"),
        ("classification", "f2", "thresholds: expected f1, balanced_accuracy or a number"),
    ],
)  # fmt: skip
def test_what_has_no_thresholds(tmp_path, kind, asked, message):
    values = settings(tmp_path, kind, thresholds=asked, metric=None)
    with pytest.raises(UserError, match=message):
        run.train(parsing.from_dict(values))
    assert not (tmp_path / "run").exists()
