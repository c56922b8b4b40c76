"""A small FSD50K, simulated: clips of one or two of ten kinds of sounds, cut into pieces of a second every half second."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import signal
from scipy.io import wavfile

from crossmodal.miniature.base import register
from crossmodal.tasks.nas_bench_360.fsd50k import RATE

CLIPS = {"tr": 120, "val": 40, "eval": 80}
SECONDS = (0.6, 2.2)
BOTH = 0.4  # share of clips with two sounds
NOISES = 4  # of two and a half seconds

Sound = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # seconds (n,) to samples (n,)


def _voice(*formants: float) -> Sound:
    """A harmonic tone, strong around its formants (hertz), as vowels are."""

    def sound(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        pitch = rng.uniform(90, 220)
        harmonics = pitch * np.arange(1, int(4000 / pitch))
        strength = sum(np.exp(-(((harmonics - formant) / 150) ** 2)) for formant in formants)
        return strength @ np.sin(2 * np.pi * harmonics[:, None] * time)

    return sound


def _sweep(start: float, end: float) -> Sound:
    def sound(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        factor = rng.uniform(0.8, 1.25)
        return signal.chirp(time % 0.5, factor * start, 0.5, factor * end)

    return sound


def _hiss(low: float, high: float) -> Sound:
    def sound(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        band = signal.butter(4, (low, high), "band", fs=RATE, output="sos")
        return 3 * signal.sosfilt(band, rng.standard_normal(len(time)))

    return sound


def _beep(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.sin(2 * np.pi * rng.uniform(1800, 2400) * time) * ((time * rng.uniform(3, 5)) % 1 < 0.5)


def _clicks(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 3 * rng.standard_normal(len(time)) * np.exp(-200 * (time % rng.uniform(0.12, 0.2)))


def _engine(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return signal.square(2 * np.pi * rng.uniform(40, 70) * time) * (1 + 0.3 * np.sin(2 * np.pi * 8 * time))


SOUNDS: dict[str, Sound] = {
    "Beep": _beep,
    "Clicks": _clicks,
    "Engine": _engine,
    "Falling_whistle": _sweep(3000, 800),
    "Hiss": _hiss(4000, 9000),
    "Rising_whistle": _sweep(800, 3000),
    "Rumble": _hiss(80, 400),
    "Voice_a": _voice(750, 1200),
    "Voice_i": _voice(280, 2400),
    "Voice_u": _voice(300, 800),
}


@register("fsd50k", "240 simulated clips with ten kinds of sounds, of which one or two are in each")
def fsd50k(folder: Path, rng: np.random.Generator) -> None:
    """audio/chunks: tr.csv, val.csv, eval.csv, lbl_map.json and, in dev and eval, WAV files of 16 bits; audio/noise_22050."""
    chunks, noise = folder / "audio" / "chunks", folder / "audio" / "noise_22050"
    for place in (chunks / "dev", chunks / "eval", noise):
        place.mkdir(parents=True)
    names, clip = list(SOUNDS), 1000
    (chunks / "lbl_map.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    for part, count in CLIPS.items():
        rows = []
        for _ in range(count):
            clip += 1
            chosen = sorted(rng.choice(len(names), 1 + (rng.random() < BOTH), replace=False))
            time = np.arange(int(RATE * rng.uniform(*SECONDS))) / RATE
            sound = sum(rng.uniform(0.5, 1.0) * _level(SOUNDS[names[one]](time, rng)) for one in chosen)
            for number, piece in enumerate(_pieces(sound + 0.05 * rng.standard_normal(len(time)))):
                path = chunks / ("eval" if part == "eval" else "dev") / f"{clip}_{number:04d}.wav"
                _write(path, piece)
                rows.append([path.relative_to(folder).as_posix(), ",".join(names[one] for one in chosen), clip])
        with open(chunks / f"{part}.csv", "w", newline="") as file:
            csv.writer(file).writerows([["files", "labels", "ext"], *rows])
    for number in range(NOISES):
        _write(noise / f"noise-{number}.wav", _level(np.cumsum(rng.standard_normal(int(2.5 * RATE))) % 7))


def _level(sound: np.ndarray) -> np.ndarray:
    """At one loudness, root mean square 1."""
    return sound / np.sqrt(np.square(sound).mean())


def _pieces(sound: np.ndarray) -> list[np.ndarray]:
    """Of a second, every half second; what is shorter is repeated."""
    starts = range(0, len(sound), RATE // 2) if len(sound) >= RATE else (0,)
    return [np.resize(sound[start : start + RATE], RATE) for start in starts]


def _write(path: Path, sound: np.ndarray) -> None:
    wavfile.write(path, RATE, np.rint(np.clip(sound / 8, -1, 1) * 32767).astype(np.int16))
