from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml

from crossmodal import plans
from crossmodal.errors import UserError
from crossmodal.methods import METHODS
from tests.crossmodal.runs import ROOT

TABLES = sorted(file for file in (ROOT / "benchmarks").glob("*/*.yaml") if file.name != "recipe.yaml")


def read(folder: Path, text: str | None = None, *, tasks=None, methods=None, seeds=None, rest=()) -> plans.Plan:
    """A plan from a file with that text and from the command line."""
    file = folder / "plan.yaml"
    if text is not None:
        file.write_text(text)
    return plans.read(None if text is None else file, tasks, methods, seeds, list(rest))


def jobs(plan: plans.Plan, folder: Path) -> list:
    return [job for task in plan.tasks for method in plan.methods for job in plan.jobs(task, method, folder)]


def test_a_file(tmp_path):
    text = """
    tasks: [digits, {task: digits, label: small, split: {train_size: 40}, batch_size: 4}]
    methods: [nft, linear, {method: pare, label: noise, pare.selection: random, epochs: 7}]
    seeds: [3, 5]
    options: {epochs: 9, batch_size: 2, optimizer.betas: [0.8, 0.9], pare: {tau: 0.5}, augment: null}
    """
    found = jobs(read(tmp_path, text), tmp_path)
    assert [job.name for job in found[:5]] == [
        "digits, nft seed 3",
        "digits, nft seed 5",
        "digits, linear seed 0",
        "digits, noise seed 3",
        "digits, noise seed 5",
    ]
    config = found[-1].config
    assert (config.task, config.method, config.seed, config.threads) == ("digits", "pare", 5, 1)
    assert (config.epochs, config.batch_size, config.split.train_size) == (7, 4, 40)
    assert (config.optimizer.betas, config.options.tau, config.options.selection) == ((0.8, 0.9), 0.5, "random")
    assert found[0].config.epochs == 9


def test_the_command_line_goes_before_the_file(tmp_path):
    text = "{methods: [nft, {method: pare, label: a, epochs: 7}], seeds: [1], options: {epochs: 9}}"
    plan = read(tmp_path, text, tasks="gunpoint", seeds="4", rest=["--epochs", "2", "--pare.tau=0.25"])
    found = jobs(plan, tmp_path)
    assert [(job.config.task, job.config.seed, job.config.epochs) for job in found] == [("gunpoint", 4, 2)] * 2
    assert found[1].config.options.tau == 0.25
    assert plan.title == "plan"


def test_the_command_line_chooses_of_what_a_file_lists(tmp_path):
    """By label, or by name all that have it; with the settings that the file gives them."""
    text = """
    tasks: [digits, {task: gunpoint, label: gestures, epochs: 4}]
    methods: [nft, {method: pare, label: a, pare.tau: 0.5}, {method: pare, label: b}]
    seeds: [0]
    """
    found = jobs(read(tmp_path, text, tasks="gunpoint", methods="a"), tmp_path)
    assert [(job.task, job.method, job.config.epochs, job.config.options.tau) for job in found] == [
        ("gestures", "a", 4, 0.5)
    ]
    chosen = read(tmp_path, text, tasks="gestures,digits", methods="pare")
    assert ([task.label for task in chosen.tasks], [method.label for method in chosen.methods]) == (
        ["gestures", "digits"],
        ["a", "b"],
    )
    everything = read(tmp_path, text, methods="all")
    assert everything.all_methods
    assert read(tmp_path, "tasks: [digits]", methods="all").seeds == [0]
    assert [method.label for method in everything.methods][:3] == ["nft", "a", "b"]
    assert {method.name for method in everything.methods} == set(METHODS)
    with pytest.raises(UserError, match=r"methods: .*plan.yaml has no method 'linear', but nft, a, b"):
        read(tmp_path, text, methods="linear")
    with pytest.raises(UserError, match=r"tasks: .*plan.yaml has no task 'digit', but digits, gestures"):
        read(tmp_path, text, tasks="digit")


def test_the_command_line_alone(tmp_path):
    plan = read(tmp_path, methods="pare,lp_ft,linear", seeds="3,4", rest=["--pare.tau", "0.5", "--lp_ft.probe_lr=0.25"])
    found = jobs(plan, tmp_path)
    assert [job.name for job in found] == [
        "pare seed 3",
        "pare seed 4",
        "lp_ft seed 3",
        "lp_ft seed 4",
        "linear seed 0",
    ]
    assert [job.config.options.tau for job in found[:2]] == [0.5, 0.5]
    assert found[2].config.options.probe_lr == 0.25
    assert plan.title == "italy_power_demand-comparison"
    assert read(tmp_path, tasks="digits,gunpoint").title == "comparison"
    settings = tmp_path / "settings.yaml"
    settings.write_text("task: gunpoint")
    plan = read(tmp_path, methods="pare,nft,scratch", seeds="0", rest=["--config", str(settings)])
    assert [job.folder.path.name for job in jobs(plan, tmp_path)] == [
        "gunpoint-pare-0",
        "gunpoint-nft-0",
        "gunpoint-scratch-0",
    ]


def test_a_folder_is_named_by_what_defines_the_run(tmp_path):
    """Not by labels, the order of settings, or what says only where things lie."""

    def name(*rest: str, label: str = "pare") -> str:
        text = f"{{tasks: [digits], methods: [{{method: pare, label: {label}}}], seeds: [0]}}"
        (job,) = jobs(read(tmp_path, text, rest=rest), tmp_path)
        return job.folder.path.name

    plain, changed = name(), name("--epochs=3", "--pare.tau=0.5")
    assert plain == name("--pare.tau=0.9", "--keep=5", "--threads=2", label="other") == "digits-pare-0"
    assert changed == name("--pare.tau", "0.5", "--epochs", "3", label="other")
    assert len({plain, changed, name("--epochs=3"), name("--epochs=4")}) == 4
    digest = hashlib.sha256(b'{"epochs": 3, "pare.tau": 0.5}').hexdigest()
    assert changed == f"digits-pare-{digest[:8]}-0"


def test_a_grid(tmp_path):
    found = jobs(
        read(
            tmp_path,
            "{tasks: [digits], methods: [{method: nft, grid: {optimizer.lr: [0.1, 0.2], epochs: [1, 2]}}], seeds: [0, 1]}",
        ),
        tmp_path,
    )
    assert [(job.config.optimizer.lr, job.config.epochs, job.config.seed) for job in found[:3]] == [
        (0.1, 1, 0),
        (0.1, 1, 1),
        (0.1, 2, 0),
    ]
    assert found[-1].name == "nft optimizer.lr 0.2, epochs 2 seed 1"
    assert len(found) == len({job.folder.path for job in found}) == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: [pare]", r"plan.yaml: unknown key 'method', did you mean 'methods'\? \(a plan has tasks, methods, "),
        ("tasks: digits", "plan.yaml: tasks: expected a list of names and mappings, got 'digits'"),
        ("methods: []", "plan.yaml: methods: expected a list"),
        ("methods: [{label: pare}]", "plan.yaml: methods: expected a name or a mapping with 'method', got "),
        ("methods: [[pare]]", "plan.yaml: methods: expected a name or a mapping"),
        ("methods: [{method: pare, label: 3}]", "plan.yaml: methods: label: expected text on one line, got 3"),
        ('methods: [{method: pare, label: "a\\nb"}]', "label: expected text on one line"),
        ("methods: [pare, {method: pare}]", "methods: pare is given twice; give one of them another label"),
        ("methods: [{method: nft, grid: [1]}]", r"methods: grid: expected lists of values by setting, .*, got \[1\]"),
        ("methods: [{method: nft, grid: {lr: 3}}]", "methods: grid: expected lists of values by setting"),
        ("methods: [{method: nft, grid: {lr: [1, 1]}}]", "methods: grid: lr: 1 is given twice"),
        (
            "methods: [{method: nft, epochs: 1, grid: {epochs: [1, 2]}}]",
            "nft: epochs: given beside the grid that is to choose it",
        ),
        ("methods: [{method: nft, grid: {pare.tau: [1]}}]", "nft: pare.tau: an option of the method pare"),
        ("tasks: [{task: digits, grid: {lr: [1]}}]", "plan.yaml: unknown key 'grid.lr'"),
        ("methods: [nfd]", "method: unknown name 'nfd', did you mean 'nft'"),
        ("seeds: 3", "plan.yaml: seeds: expected a list of whole numbers, got 3"),
        ("seeds: [a]", "plan.yaml: seeds: expected a list of whole numbers"),
        ("seeds: [0.5]", "plan.yaml: seeds: expected a list of whole numbers"),
        ("seeds: [1, 1]", "plan.yaml: seeds: 1 is given twice"),
        ("options: [epochs]", "plan.yaml: options: expected a mapping of settings"),
        ("options: {epcohs: 3}", "plan.yaml: unknown key 'epcohs', did you mean 'epochs'"),
        ("options: {epochs: many}", "plan.yaml: epochs: expected int.* or null, got 'many'"),
        ("options: {seed: 3}", "options: seed: each run of a comparison has its own; take seeds"),
        ("tasks: [{task: digits, method: nft}]", "digits: method: each run of a comparison has its own; take methods"),
        (
            "{methods: [nft], options: {pare.tau: 1}}",
            "options: pare.tau: an option of the method pare, which is not run",
        ),
        (
            "methods: [pare, {method: nft, pare.tau: 1}]",
            "nft: pare.tau: an option of the method pare, which is not run",
        ),
        ("methods: [{method: pare, pare.tua: 1}]", "plan.yaml: unknown key 'pare.tua', did you mean 'pare.tau'"),
    ],
)
def test_mistakes_in_a_file(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        jobs(read(tmp_path, text), tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": "0,1,0"}, "^seeds: 0 is given twice"),
        ({"seeds": "0,a"}, "^seeds: expected whole numbers separated by commas"),
        ({"seeds": "-1"}, "^seed: expected int from 0 to"),
        ({"methods": "nft,nft"}, "^methods: nft is given twice$"),
        ({"rest": ["--output_dir", "here"]}, "^--output_dir: each run of a comparison has its own; take --runs_dir"),
        ({"rest": ["--seed=3"]}, "^--seed: each run of a comparison has its own; take seeds"),
        ({"rest": ["--resume", "true"]}, "^--resume: each run .* has its own; those that were interrupted go on"),
        ({"rest": ["--run", "here"]}, "^unknown key 'run'"),
        ({"methods": "nft", "rest": ["--pare.tau=1"]}, "^--pare.tau: an option of the method pare, which is not run"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        jobs(read(tmp_path, **given), tmp_path)


@pytest.mark.parametrize("file", TABLES, ids=lambda file: file.stem)
def test_tables_of_the_paper_can_be_planned(file, tmp_path):
    entries = yaml.safe_load(file.read_text())["methods"]
    names = {entry if isinstance(entry, str) else entry["method"] for entry in entries}
    if missing := sorted(names - METHODS.keys()):
        pytest.skip(f"methods that are not there: {', '.join(missing)}")
    plan = plans.read(file, None, None, None, [])
    found = jobs(plan, tmp_path)
    assert len({job.folder.path for job in found}) == len(found) >= 2 * len(plan.methods)
