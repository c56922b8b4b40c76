from __future__ import annotations

import pytest

from crossmodal.config import Config
from crossmodal.results import RunFolder, RunFolderError, versions


def test_prepare_makes_a_folder_with_the_settings(tmp_path):
    folder = RunFolder(tmp_path / "a" / "b")
    folder.prepare(Config(seed=3))
    assert folder.read_config()["seed"] == 3
    assert not folder.finished
    with pytest.raises(FileNotFoundError, match="no results"):
        folder.read_results()


def test_overwrite_removes_a_run_and_nothing_else(tmp_path):
    folder = RunFolder(tmp_path)
    folder.prepare(Config())
    folder.write_results({"a": 1})
    folder.model.mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    folder.prepare(Config(overwrite=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "notes.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_without_a_run_is_never_touched(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunFolderError, match="is not empty and holds no run"):
        RunFolder(tmp_path).prepare(Config(overwrite=overwrite))
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder(tmp_path / "thesis.tex").prepare(Config())


def test_an_unwritable_place(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(RunFolderError, match=r"cannot be written .*Permission denied"):
        RunFolder(tmp_path / "x").prepare(Config())


def test_metrics_lines(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_metrics([{"epoch": 0, "loss": 1.5}])
    folder.append_metrics({"epoch": 1, "loss": float("nan")})
    assert folder.read_metrics() == [{"epoch": 0, "loss": 1.5}, {"epoch": 1, "loss": None}]


def test_versions_say_what_is_missing(monkeypatch):
    monkeypatch.setattr("crossmodal.results.PACKAGES", ("torch", "no-such-package"))
    found = versions()
    assert found["torch"].startswith("2.")
    assert found["no-such-package"] == "not installed"
    assert {"python", "pare_kernels"} <= found.keys()
