from __future__ import annotations

import sys

import pytest
import torch

from crossmodal.errors import MissingPackage
from crossmodal.models import base
from crossmodal.models.fno import FNO, SpectralConvolution

neuralop_layers = pytest.importorskip("neuralop.layers.spectral_convolution")


@pytest.mark.parametrize(
    ("shape", "out_channels", "modes", "width", "layers"),
    [
        ((2, 16), 3, 20, 4, 1),  # more modes than the grid has
        ((1, 1), 1, 2, 4, 1),
        ((1, 5, 7), 2, 3, 4, 2),
    ],
)
def test_shapes(shape, out_channels, modes, width, layers):
    model = FNO(shape, out_channels, modes, width, layers)
    out = model(torch.randn(3, *shape))
    assert out.shape == (3, out_channels, *shape[1:])
    out.square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    assert not any(parameter.is_complex() for parameter in model.parameters())


@pytest.mark.parametrize("grid", [(8,), (7,), (8, 8), (7, 8), (8, 7), (7, 5)], ids=str)
def test_all_modes_and_weights_of_one_leave_a_field_alone(grid):
    conv = SpectralConvolution(1, 1, (*grid[:-1], grid[-1] // 2 + 1))
    with torch.no_grad():
        conv.real.fill_(1), conv.imaginary.zero_(), conv.bias.zero_()
    x = torch.randn(2, 1, *grid)
    torch.testing.assert_close(conv(x), x)


@pytest.mark.parametrize(
    ("grid", "modes"), [((16,), (5,)), ((8, 8), (4, 3)), ((8, 7), (8, 2)), ((6, 8), (3, 5))], ids=str
)
def test_convolution_is_that_of_neuraloperator(grid, modes):
    """Where that one is right: an even number of rows."""
    conv = SpectralConvolution(3, 2, modes)
    other = neuralop_layers.SpectralConv(3, 2, (*modes[:-1], 2 * modes[-1] - 1))
    with torch.no_grad():
        # It orders frequencies from the most negative, as this one does.
        other.weight.tensor.copy_(torch.complex(conv.real, conv.imaginary))
        other.bias.copy_(conv.bias)
    x = torch.randn(2, 3, *grid)
    torch.testing.assert_close(conv(x), other(x))


@pytest.mark.parametrize("grid", [(8,), (7,), (8, 8), (7, 9)], ids=str)
def test_no_device_is_asked_for_a_real_field_of_a_spectrum_that_has_none(grid, monkeypatch):
    """Which fields a GPU makes of such spectra is undefined: a network trained on a CPU would be another one there."""
    given, inverse = [], torch.fft.irfft
    monkeypatch.setattr(torch.fft, "irfft", lambda z, *args, **kwargs: given.append(z) or inverse(z, *args, **kwargs))
    SpectralConvolution(3, 2, (*grid[:-1], grid[-1] // 2 + 1))(torch.randn(2, 3, *grid))
    (spectrum,) = given
    real = torch.fft.rfft(inverse(spectrum, grid[-1]))
    torch.testing.assert_close(spectrum, real)


def test_without_positions_a_shifted_field_gives_the_shifted_output():
    model = FNO((1, 9, 12), 1, 3, 6, 2)
    model.positions.zero_()
    x = torch.randn(2, 1, 9, 12)
    torch.testing.assert_close(model(x.roll((2, 5), (2, 3))), model(x).roll((2, 5), (2, 3)), atol=1e-5, rtol=1e-4)


def test_padding_is_cut_off_again():
    torch.manual_seed(0)
    model = FNO((1, 12), 1, 99, 4, 2, padding=1)
    plain = FNO((1, 14), 1, 99, 4, 2)
    plain.load_state_dict(model.state_dict())
    assert plain.network.fno_blocks.convs[0].n_modes == model.network.fno_blocks.convs[0].n_modes == (8,)
    x = torch.randn(3, 1, 12)
    hidden = torch.nn.functional.pad(model.network.lifting(torch.cat([x, model.positions.expand(3, 1, 12)], 1)), (1, 1))
    for layer in range(2):
        hidden = plain.network.fno_blocks(hidden, layer)
    torch.testing.assert_close(model(x), plain.network.projection(hidden[..., 1:-1]))


def test_saved_and_loaded(tmp_path):
    model = FNO((2, 16), 1, 4, 8, 2).eval()
    model.save(tmp_path)
    again = base.load(tmp_path)
    x = torch.randn(3, 2, 16)
    assert torch.equal(again(x), model(x))
    assert all(isinstance(value, torch.Tensor) for value in model.state_dict().values())


def test_a_spectrum_is_computed_in_float32_under_autocast():
    model, x = FNO((1, 16), 1, 4, 8, 2), torch.randn(3, 1, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x), FNO.forward(model, x))
        found = model(x.bfloat16())
    assert found.dtype == torch.float32


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    FNO((1, 16), 1, 4, 8, 2).save(tmp_path)
    monkeypatch.setitem(sys.modules, "neuralop.models", None)
    with pytest.raises(MissingPackage, match=r"neuraloperator.*pare-kernels\[fno\]") as raised:
        base.load(tmp_path)
    assert "model.json" not in str(raised.value)
