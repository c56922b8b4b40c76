import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossmodal.models.embedders import PatchEmbedder, default_patch_size, resize, tile_channels


@pytest.mark.parametrize(
    ("length", "target", "patch"),
    [
        # the benchmarks' own: ECG, Satellite, DeepSEA, Navier-Stokes, diffusion-sorption
        (1000, 64, 20),
        (46, 512, 1),
        (1000, 512, 2),
        (3072, 128, 24),
        (1024, 32, 32),
        (24, 64, 1),
        (251, 64, 4),  # prime: padded instead of a single token
        (7, 1, 7),
    ],
)
def test_patch_size_is_the_smallest_divisor_that_is_coarse_enough(length, target, patch):
    assert default_patch_size((length,), target) == (patch,)


def test_patch_size_of_an_image_divides_both_sides():
    assert default_patch_size((8, 8), 64) == (1, 1)
    assert default_patch_size((16, 52), 64) == (4, 4)
    assert default_patch_size((85, 85), 64) == (17, 17)
    assert default_patch_size((13, 17), 64) == (2, 2)  # no common divisor: padded


@settings(deadline=None, max_examples=60)
@given(length=st.integers(1, 3000), target=st.integers(1, 600))
def test_patch_size_keeps_the_number_of_tokens_between_half_the_need_and_the_target(length, target):
    (patch,) = default_patch_size((length,), target)
    finest = math.ceil(length / target)
    assert math.ceil(length / patch) <= target
    assert finest <= patch <= 2 * finest


def test_channels_are_tiled_in_order_and_cut():
    kernel = torch.arange(3.0).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    assert tile_channels(kernel, 1)[0, :, 0, 0].tolist() == [0]
    assert tile_channels(kernel, 3).equal(kernel)
    assert tile_channels(kernel, 7)[1, :, 3, 3].tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_embedding_of_a_sequence_is_projection_norm_and_position():
    embedder = PatchEmbedder((2, 10), 6, (4,), norm_eps=1e-5)
    with torch.no_grad():
        for parameter in embedder.parameters():
            parameter.normal_()
    assert (embedder.grid, embedder.num_tokens, embedder.canvas_size) == ((3,), 3, (10,))
    x = torch.randn(5, 2, 10)
    padded = torch.cat([x, torch.zeros(5, 2, 2)], dim=2)
    patches = padded.view(5, 2, 3, 4).permute(0, 2, 1, 3).reshape(5, 3, 8)
    expected = patches @ embedder.projection.weight.view(6, 8).T + embedder.projection.bias
    expected = embedder.norm(expected) + embedder.position_embeddings
    torch.testing.assert_close(embedder(x), expected)


def test_image_tokens_are_row_major_and_padded_at_right_and_bottom():
    embedder = PatchEmbedder((1, 3, 5), 4, (2, 2), positions=False)
    with torch.no_grad():
        embedder.projection.weight.fill_(1.0)
        embedder.projection.bias.zero_()
    x = torch.arange(15.0).view(1, 1, 3, 5)
    assert embedder.grid == (2, 3)
    rows = [0 + 1 + 5 + 6, 2 + 3 + 7 + 8, 4 + 9, 10 + 11, 12 + 13, 14]
    assert embedder(x)[0, :, 0].tolist() == rows


def test_images_are_resized_to_the_canvas():
    embedder = PatchEmbedder((2, 6, 10), 4, (4, 4), image_size=(8, 8), positions=False)
    same = PatchEmbedder((2, 8, 8), 4, (4, 4), image_size=(8, 8), positions=False)
    same.load_state_dict(embedder.state_dict())
    x = torch.randn(3, 2, 6, 10)
    resized = torch.nn.functional.interpolate(x, size=(8, 8), mode="bilinear", antialias=True)
    torch.testing.assert_close(embedder(x), same(resized))
    assert embedder.canvas_size == (8, 8)


def test_amplitude_of_a_patch_survives_the_layer_norm():
    embedder = PatchEmbedder((1, 8), 32, (2,), norm_eps=1e-5)
    x = torch.randn(1, 1, 8)
    weak, strong = embedder(x), embedder(4 * x)
    assert (strong - weak).norm() > 0.1 * weak.norm()


def test_wrong_samples_are_refused():
    embedder = PatchEmbedder((2, 8), 4, (2,))
    with pytest.raises(ValueError, match=r"x must have shape \(B, 2, 8\), got \(3, 2, 9\)"):
        embedder(torch.zeros(3, 2, 9))


def test_half_precision_embedder_takes_float32_samples():
    embedder = PatchEmbedder((1, 8), 4, (2,), norm_eps=1e-5).to(torch.bfloat16)
    assert embedder(torch.randn(2, 1, 8)).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_resizing_keeps_the_dtype_and_constants(dtype):
    for before, after in (((1, 2, 9), (4,)), ((1, 2, 3, 9), (6, 4))):
        expected = torch.full((1, 2, *after), 1.5, dtype=dtype)
        torch.testing.assert_close(resize(torch.full(before, 1.5, dtype=dtype), after), expected)
