import pytest
import torch
import torch.nn.functional as F

from crossmodal.errors import UserError
from crossmodal.models.heads import DENSE_HEADS, DenseHead, PooledHead, UpsamplingHead

GEOMETRY = {"grid": (4,), "stride": (3,), "canvas_size": (10,)}


def test_the_pooled_head_averages_tokens_then_maps():
    head = PooledHead(5, 7)
    features = torch.randn(2, 4, 5)
    torch.testing.assert_close(head(features), head.linear(features).mean(dim=1))


def test_dense_1d_puts_each_token_where_its_patch_was_and_crops_the_padding():
    head = DenseHead(5, (2, 10), **GEOMETRY)
    features = torch.randn(3, 4, 5)
    out = head(features)
    assert out.shape == (3, 2, 10)
    values = head.linear(features)  # (B, N, C * s)
    for position in range(10):
        for channel in range(2):
            expected = values[:, position // 3, channel * 3 + position % 3]
            assert out[:, channel, position].equal(expected)


def test_dense_2d_is_the_pixel_shuffle():
    head = DenseHead(6, (3, 8, 12), grid=(2, 3), stride=(4, 4), canvas_size=(8, 12))
    features = torch.randn(2, 6, 6)
    maps = head.linear(features).transpose(1, 2).view(2, 3 * 16, 2, 3)
    assert head(features).equal(F.pixel_shuffle(maps, 4))


def test_dense_2d_crops_and_resizes_to_the_output():
    head = DenseHead(4, (1, 5, 9), grid=(2, 2), stride=(4, 3), canvas_size=(7, 6))
    features = torch.randn(2, 4, 4)
    whole = DenseHead(4, (1, 8, 6), grid=(2, 2), stride=(4, 3), canvas_size=(8, 6))
    whole.load_state_dict(head.state_dict())
    expected = F.interpolate(whole(features)[:, :, :7], size=(5, 9), mode="bilinear", antialias=True)
    torch.testing.assert_close(head(features), expected)


@pytest.mark.parametrize("length", [5, 20])
def test_dense_1d_resizes_to_an_output_of_another_length(length):
    head = DenseHead(4, (1, length), grid=(4,), stride=(3,), canvas_size=(10,))
    with torch.no_grad():  # a ramp over the canvas must stay a ramp
        head.linear.weight.copy_(torch.tensor([[3.0, 0, 0, 0]] * 3))
        head.linear.bias.copy_(torch.arange(3.0))
    features = torch.zeros(1, 4, 4)
    features[0, :, 0] = torch.arange(4.0)
    out = head(features)[0, 0]
    expected = (torch.arange(length) + 0.5) * (10 / length) - 0.5
    torch.testing.assert_close(out[2:-2], expected[2:-2], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("grid", "stride", "canvas", "sizes"),
    [
        ((7, 7), (32, 32), (224, 224), [(14, 14), (28, 28), (56, 56), (112, 112), (224, 224)]),
        ((2, 3), (14, 14), (27, 42), [(4, 6), (7, 11), (14, 22), (28, 42)]),
        ((5,), (20,), (97,), [(9,), (17,), (30,), (55,), (100,)]),
        ((6,), (1,), (6,), [(6,)]),
    ],
)
def test_the_upsampling_head_grows_from_the_grid_to_the_canvas(grid, stride, canvas, sizes):
    geometry = {"grid": grid, "stride": stride, "canvas_size": canvas}
    head = UpsamplingHead(5, (2, *canvas), **geometry)
    assert head.sizes == sizes
    features = torch.randn(2, torch.Size(grid).numel(), 5, requires_grad=True)
    out = head(features)
    assert out.shape == (2, 2, *canvas)
    out.square().mean().backward()
    assert all(p.grad.abs().max() > 0 for p in head.parameters())
    assert features.grad.abs().amax((0, 2)).min() > 0


def test_the_upsampling_head_keeps_places_and_has_no_seams():
    """One token's feature changes values around its own patch; where the linear head jumps, this one goes on smoothly."""
    torch.manual_seed(0)
    geometry = {"grid": (8,), "stride": (16,), "canvas_size": (128,)}
    linear, smooth = (head(4, (1, 128), **geometry) for head in DENSE_HEADS.values())
    features = torch.randn(1, 8, 4)
    other = features.clone()
    other[0, 5] += 3
    change = (smooth(other) - smooth(features))[0, 0].abs()
    assert 80 <= change.argmax() < 96
    jumps = [
        (head(features)[0, 0].diff().abs()[15::16].mean() / head(features).std()).item() for head in (linear, smooth)
    ]
    assert jumps[1] < jumps[0] / 3


def test_an_output_of_more_axes_than_the_input_is_refused():
    with pytest.raises(UserError, match="output_shape must have a channel axis and 1 more"):
        DenseHead(5, (2, 10, 10), **GEOMETRY)
