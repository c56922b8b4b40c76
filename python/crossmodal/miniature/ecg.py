"""A small ECG, simulated: heart beats as sums of waves (after McSharry et al., 2003), in four rhythms.

N   regular beats, each after a P wave
A   atrial fibrillation: beats at random times, no P waves, the line between them trembles
O   another rhythm: now and then a broad beat comes early, and a pause follows
~   noise and movement in which no beat can be seen
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from crossmodal.miniature.base import register

RECORDINGS = {"N": 70, "A": 30, "O": 45, "~": 15}
RATE = 300  # values per second
SECONDS = (8, 14)
# Waves of a beat: time (s) from its R wave, height, width (s).
WAVES = {"P": (-0.17, 0.15, 0.025), "Q": (-0.03, -0.1, 0.01), "R": (0.0, 1.0, 0.012), "S": (0.03, -0.2, 0.01)} | {
    "T": (0.28, 0.3, 0.05)
}
BROAD = {"R": (0.0, 1.1, 0.05), "T": (0.33, -0.4, 0.06)}
UNIT = 1000  # of the stored whole numbers per millivolt


@register("ecg", "160 simulated recordings of heart beats in 4 rhythms")
def ecg(folder: Path, rng: np.random.Generator) -> None:
    """challenge2017.pkl: a pickled dictionary, data an object array of int16 (L_i,), label str (n,)."""
    label = rng.permutation(np.repeat(list(RECORDINGS), list(RECORDINGS.values())))
    data = np.empty(len(label), object)
    for index, rhythm in enumerate(label):
        data[index] = np.rint(UNIT * _recording(str(rhythm), rng)).astype(np.int16)
    (folder / "challenge2017.pkl").write_bytes(pickle.dumps({"data": data, "label": label}, protocol=4))


def _recording(rhythm: str, rng: np.random.Generator) -> np.ndarray:
    """Millivolts (L,)."""
    time = np.arange(int(RATE * rng.uniform(*SECONDS))) / RATE
    line = 0.02 * rng.standard_normal(len(time)) + 0.1 * np.sin(2 * np.pi * rng.uniform(0.1, 0.4) * time)
    if rhythm == "~":
        return line + np.cumsum(0.05 * rng.standard_normal(len(time))) + 0.3 * rng.standard_normal(len(time))
    interval, beat, early = rng.uniform(0.65, 1.0), rng.uniform(0, 0.6), False
    while beat < time[-1]:
        waves = BROAD if early else {name: wave for name, wave in WAVES.items() if (rhythm, name) != ("A", "P")}
        for place, height, width in waves.values():
            line += height * np.exp(-(((time - beat - place) / width) ** 2) / 2)
        pause, early = 1.4 if early else 1.0, rhythm == "O" and not early and rng.random() < 0.35
        spread = 0.22 if rhythm == "A" else 0.03
        beat += interval * pause * (0.6 if early else 1.0) * max(1 + spread * rng.standard_normal(), 0.45)
    if rhythm == "A":
        line += 0.08 * np.sin(2 * np.pi * rng.uniform(5, 8) * time + rng.uniform(0, 6))
    return line
