"""Reader of WAV files, and log-mel spectrograms."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy.io import wavfile
from torch import Tensor

from crossmodal.data.readers.damage import explained
from crossmodal.errors import UserError

LEAST_POWER, RANGE = 1e-10, 80.0  # below these a spectrogram is cut off: power, and decibels under its loudest value


def read_wav(path: Path, rate: int) -> np.ndarray:
    """The samples of a WAV file with one channel, from -1 to 1, float32 (n,).

    Raises:
        UserError: no WAV file, a damaged one, or one of another rate (per second) or with more channels.
    """
    found, samples = open_wav(path)
    if samples.shape[1] != 1 or found != rate:
        raise UserError(
            f"{path}: expected samples at {rate} Hz in one channel, got {len(samples)} at {found} Hz in {samples.shape[1]}"
        )
    return scaled(samples[:, 0], path)


def open_wav(path: Path) -> tuple[int, np.ndarray]:
    """Rate (per second) and samples (n, channels) of a WAV file, at least one, as they are stored.

    Raises:
        UserError: no WAV file, or a damaged or empty one.
    """
    with explained(path, "a WAV file"), warnings.catch_warnings():
        warnings.simplefilter("error")  # scipy only warns of a truncated file
        rate, samples = wavfile.read(path)
    if not samples.size or rate < 1:
        raise UserError(f"{path}: holds no sound: {samples.size} samples at {rate} Hz")
    return rate, samples.reshape(len(samples), -1)


def scaled(samples: np.ndarray, path: Path) -> np.ndarray:
    """Samples as they are stored in a WAV file, from -1 to 1, float32.

    Raises:
        UserError: they are not finite.
    """
    if samples.dtype.kind == "f":
        if not np.isfinite(samples).all():
            raise UserError(f"{path}: holds {samples[~np.isfinite(samples)][0]}")
        return samples.astype(np.float32)
    bits = 8 * samples.dtype.itemsize
    middle = 128.0 if samples.dtype == np.uint8 else 0.0  # 8 bits have no sign
    return ((samples - middle) / 2.0 ** (bits - 1)).astype(np.float32)


def log_mel(samples: Tensor, rate: int, *, size: int, window: int, hop: int, bands: int) -> Tensor:
    """Power in mel bands, in decibels, cut off at `RANGE` below the loudest value of each spectrogram.

    Args:
        samples: float32 (B, n).
        rate: samples per second.
        size: of the Fourier transform; the window stands in its middle.
        window: samples of a (periodic) Hann window.
        hop: samples from one frame to the next. Frames are centred; at the ends samples are mirrored.
        bands: triangles of one width on the mel scale of HTK, 2595 log10(1 + f / 700), from 0 to half the rate, each 1 at its peak.

    Returns:
        float32 (B, bands, 1 + n // hop).
    """
    hann = torch.hann_window(window)
    transformed = torch.stft(samples, size, hop, window, hann, center=True, pad_mode="reflect", return_complex=True)
    power = _triangles(rate, size, bands) @ transformed.abs().square()
    decibels = 10 * power.clamp_min(LEAST_POWER).log10()
    return decibels.maximum(decibels.amax((1, 2), keepdim=True) - RANGE)


@cache
def _triangles(rate: int, size: int, bands: int) -> Tensor:
    """Weights (bands, 1 + size // 2) of the frequencies in each band."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), bands + 2) / 2595) - 1)
    frequency = np.linspace(0, rate / 2, 1 + size // 2)
    left, peak, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    weights = np.minimum((frequency - left) / (peak - left), (right - frequency) / (right - peak))
    return torch.from_numpy(weights.clip(0)).float()
