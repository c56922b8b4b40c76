"""Tests of the kernels themselves, on a GPU, or on CPU tensors in Triton's interpreter (TRITON_INTERPRET=1, `test_interpreted`)."""

import os

import pytest
import torch

from tests.pare_kernels.conftest import _poisoned_empty  # noqa: F401  (no result may hold what was not written)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def device():
    return torch.device("cpu") if INTERPRETED else torch.device("cuda", torch.cuda.current_device())


@pytest.fixture
def short_blocks(monkeypatch):
    """Rows of more than 16 patches take the kernels for long rows, in blocks of 16."""
    from pare_kernels._triton import launchers

    monkeypatch.setattr(launchers, "ROW_LIMIT", {torch.float32: 16, torch.float64: 16})
    monkeypatch.setattr(launchers, "LONG_BLOCK", 16)
