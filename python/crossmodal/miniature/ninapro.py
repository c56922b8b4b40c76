"""A small NinaPro, simulated: bursts of muscles.

Each gesture drives a few muscles, each of them for a time of its own; an electrode hears the muscles below it, as noise whose
strength follows theirs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossmodal.miniature.base import register
from crossmodal.tasks.nas_bench_360.ninapro import ELECTRODES, GESTURES, STEPS

SAMPLES = {"train": 30, "val": 8, "test": 12}  # of each gesture
MUSCLES = 8
REST = 0.15  # strength of the noise without a burst


@register("ninapro", "simulated bursts of 8 muscles, heard by 16 electrodes, of 18 gestures")
def ninapro(folder: Path, rng: np.random.Generator) -> None:
    """ninaPro/ninapro_PART.npy float64 (n, 52, 16) and label_PART.npy (n,), PART: train, val, test."""
    (folder / "ninaPro").mkdir(exist_ok=True)
    place = np.arange(ELECTRODES)[:, None] - np.linspace(0, ELECTRODES, MUSCLES, endpoint=False)
    around = np.minimum(np.abs(place), ELECTRODES - np.abs(place))  # the electrodes lie in a ring
    heard = np.exp(-((around / 1.5) ** 2))
    strength = rng.gamma(1.0, 1.0, (GESTURES, MUSCLES)) * (rng.random((GESTURES, MUSCLES)) < 0.5)
    start, length = rng.uniform(0, 25, (GESTURES, MUSCLES)), rng.uniform(10, 30, (GESTURES, MUSCLES))
    time = np.arange(STEPS)[:, None]
    for part, count in SAMPLES.items():
        label = rng.permutation(np.repeat(np.arange(GESTURES), count))
        data = np.empty((len(label), STEPS, ELECTRODES))
        for sample, gesture in enumerate(label):
            begin = start[gesture] + rng.normal(0, 2, MUSCLES)
            active = (time > begin) & (time < begin + length[gesture])
            burst = active * strength[gesture] * rng.lognormal(0, 0.2, MUSCLES)
            data[sample] = (REST + burst @ heard.T) * rng.standard_normal((STEPS, ELECTRODES))
        np.save(folder / "ninaPro" / f"ninapro_{part}.npy", data)
        np.save(folder / "ninaPro" / f"label_{part}.npy", label)
