"""How the kernels come in: for CUDA alone, at the first call, with words where they cannot."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pare_kernels import _library, _triton

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
    assert set(_triton.OPERATORS) == set(_library.SCHEMAS)
    for name in _library.SCHEMAS:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"pare_kernels::{name}", "CUDA")


def test_a_cuda_tensor_without_triton_gets_the_reason_and_the_remedy(monkeypatch):
    def refuse(name):
        raise ImportError("No module named 'triton'")

    monkeypatch.setattr(_triton.importlib, "import_module", refuse)
    _triton._operators.cache_clear()
    with pytest.raises(RuntimeError, match=r"needs triton for CUDA tensors.*pip install triton"):
        _triton._call("gate_scores", None, None, None)
    _triton._operators.cache_clear()


def test_reasons(monkeypatch):
    if not torch.cuda.is_available():
        assert "CUDA" in _triton.unavailable_reason()
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "triton" else find_spec(name, *rest)
    )
    assert "triton is not installed" in _triton.unavailable_reason()
    assert "triton is not installed" in _triton.unavailable_reason(check_device=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: object())
    assert _triton.unavailable_reason(check_device=False) is None
