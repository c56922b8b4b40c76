"""The command, comparison with another commit, training steps, the pytest entry."""

import os
import re
import subprocess
import sys

import pytest
import torch

from benchmarks import base, cases, run, train_step
from benchmarks.cases import Case, Plan
from benchmarks.heap import KEPT, controllable
from benchmarks.records import OK, ROOT, Row, read

CPU = torch.device("cpu")
TINY = Case("tiny", "a test", 2, 8, 8, 4, 3)


@pytest.fixture
def tiny_suite(monkeypatch):
    """One quick table instead of the suites."""
    plans = [
        Plan(TINY, "replace", ("pare", "paper")),
        Plan(TINY.with_(name="tiny-2"), "replace", ("pare",), threads=1),
        Plan(TINY.with_(name="tiny-2"), "replace", ("pare",), threads=2),
        *(Plan(TINY.with_(name=f"N{n}", num_target=n), "replace", ("pare",), sweep="N") for n in (8, 16, 32)),
    ]
    monkeypatch.setattr(run, "SUITES", {"standard": lambda: plans, "quick": lambda: plans[:1]})
    monkeypatch.setattr(run, "read_and_copy_gbs", lambda device: (20.0, 30.0))
    return plans


def test_run_prints_and_records(tiny_suite, tmp_path, capsys):
    path = tmp_path / "a.csv"
    assert run.main(["--seconds", "0.001", "--csv", str(path)]) == 0
    out = capsys.readouterr().out
    assert "tiny: replace, B 2, N 8, D 4, k 3, float32, 1 thread" in out
    assert "pare [" in out
    assert "2 threads:" in out
    assert "time ~ N^" in out
    rows = read(path)
    assert {row.suite for row in rows} == {"standard"}
    assert len({row.run for row in rows}) == 1
    assert {row.case for row in rows} == {"tiny", "tiny-2", "N8", "N16", "N32"}
    assert rows[0].read_gbs == 20.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--case", "swim"], r"--case: invalid choice: 'swim' \(choose from '?swin-2000"),
        (["--provider", "nobody"], r"--provider: invalid choice: 'nobody' \(choose from '?pare"),
        (["--operation", "x"], r"--operation: invalid choice: 'x' \(choose from '?replace"),
        (["--suite", "x"], r"--suite: invalid choice: 'x' \(choose from '?quick"),
        (["--dtype", "int8"], r"--dtype: invalid choice: 'int8' \(choose from '?float32"),
        (["--device", "tpu9"], r"--device: must be cpu or cuda\[:N\], got 'tpu9'"),
        (["--device", "meta"], r"--device: must be cpu or cuda"),
        (["--device", "cuda:99"], r"--device: got 'cuda:99', but this PyTorch sees"),
        (["--threads", "0"], r"--threads: must be at least 1, got 0"),
        (["--seconds", "0"], r"--seconds: must be > 0"),
        (["--csv", "a", "--no-csv"], r"--csv: not together with --no-csv"),
    ],
)
def test_bad_options_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        run.parse(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error


def names(plans):
    return [(plan.case.name, plan.case.dtype, plan.operation, plan.threads, plan.providers) for plan in plans]


def test_options_choose_plans(tiny_suite):
    plans = run.plans_of(
        run.parse(["--suite", "standard", "--case", "tiny-2", "--threads", "1", "--dtype", "bfloat16"])
    )
    assert names(plans) == [("tiny-2", "bfloat16", "replace", 1, ("pare",))]
    plans = run.plans_of(run.parse(["--provider", "paper"]))
    assert names(plans) == [("tiny", "float32", "replace", 1, ("paper",))]
    plans = run.plans_of(run.parse(["--case", "vit", "--operation", "swap", "--operation", "scores"]))
    assert names(plans) == [("vit", "float32", "swap", 1, ()), ("vit", "float32", "scores", 1, ())]


def test_options_without_anything_in_common(tiny_suite, capsys):
    assert run.main(["--suite", "quick", "--operation", "select", "--no-csv"]) == 2
    assert "nothing in common" in capsys.readouterr().err


def test_list(capsys):
    assert run.main(["--list"]) == 0
    out = capsys.readouterr().out
    assert "swin-2000" in out
    assert "another estimator: lapsum" in out


def test_refused_providers_end_in_the_summary():
    red = Row(case="a", operation="replace", provider="x", family="rival", status="refused", note="because", threads=1)
    assert "x on a (replace): refused: because" in run.summary([red])
    assert "x: refused: because" in run.table(Plan(TINY, "replace", ()), [red])


# Another commit ------------------------------------------------------------------------------------------------------


def test_arguments_for_the_other_commit():
    arguments = ["--base", "HEAD~1", "--case", "vit", "--csv=x", "--no-csv", "--csv", "y", "--threads", "2"]
    assert run._without_records(arguments) == ["--case", "vit", "--threads", "2"]


def test_comparison_table():
    def row(ms, provider="pare", family="ours", status=OK):
        return Row(
            case="a", operation="replace", provider=provider, family=family, threads=1, both_ms=ms, status=status
        )

    text = base.comparison(
        "abc",
        [row(4.0), row(1.0, "limit", "limit"), row(3.0, "paper", "paper")],
        [row(2.0), row(1.0, "limit", "limit")],
    )
    assert "2.00" in text.splitlines()[1]
    assert "(memory limit)" in text
    assert "paper" not in text


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository of its own, so that no worktree is ever added to the real one."""
    root = tmp_path / "repository"
    root.mkdir()

    def git(*arguments):
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)

    git("init", "-q")
    (root / "pare_kernels").symlink_to(ROOT / "pare_kernels")
    git("add", ".")
    git("commit", "-qm", "one")
    monkeypatch.setattr(base, "ROOT", root)
    return root


def test_base_is_measured_in_a_throw_away_worktree(checkout):
    same = {
        "case": "tiny",
        "operation": "overhead",
        "provider": "pare",
        "family": "ours",
        "threads": 1,
        "dtype": "float32",
    }
    mine = Row(**same, heap=KEPT if controllable(CPU) else "", forward_ms=1.0)
    arguments = ["--case", "tiny", "--operation", "overhead", "--provider", "pare", "--seconds", "0.001"]
    text = base.compare("HEAD", arguments, [mine])
    assert "overhead  pare" in text
    listed = subprocess.run(["git", "worktree", "list"], cwd=checkout, capture_output=True, text=True).stdout
    assert len(listed.splitlines()) == 1


def test_base_errors(checkout):
    with pytest.raises(ValueError, match=r"--base nothing: not a commit"):
        base.compare("nothing", [], [])
    with pytest.raises(ValueError, match=r"(?s)--base HEAD: measuring it failed.*invalid choice: 'x'"):
        base.compare("HEAD", ["--case", "x"], [])
    broken = checkout / "csrc"
    broken.mkdir()
    (broken / "a.cpp").write_text("")
    subprocess.run(["git", "add", "."], cwd=checkout, check=True)
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run(["git", *identity, "commit", "-qm", "two"], cwd=checkout, check=True)
    with pytest.raises(ValueError, match="its extension cannot be built"):
        base.compare("HEAD", [], [])


# Training steps ------------------------------------------------------------------------------------------------------


def test_train_step(tmp_path, capsys):
    path = tmp_path / "a.csv"
    assert train_step.main(["--size", "tiny", "--csv", str(path)]) == 0
    rows = {row.provider: row for row in read(path)}
    assert set(rows) == {"nft", "pare", "pare-paper"}
    assert rows["pare"].samples_per_s > 0
    assert 0 < rows["pare"].operator_share < 1
    assert rows["nft"].operator_share is None
    assert rows["pare"].over_paper > 0
    assert rows["pare"].num_target == 10
    assert "samples/s" in capsys.readouterr().out


def test_ways_differ_in_what_they_compute():
    """The paper's step replaces k patches too, and its gate learns."""
    (setting,) = train_step.SETTINGS["tiny"]
    for way in ("pare", "pare-paper"):
        run_once, step = train_step.make_run(setting, way, CPU)
        before = step.objective.gate.weight.detach().clone()
        run_once()
        assert not torch.equal(step.objective.gate.weight, before)
        target, source = torch.randn(2, 10, 16), torch.randn(2, 8, 16)
        result = step.objective.replace(target, source, train_step.POSITION)
        assert ((result.mixed != target).any(-1).sum(1) == 4).all()
        assert result.lam == 0.4


def test_train_step_options(capsys):
    for arguments, message in ((["--size", "huge"], "--size: invalid choice"), (["--threads", "0"], "--threads")):
        with pytest.raises(SystemExit):
            train_step.main(arguments)
        assert message in capsys.readouterr().err


def test_paper_shapes():
    """The shapes of the paper's encoders, without their layers."""
    small_swin, small_roberta = train_step.SETTINGS["small"]
    assert small_roberta.make().num_tokens == 50
    encoder = small_swin.make()
    assert (encoder.num_tokens, encoder.width) == (3136, 128)
    assert encoder.embed_source(small_swin.source(1)).shape == (1, 3136, 128)


# The pytest entry ----------------------------------------------------------------------------------------------------


def test_pytest_entry_runs(tmp_path):
    """`pytest benchmarks/` on the smallest case, in a process of its own."""
    command = [sys.executable, "-m", "pytest", "benchmarks/", "-q", "-p", "no:cacheprovider", "-k", "overhead"]
    report = tmp_path / "report.json"
    command += ["--benchmark-json", str(report)]
    # Inside a worker of pytest-xdist pytest-benchmark would switch itself off.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "overhead-tiny-pare" in report.read_text()


def test_every_suite_is_reachable_from_the_command():
    assert set(run.case_names()) >= {plan.case.name for suite in cases.SUITES.values() for plan in suite()}
