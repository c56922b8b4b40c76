from __future__ import annotations

import json

import numpy as np
import pytest

import crossmodal
from crossmodal import parsing, run
from crossmodal.methods import tuned_cnn
from crossmodal.training.folder import RunFolder
from crossmodal.training.run import Run
from tests.crossmodal import runs


@pytest.fixture
def values(tmp_path):
    return runs.settings(tmp_path, "none", method="tuned_cnn", epochs=4) | {"tuned_cnn": {"trials": 3}}


def test_the_best_trial_is_trained_again_and_the_results_say_which(tmp_path, values, monkeypatch):
    asked = []
    train = Run.train

    def note(self, model, objective, *, stage, epochs, **optimizer):
        names = [change.__name__ for change in self.task.train.augmentations]
        asked.append((stage, epochs, model.spec(), optimizer, names))
        return train(self, model, objective, stage=stage, epochs=epochs, **optimizer)

    monkeypatch.setattr(Run, "train", note)
    results = run.train(parsing.from_dict(values))
    assert [one[:2] for one in asked] == [("trial-1", 2), ("trial-2", 2), ("trial-3", 2), ("train", 4)]
    trials, chosen = results["trials"], results["chosen"]
    best = min(trials, key=lambda one: (-one["validation"], one["validation_loss"]))
    assert chosen == {key: value for key, value in best.items() if not key.startswith("validation")}
    assert {key: trials[0][key] for key in tuned_cnn.FIRST} == tuned_cnn.FIRST
    for (_, _, spec, optimizer, names), choice in zip(asked, [*trials, chosen], strict=True):
        assert {key: spec[key] for key in ("width", "depth", "kernel")}.items() <= choice.items()
        assert optimizer == {"new_lr": choice["lr"], "weight_decay": choice["weight_decay"]}
        assert names == list(choice["augment"])
    folder = RunFolder(tmp_path / "run")
    stages = [record["stage"] for record in folder.read_metrics()]
    assert stages == ["trial-1"] * 2 + ["trial-2"] * 2 + ["trial-3"] * 2 + ["train"] * 4
    stored = folder.read_results()
    assert stored["chosen"] == json.loads(json.dumps(chosen))
    with np.load(values["data"]) as data:
        found = crossmodal.load(tmp_path / "run").predict(data["x_test"])
        assert np.mean(found.predictions.numpy() == data["y_test"]) == results["test"] == 1


@pytest.mark.parametrize(("kind", "ndim"), [("classification", 1), ("dense", 2)])
def test_trials_are_drawn_by_the_seed_of_the_run(tmp_path, kind, ndim):
    values = runs.settings(tmp_path, "none", kind, ndim, method="tuned_cnn") | {"tuned_cnn": {"trials": 60}}
    config = parsing.from_dict(values)
    task = run.load_task(config)
    drawn = tuned_cnn._choices(task, config)
    assert len(drawn) == 60
    assert drawn[0] == tuned_cnn.FIRST
    assert drawn == tuned_cnn._choices(task, config)
    assert drawn != tuned_cnn._choices(task, parsing.from_dict(values | {"seed": 1}))
    found = {key: {one[key] for one in drawn} for key in drawn[0]}
    assert found["kernel"] == ({3, 5, 9} if ndim == 1 else {3, 5})
    assert found["augment"] == {(), ("noise",)} | ({("shift",), ("shift", "noise")} if kind != "dense" else set())
    assert 10**-3.5 <= min(found["lr"]) < 1e-3 < 5e-3 < max(found["lr"]) <= 1e-2
    told = tuned_cnn._choices(task, parsing.from_dict(values | {"augment": "noise"}))
    assert {one["augment"] for one in told} == {()}  # the settings' own is left as it is


def test_epochs_of_a_task_file_are_for_a_pretrained_encoder():
    asked = ["--task", "gunpoint", "--method", "tuned_cnn"]
    assert parsing.parse(["--task", "gunpoint", "--method", "linear"]).epochs == 60
    assert parsing.parse(asked).epochs is None
    assert parsing.parse([*asked, "--epochs", "7"]).epochs == 7
