from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedType

from crossmodal import checks
from crossmodal.checks import DataError
from crossmodal.config import Config, ConfigError, MixingConfig


@dataclass
class Split:
    x: torch.Tensor
    y: torch.Tensor


@dataclass
class Task:
    kind: str
    train: Split
    name: str = "toy"
    num_outputs: int = 2
    class_names: tuple = ("low", "high")
    input_shape: tuple = (1, 4)

    @property
    def validation(self):
        return self.train

    test = validation


def classes(y=(0, 1, 1), x=None) -> Task:
    return Task("classification", Split(torch.zeros(3, 1, 4) if x is None else x, torch.tensor(y)))


def labels(y) -> Task:
    return Task("multilabel", Split(torch.zeros(2, 1, 4), torch.tensor(y)))


def with_value(value: float) -> torch.Tensor:
    x = torch.zeros(3, 1, 4)
    x[1, 0, 2] = value
    return x


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (classes(y=(0, 1, 2)), r"toy, train split: label 2 of sample 2 is not in 0..1"),
        (classes(y=(0, -1, 1)), r"label -1 of sample 1"),
        (classes(y=(1, 1, 1)), r"class 0 \(low\) has no sample"),
        (classes(y=(0.0, 1.0, 1.0)), r"must be int64 of shape \(n,\), got torch.float32"),
        (classes(y=(0, 1)), r"3 samples but 2 targets"),
        (
            classes(x=with_value(float("nan"))),
            r"train split: sample 1 holds nan at position \(0, 2\) \(1 of 3 affected\)",
        ),
        (classes(x=with_value(float("-inf"))), r"holds -inf"),
        (classes(x=torch.zeros(3, 1, 5)), r"samples of shape \(1, 5\), expected \(1, 4\)"),
        (classes(y=(), x=torch.zeros(0, 1, 4)), "no samples"),
        (labels([[0.0, 1.0], [0.5, 1.0]]), r"label 0 of sample 1 is 0.5, expected 0 or 1"),
        (labels([[0.0], [1.0]]), r"expected \(n, 2, ...\)"),
    ],
)
def test_bad_tasks(task, message):
    with pytest.raises(DataError, match=message):
        checks.check_task(task)


def test_good_tasks():
    checks.check_task(classes())
    with pytest.warns(UserWarning, match=r"label 0 \(low\) never occurs"):
        checks.check_task(labels([[0.0, 1.0], [0.0, 0.0]]))


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
