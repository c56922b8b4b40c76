"""What CONTRIBUTING shows is done, to the letter: its examples become files of the package and are walked."""

from __future__ import annotations

import importlib.util
import re
import sys
from unittest import mock

import pytest

from crossmodal import evaluate, methods, parsing, run, tasks
from crossmodal.tasks import base
from tests.crossmodal import runs

TEXT = (runs.ROOT / "CONTRIBUTING.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- example: (\S+) -->\n```python\n(.*?)```", TEXT, flags=re.S))


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Both examples, as if their files were there."""
    with mock.patch.dict(base.REGISTRY), mock.patch.dict(methods.METHODS):
        for path, code in EXAMPLES.items():
            assert len(code.splitlines()) <= 35
            file = tmp_path / path.replace("/", "_")
            file.write_text(code)
            name = "crossmodal." + path.removesuffix(".py").replace("/", ".")
            spec = importlib.util.spec_from_file_location(name, file)
            monkeypatch.setitem(sys.modules, name, importlib.util.module_from_spec(spec))
            spec.loader.exec_module(sys.modules[name])
        yield


def test_the_examples_work(tmp_path, tiny_bert, added, capsys):
    assert sorted(EXAMPLES) == ["methods/bitfit.py", "tasks/tones.py"]
    assert "tones" in tasks.available()
    arguments = ["--task", "tones", "--method", "bitfit", "--encoder", tiny_bert, "--bitfit.warm_up", "2"]
    with pytest.raises(SystemExit):
        parsing.parse([*arguments, "--help"])
    assert "--bitfit.warm_up" in capsys.readouterr().out
    results = run.train(parsing.parse([*arguments, "--epochs", "2", "--output_dir", str(tmp_path / "run")]))
    assert results["method"] == "bitfit"
    assert results["steps"] == 4 * 2
    again = evaluate.evaluate(tmp_path / "run")
    assert again["value"] == again["stored"]
