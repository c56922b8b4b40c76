"""DeepSEA: what binds to a piece of DNA, or marks it (Zhou and Troyanskaya, 2015, as NAS-Bench-360 has it).

1000 bases, one of four channels each (none where the base is not known), and which of 36 chromatin features are there.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from crossmodal.data.arrays import Chosen
from crossmodal.data.derived import New, derived
from crossmodal.data.readers import contents
from crossmodal.data.readers.npy import read_npz
from crossmodal.errors import UserError
from crossmodal.files import digest
from crossmodal.tasks.base import Options, RawTask, register
from crossmodal.tasks.nas_bench_360 import _public

LENGTH, BASES, FEATURES = 1000, 4, 36
BATCH = 16
PARTS = ("train", "val", "test")
STEP = 1000  # samples that are checked and written at a time
FILE = _public.remote("deepsea_filtered.npz", "deepsea/deepsea_filtered.npz", 860_000_000)


@register(
    "deepsea",
    "DNA (4 x 1000, one-hot), 36 chromatin features (multi-label); 71,753 train, 149,400 test (NAS-Bench-360)",
    protocols=_public.PROTOCOLS,
    files=(FILE,),
)
def deepsea(options: Options) -> RawTask:
    """A label that is there weighs 4 times in the loss, as in the public code."""
    path = options.data_dir / FILE.path
    rows = _rows(path)
    # The rows of a part lie together.
    ends = np.searchsorted(rows["part"], [1, 2])
    train, validation, test = ((part["x"], part["y"]) for part in np.split(rows, ends))
    raw = RawTask(
        kind="multilabel",
        **_public.parts(train=train, val=validation, test=test),
        origin=str(path),
        loss="bce_with_logits_4",
        normalize_x="none",
    )
    if options.protocol != "released":
        return raw
    learned, order = rows[: ends[1]], np.random.default_rng(0).permutation(len(test[0]))
    raw = replace(
        raw, **_public.parts(train=(learned["x"], learned["y"]), test=(Chosen(test[0], order), test[1][order]))
    )
    return _public.released(
        raw,
        ("auroc", "mean_average_precision"),
        "the test samples are shuffled before they are cut into pieces (by a fixed seed); a label that a piece has always or never "
        "is left out of its mean.",
        batch_size=BATCH,
    )


def _rows(path: Path) -> np.ndarray:
    """All samples, training ones first, then those that validate and test, mapped: x uint8 (n, 4, 1000), y uint8 (n, 36), part.

    The file may be compressed, and no row of such a one can be read alone.
    """

    def read(name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        def choose(names: list[str]) -> list[str]:
            if name not in names:
                raise UserError(f"{path}: lacks the array {name!r}; it holds {', '.join(names) or 'nothing'}")
            return [name]

        return contents.array(read_npz(path, choose)[name], f"{path}: {name}", shape)

    def make(new: New) -> None:
        y = {part: read(f"y_{part}", (None, FEATURES)) for part in PARTS}
        rows = new(
            (sum(map(len, y.values())),),
            [("x", np.uint8, (BASES, LENGTH)), ("y", np.uint8, (FEATURES,)), ("part", np.uint8)],
        )
        done = 0
        for number, (part, labels) in enumerate(y.items()):
            x = read(f"x_{part}", (None, LENGTH, BASES))
            if len(x) != len(labels):
                raise UserError(f"{path}: {len(x)} samples in x_{part}, but {len(labels)} in y_{part}")
            for first in range(0, len(x), STEP):
                for name, values in (("x", x[first : first + STEP]), ("y", labels[first : first + STEP])):
                    if not np.isin(values, (0, 1)).all():
                        wrong = values[~np.isin(values, (0, 1))][0]
                        raise UserError(
                            f"{path}: expected zeros and ones, but {name}_{part} holds {wrong} from sample {first} on"
                        )
                bases = x[first : first + STEP].sum(2, dtype=np.uint16)
                if (bases > 1).any():
                    sample, place = np.argwhere(bases > 1)[0]
                    raise UserError(
                        f"{path}: expected one base at each place, but x_{part} has {bases[sample, place]} at place {place} of "
                        f"sample {first + sample}"
                    )
                here = rows[done : done + len(x[first : first + STEP])]
                here["x"] = x[first : first + STEP].swapaxes(1, 2)
                here["y"], here["part"] = labels[first : first + STEP], number
                done += len(here)

    return derived(path.with_suffix(".rows.npy"), {"file": digest(path), "version": 1}, make)
