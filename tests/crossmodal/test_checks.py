from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedType

from crossmodal import checks
from crossmodal.checks import DataError
from crossmodal.config import Config, ConfigError, MixingConfig


def task(**changes):
    parts = {
        name: SimpleNamespace(x=torch.zeros(3, 1, 4), y=torch.zeros(3, 2)) for name in ("train", "validation", "test")
    }
    return SimpleNamespace(name="toy", **(parts | changes))


@pytest.mark.parametrize("chunk", [1, 10**6])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_values_that_are_not_finite_once_normalised(monkeypatch, chunk, value):
    monkeypatch.setattr(checks, "CHUNK_VALUES", chunk)
    checks.check_task(task())
    x, y = torch.zeros(3, 1, 4), torch.zeros(3, 2)
    x[1, 0, 2] = x[2, 0, 0] = y[2, 1] = value
    with pytest.raises(
        DataError, match=rf"toy, test .*sample 1 holds {value} at position \(0, 2\) \(2 of 3 affected\)"
    ):
        checks.check_task(task(test=SimpleNamespace(x=x, y=y)))
    with pytest.raises(DataError, match=rf"target of sample 2 holds {value} at position \(1,\)"):
        checks.check_task(task(test=SimpleNamespace(x=y[:, None, :1], y=y)))


def source(n=8, labels=None):
    labels = torch.arange(n) % 2 if labels is None else labels
    return SimpleNamespace(name="texts", inputs=torch.zeros(n, 3), labels=labels, class_names=("a", "b"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (source(3), r"source texts: 3 samples are fewer than one batch \(4\)"),
        (source(labels=torch.arange(7) % 2), "8 samples but 7 labels"),
        (source(labels=torch.full((8,), 2)), r"label 2 of sample 0 is not in 0..1"),
    ],
)
def test_bad_sources(bad, message):
    with pytest.raises(DataError, match=message):
        checks.check_source(bad, 4)
    checks.check_source(source(), 4)


def test_mixing_and_device():
    config = Config(mixing=MixingConfig(start=3, end=9))
    with pytest.raises(ConfigError, match=r"mixing.end: 9 patches are more than the 8"):
        checks.check_mixing(config, 8)
    checks.check_mixing(config, 9)
    with pytest.raises(ConfigError, match="precision"):
        checks.check_device(Config(precision="fp16"), torch.device("cpu"))
    checks.check_device(Config(precision="fp16"), torch.device("cuda"))


def test_ways_of_spreading_a_model():
    for kind in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.FSDP):
        checks.check_distribution(kind)
    with pytest.raises(ConfigError, match=r"DEEPSPEED: runs are data-parallel; .* --shard true"):
        checks.check_distribution(DistributedType.DEEPSPEED)
