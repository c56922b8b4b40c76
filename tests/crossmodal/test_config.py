from __future__ import annotations

import dataclasses

import pytest
import yaml

from crossmodal import config
from crossmodal.config import Config, ConfigError, MixingConfig


@pytest.fixture
def task_configs(tmp_path, monkeypatch):
    """A folder for configs/<task>.yaml of its own."""
    folder = tmp_path / "configs"
    folder.mkdir()
    monkeypatch.setattr(config, "TASK_CONFIGS", folder)
    return folder


def test_later_sources_win(task_configs, tmp_path):
    (task_configs / "digits.yaml").write_text("epochs: 5\nbatch_size: 7\noptimizer: {lr: 0.5}\n")
    own = tmp_path / "own.yaml"
    own.write_text("task: digits\nbatch_size: 8\noptimizer: {weight_decay: 0.3}\n")
    found = config.parse(["--config", str(own), "--optimizer.lr", "0.25"])
    assert (found.task, found.epochs, found.batch_size) == ("digits", 5, 8)
    assert (found.optimizer.lr, found.optimizer.weight_decay) == (0.25, 0.3)
    assert found.optimizer.betas == Config().optimizer.betas


def test_task_file_is_found_by_the_command_line(task_configs):
    (task_configs / "gunpoint.yaml").write_text("epochs: 6\n")
    assert config.parse(["--task", "gunpoint"]).epochs == 6
    assert config.parse(["--task", "digits"]).epochs == Config().epochs


@pytest.mark.parametrize("path", sorted(config.TASK_CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_task_files_are_valid(path):
    arguments = ["--task", path.stem] + (["--data", "x.npz"] if path.stem == "arrays" else [])
    found = config.parse(arguments)
    assert found.task == path.stem
    assert found.epochs == yaml.safe_load(path.read_text())["epochs"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methud", "nft"], r"--methud nft, did you mean 'method'\?"),
        (["--optimizer.lrr", "3"], r"did you mean 'optimizer.lr'\?"),
        (["--method", "nfd"], r"method: unknown name 'nfd', did you mean 'nft'\?"),
        (["--epochs", "2.5"], r"^epochs: expected int or null, got '2.5'$"),
        (["--kind", "x"], r"^kind: expected classification, multilabel, regression, dense or null, got 'x'$"),
        (["--mixing.start", "all"], r"^mixing.start: expected int or float, got 'all'$"),
        (
            ["--mixing.selection", "random", "--mixing.straight_through", "true"],
            r"^mixing.straight_through must be False",
        ),
        (["--config", "/"], r"^/: expected a YAML file, got a folder"),
        (["--epochs", "0"], r"epochs: expected a positive number or null, got 0"),
        (["--optimizer.layer_decay", "0"], r"optimizer.layer_decay: expected 0 < factor <= 1, got 0"),
        (["--optimizer.lr", "-1"], r"optimizer.lr: expected a number >= 0, got -1"),
        (["--optimizer.betas", "[0.9, 1.0]"], r"optimizer.betas"),
        (["--mixing.start", "1.5"], r"^mixing.start .*\[0, 1\], got 1.5$"),
        (["--mixing.end", "-1"], r"^mixing.end must be .*, got -1$"),
        (["--mixing.steps", "1"], r"^mixing.steps must be .*, got 1$"),
        (["--mixing.tau", "0"], r"^mixing.tau must be .*, got 0"),
        (["--mixing.noise_scale", "-1"], r"^mixing.noise_scale must be .*, got -1"),
        (["--mixing.exact_steps", "-1"], r"^mixing.exact_steps must be .*, got -1$"),
        (["--mixing.selection", "gumble"], r"^mixing.selection: expected gumbel, topk, random, got 'gumble'$"),
        (["--mixing.schedule", "x"], r"^mixing.schedule: expected constant, linear, exponential, piecewise, got 'x'$"),
        (["--split.validation_fraction", "1"], r"split.validation_fraction"),
        (["--model.dropout", "1"], r"model.dropout"),
        (["--precision", "fp8"], r"precision.*fp8"),
        (["--task", "arrays"], r"data: the task 'arrays' needs --data"),
        (["--resume", "--overwrite"], r"resume and overwrite"),
        (["--config", "nowhere.yaml"], r"^config: no such file: nowhere.yaml$"),
        (["--epoch", "3"], r"--epoch 3, did you mean 'epochs'\?"),  # no abbreviations
        (["--lr", "3"], r"--lr 3, did you mean 'optimizer.lr'\?"),
        (["--optimizer.learning_rate", "3"], r"\(optimizer has name, lr, layer_decay, new_lr, "),
        (
            ["--lr_schedule.milestones", "0.3,0.4"],
            r"^lr_schedule.milestones: expected a list in brackets, like \[0.5,0.9\], got",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_name_the_key(arguments, message):
    with pytest.raises(ConfigError, match=message):
        config.parse(arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs: two\n", r"epochs: expected int or null, got 'two'"),
        ("epoch: 3\n", r"unknown key 'epoch', did you mean 'epochs'\?"),
        ("mixing: {tauu: 1.0}\n", r"unknown key 'mixing.tauu', did you mean 'mixing.tau'\?"),
        ("1: 2\n", r"unknown key '1'"),
        ("- a\n", "expected a mapping of settings, got 'list'"),
        ("", "expected a mapping of settings, got 'NoneType'"),
        ("a: [\n", "not a YAML file"),
        ("epochs: 1\nepochs: 2\n", "key 'epochs' given twice .*line 2"),
        ("mixing:\n  tau: 1.0\n  tau: 2.0\n", "key 'tau' given twice .*line 3"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        (b"method: gr\xfc\xdfe\n", "not a text file in UTF-8"),
        (b"\x00\x01", "not a YAML file"),
    ],
)
def test_bad_files_are_named(tmp_path, content, message):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for arguments in (["--config", str(path)], [f"--config={path}"]):
        with pytest.raises(ConfigError, match=rf"bad.yaml: .*{message}"):
            config.parse(arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("optimizer: 3\n", "optimizer: expected a mapping of settings, got 3"),
        ("mixing: [1]\n", r"mixing: expected a mapping of settings, got \[1\]"),
        ("split: {seed: {a: 1}}\n", "split.seed: expected int"),
        ("batch_size: null\n", "batch_size: expected"),
        ("optimizer: {lr: .inf}\n", "optimizer.lr: expected a finite number, got inf"),
        ("optimizer: {lr: .nan}\n", "optimizer.lr: expected a finite number, got nan"),
        ("epochs: true\n", "epochs: expected int or null, got 'True'"),
    ],
)
def test_bad_values_in_a_file(tmp_path, content, message):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        config.parse(["--config", str(path)])


def test_an_image_encoder_has_defaults_of_its_own(capsys, tiny_bert, tiny_vit, tmp_path):
    text, image = (config.parse(["--task", "digits", "--encoder", encoder]) for encoder in (tiny_bert, tiny_vit))
    assert (text.epochs, text.optimizer.lr, text.model.layers, text.model.patch_size) == (25, 1e-4, 3, 2)
    assert (image.epochs, image.optimizer.lr, image.model.layers, image.model.patch_size) == (None, 3e-5, None, None)
    own = tmp_path / "own.yaml"
    own.write_text(f"encoder: {tiny_vit}\nepochs: 7\n")
    found = config.parse(["--config", str(own), "--optimizer.lr", "1e-4"])
    assert (found.epochs, found.optimizer.lr) == (7, 1e-4)
    with pytest.raises(SystemExit):
        config.parse(["--config", str(own), "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["optimizer"]["lr"] == 3e-5


@pytest.mark.parametrize(
    ("samples", "batch", "accumulate", "epochs"), [(100, 16, 1, 72), (5, 16, 4, 500), (1600, 16, 1, 30)]
)
def test_without_epochs_small_sets_get_a_least_number_of_steps(samples, batch, accumulate, epochs):
    one = Config(batch_size=batch, accumulate=accumulate)
    assert one.epochs_for(samples) == epochs
    assert dataclasses.replace(one, epochs=2).epochs_for(samples) == 2


def test_no_arguments_at_all():
    assert config.parse([]).task == Config().task


def test_switches_need_no_value():
    found = config.parse(["--compile", "--model.activation_checkpointing", "--seed", "3"])
    assert found.compile
    assert found.model.activation_checkpointing
    assert found.seed == 3
    assert not config.parse(["--compile", "false"]).compile


def test_print_config_is_complete_and_can_be_read_back(capsys, tmp_path):
    with pytest.raises(SystemExit):
        config.parse(["--task", "digits", "--epochs", "2", "--print_config"])
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    printed = yaml.safe_load(path.read_text())
    assert set(printed) == {item.name for item in dataclasses.fields(Config)}
    assert config.parse(["--config", str(path)]) == config.parse(["--task", "digits", "--epochs", "2"])


def test_round_trip_and_file(tmp_path):
    one = config.parse(["--optimizer.lr", "1e-3", "--mixing.start", "5", "--lr_schedule.milestones", "[0.2]"])
    assert Config.from_dict(one.to_dict()) == one
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(one.to_dict()))
    assert config.load(path) == one
    path.write_text("epoch: 3\n")
    with pytest.raises(ConfigError, match=r"config.yaml.*'epoch'"):
        config.load(path)
    path.write_text("- 1\n")
    with pytest.raises(ConfigError, match="a mapping of settings"):
        config.load(path)
    path.write_text("a: [\n")
    with pytest.raises(ConfigError, match="not a YAML file"):
        config.load(path)


def test_differences_leave_bookkeeping_out():
    one, other = Config().to_dict(), Config(output_dir="elsewhere", keep=5, resume=True, epochs=31).to_dict()
    assert config.differences(one, other) == {"epochs": (None, 31)}


def test_the_words_of_mixing_are_in_the_help(capsys):
    with pytest.raises(SystemExit):
        config.parse(["--help"])
    printed = capsys.readouterr().out
    for words in ("constant,linear,exponential,piecewise", "gumbel,topk,random", "lowest,highest", "position,score"):
        assert words in printed


def test_mixing_made_in_python_is_checked_too():
    for key, wrong in {"schedule": "x", "selection": "x", "replace": "x", "pairing": "x", "start": True}.items():
        with pytest.raises(ConfigError, match=rf"^mixing\.{key} must be"):
            MixingConfig(**{key: wrong})


def test_run_dir():
    assert str(Config(task="digits", seed=4).run_dir) == "runs/digits-pare-4"
    assert str(Config(output_dir="x").run_dir) == "x"
