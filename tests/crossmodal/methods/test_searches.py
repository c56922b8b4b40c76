from __future__ import annotations

import os
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from crossmodal import parsing, run
from crossmodal.data.dataset import ArrayDataset, Batch
from crossmodal.errors import Interrupted, UserError
from crossmodal.methods import dash, nas
from crossmodal.methods._architecture_search import CellSearching, Halving
from crossmodal.methods._kernel_search import KernelSearch
from crossmodal.methods._searches import Blocks
from crossmodal.methods._windows import Windows
from crossmodal.models.cells import CellSearch
from crossmodal.models.convolutions import SameConv
from crossmodal.models.dash import Supernet
from crossmodal.settings import OptimizerConfig
from crossmodal.training.folder import RunFolder
from crossmodal.training.objective import Position
from crossmodal.training.optim import build_optimizer
from tests.crossmodal import runs
from tests.crossmodal.runs import stop_at


class OneConvolution(torch.nn.Module):
    """The smallest network that there is something to search in."""

    def __init__(self, ndim: int) -> None:
        super().__init__()
        self.conv = SameConv(ndim, 1, 2, 3, bias=True)

    def forward(self, x):
        return self.conv(x)


@pytest.mark.parametrize(("ndim", "planted"), [(1, (5, 3)), (2, (3, 7))])
def test_dash_finds_a_planted_kernel(ndim, planted):
    torch.manual_seed(0)
    length, dilation = planted
    convolve = torch.nn.functional.conv1d if ndim == 1 else torch.nn.functional.conv2d
    kernel = torch.randn(2, 1, *[length] * ndim)
    x = torch.randn(32, 1, *[64] if ndim == 1 else [24, 24])
    y = convolve(x, kernel, padding=dilation * (length // 2), dilation=dilation)
    task = runs.toy_task("dense", input_shape=tuple(x.shape[1:]))
    choices = [(length, dilation) for length in (3, 5) for dilation in (1, 3, 7)]
    supernet = Supernet(OneConvolution(ndim), choices)
    objective = KernelSearch(task, supernet, 100.0)
    optimizer = build_optimizer(supernet, objective, OptimizerConfig("sgd", lr=0.05, new_lr=0.1, nesterov=True))
    for _ in range(60):
        rows = torch.randint(len(x), (8,))
        batch = Batch(x[rows], y[rows], rows, torch.ones(8))
        optimizer.zero_grad()
        objective.losses(supernet, batch, Position(0, 1))["loss"].mean().backward()
        objective.before_step(supernet)
        optimizer.step()
    assert supernet.kernels() == [list(planted)]


def test_the_gradient_of_shares_has_its_norm_and_a_price_for_reach():
    supernet = Supernet(OneConvolution(1), [(3, 1), (5, 7)])
    objective = KernelSearch(runs.toy_task(), supernet, 50.0)
    supernet.architecture.grad = torch.tensor([[3.0, -4.0]])
    objective.before_step(supernet)
    torch.testing.assert_close(supernet.architecture.grad, torch.tensor([[0.6 / 50 + 3e-5, -0.8 / 50 + 29e-5]]))


def test_weightings_stay_on_the_simplex_and_learn_from_the_other_half_alone():
    torch.manual_seed(0)
    data = ArrayDataset(torch.randn(9, 2, 16), torch.arange(9) % 3)
    task = runs.toy_task(train=data)
    objective, model = CellSearching(task, 0), CellSearch((2, 16), 3, False, 3, 8)
    other = objective.companions["architecture"]
    assert (len(objective.halved.train), len(other)) == (5, 4)
    both = torch.cat([objective.halved.train.x, other.x])
    assert sorted(both[:, 0, 0].tolist()) == sorted(data.x[:, 0, 0].tolist())
    before = {name: one.detach().clone() for name, one in model.architecture.items()}
    for _ in range(2):
        batch = objective.halved.train.read(torch.arange(4))
        batch.extras["architecture"] = other.read(torch.arange(4))
        model.zero_grad()
        objective.losses(model, batch, Position(0, 1))["loss"].mean().backward()
        objective.before_step(model)
    for name, one in model.architecture.items():
        assert not torch.allclose(one, before[name])
        assert one.min() >= 0
        torch.testing.assert_close(one.sum(1), torch.ones(len(one)))
        assert (one == 0).equal(before[name] == 0)  # edges that there are not
    # The gradient of the weights is that of their own half, with the weightings fixed; and the other way round.
    model.zero_grad()
    objective.losses(model, batch, Position(0, 1))["loss"].mean().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    for part, own in ((batch, False), (batch.extras["architecture"], True)):
        model.zero_grad()
        objective.task_loss(model(part.x), part).mean().backward()
        for name, parameter in model.named_parameters():
            if (name in model.architecture) == own:
                torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-6, rtol=1e-4)


def test_an_exponentiated_gradient_is_that_of_the_paper():
    model = CellSearch((2, 16), 3, True, 1, 8)
    for one in model.architecture.values():
        one.grad = torch.zeros_like(one)
    model.normal_edges.grad[0, :2] = torch.tensor([2.0, -1.0])
    CellSearching(runs.toy_task(train=ArrayDataset(torch.zeros(2, 2, 16), torch.zeros(2))), 0).before_step(model)
    expected = np.exp([-0.2, 0.1]) / np.exp([-0.2, 0.1]).sum()
    np.testing.assert_allclose(model.normal_edges.detach()[0, :2], expected, rtol=1e-6)


def test_a_window_is_of_input_target_and_mask_alike():
    task = runs.toy_task("dense", input_shape=(1, 300, 256))
    objective = Windows(task)
    x = torch.arange(300 * 256.0).view(1, 1, 300, 256)
    whole = Batch(x, 2 * x, torch.arange(1), torch.ones(1), {"mask": x > 9})
    found = objective.learned_from(whole, Position(0, 9))
    assert found.x.shape == (1, 1, 128, 128)
    assert found.y.equal(2 * found.x)
    assert found.extras["mask"].equal(found.x > 9)
    counts = torch.zeros_like(x, dtype=torch.bool)
    counts[..., 150:250, 3:] = True
    padded = Batch(x, x, torch.arange(1), torch.ones(1), {"mask": counts})
    for epoch in range(9):
        part = objective.learned_from(padded, Position(epoch, 9)).extras["mask"]
        assert part.sum() >= 100 * 128 * 0.78  # where nothing counts there is nothing to learn
    small = Batch(x, x, torch.arange(1), torch.ones(1))
    assert Windows(runs.toy_task("dense", input_shape=(1, 300, 255))).learned_from(small, Position(0, 9)) is small


def test_a_trial_is_told_of_each_epoch_once_and_ends_where_it_is_given_up():
    told = []
    trial = SimpleNamespace(
        report=lambda value, epoch: told.append((value, epoch)), should_prune=lambda: len(told) == 3
    )
    objective = Halving(runs.toy_task(), trial)
    history = [{"validation": 0.1 * epoch, "epoch": epoch} for epoch in (1, 2, 3)]
    assert not objective.ends([])
    assert not objective.ends(history[:2])
    assert objective.ends(history)
    assert [epoch for _, epoch in told] == [1, 2, 3]


def test_grids_and_choices_follow_the_task():
    assert [len(group) for group in dash.grid("ecg", 1.0)] == [8, 8, 8]
    assert [len(group) for group in dash.grid("ecg", 0.25)] == [2, 2, 2]
    assert [group[0]["lr"] for group in dash.grid("cosmic", 1.0)] == [1e-2, 1e-3, 1e-4]
    image, narrow, series = (
        SimpleNamespace(ndim=len(shape) - 1, input_shape=shape) for shape in ((3, 32, 32), (1, 16, 52), (1, 46))
    )
    assert [len(dash.choices(task)) for task in (image, narrow, series)] == [16, 9, 20]


@pytest.mark.parametrize(
    ("name", "kind", "ndim", "expected"),
    [
        ("deepsea", "multilabel", 1, "controller"),
        ("psicov", "dense", 2, "cells"),
        ("own", "dense", 1, "cells"),
        ("own", "classification", 1, "cells"),
        ("own", "classification", 2, "wide_resnet"),
        ("own", "regression", 2, "wide_resnet"),
        ("own", "multilabel", 2, "blocks"),
        ("own", "multilabel", 1, "controller"),
    ],
)
def test_what_is_searched_is_what_won(name, kind, ndim, expected):
    task = SimpleNamespace(name=name, kind=kind, ndim=ndim)
    assert nas.space(task, nas.Options()) == expected
    assert nas.space(task, nas.Options(space="blocks")) == "blocks"


def test_what_is_published_is_taken_and_what_is_not_is_refused():
    task = SimpleNamespace(name="ecg", kind="classification", ndim=1)
    assert nas.published(task, nas.Options())["normal"][0] == ("dil_conv_5", 1)
    assert nas.published(task, nas.Options(search="search")) is None
    task.name = task.title = "deepsea"
    assert nas.published(task, nas.Options()) is None
    with pytest.raises(UserError, match=r"nas\.search: no network of 'controller' is published for deepsea"):
        nas.published(task, nas.Options(search="published"))


def test_random_chains_keep_to_the_levels():
    rng, drawn = np.random.default_rng(0), []
    for _ in range(50):
        chain = Blocks.drawn(Blocks, rng)
        drawn.append(tuple(chain))
        channels, depths, strides = zip(*chain, strict=True)
        assert list(channels) == sorted(set(channels))
        assert (channels[-1], strides.count(2), strides[0]) == (224, 3, 2)
        assert set(depths) <= {1, 2, 3}
    assert len(set(drawn)) > 40


def test_successive_halving_needs_optuna(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    values = runs.settings(tmp_path, "none", ndim=2, method="nas") | {"nas": {"space": "wide_resnet"}}
    with pytest.raises(UserError, match=r"nas\.space: wide_resnet: needs the package optuna, .* 'pare-kernels\[nas\]'"):
        run.train(parsing.from_dict(values))


STAGES = [
    ("dash", {"budget": 0.05}, 1, "search"),
    ("nas", {"space": "controller", "budget": 0.5}, 1, "search"),
    pytest.param("dash", {"budget": 0.05}, 1, "trial-2", marks=pytest.mark.slow),
    pytest.param("nas", {"space": "blocks", "budget": 0.06}, 1, "trial-2", marks=pytest.mark.slow),
    pytest.param("nas", {"space": "cells"}, 1, "search", marks=pytest.mark.slow),
    pytest.param("nas", {"space": "wide_resnet", "budget": 0.02}, 1, "trial-2", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("method", "options", "ndim", "stage"), STAGES)
def test_every_stage_resumes_to_the_same_bits(tmp_path, monkeypatch, method, options, ndim, stage):
    values = runs.settings(
        tmp_path, "none", ndim=ndim, method=method, epochs=2, batch_size=16, checkpoint__every_steps=1
    )
    values |= {method: options}
    run.train(parsing.from_dict(values | {"output_dir": str(tmp_path / "straight")}))
    with monkeypatch.context() as patch:
        stop_at(patch, 0, lambda: os.kill(os.getpid(), signal.SIGTERM), stage)
        with pytest.raises(Interrupted):
            run.train(parsing.from_dict(values))
    run.train(parsing.from_dict(values | {"resume": True}))
    one, other = (RunFolder(tmp_path / name) for name in ("run", "straight"))
    assert (one.model / "model.safetensors").read_bytes() == (other.model / "model.safetensors").read_bytes()
    records = [
        [(r["stage"], r["epoch"], r["loss"], r.get("validation")) for r in f.read_metrics()] for f in (one, other)
    ]
    assert repr(records[0]) == repr(records[1])


LEARNED = [
    (method, options, kind, ndim)
    for method, options in (
        ("dash", {"width": 1}),
        ("nas", {"space": "cells"}),
        ("nas", {"space": "blocks"}),
        ("nas", {"space": "controller"}),
        ("nas", {"space": "wide_resnet", "budget": 0.02}),
    )
    for kind, ndim in (("classification", 1), ("classification", 2), ("dense", 2))
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "options", "kind", "ndim"), LEARNED)
def test_every_search_learns(tmp_path, method, options, kind, ndim):
    values = runs.settings(tmp_path, "none", kind, ndim, method=method, epochs=20) | {method: options}
    results = run.train(parsing.from_dict(values))
    assert results["test"] < 0.6 if kind == "dense" else results["test"] > 0.8
