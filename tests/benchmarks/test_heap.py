"""Heaps: what is called fresh faults its pages in, what is called kept does not."""

import subprocess
import sys

import pytest
import torch

from benchmarks.cases import CASES, SUITES, Plan
from benchmarks.heap import FRESH, KEPT, controllable, use_heap
from benchmarks.records import ROOT
from benchmarks.run import parse, plans_of

CPU = torch.device("cpu")
COUNT = """
import resource, torch
from benchmarks.heap import use_heap
print(use_heap("{name}", torch.device("cpu")))
used = [torch.ones(4 * 2**20) for _ in range(3)]
del used
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.empty(4 * 2**20).fill_(1.0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not controllable(CPU), reason="the C library is not glibc")
@pytest.mark.parametrize("name", [KEPT, FRESH])
def test_pages_are_faulted_in_on_a_fresh_heap_alone(name):
    done = subprocess.run(
        [sys.executable, "-c", COUNT.format(name=name)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    used, faults = done.stdout.split()
    assert used == name
    assert (int(faults) >= 4 * 2**20 * 4 // 2**21) == (name == FRESH)  # at least one for each huge page


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
