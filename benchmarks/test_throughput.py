"""The same providers under pytest-benchmark: `pytest benchmarks/ --benchmark-autosave`, then `--benchmark-compare`.

Forward and backward pass together, after the same check against the definition; `-k "swin-2000 and pare"` picks, as ever. Providers
that compile are left to `python -m benchmarks.run`.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.agreement import Disagreement, Judge
from benchmarks.agreement import run as run_once
from benchmarks.cases import CASES
from benchmarks.operations import OPERATIONS
from benchmarks.providers import PROVIDERS, Provider

pytest.importorskip("pytest_benchmark")

CPU = torch.device("cpu")
CHOSEN = {
    "replace": ("swin-2000", "short", "ecg", "vit"),
    "forward": ("swin-2000",),
    "swap": ("swin-2000",),
    "scores": ("swin-2000",),
    "sampler": ("swin-2000",),
    "pairs": ("swin-2000",),
    "select": ("swin-2000",),
    "overhead": ("tiny",),
}
PARAMETERS = [
    pytest.param(CASES[case], provider, id=f"{provider.operation}-{case}-{provider.name}")
    for provider in PROVIDERS.values()
    for case in CHOSEN[provider.operation]
    if not provider.compiled
]
_judges: dict[tuple[str, str], Judge] = {}


def judge_of(operation: str, case) -> Judge:
    """One judge at a time is kept: the definition is slow, and consecutive tests share it."""
    key = operation, case.name
    if key not in _judges:
        _judges.clear()
        _judges[key] = Judge(OPERATIONS[operation], OPERATIONS[operation].make(case, CPU))
    return _judges[key]


@pytest.mark.parametrize(("case", "provider"), sorted(PARAMETERS, key=lambda p: p.id.rsplit("-", 1)[0]))
def test_throughput(benchmark, case, provider: Provider):
    judge = judge_of(provider.operation, case)
    call = provider.build(case, CPU)
    try:
        benchmark.extra_info["error"] = judge.check(provider, call)
    except Disagreement as disagreement:
        pytest.fail(f"not timed, since it is wrong: {disagreement}")
    benchmark.group = f"{provider.operation}: {case.name}, {case.shape}"
    benchmark.extra_info.update(backend=provider.backend(CPU), gradient=provider.estimator)
    slow = provider.family == "paper" or provider.estimator == "exact"
    benchmark.pedantic(run_once, args=(provider, call, judge.workload, None), rounds=3 if slow else 10, warmup_rounds=1)
