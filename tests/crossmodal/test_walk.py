"""Every method with every kind of task, as the registries have them: a step, an interruption, resume, evaluation, prediction.

A new method or task is walked the day its file exists.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import crossmodal
from crossmodal import evaluate, methods, miniature, parsing, run, tasks
from crossmodal.errors import Interrupted, UserError
from crossmodal.kinds import KINDS
from crossmodal.training.folder import RunFolder
from tests.crossmodal import runs
from tests.crossmodal.runs import stop_at

QUICK = {
    "tuned_cnn": {"trials": 1},
    "rocket": {"kernels": 500},
    "lp_ft": {"probe_epochs": 2},
    "orca": {"epochs": 2},
    "dash": {"budget": 0.05, "width": 1},
    "nas": {"space": "blocks", "budget": 0.03},
}


def settings(folder: Path, encoder: str, method: str, kind: str, ndim: int) -> dict:
    """The tiniest run of a method; its own options at their defaults, but for what these cost."""
    values = runs.settings(
        folder, encoder, kind, ndim, method=method, epochs=2, batch_size=16, checkpoint__every_steps=1
    )
    values.pop("pare", None)
    return values | ({method: QUICK[method]} if method in QUICK else {})


# Between kinds of target heads and losses differ, between numbers of axes embedders do: one combination stands for some others.
COMBINATIONS = [
    pytest.param(kind, ndim, marks=[pytest.mark.slow] * ((kind, ndim) not in (("classification", 1), ("dense", 2))))
    for kind in KINDS
    for ndim in (1, 2)
]


@pytest.mark.parametrize(("kind", "ndim"), COMBINATIONS)
@pytest.mark.parametrize("method", methods.METHODS)
def test_a_method_walks_with_a_task(tmp_path, tiny_bert, monkeypatch, method, kind, ndim):
    values = settings(tmp_path, tiny_bert, method, kind, ndim)
    reason = methods.reason_against(method, run.load_task(parsing.from_dict(values)))
    if reason:
        with pytest.raises(UserError, match=rf"^method: {method} cannot do [\w.]+: ") as refused:
            run.train(parsing.from_dict(values))
        assert reason in str(refused.value)
        assert not Path(values["output_dir"]).exists()
        return
    straight = run.train(parsing.from_dict(values | {"output_dir": str(tmp_path / "straight"), "pictures": "png"}))
    with monkeypatch.context() as patch:
        stop_at(patch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        for resume in (False, *[True] * 9):  # once in each stage
            try:
                run.train(parsing.from_dict(values | {"resume": resume}))
            except Interrupted:
                continue
            break
    one, other = (RunFolder(tmp_path / name) for name in ("run", "straight"))
    assert (one.model / "model.safetensors").read_bytes() == (other.model / "model.safetensors").read_bytes()
    results = one.read_results()
    assert (results["test"], results["steps"]) == (straight["test"], straight["steps"])
    assert results["test_metrics"].keys() == json.loads(other.results.read_text())["test_metrics"].keys()
    assert {path.name for path in other.path.glob("*.png")} >= set(methods.get(method).pictures)
    assert not [*one.path.glob("*.png")]

    again = evaluate.evaluate(one.path)
    assert (again["value"], again["metrics"]) == (results["test"], results["test_metrics"])
    with np.load(values["data"]) as data:
        found = crossmodal.load(one.path).predict(data["x_test"])
        assert len(found.predictions) == len(data["x_test"])
        if kind == "classification":
            assert np.mean(found.predictions.numpy() == data["y_test"]) == results["test"]
        else:
            assert found.predictions.shape == data["y_test"].shape


@pytest.mark.parametrize(
    ("method", "stage", "step"), [("lp_ft", "probe", 2), ("orca", "alignment", 1), ("orca", "train", 2)]
)
def test_a_method_of_two_stages_resumes_in_either_to_the_same_bits(
    tmp_path, tiny_bert, monkeypatch, method, stage, step
):
    values = settings(tmp_path, tiny_bert, method, "classification", 1)
    run.train(parsing.from_dict(values | {"output_dir": str(tmp_path / "straight")}))
    with monkeypatch.context() as patch:
        stop_at(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM), stage)
        with pytest.raises(Interrupted, match=rf"saved \S+/{stage}/step-0000000{step + 1}"):
            run.train(parsing.from_dict(values))
    run.train(parsing.from_dict(values | {"resume": True}))
    one, other = (RunFolder(tmp_path / name) for name in ("run", "straight"))
    assert (one.model / "model.safetensors").read_bytes() == (other.model / "model.safetensors").read_bytes()
    records = [
        [(r["stage"], r["epoch"], r["loss"], r.get("validation")) for r in f.read_metrics()] for f in (one, other)
    ]
    assert records[0] == records[1]
    first = records[0][0][0]
    assert [record[:2] for record in records[0]] == [(first, 1), (first, 2), ("train", 1), ("train", 2)]
    assert not one.checkpoints.exists()


def test_what_cannot_be_is_one_table():
    """Each entry with a reason that is a sentence for a person; every method can do something."""
    kinds = {*KINDS, "1d", "2d"}
    for name, method in methods.METHODS.items():
        assert set(method.unsuited) <= kinds, name
        assert all(len(reason) > 15 for reason in method.unsuited.values())
        assert any(not {kind, f"{ndim}d"} & set(method.unsuited) for kind in KINDS for ndim in (1, 2))


@pytest.mark.parametrize("task", [name for name in tasks.available() if name != "arrays"])
def test_a_task_is_read_and_described(task, tmp_path, tiny_swin):
    """Shapes, parts and metrics of every task that needs no file of the user's; of one that reads public files, of a miniature."""
    entry = tasks.base.entry(task)
    public = bool(entry.files) and entry.needs_files
    config = parsing.parse(["--task", task, "--encoder", tiny_swin, *(["--data_dir", str(tmp_path)] if public else [])])
    if public:
        miniature.make(task, tmp_path)
    for protocol in tasks.protocols(task):
        config.protocol = protocol
        found = run.load_task(config)
        batch = found.train.read(torch.arange(2))
        assert batch.x.shape == (2, *found.input_shape)
        assert min(len(found.train), len(found.validation), len(found.test)) > 0
        assert found.description.startswith(f"{task}: ")
        assert found.protocol == protocol
        if equation := found.equation:
            assert tuple(map(len, equation.points)) == found.input_shape[1:]
            assert max(1, len(equation.known)) * len(equation.inputs) == found.input_shape[0]
            target = found.test.read(torch.arange(1)).y
            assert max(1, len(equation.asked)) * len(equation.outputs) == target.shape[1]
