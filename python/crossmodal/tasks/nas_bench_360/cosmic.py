"""Cosmic: which pixels of a picture of the Hubble space telescope were struck by cosmic rays (deepCR, Zhang and Bloom, 2020).

Of the public set the galaxies in the filter F435W, from each picture the middle 128 x 128 pixels; pixels that are broken or
saturated do not count.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from crossmodal.data.arrays import Rows
from crossmodal.data.derived import New
from crossmodal.data.readers import contents
from crossmodal.data.readers.npy import read_npy
from crossmodal.errors import UserError
from crossmodal.files import digest
from crossmodal.tasks.base import Options, RawTask, register
from crossmodal.tasks.nas_bench_360 import _public

FIRST, SIDE = 64, 128  # of the pixels that are taken, along either axis
BATCH = 4
SKY = (-0.9, 3.0)  # so many times the level of the sky is added
FILES = tuple(
    _public.remote(f"cosmic/npy_{part}/f435w", f"cosmic/{name}", size, "cosmic", f"{name} of the authors of deepCR")
    for part, name, size in (
        ("train", "deepCR.ACS-WFC.train.tar", 6_500_000_000),
        ("test", "deepCR.ACS-WFC.test.tar", 2_000_000_000),
    )
)
# Visits of the telescope, by proposal, that look at galaxies, not at clusters of stars or at empty fields.
GALAXIES = {
    "10182": ("pb", "pd"),
    "10190": ("13", "28"),
    "10260": ("5", "7"),
    "10342": ("3",),
    "10407": ("3",),
    "10584": ("13",),
    "10760": ("2", "4"),
    "12058": ("1", "12", "16", "6"),
    "12513": ("2", "3"),
    "13057": ("1",),
    "13364": ("95",),
    "13691": ("11",),
    "13737": ("2", "3"),
    "13804": ("6",),
    "14343": ("1",),
    "14704": ("1",),
    "9490": ("a2", "a3"),
}


@register(
    "cosmic",
    "pictures of galaxies (1 x 128 x 128): pixels struck by cosmic rays; 4830 train, 420 test (NAS-Bench-360)",
    protocols=_public.PROTOCOLS,
    files=FILES,
)
def cosmic(options: Options) -> RawTask:
    """Whole visits of the telescope validate, whose pictures show the same place. Learned from are pictures with more or less light
    of the sky, where its level is known."""
    folder = options.data_dir / "cosmic"
    trained, tested = (_Pictures(folder, part) for part in ("train", "test"))
    released = options.protocol == "released"
    raw = RawTask(
        kind="dense",
        **trained.arrays("train"),
        **tested.arrays("test", with_sky=released),
        vary=trained.with_sky,
        origin=str(folder),
        loss="bce_with_logits",
        metrics=("auroc", "false_negative_rate", "iou"),
    )
    if not released:
        return raw
    return _public.released(
        raw,
        ("thresholded_auroc", "auroc"),
        "thresholded_auroc is of predicted masks, not of probabilities, and pixels that do not count are rightly free.",
        "test pictures, too, have a random share of the sky added.",
        "pictures are not normalised.",
        batch_size=BATCH,
        normalize_x="none",
    )


class _Pictures:
    """Those of a part, in the order of their paths.

    skies: level of the sky in each, 0 where it is not known. hashes: of the files.
    """

    def __init__(self, folder: Path, part: str) -> None:
        root = folder / f"npy_{part}" / "f435w"
        visits = [visit for visit in sorted(root.glob("*/*")) if visit.name in GALAXIES.get(visit.parent.name, ())]
        self.paths = [path for visit in visits for path in sorted(visit.glob("*.npy")) if path.name != "sky.npy"]
        if not self.paths:
            raise UserError(f"{root}: expected pictures of galaxies, PROPOSAL/VISIT/NUMBER_*.npy, found none")
        skies = [visit / "sky.npy" for visit in visits if (visit / "sky.npy").exists()]
        measured = _public.measured(folder / f"{part}.pictures.npy", [*self.paths, *skies], self._measure)
        self.skies, self.hashes = np.array(measured["sky"]), np.array(measured["hash"])

    def _measure(self, new: New) -> None:
        """Reads all files once: what is wrong with one is told before anything is learned."""
        found = []
        for path in tqdm(self.paths, unit=" pictures"):
            planes = read_npy(path)
            side = FIRST + SIDE
            if (
                planes.ndim != 3
                or planes.shape[0] not in (2, 3)
                or min(planes.shape[1:]) < side
                or planes.dtype.kind not in "biuf"
            ):
                raise UserError(
                    f"{path}: expected 2 or 3 planes of at least {side} x {side} numbers (picture, mask, what does not count), got "
                    f"{planes.dtype} of shape {planes.shape}"
                )
            if not np.isfinite(planes).all():
                raise UserError(f"{path}: holds NaN or infinity")
            if not np.isin(planes[1], (0, 1)).all():
                raise UserError(f"{path}: expected zeros and ones in the mask, its second plane")
            found.append((self._sky(path), digest(path)))
        new((len(found),), [("sky", np.float64), ("hash", "S64")])[:] = found

    def _sky(self, path: Path) -> float:
        file = path.with_name("sky.npy")
        if not file.exists():
            return 0.0
        levels = contents.array(read_npy(file), str(file), (None,))
        number = path.name.partition("_")[0]
        if not number.isdecimal() or not 1 <= int(number) <= len(levels) or not np.isfinite(levels[int(number) - 1]):
            raise UserError(
                f"{path}: expected a name that begins with the number of its sky, from 1 to the {len(levels)} of {file}"
            )
        return float(levels[int(number) - 1])

    def arrays(self, part: str, *, with_sky: bool = False) -> dict[str, Any]:
        """Inputs, targets, masks and groups of a part of a task."""
        sha = hashlib.sha256(self.hashes.tobytes() + self.skies.tobytes()).hexdigest()
        made = {
            "x": (partial(self._picture, with_sky=with_sky), np.float32),
            "y": (partial(self._plane, plane=1), np.float32),
            "mask": (self._counting, np.bool_),
        }
        arrays: dict[str, Any] = {
            f"{name}_{part}": Rows(len(self.paths), read, (1, SIDE, SIDE), dtype, f"{name} {with_sky} {sha}")
            for name, (read, dtype) in made.items()
        }
        return arrays | {f"group_{part}": np.array(["/".join(path.parts[-3:-1]) for path in self.paths])}

    def _plane(self, row: int, plane: int) -> np.ndarray:
        inner = slice(FIRST, FIRST + SIDE)
        return read_npy(self.paths[row])[plane, inner, inner][None]

    def _picture(self, row: int, with_sky: bool) -> np.ndarray:
        picture = self._plane(row, 0).astype(np.float32)
        return self.with_sky(picture, row, np.random.default_rng((0, row))) if with_sky else picture

    def _counting(self, row: int) -> np.ndarray:
        planes = read_npy(self.paths[row])
        return self._plane(row, 2) == 0 if len(planes) == 3 else np.ones((1, SIDE, SIDE), np.bool_)

    def with_sky(self, picture: np.ndarray, row: int, generator: np.random.Generator) -> np.ndarray:
        """A picture with more or less light of the sky."""
        return picture + np.float32(self.skies[row] * generator.uniform(*SKY))
