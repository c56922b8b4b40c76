"""Folds as one run, the model of everything, intervals over folds and samples, and leakage by groups."""

from __future__ import annotations

import os
import re
import signal

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

import crossmodal
from crossmodal import evaluate, folds, parsing, predict, run, tasks
from crossmodal.errors import Interrupted, UserError
from crossmodal.report import ranking
from crossmodal.scoring import metric as metric_module
from crossmodal.scoring import metrics
from crossmodal.scoring.metric import wilson
from crossmodal.settings import SplitConfig
from crossmodal.training import outcomes
from crossmodal.training.folder import RunFolder
from tests.crossmodal import runs
from tests.crossmodal.runs import stop_at

RNG = np.random.default_rng(5)


def planted(path, people: int = 30, each: int = 12, effect: float = 0.0, names: bool = True):
    """Each person has a signature and one label, which says nothing of a new person but by its `effect`."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(people), each)
    label, signature = np.arange(people) % 2, rng.normal(size=(people, 16))
    x = 4 * signature[group] + rng.normal(size=(len(group), 16))
    x[:, 0] += effect * (2 * label[group] - 1)
    np.savez(path, x=x, y=label[group], **({"group": np.array([f"p{one}" for one in group])} if names else {}))
    return path


def settings(folder, data, method: str, **changes) -> dict:
    base = {"task": "arrays", "data": str(data), "device": "cpu", "threads": 1, "method": method}
    return base | {"output_dir": str(folder)} | changes


def test_leakage_by_group_is_prevented_and_warned_of_when_forced(tmp_path):
    data = planted(tmp_path / "planted.npz")

    def score(task) -> float:
        model = KNeighborsClassifier(1).fit(task.train.x.flatten(1), task.train.y)
        return model.score(task.test.x.flatten(1), task.test.y)

    whole, divided = [], []
    for seed in range(4):
        task = tasks.load("arrays", data=data, split=SplitConfig(seed=seed))
        parts = [set(part.extra("group").tolist()) for part in (task.train, task.validation, task.test)]
        assert not (parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2])
        assert "test: 6 whole groups of the 30 in all samples" in task.description
        assert task.test.y.float().mean() == 0.5  # stratified, too
        assert "warning" not in task.description
        whole.append(score(task))
        forced = tasks.load("arrays", data=data, split=SplitConfig(seed=seed, divide_groups=True))
        assert "warning: groups are divided (split.divide_groups)" in forced.description
        divided.append(score(forced))
    assert np.mean(divided) > 0.97
    assert np.mean(whole) < 0.75


def test_a_validation_far_better_than_the_test_is_warned_of(tmp_path, capsys):
    y, known = np.arange(360) % 2, np.arange(360) < 240
    x, rng = RNG.normal(size=(360, 16)) + 2 * y[:, None], np.random.default_rng(0)
    parts = {"x_train": x[known], "y_train": y[known], "x_test": x[~known], "y_test": rng.permutation(y[~known])}
    np.savez(tmp_path / "parts.npz", **parts)
    told = {"epochs": 2, "verdict": False, "pictures": None, "tuned_cnn": {"trials": 1}}
    found = run.train(parsing.from_dict(settings(tmp_path / "run", tmp_path / "parts.npz", "tuned_cnn", **told)))
    assert found["warnings"][0].startswith("warning: validation is far better than the test (validation accuracy ")
    assert found["warnings"][0] in capsys.readouterr().out


def test_a_part_of_the_training_samples_is_whole_groups(tmp_path):
    data = planted(tmp_path / "planted.npz")
    for size in (100, 288):
        task = tasks.load("arrays", data=data, split=SplitConfig(train_size=size))
        groups = torch.cat([part.extra("group") for part in (task.train, task.validation)])
        assert (groups.bincount(minlength=30)[groups.unique()] == 12).all()
        assert abs(len(groups) - size) < 12
        assert (
            f"only {len(groups) // 12} of 24 groups, {len(groups)} of 288 samples, of the training" in task.description
        )
        assert abs(torch.cat([task.train.y, task.validation.y]).float().mean() - 0.5) < 0.1


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_folds_divide_no_group_and_test_each_sample_once(tmp_path, kind, grouped):
    y = {
        "classification": np.arange(60) % 3,
        "multilabel": RNG.integers(0, 2, (60, 3)),
        "regression": RNG.normal(size=60),
    }[kind]
    groups = {"group": RNG.permutation(np.arange(60) % 15)} if grouped else {}
    np.savez(tmp_path / "my.npz", x=RNG.normal(size=(60, 9)), y=y, **groups)
    for repeat in range(2):
        tested = []
        for fold in range(1, 6):
            split = SplitConfig(folds=5, repeats=2, fold=5 * repeat + fold)
            task = tasks.load("arrays", data=tmp_path / "my.npz", kind=kind, split=split)
            tested += task.test_rows.tolist()
            if grouped:
                parts = [set(part.extra("group").tolist()) for part in (task.train, task.validation, task.test)]
                assert sum(map(len, parts)) == len(set.union(*parts)) == 15
            if kind == "classification":
                assert len(task.train.y.unique()) == 3
        assert sorted(tested) == list(range(60))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"folds": 40, "fold": 1}, "split.folds: expected at most 30, the groups of"),
        ({"repeats": 2}, "split.repeats: expected split.folds as well"),
        ({"folds": 3, "fold": 4}, "split.fold: expected at most 3"),
        ({"folds": 1}, "split.folds: expected .*>= 2"),
    ],
)
def test_folds_that_cannot_be(tmp_path, split, message):
    values = settings(tmp_path / "run", planted(tmp_path / "my.npz", each=3), "mean", split=split)
    with pytest.raises(UserError, match=message):
        run.train(parsing.from_dict(values))
    assert not (tmp_path / "run").exists()


def test_a_class_of_one_group_is_named(tmp_path):
    y = np.where(np.arange(40) < 4, 2, np.arange(40) % 2)
    np.savez(tmp_path / "my.npz", x=RNG.normal(size=(40, 9)), y=y, group=np.arange(40) // 4)
    assert 2 not in tasks.load("arrays", data=tmp_path / "my.npz").test.y.tolist()  # kept to learn from
    messages = []
    for fold in range(1, 6):
        try:
            tasks.load("arrays", data=tmp_path / "my.npz", split=SplitConfig(folds=5, fold=fold))
        except UserError as error:
            messages.append(str(error))
    assert len(messages) == 1
    assert "the classes ['2'] are in too few groups" in messages[0]


def test_folds_are_one_run_that_goes_on_after_a_stop(tmp_path, tiny_bert, monkeypatch, capsys):
    values = runs.settings(tmp_path, tiny_bert, method="nft", epochs=2, split__folds=2, split__final=True)
    values["data"] = str(planted(tmp_path / "p.npz", people=12, each=4, effect=4))
    straight = run.train(parsing.from_dict(values | {"output_dir": str(tmp_path / "straight")}))
    said = capsys.readouterr().out
    with monkeypatch.context() as patch:
        stop_at(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            run.train(parsing.from_dict(values))
    results = run.train(parsing.from_dict(values | {"resume": True}))
    one, other = (RunFolder(tmp_path / name / "fold-2") for name in ("run", "straight"))
    assert (one.model / "model.safetensors").read_bytes() == (other.model / "model.safetensors").read_bytes()
    assert results["folds"] == straight["folds"]
    assert results["test"] == np.mean(results["folds"]["test"])
    assert len(results["test_groups"]) == 12
    assert "final: learns from all samples, for " in said
    assert "the median of the best ones" in said
    final = RunFolder(tmp_path / "run" / "final").read_results()
    assert final["samples"] == {"train": 48, "validation": 0, "test": 0}
    assert final["epochs"] == results["final_epochs"] == round(np.median(results["folds"]["best_epoch"]))
    again = evaluate.evaluate(tmp_path / "run")
    assert (again["value"], again["stored"]) == (results["test"], results["test"])
    with np.load(values["data"]) as data:
        assert len(crossmodal.load(tmp_path / "run").predict(data["x"]).predictions) == 48
    run.train(parsing.from_dict(values | {"resume": True}))
    assert "is finished already" in capsys.readouterr().out


def test_folds_have_one_verdict_and_predict_together(tmp_path, capsys):
    data = planted(tmp_path / "my.npz", effect=5)
    results = run.train(parsing.from_dict(settings(tmp_path / "run", data, "linear", split={"folds": 3})))
    assert results["samples"]["test"] == 360
    assert results["test_interval_over"] == "groups"
    found, each = (
        results["verdict"],
        [RunFolder(tmp_path / "run" / f"fold-{fold}").read_results() for fold in (1, 2, 3)],
    )
    assert found["sentence"] in capsys.readouterr().out
    assert (found["over"], found["units"], found["tested_on"]) == ("groups", 30, 360)
    assert found["interval"] == results["test_interval"]
    assert {name: one["value"] for name, one in found["others"].items()} == pytest.approx(
        {name: np.mean([run["verdict"]["others"][name]["value"] for run in each]) for name in ("mean", "rocket", "knn")}
    )
    ranked = ranking.rank({"linear": [outcomes.load(tmp_path / "run" / "test.npz")]})
    assert (ranked["values"]["linear"], ranked["units"]) == (pytest.approx(results["test"]), 30)
    predictor = crossmodal.load(tmp_path / "run")
    with np.load(data) as arrays:
        x = arrays["x"]
    found = predictor.predict(x)
    members = torch.stack([member.predict(x).probabilities for member in predictor.members])
    torch.testing.assert_close(found.probabilities, members.mean(0))
    assert np.array_equal(found.predictions.numpy(), found.probabilities.argmax(1).numpy())


def test_the_folds_of_a_table_predict_from_a_table(tmp_path):
    rows = [f"{i % 2 + RNG.random() / 4},{'red' if i % 3 else 'blue'},{'no' if i % 2 else 'yes'}" for i in range(30)]
    table = tmp_path / "mine.csv"
    table.write_text("level,colour,ill\n" + "\n".join(rows) + "\n")
    values = settings(tmp_path / "run", table, "linear", split={"folds": 3}, table={"target": "ill"}, verdict=False)
    run.train(parsing.from_dict(values))
    predict.main([str(tmp_path / "run"), str(table), "-o", str(tmp_path / "out.csv")])
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0].startswith("line,ill,prediction,")
    assert [line.split(",")[:3] for line in lines[1:]] == [
        [str(at), *[row.split(",")[-1]] * 2] for at, row in enumerate(rows, 2)
    ]


@pytest.mark.parametrize("method", ["tuned_cnn", "dash", "nas", "linear"])
def test_a_method_that_needs_validation_makes_no_final_model(tmp_path, method):
    data = planted(tmp_path / "my.npz", each=3)
    if method == "linear":  # of fields
        data = runs.write_data(tmp_path, "dense")
    values = settings(tmp_path / "run", data, method, split={"final": True})
    with pytest.raises(UserError, match=rf"split\.final: method {method} chooses by a validation split"):
        run.train(parsing.from_dict(values))
    assert not (tmp_path / "run").exists()


def test_intervals_over_groups_hold_the_truth_as_often_as_they_say(monkeypatch):
    """Groups with an accuracy of their own, about 0.8, folds of whole groups: of 100 data sets about 95 % of the intervals do."""
    monkeypatch.setattr(metric_module, "RESAMPLES", 200)
    rng, metric, hits, naive = np.random.default_rng(1), metrics.get("accuracy"), 0, 0
    for _ in range(100):
        group = np.repeat(np.arange(20), 15)
        right = rng.random(300) < rng.beta(4, 1, 20)[group]
        truth = np.zeros((300, 2))
        truth[:, 0] = 1
        numbers = {"truth": truth, "found": truth, "both": truth * right[:, None]}
        low, high = metric.interval(numbers, group, fold=group % 5)
        hits += low <= 0.8 <= high
        low, high = wilson(right.mean(), 300)
        naive += low <= 0.8 <= high
    assert 0.90 <= hits / 100 <= 0.99
    assert naive / 100 < 0.85


def test_the_interval_over_folds_is_wider_for_what_training_sets_share():
    accuracy, sizes = metrics.get("accuracy"), {"train": 60, "validation": 15, "test": 25}
    found = folds.corrected_interval(accuracy, [0.8, 1.0, 0.7, 0.9], [sizes] * 4)
    error = np.sqrt((1 / 4 + 25 / 75) * np.var([0.8, 1.0, 0.7, 0.9], ddof=1))
    np.testing.assert_allclose(found, [0.85 - 3.182446 * error, 1.0], rtol=1e-6)
    assert folds.corrected_interval(accuracy, [0.8, 0.8], [sizes] * 2) is None
    assert folds.corrected_interval(metrics.get("mae"), [0.1, 3.0], [sizes] * 2)[0] == 0
    assert folds.corrected_interval(metrics.get("r2"), [-0.9, 0.9], [sizes] * 2)[0] < -1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x, None),
        (lambda x: np.concatenate([x[:40], x[:10]]), "test samples that are in the train part, too: 10 of 10"),
        (
            lambda x: np.concatenate([x[:40], x[:10] + 1e-4]),
            r"test samples nearly equal to one of the train part .*: 10 of 10",
        ),
        (
            lambda x: np.stack([x.reshape(-1)[start : start + 32] for start in range(0, 400, 8)]),
            r"test samples that hold the same stretch of a series as samples of the train part: \d+ of 10",
        ),
    ],
)
def test_what_parts_share_is_warned_of(tmp_path, change, message):
    x = change(np.random.default_rng(0).normal(size=(50, 32)).cumsum(1)).astype(np.float32)
    y = np.arange(50) % 2
    parts = {"x_train": x[:40], "y_train": y[:40], "x_val": x[30:40], "y_val": y[30:40]}
    parts = {key: values[:30] if key.endswith("train") and message is None else values for key, values in parts.items()}
    np.savez(tmp_path / "my.npz", **parts, x_test=x[40:], y_test=y[40:])
    said = tasks.load("arrays", data=tmp_path / "my.npz").description
    assert "warning" not in said if message is None else re.search(f"warning: {message}", said)
