"""What is compared: tasks x methods x seeds, from the command line and a file, as a list of runs.

A plan is a short YAML file; entries are names, or mappings with settings of their own, keys as for train.py:

    tasks:
      - italy_power_demand
      - {task: digits, encoder: dinov2-small, model.image_size: 56}
    methods:
      - nft
      - pare
      - {method: pare, label: random patches, pare.selection: random}
      - {method: pare, label: tuned, grid: {optimizer.lr: [1.0e-5, 3.0e-5]}}
    seeds: [0, 1, 2]
    options: {epochs: 30}

Of a grid every combination runs with every seed, and the one that is best on validation is the method's row.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossmodal import methods, parsing
from crossmodal.errors import UserError
from crossmodal.files import read_yaml
from crossmodal.jobs import Job
from crossmodal.naming import nearest
from crossmodal.settings import Config, differences, flatten
from crossmodal.training.folder import RunFolder

YARDSTICK = "linear"  # goes with every comparison of a task that it can do
METHODS, SEEDS = "pare,nft,scratch", "0,1,2"
SEEDS_OF_ALL = "0"  # a look at all methods, after which those that matter are repeated
KEYS = ("tasks", "methods", "seeds", "options")
# Settings that a comparison gives to each run, and what to take instead.
OWN = {
    "task": "take tasks",
    "method": "take methods",
    "check_only": "take train.py",
    "seed": "take seeds",
    "output_dir": "take --runs_dir",
    "overwrite": "take --overwrite",
    "resume": "those that were interrupted go on without it",
}


@dataclass(frozen=True)
class Entry:
    """A task or a method of a comparison: its name, what it is called in tables, and settings of its own by dotted key.

    Attributes:
        grid: of a method, values to choose from on validation, by dotted key.
    """

    name: str
    label: str
    options: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, list[Any]] = field(default_factory=dict)

    def points(self) -> list[dict[str, Any]]:
        """The combinations of its grid; one, of no settings, where it has none."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


@dataclass
class Plan:
    """What is compared.

    Attributes:
        title: name of the files of the comparison.
        where: for messages, the file it is from, with a colon; empty for the command line.
        tasks, methods: columns and rows.
        seeds: of each run.
        options: settings of all runs, by dotted key.
        arguments: the rest of the command line, which goes to all runs and before everything else.
        all_methods: whether the methods are all that there are, of which those that do not suit a task are left out.
    """

    title: str
    where: str
    tasks: list[Entry]
    methods: list[Entry]
    seeds: list[int]
    options: dict[str, Any]
    arguments: list[str]
    all_methods: bool = False

    def jobs(self, task: Entry, method: Entry, runs_dir: Path) -> list[Job]:
        """A job for each point of the method's grid and each seed; one, of seed 0, where seeds make no difference.

        Raises:
            UserError: see `parsing.parse`.
        """
        seeds = self.seeds if methods.get(method.name).seeded else [0]
        jobs = []
        for point in method.points():
            given = [f"--task={task.name}", "--threads=1", "--verdict=false"]
            for options in (self.options, task.options, method.options, point):
                given += [f"--{key}={_text(value)}" for key, value in options.items()]
            try:
                parsed = parsing.parse([*given, *self.arguments], method=method.name)
            except UserError as error:
                raise UserError(f"{self.where}{error}") from None
            where = ", ".join(f"{key} {_text(value)}" for key, value in point.items())
            for seed in seeds:
                config = dataclasses.replace(parsed, seed=seed)
                config.output_dir = str(runs_dir / folder_name(config))
                name = " ".join(filter(None, (method.label, where, f"seed {seed}")))
                if len(self.tasks) > 1:
                    name = f"{task.label}, {name}"
                jobs.append(Job(task.label, method.label, name, config, RunFolder(config.output_dir), where))
        return jobs


def read(file: Path | None, tasks: str | None, chosen: str | None, seeds: str | None, arguments: list[str]) -> Plan:
    """A plan from a file and the command line, which goes before it.

    Args:
        file: the YAML file, or None.
        tasks, chosen, seeds: names of tasks and methods and seeds, separated by commas, or None; "all" is every method. Tasks and
            methods that the file lists are chosen from by label or name.
        arguments: settings of all runs, as `train.py` takes them.

    Raises:
        UserError: names the key, what it was, what was expected.
    """
    where, values = (f"{file}: ", read_yaml(file)) if file else ("", {})
    for key in values:
        if key not in KEYS:
            raise UserError(f"{where}unknown key {key!r}{nearest(key, KEYS)} (a plan has {', '.join(KEYS)})")
    given = {"tasks": tasks, "methods": chosen}
    given = {key: None if value is None else value.split(",") for key, value in given.items()}
    listed = values.get("methods")
    everything = (given["methods"] or listed) in ("all", ["all"])
    if everything:  # those of the file as it has them
        named = _entries("method", listed, where) if isinstance(listed, list) and listed != ["all"] else []
        own = named + [Entry(name, name) for name in methods.METHODS if all(entry.name != name for entry in named)]
    else:
        listed = list(methods.METHODS) if listed in ("all", ["all"]) else listed
        own = _chosen(
            "method",
            given["methods"],
            METHODS.split(",") if listed is None else listed,
            where if "methods" in values else "",
        )
    for entry in own:
        methods.get(entry.name)
    tasks_listed = values.get("tasks")
    if given["tasks"] is None and tasks_listed is None:  # a file given with --config may name one
        tasks_listed = [parsing.parse(arguments, method=own[0].name).task]
    columns = _chosen("task", given["tasks"], tasks_listed, where if "tasks" in values else "")
    options = values.get("options", {})
    if not isinstance(options, dict):
        raise UserError(f"{where}options: expected a mapping of settings, got {options!r}")
    options = flatten(options)
    run = {entry.name for entry in own} | {YARDSTICK}
    words = [word.removeprefix("--").partition("=")[0] for word in arguments if word.startswith("--")]
    _check_owners(words, run, "--")
    for entry in (Entry("", "options", options), *columns):
        _check_owners(entry.options, run, f"{where}{entry.label}: ")
    for entry in own:
        _check_owners([*entry.options, *entry.grid], {entry.name}, f"{where}{entry.label}: ")
        for key in entry.grid:
            if key in {*words, *entry.options}:
                raise UserError(f"{where}{entry.label}: {key}: given beside the grid that is to choose it")
    usual = SEEDS_OF_ALL if everything else SEEDS
    numbers = _seeds(seeds.split(",") if seeds is not None else values.get("seeds", usual.split(",")), where)
    plan = Plan("comparison", where, columns, own, numbers, options, arguments, everything)
    for place, column in enumerate(columns):
        if column.label == column.name == "arrays":  # data of one's own are called as their file
            config = plan.jobs(column, own[0], Path())[0].config
            columns[place] = dataclasses.replace(column, label=config.title)
    _once(f"{where}tasks", [column.label for column in columns], "; give one of them another label")
    if file or len(columns) == 1:
        plan.title = file.stem if file else f"{Path(columns[0].label).stem}-comparison"
    return plan


def _entries(kind: str, given: Any, where: str) -> list[Entry]:
    key = f"{where}{kind}s"
    if not isinstance(given, list) or not given:
        raise UserError(f"{key}: expected a list of names and mappings, got {given!r}")
    entries = []
    for item in given:
        values = {kind: item} if isinstance(item, str) else item
        if not isinstance(values, dict) or not isinstance(values.get(kind), str):
            raise UserError(f"{key}: expected a name or a mapping with {kind!r}, got {item!r}")
        values = dict(values)
        grid = _grid(values.pop("grid"), f"{key}: ") if kind == "method" and "grid" in values else {}
        options = flatten(values)
        name = options.pop(kind)
        label = options.pop("label", name)
        if not isinstance(label, str) or not label.strip() or not label.isprintable():
            raise UserError(f"{key}: label: expected text on one line, got {label!r}")
        entries.append(Entry(name, label, options, grid))
    _once(key, [entry.label for entry in entries], "; give one of them another label" if where else "")
    return entries


def _grid(given: Any, where: str) -> dict[str, list[Any]]:
    values = flatten(given) if isinstance(given, dict) else {}
    if not values or not all(isinstance(points, list) and points for points in values.values()):
        raise UserError(
            f"{where}grid: expected lists of values by setting, as {{optimizer.lr: [1.0e-5, 3.0e-5]}}, got {given!r}"
        )
    for key, points in values.items():
        _once(f"{where}grid: {key}", map(_text, points))
    return values


def _chosen(kind: str, names: list[str] | None, listed: Any, where: str) -> list[Entry]:
    """The entries of those names, as the file `where` has them: all where none are named; without a file the names alone."""
    if names is None or not where:
        return _entries(kind, listed if names is None else names, where)
    entries, chosen = _entries(kind, listed, where), []
    _once(f"{kind}s", names)
    for name in names:
        found = [entry for entry in entries if entry.label == name] or [
            entry for entry in entries if entry.name == name
        ]
        if not found:
            known = ", ".join(entry.label for entry in entries)
            raise UserError(f"{kind}s: {where.removesuffix(': ')} has no {kind} {name!r}, but {known}")
        chosen += [entry for entry in found if entry not in chosen]
    return chosen


def _seeds(given: Any, where: str) -> list[int]:
    try:
        seeds = [int(seed) for seed in given if not isinstance(seed, bool | float)]
    except (TypeError, ValueError):
        seeds = []
    if not seeds or len(seeds) < len(given):
        form = "a list of whole numbers" if where else "whole numbers separated by commas"
        raise UserError(f"{where}seeds: expected {form}, got {given!r}")
    _once(f"{where}seeds", seeds)
    return seeds


def _once(key: str, given: Iterable[Any], remedy: str = "") -> None:
    twice = [value for value, count in Counter(given).items() if count > 1]
    if twice:
        raise UserError(f"{key}: {twice[0]} is given twice{remedy}")


def _check_owners(keys: Iterable[str], run: set[str], where: str) -> None:
    """Raises UserError for settings that each run has for itself, and for those of methods that are not run."""
    for key in keys:
        if key in OWN:
            raise UserError(f"{where}{key}: each run of a comparison has its own; {OWN[key]}")
        owner, dot, _ = key.partition(".")
        if dot and owner in methods.METHODS and owner not in run:
            raise UserError(f"{where}{key}: an option of the method {owner}, which is not run with it")


def _text(value: Any) -> str:
    """A value from YAML as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


@functools.cache
def _plain(task: str, method: str, data: str | None, encoder: str | None = None) -> dict[str, Any]:
    """The settings of a run of a method on a task where nothing is given, or the encoder alone."""
    given = [f"--{key}={value}" for key, value in (("task", task), ("data", data), ("encoder", encoder)) if value]
    return parsing.parse(given, method=method).to_dict()


def folder_name(config: Config) -> str:
    """A run's folder by what it is: task, method and seed, and where settings are not the task's usual ones, their digest.

    So runs of one plan are found again by another, whatever they are called there.
    """
    now = config.to_dict()
    try:
        plain = _plain(config.task, config.method, config.data)
    except UserError:  # the task's own encoder is not here
        plain = _plain(config.task, config.method, config.data, config.encoder) | {"encoder": None}
    changed = {key: new for key, (_, new) in differences(plain, now).items()}
    changed = {key: value for key, value in changed.items() if key != "seed"} | (
        {"data": config.data} if config.data else {}
    )
    digest = hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]
    return "-".join([config.task, config.method, *([digest] if changed else []), str(config.seed)])
