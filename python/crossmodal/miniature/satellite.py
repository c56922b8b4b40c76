"""A small Satellite, simulated: vegetation that greens and withers once or twice a year.

Each kind of land cover has its own times, height and number of seasons; a year shifts and scales them, and clouds cut holes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossmodal.miniature.base import register
from crossmodal.tasks.nas_bench_360.satellite import CLASSES, STEPS

SAMPLES = {"train": 40, "test": 20}  # of each kind
NOISE, CLOUDED = 0.04, 0.05


def _season(time: np.ndarray, start: np.ndarray, end: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Greening and withering, a double logistic curve (Zhang et al., 2003)."""
    return height * (1 / (1 + np.exp(-(time - start) / 1.5)) - 1 / (1 + np.exp(-(time - end) / 1.5)))


@register("satellite", "simulated seasons of 24 kinds of land cover")
def satellite(folder: Path, rng: np.random.Generator) -> None:
    """satellite_train.npy and satellite_test.npy: pickled dictionaries, data float64 (n, 46) and label int64 (n,) from 1 to 24."""
    base, height = rng.uniform(0.1, 0.3, CLASSES), rng.uniform(0.3, 0.6, CLASSES)
    first, length = rng.uniform(4, 18, CLASSES), rng.uniform(6, 20, CLASSES)
    twice, second = rng.random(CLASSES) < 0.4, rng.uniform(0.4, 1.0, CLASSES)
    for part, count in SAMPLES.items():
        label = rng.permutation(np.repeat(np.arange(CLASSES), count))
        shift, scale = rng.normal(0, 1, (2, len(label), 1))
        kind, time = label[:, None], np.arange(STEPS)
        start, end = first[kind] + shift, first[kind] + shift + length[kind]
        high = height[kind] * (1 + 0.1 * scale)
        series = base[kind] + _season(time, start, end, high)
        series += twice[kind] * _season(time, end + 3, end + 3 + length[kind] / 2, second[kind] * high)
        series += NOISE * rng.standard_normal(series.shape)
        series[rng.random(series.shape) < CLOUDED] *= 0.3
        # A pickled dictionary, as the public files are; it is only written here, and read by readers/pickles.py.
        np.save(folder / f"satellite_{part}.npy", {"data": series, "label": label + 1}, allow_pickle=True)
