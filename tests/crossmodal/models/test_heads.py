import pytest
import torch
import torch.nn.functional as F

from crossmodal.models.heads import DenseHead, PooledHead, build_head

GEOMETRY = {"grid": (4,), "stride": (3,), "canvas_size": (10,)}


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_pooled_kinds_average_tokens_then_map(kind):
    head = build_head(kind, 5, 7, **GEOMETRY)
    assert isinstance(head, PooledHead)
    features = torch.randn(2, 4, 5)
    torch.testing.assert_close(head(features), head.linear(features).mean(dim=1))


def test_dense_1d_puts_each_token_where_its_patch_was_and_crops_the_padding():
    head = build_head("dense", 5, 2, output_shape=(2, 10), **GEOMETRY)
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


def test_bad_heads_are_refused():
    with pytest.raises(ValueError, match=r"kind must be one of .* got 'ranking'"):
        build_head("ranking", 5, 2, **GEOMETRY)
    with pytest.raises(ValueError, match="num_outputs must be at least 1, got 0"):
        build_head("classification", 5, 0, **GEOMETRY)
    with pytest.raises(ValueError, match=r"must start with num_outputs=2, got None"):
        build_head("dense", 5, 2, **GEOMETRY)
    with pytest.raises(ValueError, match=r"must start with num_outputs=2, got \(1, 10\)"):
        build_head("dense", 5, 2, output_shape=(1, 10), **GEOMETRY)
    with pytest.raises(ValueError, match="output_shape must have a channel axis and 1 more"):
        build_head("dense", 5, 2, output_shape=(2, 10, 10), **GEOMETRY)
