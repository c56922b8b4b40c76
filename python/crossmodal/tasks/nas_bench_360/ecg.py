"""ECG: heart rhythms from a single lead (PhysioNet/CinC Challenge 2017, Clifford et al., as NAS-Bench-360 has it).

8528 recordings of 9 to 61 seconds at 300 Hz: normal rhythm (N), atrial fibrillation (A), another rhythm (O), or too noisy (~). They
are cut into windows of 1000 values, which are classified; a recording is what its windows say on average.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from crossmodal.data.arrays import Windows
from crossmodal.data.readers import contents
from crossmodal.data.readers.pickles import read_pickle
from crossmodal.errors import UserError
from crossmodal.tasks.base import Options, RawTask, register
from crossmodal.tasks.nas_bench_360 import _public

LENGTH = 1000
# Values from one window to the next, by rhythm: the rare ones are cut more finely, so that there are about as many of each.
STRIDES = {"N": 500, "A": 83, "O": 250, "~": 25}
HELD_OUT = 0.1  # of the recordings, for testing; as many to validate
BATCH = 64
FILE = _public.remote("challenge2017.pkl", "ECG/challenge2017.pkl", 150_000_000)


@register(
    "ecg",
    "single-lead ECG (windows of 1000 values), 4 rhythms; 8528 recordings, a tenth of them to test (NAS-Bench-360)",
    protocols=_public.PROTOCOLS,
    files=(FILE,),
)
def ecg(options: Options) -> RawTask:
    """Recordings are z-scored one by one. The first tenth of a random order (the public code's) tests, the second validates."""
    path = options.data_dir / FILE.path
    series, labels = _recordings(path)
    # scikit-learn's train_test_split(test_size=0.1, random_state=0).
    order = np.random.RandomState(0).permutation(len(series))
    size = int(np.ceil(HELD_OUT * len(series)))
    values = np.concatenate([_standardised(one) for one in series])
    first = np.cumsum([0, *map(len, series)])
    released = options.protocol == "released"

    def windows(recordings: np.ndarray, by_rhythm: bool) -> tuple[Windows, np.ndarray, np.ndarray]:
        """Windows, labels and recordings (n,) of them; cut by the stride of the rhythm, or all by that of normal rhythm."""
        starts = [
            np.arange(0, len(series[one]) - LENGTH, STRIDES[labels[one] if by_rhythm else "N"]) for one in recordings
        ]
        group = np.repeat(recordings, [len(one) for one in starts])
        return Windows(values, np.concatenate([np.arange(0), *starts]) + first[group], LENGTH), labels[group], group

    test = windows(order[:size], released)
    validation = test if released else windows(order[size : 2 * size], False)
    train = windows(order[size if released else 2 * size :], True)
    for part, (x, _, _) in (("train", train), ("validation", validation), ("test", test)):
        if not len(x):
            raise UserError(f"{path}: no recording of the {part} part is longer than {LENGTH} values")
    short = sum(len(one) <= LENGTH for one in series)
    notes = (f"{short} recordings of at most {LENGTH} values hold no window.",) if short else ()
    raw = RawTask(
        kind="classification",
        **_public.parts(train=train, val=validation, test=test),
        class_names=tuple(STRIDES),
        origin=str(path),
        notes=(
            *notes,
            "groups are recordings; those that validate and test are cut by one stride, whatever their rhythm.",
        ),
        metrics=(
            "macro_f1_of_groups",
            "macro_f1",
            "macro_f1_of_group_votes",
            "challenge2017_f1_of_groups",
            "accuracy_of_groups",
        ),
        normalize_x="none",
    )
    if not released:
        return raw
    said = "windows are scored, not recordings, and rhythms are cut by strides of their own in the test split too."
    return _public.released(replace(raw, notes=notes), ("macro_f1", "macro_f1_of_groups"), said, batch_size=BATCH)


def _recordings(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Recordings (L_i,) of any length, and their rhythms, str (n,)."""
    found = contents.entries(read_pickle(path), path, ("data", "label"))
    for key, values in found.items():
        if not isinstance(values, list | tuple | np.ndarray) or not len(values):
            raise UserError(f"{path}: {key}: expected one entry per recording, got {type(values).__name__}")
    series, labels = list(found["data"]), np.array([str(label) for label in found["label"]])
    if len(labels) != len(series):
        raise UserError(f"{path}: {len(series)} recordings in data, but {len(labels)} labels")
    unknown = ~np.isin(labels, list(STRIDES))
    if unknown.any():
        place = int(unknown.argmax())
        raise UserError(f"{path}: label {str(labels[place])!r} at index {place}; expected one of {', '.join(STRIDES)}")
    series = [contents.array(one, f"{path}: data[{index}]", (None,)) for index, one in enumerate(series)]
    for index, one in enumerate(series):
        if not np.isfinite(one).all():
            raise UserError(f"{path}: data[{index}] holds {one[~np.isfinite(one)][0]}")
    return series, labels


def _standardised(series: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1, float32; a flat line becomes zeros."""
    series = series.astype(np.float64)
    return ((series - series.mean()) / (series.std() or 1.0)).astype(np.float32)
