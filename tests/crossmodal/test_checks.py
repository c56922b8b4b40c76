from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedType

from crossmodal import checks, compare
from crossmodal.config import Config, ConfigError, MixingConfig


def task(**changes):
    parts = {
        name: SimpleNamespace(x=torch.zeros(3, 1, 4), y=torch.zeros(3, 2)) for name in ("train", "validation", "test")
    }
    return SimpleNamespace(name="toy", **(parts | changes))


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_values_that_are_not_finite_once_normalised(value):
    checks.check_task(task())
    x, y = torch.zeros(3, 1, 4), torch.zeros(3, 2)
    x[1, 0, 2] = x[2, 0, 0] = y[2, 1] = value
    message = rf"toy: normalised x of the test split: value {value} at index \(1, 0, 2\) \(2 sample"
    with pytest.raises(ValueError, match=message):
        checks.check_task(task(test=SimpleNamespace(x=x, y=y)))
    with pytest.raises(ValueError, match=rf"normalised y of the train split: value {value} at index \(2, 1\)"):
        checks.check_task(task(train=SimpleNamespace(x=torch.zeros(3, 1, 4), y=y)))


def test_mixing_and_device():
    config = Config(mixing=MixingConfig(start=3, end=9))
    with pytest.raises(ConfigError, match=r"mixing.end: 9 patches are more than the 8"):
        checks.check_mixing(config, 8)
    checks.check_mixing(config, 9)
    with pytest.raises(ConfigError, match="precision"):
        checks.check_device(Config(precision="fp16"), torch.device("cpu"))
    checks.check_device(Config(precision="fp16"), torch.device("cuda"))


@pytest.mark.parametrize("name", checks.WORLD_SIZES)
def test_processes_that_do_not_join(monkeypatch, name):
    monkeypatch.setenv(name, "2")
    checks.check_processes(2)
    with pytest.raises(ConfigError, match=r"device: 2 processes were started, but they do not join .* --device cpu"):
        checks.check_processes(1)
    with pytest.raises(ConfigError, match="a comparison starts processes of its own"):
        compare.main([])


def test_ways_of_spreading_a_model():
    for kind in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.FSDP):
        checks.check_distribution(kind)
    with pytest.raises(ConfigError, match=r"DEEPSPEED: runs are data-parallel; .* --shard true"):
        checks.check_distribution(DistributedType.DEEPSPEED)
