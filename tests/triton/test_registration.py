"""How the kernels come in: for CUDA alone, at the first call, with words where they cannot."""

import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pare_kernels import _library, _triton, report

ROOT = Path(__file__).resolve().parents[2]


def test_importing_the_package_imports_neither_triton_nor_a_driver():
    code = (
        "import sys, pare_kernels, pare_kernels._triton\n"
        "assert not any(name.split('.')[0] == 'triton' for name in sys.modules), 'triton'\n"
        "import torch; assert not torch.cuda.is_initialized()\n"
        "assert 'pare_kernels._triton.operators' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_operator_has_a_kernel_for_cuda():
    assert set(_triton.OPERATORS) == set(_library.SCHEMAS) - {"patch_swap"}  # made of copies and `patch_swap_`
    for name in _triton.OPERATORS:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"pare_kernels::{name}", "CUDA")


def test_a_cuda_tensor_without_triton_gets_the_reason_and_the_remedy(monkeypatch):
    def refuse(*name):
        raise ImportError("No module named 'triton'")

    monkeypatch.setattr(_triton.importlib, "import_module", refuse)
    _triton._operators.cache_clear()
    with pytest.raises(RuntimeError, match=r"needs triton for CUDA tensors.*pip install triton"):
        _triton._call("gate_scores", None, None, None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "it cannot be imported (No module named 'triton')" in report.backends()["patch_replace"]["CUDA"]
    _triton._operators.cache_clear()


def test_the_dispatcher_hands_that_error_on():
    """From the public function down: the Triton operators registered for CPU tensors, and no triton to import."""
    code = """
import sys, torch, pare_kernels
from pare_kernels import _library, _triton
library = torch.library.Library("pare_kernels", "IMPL")
_triton.register(library, "CPU")
sys.modules["triton"] = None
weight = torch.ones(2, requires_grad=True)
for call in (
    lambda: pare_kernels.patch_replace(torch.randn(1, 4, 2), torch.randn(1, 4, 2), weight, k=2),
    lambda: pare_kernels.patch_swap_(torch.randn(1, 4, 2), torch.randn(1, 4, 2), weight, k=2),
    lambda: pare_kernels.gate_scores(torch.randn(1, 4, 2), weight),
    lambda: pare_kernels.gumbel_topk(torch.randn(1, 4), 2),
):
    try:
        call()
    except RuntimeError as error:
        assert "pare_kernels needs triton for CUDA tensors" in str(error), error
    else:
        raise AssertionError("no error")
"""
    environment = os.environ | {"PARE_KERNELS_NO_EXT": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_tensors_device_is_current_while_a_kernel_is_launched(monkeypatch):
    """A tensor on cuda:1 while cuda:0 is current: Triton launches on the current device and its current stream."""
    pytest.importorskip("triton")
    from pare_kernels._triton._launch import launch

    current = ["cuda:0"]

    @contextlib.contextmanager
    def make_current(device):
        current.append(str(device))
        yield
        current.pop()

    class Kernel:
        __name__ = "kernel"

        def __getitem__(self, grid):
            assert grid == (3,)
            return lambda *arguments, **options: launched.append((current[-1], arguments, options))

    launched = []
    monkeypatch.setattr(torch.cuda, "device", make_current)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: torch.device(current[-1]).index)
    launch(Kernel(), 3, 1, 2, device=torch.device("cuda:1"), num_warps=4, BLOCK=8)
    assert launched == [("cuda:1", (1, 2), {"num_warps": 4, "BLOCK": 8})]
    assert current == ["cuda:0"]


def test_reasons(monkeypatch):
    if not torch.cuda.is_available():
        assert "CUDA" in _triton.unavailable_reason()
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "triton" else find_spec(name, *rest)
    )
    assert "triton is not installed" in _triton.unavailable_reason()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(_triton, "_operators", lambda: None)
    assert _triton.unavailable_reason() is None
