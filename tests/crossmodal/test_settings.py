from __future__ import annotations

import dataclasses
import typing

import pytest
import yaml

from crossmodal import parsing
from crossmodal.errors import UserError
from crossmodal.methods import METHODS
from crossmodal.methods.base import NoOptions
from crossmodal.methods.pare import Options
from crossmodal.models import encoders
from crossmodal.settings import Config, OptimizerConfig, differences
from crossmodal.training.folder import RunFolder
from crossmodal.values import expected
from pare_kernels._checks import PAIRINGS, REPLACE, SELECTIONS
from pare_kernels.schedule import KINDS


@pytest.fixture
def task_configs(tmp_path, monkeypatch):
    """A folder for configs/<task>.yaml of its own."""
    folder = tmp_path / "configs"
    folder.mkdir()
    monkeypatch.setattr(parsing, "TASK_CONFIGS", folder)
    return folder


def test_later_sources_win(task_configs, tmp_path):
    (task_configs / "digits.yaml").write_text("epochs: 5\nbatch_size: 7\noptimizer: {lr: 0.5}\n")
    own = tmp_path / "own.yaml"
    own.write_text("task: digits\nbatch_size: 8\noptimizer: {weight_decay: 0.3}\n")
    found = parsing.parse(["--config", str(own), "--optimizer.lr", "0.25"])
    assert (found.task, found.epochs, found.batch_size) == ("digits", 5, 8)
    assert (found.optimizer.lr, found.optimizer.weight_decay) == (0.25, 0.3)
    assert found.optimizer.betas == Config().optimizer.betas


def test_task_file_is_found_by_the_command_line(task_configs):
    (task_configs / "gunpoint.yaml").write_text("epochs: 6\n")
    assert parsing.parse(["--task", "gunpoint"]).epochs == 6
    assert parsing.parse(["--task", "digits"]).epochs == Config().epochs


@pytest.mark.parametrize("path", sorted(parsing.TASK_CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_task_files_are_valid(path, monkeypatch):
    monkeypatch.setattr(
        encoders, "modality", lambda name: "image" if "swin" in name else "text"
    )  # the hub is not asked
    arguments = ["--task", path.stem] + (["--data", "x.npz"] if path.stem == "arrays" else [])
    found = parsing.parse(arguments)
    assert found.task == path.stem
    said = yaml.safe_load(path.read_text())
    assert (found.epochs, found.steps) == (said.get("epochs"), said.get("steps"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methud", "nft"], r"^unknown key 'methud', did you mean 'method'\?"),
        (["--optimizer.lrr", "3"], r"^unknown key 'optimizer.lrr', did you mean 'optimizer.lr'\?"),
        (["--method", "nfd"], r"method: unknown name 'nfd', did you mean 'nft'\?"),
        (["--epochs", "2.5"], r"^epochs: expected int > 0 or null, got '2.5'$"),
        (["--kind", "x"], r"^kind: expected classification or multilabel or regression or dense or null, got 'x'$"),
        (["--pare.start", "all"], r"^pare.start: expected int or float, got 'all'$"),
        (
            ["--pare.selection", "random", "--pare.straight_through", "true"],
            r"^pare.straight_through must be False",
        ),
        (["--config", "/"], r"^/: expected a YAML file, got a folder"),
        (["--epochs", "0"], r"^epochs: expected int > 0 or null, got '0'$"),
        (["--optimizer.lr", "-1"], r"^optimizer.lr: expected float >= 0, got '-1'$"),
        (["--optimizer.betas", "[0.9, 1.0]"], r"optimizer.betas"),
        (["--pare.start", "1.5"], r"^pare.start .*\[0, 1\], got 1.5$"),
        (["--pare.end", "-1"], r"^pare.end must be .*, got -1$"),
        (["--pare.steps", "1"], r"^pare.steps must be .*, got 1$"),
        (["--pare.tau", "0"], r"^pare.tau must be .*, got 0"),
        (["--pare.noise_scale", "-1"], r"^pare.noise_scale must be .*, got -1"),
        (["--pare.exact_steps", "-1"], r"^pare.exact_steps must be .*, got -1$"),
        (["--pare.selection", "gumble"], r"^pare.selection: expected gumbel or topk or random, got 'gumble'$"),
        (
            ["--pare.schedule", "x"],
            r"^pare.schedule: expected constant or linear or exponential or piecewise, got 'x'$",
        ),
        (["--split.validation_fraction", "1"], r"split.validation_fraction"),
        (["--model.dropout", "1"], r"model.dropout"),
        (["--precision", "fp8"], r"precision.*fp8"),
        (["--resume", "--overwrite"], r"resume and overwrite"),
        (["--optimizer.layer_decay", "0"], r"^optimizer.layer_decay: expected float > 0 and <= 1, got '0'$"),
        (["--config", "nowhere.yaml"], r"^no such file: nowhere.yaml$"),
        (["--epoch", "3"], r"^unknown key 'epoch', did you mean 'epochs'\?"),  # no abbreviations
        (["--lr", "3"], r"^unknown key 'lr', did you mean 'optimizer.lr'\?"),
        (["--mixing.tau", "3"], r"^mixing.tau: this setting is now called pare.tau$"),
        (["--lp_ft.probe_lr", "3"], r"^lp_ft.probe_lr: an option of the method lp_ft, but this run's method is pare$"),
        (["--pare.tauu", "3"], r"^unknown key 'pare.tauu', did you mean 'pare.tau'\?"),
        (
            ["--method", "nft", "--pare.tau", "3"],
            r"^pare.tau: an option of the method pare, but this run's method is nft$",
        ),
        (["--epochs"], r"^epochs: expected a value, got none$"),
        (["--pare.tau", "--seed=1"], r"^pare.tau: expected a value, got none$"),
        (["--metric=accuracy,accuracy"], r"^metric: expected each name once, got 'accuracy,accuracy'$"),
        (["--augment=shift,shift"], r"^augment: expected each name once, got 'shift,shift'$"),
        (["train"], r"^unexpected argument 'train': settings are given as --KEY VALUE$"),
        (["--steps=0"], r"^steps: expected int > 0 or null, got '0'$"),
        (["--steps=9", "--epochs=3"], r"^epochs and steps: either is the length of the run, set one of the two$"),
        (["--patience=3", "--select=last"], r"^patience: select 'last' keeps every epoch; choose another rule, or "),
        (["--optimizer.average=1.5"], r"^optimizer.average: expected float from 0 to 1, got '1.5'$"),
        (["--optimizer", "3"], r"^optimizer: expected a mapping of settings, got "),
        (["--optimizer.learning_rate", "3"], r"\(optimizer has name, lr, layer_decay, new_lr, "),
        (
            ["--lr_schedule.milestones", "0.3,0.4"],
            r"^lr_schedule.milestones: expected a list in brackets, like \[0.5,0.9\], each float from 0 to 1, got",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_name_the_key(arguments, message):
    with pytest.raises(UserError, match=message):
        parsing.parse(arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs: two\n", r"epochs: expected int > 0 or null, got 'two'"),
        ("epoch: 3\n", r"unknown key 'epoch', did you mean 'epochs'\?"),
        ("pare: {tauu: 1.0}\n", r"unknown key 'pare.tauu', did you mean 'pare.tau'\?"),
        ("mixing: {tau: 1.0}\n", "mixing.tau: this setting is now called pare.tau"),
        ("lp_ft: {probe_lr: 1.0}\n", "lp_ft.probe_lr: an option of the method lp_ft"),
        ("1: 2\n", r"unknown key '1'"),
        ("- a\n", "expected a mapping of settings, got list"),
        ("", "expected a mapping of settings, got NoneType"),
        ("a: [\n", "not a YAML file"),
        ("epochs: 1\nepochs: 2\n", "key 'epochs' given twice .*line 2"),
        ("pare:\n  tau: 1.0\n  tau: 2.0\n", "key 'tau' given twice .*line 3"),
        ("epochs: 1\n[a]: 2\n", "a key must be a plain word .*line 2"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        (b"method: gr\xfc\xdfe\n", "not a text file in UTF-8"),
        (b"\x00\x01", "not a YAML file"),
        ("optimizer: 3\n", "optimizer: expected a mapping of settings, got 3"),
        ("pare: [1]\n", r"pare: expected a mapping of settings, got \[1\]"),
        ("split: {seed: {a: 1}}\n", "unknown key 'split.seed.a'"),
        ("batch_size: null\n", "batch_size: expected"),
        ("optimizer: {lr: .inf}\n", "optimizer.lr: expected float >= 0, got inf"),
        ("optimizer: {lr: .nan}\n", "optimizer.lr: expected float >= 0, got nan"),
        ("epochs: true\n", "epochs: expected int > 0 or null, got True"),
    ],
)
def test_bad_files_are_named(tmp_path, content, message):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for arguments in (["--config", str(path)], [f"--config={path}"]):
        with pytest.raises(UserError, match=rf"bad.yaml: .*{message}"):
            parsing.parse(arguments)


def test_no_arguments_at_all():
    assert parsing.parse([]).task == Config().task


def test_switches_need_no_value():
    found = parsing.parse(["--compile", "--model.activation_checkpointing", "--seed", "3"])
    assert found.compile
    assert found.model.activation_checkpointing
    assert found.seed == 3
    assert not parsing.parse(["--compile", "false"]).compile


def test_print_config_is_complete_and_can_be_read_back(capsys, tmp_path):
    with pytest.raises(SystemExit):
        parsing.parse(["--task", "digits", "--epochs", "2", "--print_config"])
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    printed = yaml.safe_load(path.read_text())
    assert set(printed) == {item.name for item in dataclasses.fields(Config)} - {"options"} | {"pare"}
    assert parsing.parse(["--config", str(path)]) == parsing.parse(["--task", "digits", "--epochs", "2"])


def test_round_trip_and_file(tmp_path):
    one = parsing.parse(["--optimizer.lr", "1e-3", "--pare.start", "5", "--lr_schedule.milestones", "[0.2]"])
    assert parsing.from_dict(one.to_dict()) == one
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(one.to_dict()))
    assert parsing.load(path) == one
    path.write_text("epoch: 3\n")
    with pytest.raises(UserError, match=r"config.yaml.*'epoch'"):
        parsing.load(path)
    path.write_text("- 1\n")
    with pytest.raises(UserError, match="a mapping of settings"):
        parsing.load(path)
    path.write_text("a: [\n")
    with pytest.raises(UserError, match="not a YAML file"):
        parsing.load(path)


def test_a_run_that_is_resumed_keeps_its_settings(task_configs, tmp_path, monkeypatch):
    """Also in a folder that was moved, whose defaults have changed since; what is given goes before them."""
    stored = Config("arrays", "scratch", seed=3, epochs=7, data="x.npz", output_dir="elsewhere", overwrite=True)
    stored.options = NoOptions()
    stored.optimizer.betas = (0.5, 0.6)
    folder = RunFolder(tmp_path / "run")
    folder.prepare(stored)
    (task_configs / "arrays.yaml").write_text("epochs: 5\n")
    here = dataclasses.replace(stored, output_dir=str(folder.path), overwrite=False, resume=True)
    assert parsing.parse(["--output_dir", str(folder.path), "--resume", "true"]) == here
    found = parsing.parse(["--resume", "--output_dir", str(folder.path), "--epochs", "9", "--optimizer.lr", "0.5"])
    assert (found.epochs, found.seed, found.optimizer.lr, found.optimizer.betas) == (9, 3, 0.5, (0.5, 0.6))
    (tmp_path / "runs").mkdir()
    folder.path.rename(tmp_path / "runs" / "arrays-scratch-3")
    monkeypatch.chdir(tmp_path)
    named = parsing.parse(["--task", "arrays", "--method", "scratch", "--seed", "3", "--resume"])
    assert named == dataclasses.replace(here, output_dir=None)
    folder.path.mkdir()
    (folder.path / "config.yaml").write_text("task: digits\n")  # of another program
    assert parsing.parse(["--output_dir", str(folder.path), "--resume"]).task == Config().task


def test_the_words_of_mixing_are_those_of_the_operator():
    """They are written out, because the operator's module imports torch."""
    hints = typing.get_type_hints(Options)
    for key, words in (("schedule", KINDS), ("selection", SELECTIONS), ("replace", REPLACE), ("pairing", PAIRINGS)):
        assert typing.get_args(hints[key]) == words


def test_differences_leave_bookkeeping_out():
    one, other = Config().to_dict(), Config(output_dir="elsewhere", keep=5, resume=True, epochs=31).to_dict()
    assert differences(one, other) == {"epochs": (None, 31)}


@pytest.mark.parametrize("method", ["pare", "lp_ft"])
def test_help_shows_the_section_of_the_method_alone(capsys, method):
    with pytest.raises(SystemExit):
        parsing.parse(["--method", method, "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for words, of in (
        ("gumbel or topk or random", "pare"),
        ("lowest or highest", "pare"),
        ("epochs in which", "lp_ft"),
    ):
        assert (words in printed) == (of == method)
    assert "batch_size" in printed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 2.5}, "epochs: expected int > 0 or null, got 2.5"),
        ({"encoder": 3}, "encoder: expected text, got 3"),
        ({"optimizer": OptimizerConfig(betas=(0.9, 1.0))}, "optimizer.betas: expected a list in brackets, like .*got"),
        (
            {"method": "lp_ft", "options": METHODS["lp_ft"].Options(probe_lr="fast")},
            "lp_ft.probe_lr: expected float > 0",
        ),
    ],
)
def test_settings_made_in_python_are_checked_too(changes, message):
    with pytest.raises(UserError, match=f"^{message}"):
        Config(**changes)


def test_options_made_in_python_are_checked_too():
    for key, wrong in {"schedule": "x", "selection": "x", "replace": "x", "pairing": "x", "start": True}.items():
        with pytest.raises(UserError, match=rf"^pare\.{key} must be"):
            Options(**{key: wrong})


def test_every_setting_has_a_sentence_and_a_type_in_words():
    for section in (Config, *(method.Options for method in METHODS.values())):
        for name, key in parsing.keys(section).items():
            assert len(key.help) > 5, name
            assert expected(key.type)


def test_a_caller_of_several_methods_passes_over_the_options_of_others(tmp_path):
    path = tmp_path / "both.yaml"
    path.write_text("pare: {tau: 0.5}\nlp_ft: {probe_lr: 0.25}\n")
    arguments = ["--config", str(path), "--pare.mix_weight=0.5"]
    assert parsing.parse(arguments, method="pare").options.mix_weight == 0.5
    assert parsing.parse(arguments, method="lp_ft").options.probe_lr == 0.25
    assert parsing.parse(arguments, method="nft").method == "nft"


@pytest.mark.parametrize(("method", "rate"), [("nft", 1e-5), ("lp_ft", 1e-5), ("fpt", 1e-4), ("scratch", 1e-4)])
def test_random_weights_have_nothing_to_unlearn(tiny_vit, tiny_bert, method, rate):
    found = [parsing.parse(["--task=digits", "--method", method, "--encoder", name]) for name in (tiny_vit, tiny_bert)]
    assert [one.optimizer.lr for one in found] == [rate, 1e-4]
    assert (found[0].epochs, found[0].model.patch_size) == (None, None)  # patches are of the encoder's size either way


def test_an_image_encoder_has_defaults_of_its_own(capsys, tiny_bert, tiny_vit, tmp_path):
    text, image = (parsing.parse(["--task", "digits", "--encoder", encoder]) for encoder in (tiny_bert, tiny_vit))
    assert (text.epochs, text.optimizer.lr, text.model.layers, text.model.patch_size) == (25, 1e-4, 3, 2)
    assert (image.epochs, image.optimizer.lr, image.model.layers, image.model.patch_size) == (None, 1e-5, None, None)
    assert (text.optimizer.layer_decay, image.optimizer.layer_decay) == (1.0, 0.65)
    own = tmp_path / "own.yaml"
    own.write_text(f"encoder: {tiny_vit}\nepochs: 7\n")
    found = parsing.parse(["--config", str(own), "--optimizer.lr", "1e-4"])
    assert (found.epochs, found.optimizer.lr) == (7, 1e-4)
    with pytest.raises(SystemExit):
        parsing.parse(["--config", str(own), "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["optimizer"]["lr"] == 1e-5


@pytest.mark.parametrize(
    ("samples", "batch", "accumulate", "epochs"), [(100, 16, 1, 72), (5, 16, 4, 500), (1600, 16, 1, 30)]
)
def test_without_epochs_small_sets_get_a_least_number_of_steps(samples, batch, accumulate, epochs):
    one = Config(batch_size=batch, accumulate=accumulate)
    assert one.length_for(samples) == (epochs, None)
    assert dataclasses.replace(one, epochs=2).length_for(samples) == (2, None)


def test_the_length_of_a_run_is_given_in_either_form(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("steps: 100\n")
    for arguments, length in (
        ([], (30, None)),
        (["--steps=50"], (None, 50)),
        (["--config", str(file)], (None, 100)),
        (["--config", str(file), "--epochs=3"], (3, None)),
        (["--config", str(file), "--steps=7", "--epochs=null"], (None, 7)),
    ):
        found = parsing.parse(["--task=italy_power_demand", *arguments])
        assert (found.epochs, found.steps) == length


@pytest.mark.parametrize(
    ("steps", "samples", "length"),
    [
        (101, 33, (21, None)),  # of 5 steps
        (25, 40, (5, None)),
        (25, 57, (5, 5)),  # of 8 steps: 3 passes and a step
        (800, 10**6, (5, 160)),
        (3, 10**6, (3, 1)),
        (1, 1, (1, None)),
    ],
)
def test_a_length_in_steps_has_five_epochs_at_least(steps, samples, length):
    assert Config(steps=steps, batch_size=4, accumulate=2).length_for(samples) == length


def test_run_dir():
    assert str(Config(task="digits", seed=4).run_dir) == "runs/digits-pare-4"
    assert str(Config(output_dir="x").run_dir) == "x"
