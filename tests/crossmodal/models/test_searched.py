"""Networks of the searches: sizes, shapes, and what is peculiar to each."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crossmodal.methods._published_networks import BLOCKS, GENOTYPES
from crossmodal.models import base
from crossmodal.models.block_chain import BlockChain
from crossmodal.models.cells import NODES, OPERATIONS, CellNetwork, CellSearch, FactorizedReduction
from crossmodal.models.convolutions import BatchNorm, SameConv
from crossmodal.models.dash import Mixture, Supernet
from crossmodal.models.layered import LAYERS, WIDENED, LayeredNetwork, LayeredSearch
from crossmodal.models.series_resnet import SeriesResNet
from crossmodal.models.wide_resnet import CONVOLUTIONS, WideResNet

SHAPES = {
    "spherical": ((3, 60, 60), 100, False),
    "darcy_flow": ((3, 85, 85), 1, True),
    "psicov": ((57, 128, 128), 1, True),
    "cosmic": ((1, 128, 128), 1, True),
    "ecg": ((1, 1000), 4, False),
    "satellite": ((1, 46), 24, False),
    "fsd50k": ((1, 96, 102), 200, False),
}


def test_sizes_are_the_published_ones():
    assert WideResNet((3, 32, 32), 100, False, 4).count_parameters() == 2_772_020
    assert SeriesResNet((1, 1000), 4, False, 4).count_parameters() == 2_240  # ECG of DASH
    assert SeriesResNet((1, 46), 24, False, 64).count_parameters() == 506_840  # Satellite of DASH


@pytest.mark.parametrize("task", [*GENOTYPES, *BLOCKS])
def test_published_networks_are_built_for_the_published_shapes(task):
    shape, outputs, dense = SHAPES[task]
    with torch.device("meta"):
        if task in GENOTYPES:
            model = CellNetwork(shape, outputs, dense, 20, 36, GENOTYPES[task], dropped=0.3).eval()
        else:
            model = BlockChain(shape, outputs, dense, BLOCKS[task]).eval()
        found = model(torch.empty(2, *shape))
    assert found.shape == ((2, outputs, *shape[1:]) if dense else (2, outputs))


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("shape", [(2, 1), (2, 13), (2, 5, 9)])
def test_any_grid_will_do_and_a_saved_network_predicts_the_same(shape, dense, tmp_path):
    """Odd sides, a single sample, and more kinds of kernel than the default."""
    ndim = len(shape) - 1
    cell = [(name, number % 2) for number, name in enumerate([*OPERATIONS[1:], "skip"])]
    architecture = [[layer % 7, *[(layer + one) % 2 for one in range(layer)]] for layer in range(LAYERS)]
    networks = [
        WideResNet(shape, 3, dense, 1, 0.1, [(3 + 2 * (n % 2), 1 + n % 3) for n in range(CONVOLUTIONS)]),
        CellNetwork(shape, 3, dense, 3, 8, {"normal": cell, "reduce": cell}, dropped=0.3),
        BlockChain(shape, 3, dense, [(16, 2, 2), (24, 1, 1)]),
        LayeredNetwork(shape, 3, dense, architecture),
    ]
    if ndim == 1:
        networks.append(SeriesResNet(shape, 3, dense, 4))
    x = torch.randn(1, *shape)
    for model in networks:
        found = model(x)
        assert found.shape == ((1, 3, *shape[1:]) if dense else (1, 3))
        found.sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters()), model.name
        model.eval().save(tmp_path / model.name)
        assert base.load(tmp_path / model.name)(x).equal(model(x))


def test_batch_norm_of_a_single_value_is_that_of_the_running_statistics():
    norm, usual = BatchNorm(3), torch.nn.BatchNorm1d(3)
    x = torch.randn(4, 3, 5)
    assert norm(x).equal(usual(x))
    norm(x[:1, :, :1])
    assert norm.running_mean.equal(usual.running_mean)


@pytest.mark.parametrize("shape", [(7,), (6, 9)])
def test_half_a_grid_takes_even_and_odd_places(shape):
    part = FactorizedReduction(len(shape), 1, 2, affine=False).eval()
    for one in (part.even, part.odd):
        torch.nn.init.ones_(one.weight)
    x = torch.rand(1, 1, *shape)
    found = part(x)[0]
    scale = (1 + part.norm.eps) ** -0.5
    halves = [slice(first, None, 2) for first in (0, 1)]
    even, odd = (x[0, 0][(half,) * len(shape)] * scale for half in halves)
    torch.testing.assert_close(found[0], even)
    torch.testing.assert_close(found[1][tuple(slice(side) for side in odd.shape)], odd)


@pytest.mark.parametrize("grid", [(13,), (9, 11), (40, 7)])
@pytest.mark.parametrize(("before", "after", "stride"), [(3, 4, 1), (4, 4, 2), (4, 6, 2)])
def test_forms_of_a_mixture_are_the_sum_of_its_convolutions(grid, before, after, stride):
    """Also by channel, where there are as many before as after; kernels that are wider than the grid."""
    torch.manual_seed(0)
    ndim, choices = len(grid), [(3, 1), (5, 1), (3, 7), (5, 3), (7, 7)]
    mixture = Mixture(SameConv(ndim, before, after, 3, stride, bias=True), choices, "plain")
    mixture.shares = torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15])
    x = torch.randn(2, before, *grid)
    convolve = torch.nn.functional.conv1d if ndim == 1 else torch.nn.functional.conv2d
    expected = mixture.bias.view(-1, *[1] * ndim) + sum(
        share * convolve(x, weight, None, stride, dilation * (length // 2), dilation, before // weight.shape[1])
        for share, weight, (length, dilation) in zip(mixture.shares, mixture.weights, choices, strict=True)
    )
    assert mixture.weights[0].shape[1] == (1 if before == after else before)
    for form in ("plain", "fft"):
        mixture.form = form
        torch.testing.assert_close(mixture(x), expected, atol=1e-5, rtol=1e-5)


def test_a_supernet_mixes_every_convolution_but_the_shortcuts():
    network = WideResNet((3, 8, 8), 5, False, 1)
    supernet = Supernet(network, [(3, 1), (5, 2)])
    assert supernet.architecture.shape == (CONVOLUTIONS, 2)
    assert [type(block.past).__name__ for block in network.blocks] == ["NoneType"] * 2 + ["Conv2d", "NoneType"] * 2
    x = torch.randn(2, 3, 8, 8)
    assert not supernet(x).equal(supernet(x))  # shares are drawn
    assert supernet.eval()(x).equal(supernet(x))
    with torch.no_grad():
        supernet.architecture[3, 1] = supernet.architecture[4, 0] = 5.0
    kernels = supernet.kernels()
    assert (kernels[3], kernels[4]) == ([5, 2], [3, 1])
    # In the same order that a network takes its kernels.
    convs = [
        module.conv
        for module in WideResNet((3, 8, 8), 5, False, 1, 0.0, kernels).modules()
        if isinstance(module, SameConv)
    ]
    assert [[conv.kernel_size[0], conv.dilation[0]] for conv in convs] == kernels


def test_a_genotype_is_the_two_heaviest_edges_of_each_node():
    search = CellSearch((2, 16), 3, False, 3, 8)
    with torch.no_grad():
        search.normal_operations[0, 0] = 9.0  # "none" is no operation
        search.normal_operations[0, 3], search.normal_operations[1, 5] = 0.4, 0.3
        search.normal_edges[0, :2] = torch.tensor([0.5, 0.5])
        search.normal_operations[3, 6], search.normal_edges[1, :3] = 0.9, torch.tensor([0.2, 0.5, 0.3])
    found = search.genotype()
    assert {kind: len(cell) for kind, cell in found.items()} == {"normal": 2 * NODES, "reduce": 2 * NODES}
    assert found["normal"][:3] == [(OPERATIONS[3], 0), (OPERATIONS[5], 1), (OPERATIONS[6], 1)]
    assert CellNetwork((2, 16), 3, False, 3, 8, found)(torch.randn(2, 2, 16)).shape == (2, 3)
    assert "reduce" not in CellSearch((2, 16), 3, True, 3, 8).genotype()


def test_a_controller_draws_what_it_can_and_says_how_likely_that_was():
    torch.manual_seed(0)
    search = LayeredSearch((2, 20), 3, False)
    architecture, logarithm, connections = search.controller()
    assert [len(row) for row in architecture] == [1 + layer for layer in range(LAYERS)]
    assert len(connections) == LAYERS * (LAYERS - 1) // 2
    count = LAYERS * np.log(7) + len(connections) * np.log(2)
    assert logarithm.item() == pytest.approx(-count, rel=0.02)  # nearly uniform before anything is learned
    search.architecture = architecture
    assert search(torch.randn(2, 2, 20)).shape == (2, 3)
    assert max(WIDENED) < LAYERS - 1
