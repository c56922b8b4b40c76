"""Sharding: who asks for it and what is refused. That it works is shown by real processes in `test_trainer`."""

import os

import pytest
import torch
from torch import nn

from crossmodal.errors import UserError
from crossmodal.models import encoders
from crossmodal.settings import Config
from crossmodal.training import sharding


@pytest.mark.parametrize("shard", [False, True])
def test_one_process_has_nothing_to_share_and_leaves_no_trace(monkeypatch, shard):
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    accelerator = sharding.make_accelerator(Config(shard=shard), cpu=True)
    assert not sharding.in_force(accelerator)
    assert "ACCELERATE_USE_FSDP" not in os.environ


@pytest.mark.parametrize("shard", [False, True])
def test_the_first_version_is_refused(monkeypatch, shard):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    if shard:
        assert sharding.make_accelerator(Config(shard=True), cpu=True).num_processes == 1
    else:
        with pytest.raises(UserError, match=r"FSDP version 1: .*--fsdp_version 2"):
            sharding.make_accelerator(Config(), cpu=True)
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"


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
