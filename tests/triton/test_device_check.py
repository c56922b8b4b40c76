"""What of the first check on a GPU needs none: what it compiles, how compilations fail, and that a wrong kernel is noticed."""

import subprocess
import sys
import time
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime import driver  # noqa: E402

from pare_kernels._triton import launchers, operators  # noqa: E402
from tests.triton import device_check  # noqa: E402


@pytest.fixture(scope="module")
def jobs():
    return device_check.plan(device_check.CASES.values())


def test_the_cases_launch_every_kernel(jobs):
    modules = [
        module
        for module in vars(launchers).values()
        if getattr(module, "__name__", "").startswith(operators.__package__)
    ]
    kernels = {name for module in modules for name in vars(module) if name.endswith("_kernel")}
    assert {job.kernel.split(".")[1] for job in jobs} == kernels
    assert {case for needed in jobs.values() for case in needed} == set(device_check.CASES)


@pytest.fixture
def no_device(monkeypatch):
    """A driver that has no device but lets Triton compile for one."""

    class Driver:
        utils = SimpleNamespace(
            load_binary=lambda *arguments: (1, 1, 42, 0, 1024),
            unload_module=lambda module: None,
            get_device_properties=lambda device: {"max_shared_mem": 2**17},
        )
        get_current_device = get_current_stream = staticmethod(lambda *arguments: 0)
        get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
        launcher_cls = staticmethod(lambda source, metadata: print)

    monkeypatch.setattr(driver, "_active", Driver())


def test_a_job_is_what_a_launch_compiles(jobs, no_device, monkeypatch, tmp_path):
    """After a job the launch itself, with tensors and numbers of its own, finds the kernel compiled."""
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    job = next(job for job in jobs if job.kernel == "tokens.reduce_kernel")
    kernel = launchers.tokens.reduce_kernel
    monkeypatch.setattr(kernel, "device_caches", defaultdict(kernel.create_binder))
    found = device_check.compile_job(job)
    assert found["registers"] == 42
    assert found["spills"] == 0
    assert found["shared"] > 0
    assert sum(len(cache[0]) for cache in kernel.device_caches.values()) == 1
    partial, weight = torch.zeros(3, 49), torch.zeros(1, 48)
    launchers.reduce(partial, weight)
    assert sum(len(cache[0]) for cache in kernel.device_caches.values()) == 1


def test_compilations_that_fail_crash_or_hang_stop_no_other(monkeypatch):
    """A job of a kernel that does not exist, beside one whose process is too slow; each has its own row."""
    job = device_check.Job("tokens.no_such_kernel", (torch.float32, 2), (("BLOCK", 16),), 4)
    (result,) = device_check.compile_all({job: ["swap"]}, workers=2, limit=60)
    assert result.status == "FAILED"
    assert "no_such_kernel" in result.note
    assert result.cases == "swap"
    start = time.monotonic()
    late = list(device_check.compile_all({job: ["swap"], device_check.Job("other", (), (), 4): ["topk"]}, 1, limit=0))
    assert {result.status for result in late} == {"OUT OF TIME"}
    assert time.monotonic() - start < 30


WRONG = """
import sys
from tests.triton import device_check
from pare_kernels._triton import launchers
replace = launchers.replace
def shifted(target, source, slots, patches):
    return replace(target, source, slots, patches.flip(1))
launchers.replace = shifted
sys.exit(device_check.main(["replace", "scores"]))
"""


def test_a_wrong_result_is_noticed_and_the_next_case_runs(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    done = subprocess.run([sys.executable, "-c", WRONG], cwd=device_check.ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "replace: FAILED: a row is not where the indices say" in done.stdout
    assert "scores: ok" in done.stdout
