import math

import pytest
import torch

from crossmodal.models.series_images import SeriesImages

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def drawing(shape, size=(8, 8), series="pieces", channels="images"):
    return SeriesImages(shape, size, series=series, channels=channels, mean=MEAN, std=STD)


def brightness(images: torch.Tensor) -> torch.Tensor:
    """Images before normalisation and power: values from 0 to 1."""
    colours = images.shape[1]
    mean, std = (torch.tensor((values * colours)[:colours]).view(-1, 1, 1) for values in (MEAN, STD))
    return (images * std + mean).clamp_min(0).pow(1 / 0.8)


def test_pieces_of_a_series_are_the_rows():
    """16 values: pieces of 4 that overlap by 2, seven of them; the square repeats each value."""
    x = torch.randn(3, 1, 16)
    rows = torch.stack([x[:, 0, start : start + 4] for start in range(0, 14, 2)], dim=1)
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    expected = ((rows - low) / (high - low)).repeat_interleave(2, 1).repeat_interleave(2, 2)
    images = drawing((1, 16), (14, 8))(x)
    assert images.shape == (3, 3, 14, 8)
    for colour in range(3):
        torch.testing.assert_close(brightness(images)[:, colour], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 24, 150, 427])
def test_no_step_is_left_out(length):
    steps = drawing((1, length)).steps
    assert set(steps.flatten().tolist()) == set(range(length))
    assert steps.shape[1] == math.isqrt(length)


def test_a_long_series_is_averaged_not_thinned():
    """One spike among 40,000 steps leaves a trace, wherever it is."""
    for at in (0, 12_345, 39_999):
        x = torch.zeros(1, 1, 40_000)
        x[..., at] = 1
        images = brightness(drawing((1, 40_000), (16, 16))(x))
        assert images.amax() > 1.5 * images.median()


@pytest.mark.parametrize("series", ["pieces", "spectrogram"])
def test_channels_are_images_of_their_own_or_colours(series):
    torch.manual_seed(0)
    x = torch.randn(2, 4, 50)
    alone = [drawing((1, 50), series=series)(x[:, [channel]]) for channel in range(4)]
    images = drawing((4, 50), series=series)(x)
    torch.testing.assert_close(images.unflatten(0, (2, 4)), torch.stack(alone, dim=1))
    colours = drawing((4, 50), series=series, channels="colours")(x)
    assert colours.shape == (2, 4, 8, 8)
    louder = drawing((4, 50), series=series, channels="colours")(x * torch.tensor([1.0, 1, 1, 9]).view(4, 1))
    assert brightness(louder)[:, :3].amax() < 0.95 * brightness(colours)[:, :3].amax()
    grey = drawing((1, 50), series=series, channels="colours")(x[:, :1])
    assert grey.equal(alone[0])


def test_colours_of_an_image_have_one_scale():
    """So that the levels of channels can be compared; the fourth has the statistics of red again."""
    x = torch.randn(3, 4, 16)
    low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    values = brightness(drawing((4, 16), (7, 4), channels="colours")(x))
    expected = ((x - low) / (high - low)).unfold(2, 4, 2)
    torch.testing.assert_close(values, expected, atol=1e-4, rtol=0)


def test_a_tone_is_a_bright_line_in_its_spectrogram():
    """A period of 4 steps is half way between the mean and the highest frequency; the second half is silent."""
    x = torch.sin(2 * math.pi / 4 * torch.arange(256.0)) * (torch.arange(256) < 128)
    image = brightness(drawing((1, 256), (17, 33), "spectrogram")(x.view(1, 1, -1)))[0, 0]
    assert image[:, :16].argmax(0).tolist() == [8] * 16
    assert image[:, 20:].amax() < 0.1 < 0.9 < image[8, 2:14].amin()


@pytest.mark.parametrize("series", ["pieces", "spectrogram"])
@pytest.mark.parametrize("length", [1, 2, 5, 24])
def test_constant_and_short_series_are_finite(series, length):
    x = torch.full((1, 2, length), 3.0, requires_grad=True)
    images = drawing((2, length), series=series)(x)
    images.sum().backward()
    assert torch.isfinite(images).all()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(("length", "size"), [(16, (14, 8)), (150, (112, 112)), (427, (112, 112)), (24, (84, 84))])
def test_a_field_over_the_pieces_becomes_a_series_again(length, size):
    """What a dense head needs: a smooth series comes back from its own image."""
    x = (torch.arange(length) / length * 5).sin().view(1, 1, -1)
    part = drawing((1, length), size)
    back = part.restore(brightness(part(x))[:, :1])
    low, high = x.amin(), x.amax()
    torch.testing.assert_close(back, (x - low) / (high - low), atol=0.12, rtol=0)
    assert (back - (x - low) / (high - low)).abs().mean() < 0.04
    torch.testing.assert_close(part.restore(torch.full((2, 3, *size), 1.5)), torch.full((2, 3, length), 1.5))


def test_a_field_over_a_spectrogram_becomes_a_series_along_its_time():
    part = drawing((1, 64), (8, 16), "spectrogram")
    field = torch.arange(16.0).expand(1, 1, 8, 16)
    back = part.restore(field)[0, 0]
    assert back.shape == (64,)
    assert (back.diff() >= 0).all()
    assert (back[0], back[-1]) == (0, 15)
