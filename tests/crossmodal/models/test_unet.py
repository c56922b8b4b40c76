from __future__ import annotations

import pytest
import torch

from crossmodal.models import base
from crossmodal.models.unet import UNet


@pytest.mark.parametrize(
    ("shape", "out_channels", "parameters"),
    [((10, 64), 1, 2_708_673), ((20, 32, 32), 2, 7_767_970)],  # PDEBench's networks: 2.709 and 7.768 million
)
def test_size(shape, out_channels, parameters):
    assert UNet(shape, out_channels, 32, "batch").count_parameters() == parameters


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("grid", [(1,), (33,), (48,), (7, 50)], ids=str)
def test_grids_of_any_size_and_single_samples(grid, norm):
    model = UNet((3, *grid), 2, 8, norm)
    out = model(torch.randn(1, 3, *grid))
    assert out.shape == (1, 2, *grid)
    out.square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_what_is_added_to_a_grid_is_its_edge():
    model = UNet((1, 48), 1, 8, "group")
    x = torch.randn(2, 1, 48).index_select(2, torch.arange(48).clamp(5, 42))
    torch.testing.assert_close(model(x[..., 5:43]), model(x)[..., 5:43])  # 38 values become 48 again


def test_saved_and_loaded(tmp_path):
    model = UNet((2, 20), 1, 8, "batch")
    model(torch.randn(5, 2, 20))
    model.eval().save(tmp_path)
    x = torch.randn(3, 2, 20)
    assert torch.equal(base.load(tmp_path)(x), model(x))
