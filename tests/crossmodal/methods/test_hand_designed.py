"""The specialists as methods: which is taken for what, how it is trained, and whole runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import crossmodal
from crossmodal import methods, miniature, parsing, run, tasks
from crossmodal.data.dataset import Batch
from crossmodal.errors import UserError
from crossmodal.methods import hand_designed
from crossmodal.methods._hand_designed_objective import SPARSITY, Sparse
from crossmodal.methods._windows import Windows
from crossmodal.models.hand_designed import DeepSEA
from crossmodal.training.objective import Position
from tests.crossmodal import runs
from tests.crossmodal.runs import toy_task


def settings(task: str, *arguments: str):
    return parsing.parse(["--task", task, "--method", "hand_designed", *arguments])


def test_every_task_of_the_benchmark_has_its_network():
    public = {name for name in tasks.available() if tasks.base.entry(name).files and tasks.base.entry(name).needs_files}
    assert set(hand_designed.OF_TASK) == public
    assert set(hand_designed.NETWORKS) | {"auto"} == set(parsing.hints(hand_designed.Options)["network"].__args__)


@pytest.mark.parametrize(
    ("kind", "shape", "loss", "expected"),
    [
        ("classification", (2, 46), "cross_entropy", "rocket"),
        ("regression", (1, 1000), "mse", "resnet1d"),
        ("multilabel", (4, 1000), "bce_with_logits", "deepsea"),
        ("multilabel", (4, 100), "bce_with_logits", "rocket"),
        ("classification", (3, 64, 64), "cross_entropy", "densenet"),
        ("multilabel", (1, 64, 64), "bce_with_logits", "vgg"),
        ("multilabel", (1, 20, 64), "bce_with_logits", "densenet"),
        ("dense", (1, 64, 64), "bce_with_logits", "deepcr"),
        ("dense", (1, 64, 64), "mse", "fno"),
        ("dense", (1, 64), "bce_with_logits", "fno"),
    ],
)
def test_own_data_have_a_network_by_their_kind_and_shape(kind, shape, loss, expected):
    task = replace(toy_task(kind), input_shape=shape, loss=loss)
    config = settings("gunpoint")
    assert hand_designed.chosen(task, config) == expected
    network = hand_designed.NETWORKS[expected]
    assert kind in network.kinds
    assert len(shape) - 1 in network.ndim


def test_a_network_for_other_data_is_refused_with_those_that_can():
    task = toy_task("dense", 1)
    with pytest.raises(
        UserError, match=r"^hand_designed\.network: vgg is for 2-D data .*; for toy \(1-D, dense\) take fno$"
    ):
        methods.get("hand_designed").build(task, settings("gunpoint", "--hand_designed.network", "vgg"))


def test_settings_are_those_of_the_network_where_it_was_asked_for():
    cifar = settings("cifar100")  # whose own file is for a pretrained encoder
    assert (cifar.epochs, cifar.batch_size, cifar.accumulate, cifar.augment) == (300, 64, 1, "crop,flip,cutout")
    assert (cifar.optimizer.name, cifar.optimizer.nesterov, cifar.optimizer.new_lr) == ("sgd", True, 0.1)
    assert (cifar.lr_schedule.kind, cifar.lr_schedule.milestones) == ("step", (0.5, 0.75))
    assert settings("cifar100", "--epochs", "3", "--optimizer.new_lr", "0.5").optimizer.new_lr == 0.5
    nina = settings("ninapro")
    assert (nina.loss, nina.optimizer.name, nina.batch_size, nina.optimizer.weight_decay) == ("focal", "ranger", 128, 0)
    own = settings("gunpoint", "--hand_designed.network", "attention")  # trained the same way, by its own loss
    assert (own.loss, own.optimizer.name, own.epochs) == (None, "ranger", 205)
    usual = settings("gunpoint")
    assert (usual.optimizer, usual.lr_schedule, usual.epochs) == (
        parsing.Config().optimizer,
        parsing.Config().lr_schedule,
        None,
    )
    assert settings("deepsea").patience == 5
    assert settings("deepsea", "--select", "last").patience is None


def test_a_task_file_for_an_encoder_says_nothing_of_methods_without_one():
    assert parsing.parse(["--task", "cifar100", "--method", "tuned_cnn"]).epochs is None
    perceiver = {task: parsing.parse(["--task", task, "--method", "perceiver_io"]) for task in ("cosmic", "psicov")}
    assert {name: (one.batch_size, one.accumulate, one.epochs) for name, one in perceiver.items()} == {
        "cosmic": (8, 1, 200),
        "psicov": (128, 1, 200),
    }


def test_batch_norm_is_for_one_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    task = replace(toy_task(), input_shape=(3, 8, 8))
    with pytest.raises(UserError, match=r"^hand_designed\.network: densenet has batch norm"):
        methods.get("hand_designed").build(task, settings("gunpoint"))


# Each network with data of the kind that it is for: (kind, axes).
KINDS = {
    "densenet": ("multilabel", 2),
    "s2cnn": ("classification", 2),
    "pdnet": ("dense", 2),
    "deepcr": ("dense", 2),
    "attention": ("classification", 1),
    "resnet1d": ("regression", 1),
    "deepsea": ("multilabel", 1),
}


@pytest.mark.parametrize("network", [pytest.param(name, marks=pytest.mark.slow) for name in KINDS])
def test_a_network_is_trained_on_own_data_and_resumes_to_the_same_bits(tmp_path, monkeypatch, network):
    kind, ndim = KINDS[network]
    values = runs.settings(
        tmp_path, "none", kind, ndim, method="hand_designed", epochs=2, batch_size=16, optimizer__name="ranger"
    )
    values["optimizer"]["new_lr"] = 1e-3
    values["hand_designed"] = {"network": network}
    straight = run.train(parsing.from_dict(values | {"output_dir": str(tmp_path / "straight")}))

    def stop():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        runs.stop_at(patch, 3, stop)
        with pytest.raises(KeyboardInterrupt):
            run.train(parsing.from_dict(values))
    again = run.train(parsing.from_dict(values | {"resume": True}))
    assert again["test"] == straight["test"]
    files = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("run", "straight")]
    assert files[0] == files[1]
    with np.load(values["data"]) as data:
        crossmodal.load(tmp_path / "run").predict(data["x_test"])


class Same(nn.Module):
    def forward(self, x):
        return x[:, :1]


def test_windows_are_the_same_part_of_inputs_targets_and_masks():
    torch.manual_seed(0)
    x = torch.arange(64.0).view(1, 1, 8, 8).repeat(3, 2, 1, 1) + 100 * torch.arange(3).view(3, 1, 1, 1)
    mask = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    mask[:, :, 2:7, 2:7] = True
    task = toy_task("dense", 1, input_shape=(2, 8, 8))
    objective = Windows(task, 3)
    seen = set()
    for epoch in range(40):
        given = []
        model = Same()
        model.register_forward_pre_hook(lambda module, args, seen=given: seen.append(args[0]))
        batch = Batch(x, x[:, :1], torch.arange(3), torch.ones(3), {"mask": mask})
        found = objective.losses(model, batch, Position(epoch, 40))["loss"]
        assert found.tolist() == [0, 0, 0]  # target and input are cut alike
        assert given[0].shape == (3, 2, 3, 3)
        corner = given[0][:, 0, 0, 0] - 100 * torch.arange(3)
        seen |= {(int(one) // 8, int(one) % 8) for one in corner}
        part = batch._each(lambda tensor: tensor[1:])  # the share of another process
        objective.losses(model, part, Position(epoch, 40))
        assert torch.equal(given[1], given[0][1:])
    assert seen == {(row, column) for row in (2, 3, 4) for column in (2, 3, 4)}
    wrong = Batch(x, x[:, :1] + 2.0 * ~mask, torch.arange(3), torch.ones(3), {"mask": mask})
    assert Windows(task, 8).losses(Same(), wrong, Position(0, 1))["loss"].sum() == 0
    without = Batch(x, x[:, :1] + 2.0, torch.arange(3), torch.ones(3))
    assert Windows(task, 4).losses(Same(), without, Position(0, 1))["loss"].tolist() == [4, 4, 4]


def test_units_of_deepsea_cost_by_their_absolute_values():
    model, x = DeepSEA((4, 16), 2).eval(), 100 * torch.randn(3, 4, 16)
    task = replace(toy_task("multilabel", 2), loss="bce_with_logits")
    batch = Batch(x, torch.ones(3, 2), torch.arange(3), torch.ones(3))
    objective = Sparse(task)
    difference = objective.losses(model, batch, Position(0, 1))["loss"] - objective.task_loss(model(x), batch)
    expected = SPARSITY * model.units(x).abs().sum(1)
    assert expected.min() > 1e-6
    torch.testing.assert_close(difference, expected, rtol=0.2, atol=1e-7)


@pytest.mark.slow
def test_rocket_learns_the_miniature_of_satellite(tmp_path):
    """Of 24 classes."""
    miniature.make("satellite", tmp_path)
    given = ["--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "run"), "--threads", "1"]
    assert run.train(settings("satellite", *given))["test_metrics"]["accuracy"] > 0.5
