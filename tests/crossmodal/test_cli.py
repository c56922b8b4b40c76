from __future__ import annotations

import signal

import numpy as np
import pytest
import torch

from crossmodal import cli, run
from crossmodal.errors import UserError
from crossmodal.training.trainer import Interrupted, NonFiniteLoss
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


@pytest.mark.parametrize("command", [cli.train, cli.predict, cli.evaluate, cli.compare, cli.miniature])
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


@pytest.mark.parametrize(
    "defect",
    [lambda _: np.zeros(3) + np.zeros(4), lambda _: torch.zeros(2).reshape("a"), lambda _: int("x"), lambda _: len(3)],
)
def test_a_defect_keeps_its_traceback_whoever_raises_it(monkeypatch, defect):
    monkeypatch.setattr(run, "train", defect)
    with pytest.raises((ValueError, TypeError)):
        cli.train([])


def test_an_explained_mistake_is_one_message(monkeypatch, capsys):
    def fail(_):
        raise UserError("seeds: expected numbers")

    monkeypatch.setattr(run, "train", fail)
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
    assert capsys.readouterr().err == "error: epochs: expected int > 0 or null, got '-1'\n"
    assert cli.predict([str(tmp_path), "in.npy", "-o", "out.npy"]) == 2
    assert "no results" in capsys.readouterr().err
    assert cli.evaluate([str(tmp_path)]) == 2
    assert cli.compare(["--methods", "x"]) == 2


def test_scripts_work_from_a_plain_checkout():
    assert "usage" in runs.finish(runs.script("evaluate.py", "--help"))


WITHOUT_TORCH = """
import sys

sys.modules["torch"] = sys.modules["numpy"] = None
from crossmodal import cli

for command in (cli.train, cli.predict, cli.evaluate, cli.compare):
    try:
        command(["--help"])
    except SystemExit as ended:
        assert ended.code == 0
    else:
        sys.exit(1)
assert cli.train(["--epochs", "two"]) == 2
"""


def test_help_and_misspelled_options_need_no_torch(tmp_path):
    """Which takes seconds to import."""
    path = tmp_path / "without_torch.py"
    path.write_text(WITHOUT_TORCH)
    output = runs.finish(runs.script(path))
    assert output.count("usage: ") == 4
    assert "error: epochs: expected int > 0 or null, got 'two'" in output


@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "compare"])
def test_ctrl_c_amid_imports_is_quiet(tmp_path, command):
    """torch as a module that never ends to be imported."""
    (tmp_path / "torch.py").write_text("import time\n\nprint('importing', flush=True)\ntime.sleep(60)\n")
    path = tmp_path / "start.py"
    arguments = {"predict": ["run", "in.npy", "-o", "out.npy"], "evaluate": ["run"]}.get(command, [])
    path.write_text(f"from crossmodal import cli\n\ncli.{command}({arguments})\n")
    process = runs.script(path)  # whose folder comes first among those of modules
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (-signal.SIGINT, "")
