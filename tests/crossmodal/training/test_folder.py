from __future__ import annotations

import dataclasses

import pytest
import yaml

from crossmodal.errors import UserError
from crossmodal.methods import METHODS
from crossmodal.settings import Config
from crossmodal.training.folder import RunFolder, versions


def test_prepare_makes_a_folder_with_the_settings(tmp_path):
    folder = RunFolder(tmp_path / "a" / "b")
    folder.prepare(Config(seed=3))
    assert folder.read_config()["seed"] == 3
    assert not folder.finished
    with pytest.raises(UserError, match="no results"):
        folder.read_results()


def test_overwrite_removes_a_run_and_nothing_else(tmp_path):
    folder = RunFolder(tmp_path)
    folder.prepare(Config())
    folder.write_results({"a": 1})
    folder.model.mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    folder.check(Config(overwrite=True))
    assert folder.finished
    folder.release()
    folder.prepare(Config(overwrite=True))
    folder.release()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "data.json", "notes.txt"]


@pytest.mark.parametrize(
    "files",
    [
        {"model/weights.bin": "mine", "checkpoints/a": "mine"},
        {"data.json": '{"rows": 3}', "results.json": "{}", "metrics.jsonl": '{"epoch": 1}'},
        {"data.json": "[]"},
        {"data.json": "no JSON"},
    ],
    ids=["model", "data", "list", "damaged"],
)
def test_a_project_with_a_config_of_its_own_is_not_a_run(tmp_path, files):
    files = files | {"config.yaml": "task: digits"}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    for settings in (Config(), Config(overwrite=True), Config(resume=True)):
        with pytest.raises(UserError, match="is not empty and holds no run"):
            RunFolder(tmp_path).prepare(settings)
    assert {name: (tmp_path / name).read_text() for name in files} == files


def test_overwrite_leaves_what_others_put_into_a_run_s_folders(tmp_path):
    folder = RunFolder(tmp_path)
    folder.prepare(Config())
    folder.release()
    own = (
        "model/model.safetensors",
        "model/model.json",
        "checkpoints/train/step-00000001/state.pt",
        "trackers/crossmodal/x",
    )
    own += ("checkpoints/probe/.writing-step-00000002/state.pt", "curves.png", "results.json")
    foreign = ("model/weights.bin", "checkpoints/a/b", "trackers/c")
    for name in own + foreign:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    folder.prepare(Config(overwrite=True))
    folder.release()
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*foreign, "config.yaml", "data.json"}


@pytest.mark.parametrize("name", ["config.yaml", "data.json"])
def test_a_run_has_settings_and_data_json(tmp_path, name):
    folder = RunFolder(tmp_path)
    folder.prepare(Config())
    folder.write_results({"fingerprint": "1"})
    assert folder.holds_run
    (tmp_path / name).unlink()
    assert not folder.holds_run


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_without_a_run_is_never_touched(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        RunFolder(tmp_path).prepare(Config(overwrite=overwrite))
    with pytest.raises(UserError, match="is a file"):
        RunFolder(tmp_path / "thesis.tex").prepare(Config())


def test_an_unwritable_place(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(UserError, match=r"cannot be written .*Permission denied"):
        RunFolder(tmp_path / "x").prepare(Config())


def test_check_finds_an_unwritable_place_and_makes_nothing(tmp_path, monkeypatch):
    RunFolder(tmp_path / "a" / "b").check(Config())
    assert not (tmp_path / "a").exists()

    def refuse(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(UserError, match=r"b cannot be written \(Read-only file system: .*\)"):
        RunFolder(tmp_path / "a" / "b").check(Config())


def test_resume_needs_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name, state in (("gone", "does not exist"), ("empty", "is empty")):
        with pytest.raises(
            UserError, match=rf"resume: no run to go on with, {tmp_path}/{name} {state}; .*--output_dir"
        ):
            RunFolder(name).check(Config(resume=True))
    assert not (tmp_path / "gone").exists()


def test_what_an_older_run_does_not_name_had_its_default(tmp_path):
    folder, config = RunFolder(tmp_path), Config(options=METHODS["pare"].Options())
    folder.prepare(config)
    stored = config.to_dict()
    del stored["sampler"], stored["split"]["final"], stored["pare"]["tau"]
    folder.config.write_text(yaml.safe_dump(stored))
    folder.check(dataclasses.replace(config, resume=True))
    with pytest.raises(UserError, match=r"other settings: sampler was None and is now 'balanced'$"):
        folder.check(dataclasses.replace(config, resume=True, sampler="balanced"))


def test_only_epochs_may_grow_and_not_of_a_finished_run(tmp_path):
    folder = RunFolder(tmp_path)
    folder.prepare(Config(data="here", data_dir="there", epochs=30))
    folder.check(Config(resume=True, epochs=31))
    for changes in ({"epochs": 29}, {"epochs": 31, "batch_size": 15}):
        with pytest.raises(
            UserError, match=r"other settings: (epochs was 30 and is now 29|batch_size was 16 and is now 15)$"
        ):
            folder.check(Config(**{"resume": True, "epochs": 30} | changes))
    folder.write_results({})
    folder.check(Config(resume=True, epochs=30))
    with pytest.raises(UserError, match="epochs was 30 and is now 31; it is finished, and its checkpoints are gone"):
        folder.check(Config(resume=True, epochs=31))


@pytest.mark.parametrize("settings", [Config(resume=True), Config(overwrite=True)])
def test_one_run_at_a_time(tmp_path, settings):
    one, other = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    one.prepare(Config())
    with pytest.raises(UserError, match=r"another run is at work in .*run"):
        other.prepare(settings)
    one.release()
    other.prepare(settings)
    other.release()
    assert sorted(path.name for path in one.path.iterdir()) == ["config.yaml", "data.json"]


@pytest.mark.parametrize(("content", "message"), [("", "not readable JSON"), ("[]", "expected an object, got list")])
def test_damaged_results(tmp_path, content, message):
    folder = RunFolder(tmp_path)
    folder.results.write_text(content)
    with pytest.raises(ValueError, match=rf"results.json: {message}"):
        folder.read_results()


def test_changed_data_are_named(tmp_path):
    folder = RunFolder(tmp_path)
    folder.prepare(Config(), {"data of digits": "1" * 64, "source docs": "2" * 64})
    assert folder.changed_data({"data of digits": "1" * 64, "source docs": "2" * 64}) == []
    assert folder.changed_data({"data of digits": "1" * 64}) == []
    found = folder.changed_data({"data of digits": "3" * 64, "source docs": "4" * 64})
    assert found[0] == "data of digits (sha256 333333333333, then 111111111111)"
    assert found[1].startswith("source docs (")


def test_metrics_lines(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_metrics([{"epoch": 1, "loss": 1.5}])
    folder.append_metrics({"epoch": 2, "loss": float("nan")})
    assert folder.read_metrics() == [{"epoch": 1, "loss": 1.5}, {"epoch": 2, "loss": None}]


def test_versions_say_what_is_missing(monkeypatch):
    monkeypatch.setattr("crossmodal.training.folder.PACKAGES", ("torch", "no-such-package"))
    found = versions()
    assert found["torch"].startswith("2.")
    assert found["no-such-package"] == "not installed"
    assert {"python", "pare_kernels"} <= found.keys()
