"""Heaps: from a fresh one a freed block goes back to the system, in a kept one it stays."""

import subprocess
import sys

import pytest
import torch

from benchmarks.cases import CASES, SUITES, Plan
from benchmarks.heap import FRESH, KEPT, controllable, use_heap
from benchmarks.records import ROOT
from benchmarks.run import parse, plans_of

CPU = torch.device("cpu")
CHILD = """
import resource, torch
from benchmarks.heap import use_heap
from benchmarks.memory import _STATUS, _kib
print(use_heap("{name}", torch.device("cpu")))
torch.ones(2**22)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
block = torch.empty(2**22).fill_(1.0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
full = _kib(_STATUS, "VmRSS")
del block
print(full - _kib(_STATUS, "VmRSS"))
"""


@pytest.mark.skipif(not controllable(CPU), reason="the C library is not glibc")
@pytest.mark.parametrize("name", [KEPT, FRESH])
def test_a_freed_block_stays_or_goes(name):
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(name=name)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    used, faults, given_back = done.stdout.split()
    assert used == name
    if name == FRESH:
        assert int(faults) >= 8, "at least one for each huge page of the 16 MiB"
        assert int(given_back) > 12 * 1024
    else:
        assert int(given_back) < 4 * 1024


def test_a_gpu_has_no_heap_and_takes_no_plan_for_a_fresh_one(monkeypatch):
    assert use_heap(FRESH, torch.device("cuda")) == ""
    assert any(plan.heap == FRESH for plan in SUITES["standard"]())
    options = parse([])
    assert any(plan.heap == FRESH for plan in plans_of(options)) == controllable(CPU)
    options.device = torch.device("cuda")
    assert not any(plan.heap == FRESH for plan in plans_of(options))


def test_fresh_and_kept_are_two_plans():
    options = parse(["--case", "ecg", "--heap", "kept", "--heap", "fresh"])
    expected = [KEPT, FRESH] if controllable(CPU) else [KEPT]
    assert [plan.heap for plan in plans_of(options)] == expected
    assert Plan(CASES["ecg"], "replace", ()).heap == KEPT
