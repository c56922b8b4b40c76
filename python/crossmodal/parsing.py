"""Settings from defaults, a task's file, what suits an image encoder, a user's files and the command line; later ones win. Every
key is known and typed.

A method brings a section of its own: `--pare.tau 0.5`, or `pare: {tau: 0.5}` in a file, is a setting of runs by that method alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import math
import re
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from crossmodal import methods, settings
from crossmodal.errors import UserError
from crossmodal.files import read_yaml
from crossmodal.naming import nearest_key
from crossmodal.settings import Config, flatten

TASK_CONFIGS = Path(__file__).parent / "configs"
MOVED = {"mixing": "pare"}  # sections by their former name


@dataclass(frozen=True)
class Key:
    """A setting: its type, default and one sentence."""

    type: Any
    default: Any
    help: str


def keys(section: type = Config, prefix: str = "") -> dict[str, Key]:
    """The settings of a dataclass and of those within it, by dotted name."""
    found: dict[str, Key] = {}
    hints, sentences = typing.get_type_hints(section), _sentences(section)
    for item in dataclasses.fields(section):
        name = f"{prefix}{item.name}"
        if dataclasses.is_dataclass(item.default_factory):
            found |= keys(item.default_factory, f"{name}.")
        elif name != "options":
            found[name] = Key(hints[item.name], item.default, sentences[item.name])
    return found


def _sentences(section: type) -> dict[str, str]:
    """What the docstring of a dataclass says of each field, below `Args:`."""
    text = inspect.getdoc(section).partition("Args:\n")[2]
    entries = re.split(r"^    (\w+): ", text, flags=re.M)[1:]
    return {name: " ".join(said.split()) for name, said in zip(entries[::2], entries[1::2], strict=True)}


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
    parser = _parser({})
    files, told, unknown, asked = _read_arguments(parser, argv)
    former = flatten({key: value for key, value in (stored or {}).items() if key not in ("output_dir", "overwrite")})
    chosen = {"task": Config.task, "method": Config.method, "encoder": Config.encoder}
    for values in (former, *files.values(), told):
        chosen |= {name: _checked(name, values[name], keys(), "", "") for name in chosen if name in values}
    chosen["method"] = method or chosen["method"]
    learner = methods.get(chosen["method"])
    section = {f"{learner.name}.{name}": key for name, key in keys(learner.Options).items()}
    known = keys() | section

    if asked == "help":
        _parser(section, learner.name).print_help()
        raise SystemExit(0)
    defaults = TASK_CONFIGS / f"{chosen['task']}.yaml"
    from_task = flatten(read_yaml(defaults)) if defaults.is_file() else {}
    layers = [("", from_task, True), ("", former, True)]
    layers += [(f"{file}: ", values, method is not None) for file, values in files.items()]
    layers += [("", told | dict.fromkeys(unknown), method is not None)]
    values: dict[str, Any] = {}
    for where, layer, pass_over in layers:
        for name, value in layer.items():
            owner = name.partition(".")[0]
            if pass_over and owner in methods.METHODS and owner != learner.name:
                continue
            values[name] = _checked(name, value, known, learner.name, where)
    values["method"] = learner.name
    if learner.uses_encoder:  # which is looked at when all else is known to be good: it takes seconds
        from crossmodal.models import encoders

        if encoders.modality(chosen["encoder"]) == "image":
            told = {name for _, layer, _ in layers if layer is not from_task for name in layer}
            values |= {name: value for name, value in settings.IMAGE_ENCODERS.items() if name not in told}
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
    known = keys() | {f"{learner.name}.{name}": key for name, key in keys(learner.Options).items()}
    try:
        return _build({name: _checked(name, value, known, learner.name, "") for name, value in values.items()}, learner)
    except UserError as error:
        raise UserError(f"{where}{error}") from None


def load(path: Path | str) -> Config:
    """Settings of a finished or interrupted run, from its `config.yaml`."""
    return from_dict(read_yaml(path), f"{path}: ")


def _parser(section: dict[str, Key], method: str = "") -> argparse.ArgumentParser:
    """Every key as an option whose value is a text, for parsing without and for `--help` with a method's section."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        usage="%(prog)s [--list] [--task TASK] [--method METHOD] [--config FILE] [--KEY VALUE ...]",
        description="Fine-tune a pretrained encoder on a modality it never saw. --list names tasks, methods, encoders, "
        "sources, losses and metrics. Defaults are those of the task; files given with --config go before them, the "
        "command line before both.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=110),
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("-h", "--help", dest="asked", action="store_const", const="help", help="show this")
    parser.add_argument(
        "--print_config", dest="asked", action="store_const", const="print_config", help="print all settings and end"
    )
    parser.add_argument("--config", action="append", metavar="FILE", help="YAML file with settings; keys as below")
    groups = {"": parser}
    for name, key in (keys() | section).items():
        title = name.rpartition(".")[0]
        if title not in groups:
            groups[title] = parser.add_argument_group(f"{title}: of method {method}" if title == method else title)
        switch = {"nargs": "?", "const": "true"} if key.type is bool else {}
        said = f"{key.help} ({_expected(key.type)}; default: {_shown(key.default)})".replace("%", "%%")
        groups[title].add_argument(f"--{name}", default=argparse.SUPPRESS, metavar="VALUE", help=said, **switch)
    return parser


def _read_arguments(
    parser: argparse.ArgumentParser, argv: list[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, str], list[str], str | None]:
    """(content of each file, values by key, keys that are not general ones, `help` or `print_config`).

    Options of methods are no arguments of the parser, since the method is not known before; they are told by their form.
    """
    sections: dict[str, str] = {}
    general, rest = [], iter(argv)
    for word in rest:
        name, given, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and name.partition(".")[0] in methods.METHODS and "." in name:
            sections[name] = value if given else next(rest, None)
            if sections[name] is None or sections[name].startswith("--"):
                raise UserError(f"{name}: expected a value, got none")
        else:
            general.append(word)
    try:
        parser.exit_on_error = False
        found, unknown = parser.parse_known_args(general)
    except argparse.ArgumentError as error:
        raise UserError(f"{(error.argument_name or '').removeprefix('--')}: expected a value, got none") from None
    stray = [word for word in unknown if not word.startswith("--")]
    if stray and not unknown[0].startswith("--"):
        raise UserError(f"unexpected argument {stray[0]!r}: settings are given as --KEY VALUE")
    told = {name: value for name, value in vars(found).items() if name not in ("asked", "config")}
    files = {file: flatten(read_yaml(file)) for file in found.config or ()}
    wrong = [word.removeprefix("--").partition("=")[0] for word in unknown if word.startswith("--")]
    return files, told | sections, wrong, found.asked


def _checked(name: str, value: Any, known: dict[str, Key], method: str, where: str) -> Any:
    """The value of a key, in its type."""
    if name in known:
        try:
            return _converted(value, known[name].type)
        except _Mismatch:
            expected = _expected(known[name].type)
            raise UserError(f"{where}{name}: expected {expected}, got {value!r}") from None
    section, _, rest = name.partition(".")
    if section in MOVED:
        raise UserError(f"{where}{name}: this setting is now called {MOVED[section]}.{rest}")
    if section in methods.METHODS and section != method:
        raise UserError(f"{where}{name}: an option of the method {section}, but this run's method is {method}")
    if any(key.startswith(f"{name}.") for key in known):
        raise UserError(f"{where}{name}: expected a mapping of settings, got {value!r}")
    raise UserError(f"{where}unknown key {name!r}{nearest_key(name, known)}")


class _Mismatch(Exception):
    """A value that is not of its key's type."""


def _converted(value: Any, kind: Any) -> Any:
    """A value from YAML, or a text from the command line, in its type."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        for one in typing.get_args(kind):
            try:
                return _converted(value, one)
            except _Mismatch:
                continue
    elif kind is type(None):
        if value is None or value == "null":
            return None
    elif typing.get_origin(kind) is Literal:
        if value in typing.get_args(kind):
            return value
    elif typing.get_origin(kind) is tuple:
        parts = _list(value)
        inner = list(typing.get_args(kind))
        if parts is not None and (inner[-1] is ... or len(parts) == len(inner)):
            inner = inner[:1] * len(parts) if inner[-1] is ... else inner
            return tuple(_converted(part, one) for part, one in zip(parts, inner, strict=True))
    elif kind is bool:
        words = {"true": True, "false": False}
        if isinstance(value, bool) or value in words:
            return words.get(value, value) if isinstance(value, str) else value
    elif kind in (int, float):
        if not isinstance(value, bool) and isinstance(value, (int, str) if kind is int else (int, float, str)):
            try:
                number = kind(value)
            except (ValueError, OverflowError):
                raise _Mismatch from None
            if math.isfinite(number):
                return number
    elif isinstance(value, str) and kind is str:
        return value
    raise _Mismatch


def _list(value: Any) -> list | None:
    if isinstance(value, str):
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError:
            return None
    return list(value) if isinstance(value, list | tuple) else None


def _expected(kind: Any) -> str:
    """A type in words."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return " or ".join(_expected(one) for one in typing.get_args(kind))
    if typing.get_origin(kind) is Literal:
        return " or ".join(typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return "a list in brackets, like [0.5,0.9]"
    return {type(None): "null", bool: "true or false", int: "int", float: "float", str: "text"}[kind]


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _build(values: dict[str, Any], learner: methods.Method) -> Config:
    """The settings of checked values by dotted name."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        group, _, rest = name.rpartition(".")
        groups.setdefault(group, {})[rest] = value
    arguments = groups.pop("", {})
    options = learner.Options(**groups.pop(learner.name, {}))
    for item in _sections():
        if item.name in groups:
            arguments[item.name] = item.default_factory(**groups[item.name])
    return Config(**arguments, options=options)


def _sections() -> Iterator[dataclasses.Field]:
    return (item for item in dataclasses.fields(Config) if dataclasses.is_dataclass(item.default_factory))
