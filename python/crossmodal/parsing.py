"""Settings from defaults, a task's file, what suits an image encoder, a user's files and the command line; later ones win. Every
key is known and typed.

A method brings a section of its own: `--pare.tau 0.5`, or `pare: {tau: 0.5}` in a file, is a setting of runs by that method alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from crossmodal import methods, settings
from crossmodal.errors import UserError
from crossmodal.files import read_yaml
from crossmodal.naming import nearest_key
from crossmodal.settings import Config, flatten
from crossmodal.values import converted, expected, hints, shown

TASK_CONFIGS = Path(__file__).parent / "configs"
MOVED = {"mixing": "pare"}  # sections by their former name
RENAMED = {"pare.weight": "pare.mix_weight"}  # keys by theirs


@dataclass(frozen=True)
class Key:
    """A setting: its type, default and one sentence."""

    type: Any
    default: Any
    help: str


def keys(section: type = Config, prefix: str = "") -> dict[str, Key]:
    """The settings of a dataclass and of those within it, by dotted name."""
    found: dict[str, Key] = {}
    sentences = _sentences(section)
    for item in dataclasses.fields(section):
        name = f"{prefix}{item.name}"
        if dataclasses.is_dataclass(item.default_factory):
            found |= keys(item.default_factory, f"{name}.")
        elif item.name in hints(section):
            found[name] = Key(hints(section)[item.name], item.default, sentences[item.name])
    return found


def _known(learner: methods.Method) -> dict[str, Key]:
    """The settings of a run by a method."""
    return keys() | keys(learner.Options, f"{learner.name}.")


def _sentences(section: type) -> dict[str, str]:
    """What the docstrings of a dataclass and its bases say of each field, below `Args:`."""
    found: dict[str, str] = {}
    for one in reversed(section.__mro__[:-1]):  # fields may be inherited
        text = (inspect.getdoc(one) or "").partition("Args:\n")[2]
        entries = re.split(r"^    (\w+): ", text, flags=re.M)[1:]
        found |= {name: " ".join(said.split()) for name, said in zip(entries[::2], entries[1::2], strict=True)}
    return found


def parse(argv: list[str] | None = None, *, method: str | None = None) -> Config:
    """Settings from the command line and the files it names.

    With `resume`, those of the run in its folder stand where nothing else is given.

    Args:
        argv: arguments (None: those of the process).
        method: the method, for a caller that runs several by one command line: settings of other methods are then passed over.

    Raises:
        UserError: names the key, what it was, what was expected, and the nearest valid name.
        SystemExit: after `--help` and `--print_config`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    values, learner = _read(argv, method)
    if values.get("resume"):
        from crossmodal.training.folder import RunFolder

        told = {key: values[key] for key in ("task", "method", "seed", "output_dir") if key in values}
        folder = RunFolder(settings.run_dir(**told))
        if folder.holds_run:  # which may have been moved since
            values, learner = _read(argv, method, folder.read_config())
    return _build(values, learner)


def _read(
    argv: list[str], method: str | None, stored: dict[str, Any] | None = None
) -> tuple[dict[str, Any], methods.Method]:
    """Values by key, and the method, from the command line and the files it names, after those of a run that is gone on with."""
    files, told, asked = _read_arguments(argv)
    former = flatten({key: value for key, value in (stored or {}).items() if key not in ("output_dir", "overwrite")})
    own = any("data" in values for values in (*files.values(), told))
    chosen = {"task": "arrays" if own else Config.task, "method": Config.method}
    for values in (former, *files.values(), told):
        chosen |= {name: str(values[name]) for name in chosen if name in values}
    defaults = TASK_CONFIGS / f"{chosen['task']}.yaml"
    from_task = flatten(read_yaml(defaults)) if defaults.is_file() else {}
    encoder = Config.encoder
    for values in (from_task, former, *files.values(), told):
        encoder = str(values.get("encoder", encoder))
    # What a task's file says for an encoder that it names stands with that encoder, and says nothing of another.
    chosen_for = from_task.get("encoder") == encoder
    if "encoder" in from_task and not chosen_for:
        from_task = {name: value for name, value in from_task.items() if not name.startswith("model.")}
    learner = methods.get(method or chosen["method"])
    known = _known(learner)
    if asked == "help":
        print(_help(known, learner.name), end="")
        raise SystemExit(0)
    layers = [("", from_task, True), ("", former, True)]
    layers += [(f"{file}: ", values, method is not None) for file, values in files.items()]
    layers += [("", told, method is not None)]
    values: dict[str, Any] = {}
    for where, layer, pass_over in layers:
        for name, other in (("epochs", "steps"), ("steps", "epochs")):
            if layer.get(name) not in (None, "null"):
                values[other] = None  # the length of a run, in either form: the last one given stands
        for name, value in layer.items():
            owner = name.partition(".")[0]
            if pass_over and owner in methods.METHODS and owner != learner.name:
                continue
            values[name] = _checked(name, value, known, learner.name, where)
    values |= {"task": chosen["task"], "method": learner.name}
    suited = learner.suited(values)
    if learner.uses_encoder:  # which is looked at when all else is known to be good: it takes seconds
        from crossmodal.models import encoders

        if encoders.modality(encoder) == "image":
            images = settings.PRETRAINED_IMAGE_ENCODERS if learner.pretrained else settings.IMAGE_ENCODERS
            suited = images | suited
    # Settings that were measured with an encoder say nothing of a method that has none.
    counts = chosen_for and learner.uses_encoder
    told = {name for _, layer, _ in layers if layer is not from_task or counts for name in layer}
    if told & {"epochs", "steps"}:
        told |= {"epochs", "steps"}
    values |= {name: value for name, value in suited.items() if name not in told}
    if asked == "print_config":
        print(yaml.safe_dump(_build(values, learner).to_dict(), sort_keys=False), end="")
        raise SystemExit(0)
    return values, learner


def from_dict(values: dict[str, Any], where: str = "") -> Config:
    """The inverse of `Config.to_dict`, with the checks of a file; missing keys take their default.

    Raises:
        UserError: names the key, after `where`.
    """
    values = flatten(values)
    learner = methods.get(values.get("method", Config.method))
    known = _known(learner)
    return _build({name: _checked(name, value, known, learner.name, where) for name, value in values.items()}, learner)


def changed(config: Config) -> dict[str, Any]:
    """Settings, by dotted name, in which a run differs from one that is told its task, method and encoder alone."""
    told = {"task": config.task, "data": config.data, "encoder": config.encoder}
    plain = flatten(parse([f"--{key}={value}" for key, value in told.items() if value], method=config.method).to_dict())
    passed = ("task", "method", "encoder", "output_dir", "overwrite", "resume")
    settings = flatten(config.to_dict()).items()
    return {
        key: value
        for key, value in settings
        if key not in passed and (key == "data" or plain.get(key) != value) and not (key == "data" and value is None)
    }


def load(path: Path | str) -> Config:
    """Settings of a finished or interrupted run, from its `config.yaml`."""
    return from_dict(read_yaml(path), f"{path}: ")


def _help(known: dict[str, Key], method: str) -> str:
    """What `--help` prints."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        usage="%(prog)s [--list] [--task TASK] [--method METHOD] [--config FILE] [--KEY VALUE ...]\n"
        "       %(prog)s --download TASK --data_dir DIR",
        description="Fine-tune a pretrained encoder on a modality it never saw. --list names tasks, methods, encoders, "
        "sources, losses and metrics. Defaults are those of the task; files given with --config go before them, the "
        "command line before both.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=110),
    )
    parser.add_argument("--print_config", action="store_true", help="print all settings and end")
    parser.add_argument("--download", metavar="TASK", help="fetch the public files of a task into --data_dir and end")
    parser.add_argument("--config", metavar="FILE", help="YAML file with settings; keys as below")
    groups = {"": parser}
    for name, key in known.items():
        title = name.rpartition(".")[0]
        if title not in groups:
            groups[title] = parser.add_argument_group(f"{title}: of method {method}" if title == method else title)
        said = f"{key.help} ({expected(key.type)}; default: {shown(key.default)})".replace("%", "%%")
        groups[title].add_argument(f"--{name}", metavar="VALUE", nargs="?" if key.type is bool else None, help=said)
    return parser.format_help()


def _read_arguments(argv: list[str]) -> tuple[dict[str, dict[str, Any]], dict[str, str], str | None]:
    """(content of each file, values by key, `help` or `print_config`); a switch without a value is true.

    Raises:
        UserError: what is no option, or one without its value.
    """
    asked, files, told, words = None, [], {}, list(argv)
    general = keys()
    while words:
        word = words.pop(0)
        name, given, value = word.removeprefix("--").partition("=")
        if word in ("-h", "--help", "--print_config"):
            asked = "print_config" if word == "--print_config" else "help"
            continue
        if not word.startswith("--"):
            raise UserError(f"unexpected argument {word!r}: settings are given as --KEY VALUE")
        if not given and words and not words[0].startswith("--"):
            value = words.pop(0)
        elif not given and name in general and general[name].type is bool:
            value = "true"
        elif not given and (name in general or name == "config" or name.partition(".")[0] in methods.METHODS):
            raise UserError(f"{name}: expected a value, got none")
        if name == "config":
            files.append(value)
        else:
            told[name] = value
    return {file: flatten(read_yaml(file)) for file in files}, told, asked


def _checked(name: str, value: Any, known: dict[str, Key], method: str, where: str) -> Any:
    """The value of a key, in its type."""
    if name in known:
        return converted(f"{where}{name}", value, known[name].type)
    section, _, rest = name.partition(".")
    now = f"{MOVED.get(section, section)}.{rest}"
    if section in MOVED or now in RENAMED:
        raise UserError(f"{where}{name}: this setting is now called {RENAMED.get(now, now)}")
    if section in methods.METHODS and section != method:
        raise UserError(f"{where}{name}: an option of the method {section}, but this run's method is {method}")
    if any(key.startswith(f"{name}.") for key in known):
        raise UserError(f"{where}{name}: expected a mapping of settings, got {value!r}")
    raise UserError(f"{where}unknown key {name!r}{nearest_key(name, known)}")


def _build(values: dict[str, Any], learner: methods.Method) -> Config:
    """The settings of checked values by dotted name."""
    groups: dict[str, dict[str, Any]] = {"": {}, learner.name: {}}
    for name, value in values.items():
        group, _, rest = name.rpartition(".")
        groups.setdefault(group, {})[rest] = value
    arguments, options = groups.pop(""), learner.Options(**groups.pop(learner.name))
    sections = {item.name: item.default_factory for item in dataclasses.fields(Config)}
    return Config(**arguments, **{name: sections[name](**group) for name, group in groups.items()}, options=options)
