from __future__ import annotations

import signal

import numpy as np
import pytest
import torch

from crossmodal import cli, run
from crossmodal.engine import Interrupted, NonFiniteLoss
from tests.crossmodal import runs


def test_list_names_everything_with_a_line_each(capsys):
    assert cli.train(["--list"]) == 0
    out = capsys.readouterr().out
    for name in (
        "italy_power_demand",
        "arrays",
        "pare",
        "nft",
        "scratch",
        "minilm",
        "scipy_docs",
        "relative_l2",
        "macro_f1",
    ):
        assert any(line.split()[0] == name and len(line.split()) > 3 for line in out.splitlines() if line.strip()), name


@pytest.mark.parametrize("command", [cli.train, cli.predict, cli.evaluate, cli.compare])
def test_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        command(["--help"])
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Interrupted(signal.SIGTERM, "stopped"), 143),
        (Interrupted(signal.SIGINT, "stopped"), 130),
        (NonFiniteLoss("nan"), 1),
        (OSError(28, "No space left"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(monkeypatch, capsys, error, code):
    def fail(_):
        raise error

    monkeypatch.setattr(run, "train", fail)
    assert cli.train([]) == code
    assert capsys.readouterr().err.strip()


def test_a_defect_keeps_its_traceback(monkeypatch):
    def fail(_):
        int("x")

    monkeypatch.setattr(run, "train", fail)
    with pytest.raises(ValueError, match="invalid literal"):
        cli.train([])


def in_package(statement: str):
    """A function of one statement, as if it stood in this package."""
    names = {"__name__": "crossmodal.made_up", "np": np, "torch": torch}
    exec(f"def train(settings):\n    {statement}\n", names)
    return names["train"]


@pytest.mark.parametrize(
    "defect",
    [
        "np.zeros(3) + np.zeros(4)",
        "np.zeros(3).reshape(2, 2)",
        "torch.zeros(2).reshape('a')",
        "torch.from_numpy(3)",
        "int('x')",
        "'a' + 1",
        "len(3)",
        "a, b = (1, 2, 3)",
        "list(map(int, ['x']))",
    ],
)
def test_a_defect_in_this_package_keeps_its_traceback_where_c_code_raises(monkeypatch, defect):
    """Such an error has no Python frame of its own: the last one is ours."""
    monkeypatch.setattr(run, "train", in_package(defect))
    with pytest.raises((ValueError, TypeError)):
        cli.train([])


@pytest.mark.parametrize(
    "mistake",
    [
        "raise ValueError('seeds: expected numbers')",
        "raise TypeError('seeds: expected numbers') from None",
        "error = ValueError('seeds: expected numbers'); raise error",
    ],
)
def test_an_explained_mistake_is_one_message(monkeypatch, capsys, mistake):
    monkeypatch.setattr(run, "train", in_package(mistake))
    assert cli.train([]) == 2
    assert capsys.readouterr().err == "error: seeds: expected numbers\n"


def test_a_process_that_waited_for_another_is_brief(monkeypatch, capsys):
    def fail(_):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:43694.")

    monkeypatch.setattr(run, "train", fail)
    with pytest.raises(RuntimeError, match="closed by peer"):
        cli.train([])
    monkeypatch.setenv("RANK", "1")
    assert cli.train([]) == 1
    assert capsys.readouterr().err == "process 1: stopped, because another process did\n"


def test_mistakes_are_one_message(capsys, tmp_path):
    assert cli.train(["--epochs", "-1"]) == 2
    assert capsys.readouterr().err == "error: epochs: expected a positive number or null, got -1\n"
    assert cli.predict([str(tmp_path), "in.npy", "-o", "out.npy"]) == 2
    assert "no results" in capsys.readouterr().err
    assert cli.evaluate([str(tmp_path)]) == 2
    assert cli.compare(["--methods", "x"]) == 2


def test_scripts_work_from_a_plain_checkout():
    assert "usage" in runs.finish(runs.script("train.py", "--help"))
