"""Small cases of every operation."""

import pytest
import torch

from benchmarks.cases import Case

CPU = torch.device("cpu")


@pytest.fixture
def case() -> Case:
    return Case("small", "a test", 3, 12, 10, 8, 4)
