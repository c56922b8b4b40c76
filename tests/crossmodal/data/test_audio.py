"""WAV files and log-mel spectrograms, against sums written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from crossmodal.data.readers.audio import log_mel, read_wav
from crossmodal.errors import UserError


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_samples_lie_between_minus_one_and_one(tmp_path, dtype):
    sound, step = 0.9 * np.sin(np.arange(50) / 3), 1e-7
    stored = sound.astype(dtype)
    if dtype != np.float32:
        step = 2.0 ** (1 - np.iinfo(dtype).bits)
        stored = np.rint(sound / step + (128 if dtype == np.uint8 else 0)).astype(dtype)
    wavfile.write(tmp_path / "x.wav", 8000, stored)
    np.testing.assert_allclose(read_wav(tmp_path / "x.wav", 8000), sound, rtol=0, atol=max(step / 2, 1e-7))


def test_wav_files_that_cannot_be_used(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_wav(tmp_path / "x.wav", 8000)
    wavfile.write(tmp_path / "x.wav", 8000, np.full(4, np.nan, np.float32))
    with pytest.raises(UserError, match="holds nan"):
        read_wav(tmp_path / "x.wav", 8000)


def test_spectrogram_by_its_formula():
    """One frame by a sum over the mirrored samples under the window, its bands by triangles on the mel scale."""
    rate, size, window, hop, bands = 8000, 64, 20, 10, 8
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(100)
    found = log_mel(torch.from_numpy(samples).float()[None], rate, size=size, window=window, hop=hop, bands=bands)[0]
    assert found.shape == (bands, 11)
    mirrored = np.pad(samples, size // 2, "reflect")
    hann = np.zeros(size)
    hann[(size - window) // 2 : (size + window) // 2] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    frequency = np.arange(size // 2 + 1) * rate / size
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), bands + 2) / 2595) - 1)
    expected = np.zeros((bands, 11))
    for frame in range(11):
        part = hann * mirrored[frame * hop : frame * hop + size]
        waves = np.exp(-2j * np.pi * np.arange(size // 2 + 1)[:, None] * np.arange(size) / size)
        power = np.abs(waves @ part) ** 2
        for band in range(bands):
            weight = np.interp(frequency, edges[band : band + 3], [0, 1, 0], left=0, right=0)
            expected[band, frame] = 10 * np.log10(max(weight @ power, 1e-10))
    np.testing.assert_allclose(found, np.maximum(expected, expected.max() - 80), atol=2e-3)


def test_silence_is_80_decibels_under_the_loudest():
    samples = torch.zeros(2, 1000)
    samples[0, 500] = 1
    found = log_mel(samples, 8000, size=64, window=20, hop=10, bands=8)
    assert found[0].min() == pytest.approx(found[0].max().item() - 80)
    assert found[1].unique().tolist() == [-100]
