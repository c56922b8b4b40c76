"""Sharding: who asks for it and what is refused. That it works is shown by real processes in `test_engine`."""

import pytest
import torch
from torch import nn

from crossmodal import encoders, sharding
from crossmodal.config import Config, ConfigError


def test_nobody_asks(monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    assert sharding.plugin(Config()) is None


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_launcher_asks(monkeypatch, version):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", version)
    if version == "1":
        with pytest.raises(ConfigError, match=r"FSDP version 1: .*--fsdp_version 2"):
            sharding.plugin(Config())
    else:
        assert sharding.plugin(Config()).fsdp_version == 2
    assert sharding.plugin(Config(shard=True)).fsdp_version == 2


def test_the_innermost_layers_are_the_units(tiny_bert, tiny_swin):
    for folder, expected in ((tiny_bert, "BertLayer"), (tiny_swin, "SwinLayer")):
        encoder = encoders.load(folder)
        layers = encoder.layers()
        assert {type(layer).__name__ for layer in layers} == {expected}
        inside = {id(p) for layer in layers for p in layer.parameters()}
        assert len(inside) == sum(len(list(layer.parameters())) for layer in layers), "no layer holds another"


def test_whole_leaves_plain_tensors_alone():
    parameter = nn.Parameter(torch.ones(3))
    assert sharding.whole(parameter) is parameter
