"""What a run says of itself beside what needs no learning and no transformer."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from crossmodal import compare, parsing, plans, run, verdict
from crossmodal.data.dataset import ArrayDataset
from crossmodal.errors import UserError
from crossmodal.tasks.base import About
from crossmodal.training import outcomes


def learn(folder, kind: str, learnable: bool, method: str = "linear", groups: int = 0, **changes):
    """A run on 60 samples, tested on 80; in those that can be learned, the target is in the mean of the sample."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((140, 1, 12))
    truth = x.mean(2)[:, 0] if learnable else rng.standard_normal(140)
    y = {
        "classification": (truth > 0.2).astype(int),
        "multilabel": np.stack([truth > 0, truth > 0.3], 1).astype(int),
        "regression": truth,
        "dense": np.roll(x, 3, 2) + 0.1 * rng.standard_normal(x.shape) if learnable else rng.standard_normal(x.shape),
    }[kind]
    arrays = {"x_train": x[:60], "y_train": y[:60], "x_test": x[60:], "y_test": y[60:]}
    if groups:
        arrays |= {"group_train": np.arange(60) % 10, "group_test": 100 + np.arange(80) % groups}
    np.savez(folder / "data.npz", **arrays)
    values = {"task": "arrays", "data": str(folder / "data.npz"), "kind": kind, "method": method, "device": "cpu"}
    return run.train(parsing.from_dict(values | {"output_dir": str(folder / "run"), "threads": 1} | changes))


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression", "dense"])
@pytest.mark.parametrize("learnable", [False, True])
def test_what_cannot_be_learned_is_called_so(tmp_path, capsys, kind, learnable):
    found = learn(tmp_path, kind, learnable)["verdict"]
    assert found["sentence"].startswith(
        "Better than" if learnable else ("No better than predicting", "Worse than pred")
    )
    assert capsys.readouterr().out.splitlines()[-2] == found["sentence"]
    assert json.loads((tmp_path / "run" / "results.json").read_text())["verdict"]["sentence"] == found["sentence"]
    assert (found["over"], found["units"], found["tested_on"], found["left_out"]) == ("samples", 80, 80, {})
    names = (
        {"mean", "rocket", "knn"}
        if kind in ("classification", "multilabel")
        else {"mean", "rocket", "knn", "zero", "last"}
    )
    assert set(found["others"]) == ({"mean", "copy", "zero"} if kind == "dense" else names)


def test_figures_of_the_others_are_those_of_their_own_runs(tmp_path):
    found = learn(tmp_path, "regression", True)
    for name in ("mean", "knn"):
        alone = learn(tmp_path, "regression", True, method=name, output_dir=str(tmp_path / name), verdict=False)
        assert alone["verdict"] is None
        assert found["verdict"]["others"][name]["value"] == alone["test"]


@pytest.mark.parametrize(("groups", "told"), [(3, False), (5, True)])
def test_groups_are_what_is_drawn_and_too_few_are_said(tmp_path, capsys, groups, told):
    found = learn(tmp_path, "regression", True, groups=groups)["verdict"]
    assert (found["over"], found["units"], found["interval"] is not None) == ("groups", groups, told)
    assert found["sentence"].startswith("Better than" if told else "Not told: too few test groups (3)")
    said = capsys.readouterr().out
    assert ("too few groups for intervals" in said) != told
    assert said.splitlines()[-2].endswith(" --split.folds tests on all groups.") != told
    assert "epochs: " not in said  # of a method without any


def test_many_samples_are_a_part_of_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(verdict, "MOST_LEARNED", 25)
    monkeypatch.setattr(verdict, "MOST_TESTED", 50)
    results = learn(tmp_path, "classification", True)
    found = results["verdict"]
    assert (found["learned_from"], found["tested_on"], found["units"]) == (25 - 5 + 5, 50, 50)
    assert results["samples"]["test"] == 80
    assert "these learned from 25 of 60 samples" in capsys.readouterr().out


def test_beside_mae_8_stands_the_best_constant():
    """Of the distances that it counts, which are near, the median; the mean of all is far."""
    y = torch.full((2, 1, 30, 30), 20.0)
    y[..., 0, 25:28] = torch.tensor([4.0, 5.0, 6.0])
    y[..., 0, 29] = 1.0  # which the mask takes out
    mask = torch.ones_like(y, dtype=torch.bool)
    mask[..., 29] = False
    split = ArrayDataset(torch.zeros(2, 1, 30, 30), y, extras={"mask": mask})
    scaling = SimpleNamespace(inverse_y=lambda y: y, apply_y=torch.from_numpy, logits=False)
    task = SimpleNamespace(metric="mae_8", train=split, validation=split, test=split, normalizer=scaling)
    found = verdict._best_constant(task)(split.read(torch.arange(2)))
    assert found.shape == y.shape
    assert found.unique().item() == pytest.approx(5, abs=0.05)


@pytest.mark.parametrize(
    ("held", "named", "shift", "floors"),
    [
        ((), (), 0, {"mean", "copy", "zero"}),
        (("u", "v"), ("v",), 0, {"mean", "copy", "zero"}),
        (("density", "x"), ("pressure",), 0, {"mean", "zero"}),
        ((), ("pressure",), 9, {"mean"}),
    ],
)
def test_floors_are_those_that_make_sense(tmp_path, held, named, shift, floors):
    """No copy of another quantity, and no zero where no target is as small."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (20, 2, 6))
    np.savez(tmp_path / "data.npz", x_train=x, y_train=x[:, :1] + shift, x_test=x, y_test=x[:, :1] + shift)
    config = parsing.from_dict({"task": "arrays", "data": str(tmp_path / "data.npz"), "kind": "dense"})
    task = dataclasses.replace(run.load_task(config), about=About(features=held, targets=named))
    assert {name for name, _, learns, _ in verdict._rivals(task, config) if not learns} == floors


def test_nothing_that_learns_is_fitted_to_samples_that_are_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(verdict, "MOST_VALUES", 12)
    found = learn(tmp_path, "classification", True)["verdict"]
    assert (list(found["others"]), found["tested_on"], found["learned_from"]) == (["mean"], 24, 24)
    assert "a sample has 14 values" in found["left_out"]["knn"]


def test_a_rival_that_fails_costs_no_run(tmp_path, monkeypatch):
    def fail(*arguments):
        raise np.linalg.LinAlgError("no convergence")

    monkeypatch.setattr(verdict.methods.get("knn"), "fit", fail)
    assert learn(tmp_path, "classification", True)["verdict"]["left_out"] == {"knn": "no convergence"}


@pytest.mark.parametrize(
    ("names", "in_order"), [(["height", "width", "depth"], False), (["1000.5", "990", "980"], True)]
)
def test_columns_of_a_table_are_no_series_but_where_their_names_are_numbers(tmp_path, names, in_order):
    rows = np.random.default_rng(0).standard_normal((40, 4))
    lines = [",".join(f"{value:.3f}" for value in row) for row in rows]
    (tmp_path / "mine.csv").write_text("\n".join([",".join([*names, "y"]), *lines]) + "\n")
    config = parsing.from_dict({"task": "arrays", "data": str(tmp_path / "mine.csv"), "table": {"target": "y"}})
    rivals = {name for name, *_ in verdict._rivals(run.load_task(config), config)}
    assert rivals == {"mean", "linear", "knn", "zero", *(["rocket"] * in_order)}
    plan = plans.read(None, None, "all", None, ["--data", config.data, "--table.target", "y"])
    unsuited = {method for _, method in compare.assemble(plan, tmp_path)[1]}
    assert ({"rocket", "dash", "nas", "tuned_cnn", "hand_designed"} <= unsuited) != in_order


def one(value, gain, p, learns, called):
    return {
        "called": called,
        "learns": learns,
        "value": value,
        "gain": gain,
        "p": p,
        "interval": [gain - 0.1, gain + 0.1],
    }


@pytest.mark.parametrize(
    ("learner", "start"),
    [
        ((0.6, 0.2, 0.01), "Better than ROCKET, the best of what needs no transformer, by 0.2 (95 %: 0.1 to 0.3, paired"),
        ((0.78, 0.02, 0.6), "Better than predicting the most frequent class by 0.3 (95 %: 0.2 to 0.4, paired bootstrap over 50 "
         "samples), but not told apart from ROCKET"),
        ((0.95, -0.15, 0.01), "Better than predicting the most frequent class by 0.3 (95 %: 0.2 to 0.4, paired bootstrap over 50 "
         "samples), but worse than ROCKET by 0.15 (95 %: 0.05 to 0.25, paired"),
    ],
)  # fmt: skip
def test_sentence(learner, start):
    others = {"mean": one(0.5, 0.3, 0.001, False, "the most frequent class"), "rocket": one(*learner, True, "ROCKET")}
    assert verdict._sentence("accuracy", 0.8, others, "samples", 50).startswith(start)


@pytest.mark.slow
def test_classes_that_are_imbalanced_are_warned_of_and_weighed(tmp_path, capsys):
    """Most samples are of one class; with weights, or drawn as often as the other, it is found more often."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 1, 6))
    y = (x.mean(2)[:, 0] + 0.4 * rng.standard_normal(200) > 0.55).astype(int)
    np.savez(tmp_path / "data.npz", x_train=x[:100], y_train=y[:100], x_test=x[100:], y_test=y[100:])
    values = {
        "task": "arrays",
        "data": str(tmp_path / "data.npz"),
        "method": "tuned_cnn",
        "device": "cpu",
        "verdict": False,
    }
    values |= {"threads": 1, "tuned_cnn": {"trials": 1}, "epochs": 4}
    found = {}
    for name in (None, "class_weights", "sampler"):
        changes = {} if name is None else {name: "balanced"}
        run.train(parsing.from_dict(values | {"output_dir": str(tmp_path / str(name))} | changes))
        found[name] = outcomes.load(tmp_path / str(name) / "test.npz").numbers["found"].sum(0)[1]
        out = capsys.readouterr().out
        assert "warning: " in out
        assert "of the training samples are of one class" in out
        assert ("class weights in the loss: " in out) == (name == "class_weights")
        assert ("sampler: each epoch has 80 samples, equally many of each class" in out) == (name == "sampler")
    assert min(found["class_weights"], found["sampler"]) > found[None]


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            "multilabel",
            {},
            "sampler: balanced draws samples by their one class, but the target is multilabel; --class_weights",
        ),
        ("regression", {}, "sampler: balanced draws samples by their one class, but the target is regression"),
        ("classification", {"class_weights": "balanced"}, "sampler and class_weights: either balances"),
    ],
)
def test_what_is_not_sampled_by_class(tmp_path, kind, changes, message):
    with pytest.raises(UserError, match=message):
        learn(tmp_path, kind, True, sampler="balanced", **changes)
    assert not (tmp_path / "run").exists()
