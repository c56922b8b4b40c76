"""What of `make gpu` needs no GPU: refusals, time limits, skipped parts, the table at the end."""

import csv
import os
import re
import subprocess
import sys
import time

import pytest
import torch

pytest.importorskip("triton")

from benchmarks import gpu
from benchmarks.run import parse, plans_of
from tests.triton import device_check


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path, capsys):
    assert gpu.main(["--out", str(tmp_path / "out")]) == 2
    assert "nothing to run: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"torch": None, "problem": "No module named 'torch'"}, "cannot import torch"),
        ({"torch": "2.13.0", "triton": None, "cuda": True}, "has no triton"),
        ({"torch": "2.13.0", "triton": "3.8.0", "cuda": False}, "sees no CUDA device"),
    ],
)
def test_each_lack_has_its_own_words(found, said):
    assert said in gpu.missing(found)


def test_a_machine_with_everything_lacks_nothing():
    assert gpu.missing({"torch": "2.13.0", "triton": "3.8.0", "cuda": True}) is None


def longest_of_groups(parts):
    """Limits, not expectations: the deadline cuts the last part short."""
    longest = {}
    for part in parts:
        longest[part.group] = max(longest.get(part.group, 0), part.limit)
    assert len({part.name for part in parts}) == len(parts)
    return sum(longest.values())


def test_the_parts_of_the_check_exist_and_fit_into_two_minutes(tmp_path):
    parts = gpu.check_parts(tmp_path)
    assert {part.name for part in parts} == {"report", "compile", *(f"case: {name}" for name in gpu.CASES)}
    assert {*gpu.CASES} == {*device_check.CASES, "graph"}
    assert longest_of_groups(parts) <= gpu.CHECK_BUDGET < 120
    assert not any(part.needs for part in parts)  # torch and triton alone


def test_the_parts_exist_and_fit_into_the_budget(tmp_path):
    parts = gpu.parts(tmp_path)
    names = [part.name for part in parts]
    kernels = {f"tests: on_device/{name}" for name in ("selection", "relaxation", "gradients")}
    operators = {f"tests: pare_kernels/{name}" for name in gpu.OPERATOR_TESTS}
    models = {f"tests: models/{name}" for name in gpu.MODEL_TESTS}
    assert kernels | operators | models | {"tests: triton/gpu", "training step"} <= set(names)
    assert gpu.BUDGET < 540
    assert longest_of_groups(parts) <= 560
    for part in parts:
        if "pytest" in part.command:
            assert (gpu.ROOT / part.command[-1]).is_file()
        elif "benchmarks.run" in part.command:
            chosen = plans_of(parse([*part.command[3:], "--device", "cpu"]))  # every case and provider exists
            assert [plan.operation for plan in chosen] == [
                part.command[index + 1] for index, word in enumerate(part.command) if word == "--operation"
            ]
            assert len({name for plan in chosen for name in plan.providers}) == part.command.count("--provider")
    headline = [name for name in names if name.startswith(gpu.HEADLINE)]
    assert {"paper", *gpu.OURS} <= {word for name in headline for word in name.split(": ")[1].split(", ")}


def test_a_measurement_cut_short_loses_no_other(log, tmp_path):
    """Parts write their rows as they end: the table is made of those that did."""
    path = tmp_path / "gpu.csv"
    soon = time.monotonic() + 120
    measure = ("-m", "benchmarks.run", "--case", "tiny", "--csv", str(path), "--seconds", "0.01")
    command = (sys.executable, *measure, "--provider", "pare", "--provider", "eager-closed-manual")
    assert gpu.run_part(gpu.Part("ours", command, 100, "a"), log, soon).result == gpu.PASSED
    assert gpu.run_part(part("import time; time.sleep(60)", limit=5), log, soon).result == gpu.LATE
    with path.open(newline="") as file:
        assert {row["provider"] for row in csv.DictReader(file)} >= {"pare", "eager-closed-manual"}


def part(code, **options):
    return gpu.Part("one", (sys.executable, "-c", code), options.pop("limit", 30), "group", **options)


@pytest.fixture
def log(tmp_path):
    log = gpu.Log(tmp_path / "gpu.log")
    yield log
    log.close()


def test_parts_pass_fail_and_are_skipped(log, tmp_path):
    soon = time.monotonic() + 60
    assert gpu.run_part(part("print('fine')"), log, soon).result == gpu.PASSED
    failed = gpu.run_part(part("import sys; print('why'); sys.exit(3)"), log, soon)
    assert (failed.result, failed.note) == (gpu.FAILED, "why")
    skipped = gpu.run_part(part("", needs=("no_such_module",)), log, soon)
    assert skipped.result == gpu.SKIPPED
    assert "no_such_module" in skipped.note
    assert gpu.run_part(part(""), log, time.monotonic()).result == gpu.LATE
    assert "one | fine" in (tmp_path / "gpu.log").read_text()


def test_a_part_that_hangs_is_ended(log):
    code = "import time; print('waiting', flush=True); time.sleep(60)"
    outcome = gpu.run_part(part(code, limit=5), log, time.monotonic() + 60)
    assert outcome.result == gpu.LATE
    assert "waiting" in outcome.note
    assert outcome.seconds < 30


def test_a_group_runs_side_by_side_and_keeps_its_order(log, tmp_path):
    wait_for_the_other = """
import pathlib, sys, time
own, other = map(pathlib.Path, sys.argv[1:])
own.touch()
while not other.exists():
    time.sleep(0.01)
time.sleep(0.4 * own.name.endswith("0"))
"""
    files = [str(tmp_path / f"part-{index}") for index in range(2)]
    group = [
        gpu.Part(str(index), (sys.executable, "-c", wait_for_the_other, *order), 30, "group")
        for index, order in enumerate((files, files[::-1]))
    ]
    outcomes = gpu.run_group(group, log, time.monotonic() + 60)
    assert [outcome.part for outcome in outcomes] == ["0", "1"]
    assert {outcome.result for outcome in outcomes} == {gpu.PASSED}


def test_figures_and_summary(tmp_path):
    path = tmp_path / "gpu.csv"
    assert gpu.figures(path) == []
    common = {"case": gpu.HEADLINE, "batch": 32, "num_target": 3136, "dim": 128, "dtype": "float32", "status": "ok"}
    rows = [
        common | {"provider": "pare", "graph_ms": 0.2, "both_ms": 0.5, "copy_gbs": 4000},
        common | {"provider": "paper", "both_ms": 400},
        common | {"provider": "compile-closed", "graph_ms": 0.6, "both_ms": 0.9},
        common | {"provider": "compile-closed-manual", "both_ms": 0.7, "status": "refused"},
        common | {"provider": "pare-exact", "graph_ms": 2.0},
        common | {"provider": "pare", "operation": "forward", "forward_ms": 0.1},
        common | {"provider": "topk-gather", "operation": "forward", "forward_ms": 0.5},
        {"case": "swin-base", "provider": "pare", "status": "ok", "operator_share": 0.02},
    ]
    with path.open("w", newline="") as file:
        fields = [*rows[0], "operator_share", "operation", "forward_ms"]
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)
    found = gpu.figures(path)
    assert found[0][1] == "0.200 ms, 2826 GB/s = 71% of copying"
    assert [row[1] for row in found[1:]] == ["3.0 x", "1.8 x", "800 x", "2.000 ms", "0.100 ms, 5.0 x", "2.0%"]
    lines = gpu.summary([gpu.Outcome("tests", gpu.PASSED, 12, "40 passed")], [], found)
    assert "passed" in lines[0]
    assert any(line.endswith("bar: 1000 x") for line in lines)


def run_main(monkeypatch, folder, *parts):
    found = {"torch": "2.13.0", "triton": "3.8.0", "cuda": True, "devices": ["a device"]}
    monkeypatch.setattr(gpu, "probe", lambda: found)
    monkeypatch.setattr(gpu, "parts", lambda out, rehearse: list(parts))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(folder / "cache"))
    return gpu.main(["--out", str(folder)])


def test_the_whole_run_goes_on_after_a_crash_and_ends_with_the_table(monkeypatch, tmp_path, capsys):
    crash = gpu.Part("crash", (sys.executable, "-c", "import os; os.abort()"), 30, "a")
    write = f"""
import csv
row = dict(case={gpu.HEADLINE!r}, batch=32, num_target=3136, dim=128, dtype="float32", status="ok", provider="pare", graph_ms=0.25)
with open({str(tmp_path / "out" / "gpu.csv")!r}, "w") as file:
    writer = csv.DictWriter(file, row)
    writer.writeheader()
    writer.writerow(row)
"""
    good = gpu.Part("good", (sys.executable, "-c", write), 30, "b")
    assert run_main(monkeypatch, tmp_path / "out", crash, good) == 1
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "out" / "gpu.log").read_text()
    table = printed[printed.index("-" * 100) :]
    assert "crash  FAILED" in table
    assert "good   passed" in table
    assert "0.250 ms, 2261 GB/s" in table


def test_exit_codes(monkeypatch, tmp_path):
    fine = gpu.Part("fine", (sys.executable, "-c", ""), 30, "a")
    optional = gpu.Part("training step", fine.command, 30, "a", needs=("no_such_module",))
    tests = gpu.Part("tests: one", fine.command, 30, "a", needs=("no_such_module",))
    assert run_main(monkeypatch, tmp_path, fine, optional) == 0
    assert run_main(monkeypatch, tmp_path, fine, tests) == 1


def test_a_line_for_each_kernel(tmp_path):
    """The worst of its forms; what launches in a case that did not pass is in doubt."""
    path = tmp_path / "kernels.csv"
    assert gpu.kernels(path, []) == []
    row = {
        "constants": "BLOCK 16",
        "status": "ok",
        "seconds": 1.25,
        "registers": 32,
        "spills": 0,
        "shared": 512,
        "note": "",
    }
    rows = [
        row | {"kernel": "tokens.swap_kernel", "cases": "swap"},
        row | {"kernel": "tokens.dots_kernel", "cases": "swap replace"},
        row | {"kernel": "tokens.dots_kernel", "cases": "long", "registers": 128, "seconds": 3.5},
        {
            "kernel": "row_kernels.adjoint_kernel",
            "constants": "BLOCK 2048",
            "cases": "long",
            "status": "FAILED",
            "seconds": 0.0,
        }
        | {"note": "PTXASError: no"},
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    outcomes = [gpu.Outcome("case: swap", gpu.PASSED, 1), gpu.Outcome("case: replace", gpu.LATE, 40)]
    adjoint, dots, swap = gpu.kernels(path, outcomes)
    assert "FAILED" in adjoint
    assert "BLOCK 2048: PTXASError: no" in adjoint
    assert "IN DOUBT     128 registers, 0 spilled,    512 bytes shared,  3.5 s, 2 forms; used by replace" in dots
    assert swap.split()[1] == "ok"


@pytest.mark.parametrize("mode", [["--check"], pytest.param([], marks=pytest.mark.slow)], ids=["check", "whole"])
def test_a_rehearsal_goes_through_every_part(mode, tmp_path):
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "benchmarks/gpu.py", "--rehearse", *mode, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=gpu.ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    log = (tmp_path / "out" / ("gpu-check.log" if mode else "gpu.log")).read_text()
    assert log == done.stdout
    table = log[log.index("-" * 100) :]
    expected = gpu.check_parts(tmp_path, True) if mode else gpu.parts(tmp_path, True)
    assert all(re.search(rf"\] {re.escape(part.name)} +passed", table) for part in expected)
    with (tmp_path / "out" / "kernels.csv").open(newline="") as file:
        compiled = {row["kernel"] for row in csv.DictReader(file)}
    assert compiled == set(re.findall(r"(\w+\.\w+_kernel) +ok", table))
    if not mode:
        files = {part.command[-1] for part in gpu.parts(tmp_path) if "pytest" in part.command}
        ended = dict(re.findall(r"\| (tests/\S+\.py)::.* (PASSED|SKIPPED|FAILED)", log))
        assert files - {"tests/triton/test_gpu.py"} == {*ended}
        assert [file for file in ended if ended[file] != "PASSED"] == ["tests/crossmodal/models/test_finetuned.py"]
        with (tmp_path / "out" / "gpu.csv").open(newline="") as file:
            assert {"pare", "paper", "compile-closed", "nft"} <= {row["provider"] for row in csv.DictReader(file)}
