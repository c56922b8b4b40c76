"""PSICOV: how far apart the residues of a protein are, from what is known of its sequence (Adhikari, PDNET, 2020, as NAS-Bench-360
has it).

57 maps of pairs of residues, 512 x 512 with zeros around the protein, and the distances of their C-beta atoms in angstrom. These
take 60 MB for a protein: they are made of its files when it is asked for.
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
from crossmodal.data.readers.pickles import read_pickle
from crossmodal.errors import UserError
from crossmodal.files import digest
from crossmodal.tasks.base import About, Options, RawTask, register
from crossmodal.tasks.nas_bench_360 import _public

SIDE, MARGIN = 512, 5
LONGEST = SIDE - 2 * MARGIN  # of a longer protein the first so many residues are taken
VALIDATION = 100
FARTHEST = 16.0  # angstrom, in targets that are learned from
MIDDLE = 12.0  # of these, about
# Of a protein of length L; what is of single residues becomes two maps, of the column's residue and of the row's.
SINGLE = {"ss": 3, "pssm": 22, "sa": 1, "entropy": 1}
PAIRS = ("ccmpred", "freecon", "potential")
SINGLE_MAPS = tuple(
    f"{name} {number} of the {axis}"
    for name, count in SINGLE.items()
    for number in range(count)
    for axis in ("column", "row")
)
CHANNELS = len(SINGLE_MAPS) + len(PAIRS)
FILES = tuple(
    _public.remote(f"protein/{path}", "protein.zip", 1_100_000_000, "protein")
    for part in ("deepcov", "psicov")
    for path in (f"{part}.lst", f"{part}/features", f"{part}/distance")
)


@register(
    "psicov",
    "proteins (57 x 512 x 512 maps of pairs of residues): their distances; 3356 train, 100 validation, 150 test (NAS-Bench-360)",
    protocols=_public.PROTOCOLS,
    files=FILES,
)
def psicov(options: Options) -> RawTask:
    """100 of the training proteins, or of fewer than 1000 a tenth, validate. Only pairs within the protein count."""
    folder = options.data_dir / "protein"
    learned, tested = (_Proteins(folder, part) for part in ("deepcov", "psicov"))
    released = options.protocol == "released"
    if released:
        trained, validating = learned, tested
    else:
        held = min(max(len(learned.names) // 10, 1), VALIDATION)
        rows = np.random.default_rng(0).permutation(len(learned.names))
        validating, trained = learned.some(rows[:held]), learned.some(np.sort(rows[held:]))
    cut = f"mae_8_cut_{tested.lengths[0]}"
    notes = (
        _public.TEST_VALIDATES,
        f"released: {cut} looks at the first {tested.lengths[0]} residues of every protein, the length of the first one, and at "
        "3/4 of the lower triangle and 1/4 of the upper, not at their mean.",
        f"released: the head starts at distances of 0, not of {MIDDLE:g} angstrom.",
    )
    return RawTask(
        kind="dense",
        **trained.arrays("train", FARTHEST),
        **validating.arrays("val", FARTHEST),
        **tested.arrays("test"),
        origin=str(folder),
        notes=(
            f"distances beyond {FARTHEST:g} angstrom are learned and validated as {FARTHEST:g}.",
            *learned.notes,
            *tested.notes,
            *(notes if released else ()),
        ),
        loss="mse",
        metrics=(cut, "mae_8") if released else ("mae_8", "mae"),
        normalize_x="none",
        normalize_y="none",
        level=0.0 if released else MIDDLE,
        about=About(features=(*SINGLE_MAPS, *PAIRS), targets=("distance",)),
    )


class _Proteins:
    """Those of a list.

    names: of their files. notes: sentences on the list. lengths: in residues, and hashes: of the two files, as they are known
    once all have been looked at.
    """

    def __init__(self, folder: Path, part: str) -> None:
        path, self.folder = folder / f"{part}.lst", folder / part
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except UnicodeDecodeError:
            raise UserError(f"{path}: expected a text file with the name of a protein on each line") from None
        listed = [line.split()[0] for line in lines if line.strip()]
        self.names = list(dict.fromkeys(listed))
        again = len(listed) - len(self.names)
        self.notes = (f"{path.name} lists {again} of its proteins again, and each is taken once.",) if again else ()
        least = 2 if part == "deepcov" else 1
        if len(self.names) < least:
            raise UserError(f"{path}: expected at least {least} proteins, got {len(self.names)}")
        files = [(name, file) for name in self.names for file in (self.features(name), self.distances(name))]
        for name, file in files:
            if name != Path(name).name or not file.is_file():
                raise UserError(f"{path} lists {name!r}, but there is no file {file}")
        measured = _public.measured(folder / f"{part}.lengths.npy", [file for _, file in files], self._measure)
        self.lengths, self.hashes = np.array(measured["length"]), np.array(measured["hash"])

    def features(self, name: str) -> Path:
        return self.folder / "features" / f"{name}.pkl"

    def distances(self, name: str) -> Path:
        return self.folder / "distance" / f"{name}-cb.npy"

    def _measure(self, new: New) -> None:
        """Reads all files once: what is wrong with one is told before anything is learned."""
        found = []
        for name in tqdm(self.names, unit=" proteins"):
            features, distances = self.features(name), self.distances(name)
            length = _features(features)[0].shape[1]
            _distances(distances, length)
            found.append((length, digest(features) + digest(distances)))
        new((len(found),), [("length", np.int64), ("hash", "S128")])[:] = found

    def some(self, rows: np.ndarray) -> _Proteins:
        """Those of the proteins."""
        other = object.__new__(_Proteins)
        other.folder, other.names = self.folder, [self.names[row] for row in rows]
        other.lengths, other.hashes = self.lengths[rows], self.hashes[rows]
        return other

    def arrays(self, part: str, farthest: float | None = None) -> dict[str, Rows]:
        """Inputs, targets and masks of a part of a task."""
        sha = hashlib.sha256(self.hashes.tobytes()).hexdigest()
        made = {
            "x": (self._x, CHANNELS, np.float32),
            "y": (partial(self._y, farthest=farthest), 1, np.float32),
            "mask": (self._mask, 1, np.bool_),
        }
        return {
            f"{name}_{part}": Rows(len(self.names), read, (channels, SIDE, SIDE), dtype, f"{name} {farthest} {sha}")
            for name, (read, channels, dtype) in made.items()
        }

    def _x(self, row: int) -> np.ndarray:
        single, pairs = _features(self.features(self.names[row]))
        length = min(single.shape[1], LONGEST)
        x = np.zeros((CHANNELS, SIDE, SIDE), np.float32)
        inner = x[:, MARGIN : MARGIN + length, MARGIN : MARGIN + length]
        count = len(single)
        inner[0 : 2 * count : 2] = single[:, None, :length]
        inner[1 : 2 * count : 2] = single[:, :length, None]
        inner[2 * count :] = pairs[:, :length, :length]
        return x

    def _y(self, row: int, farthest: float | None) -> np.ndarray:
        distances = _distances(self.distances(self.names[row]), int(self.lengths[row]))[:LONGEST, :LONGEST]
        y = np.zeros((1, SIDE, SIDE), np.float32)
        y[0, MARGIN : MARGIN + len(distances), MARGIN : MARGIN + len(distances)] = np.minimum(
            distances, np.inf if farthest is None else farthest
        )
        return y

    def _mask(self, row: int) -> np.ndarray:
        last = MARGIN + min(int(self.lengths[row]), LONGEST)
        mask = np.zeros((1, SIDE, SIDE), np.bool_)
        mask[:, MARGIN:last, MARGIN:last] = True
        return mask


def _features(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """What is known of single residues (27, L) and of pairs (3, L, L), float32."""
    found = read_pickle(path)
    length = len(found["seq"]) if isinstance(found, dict) and isinstance(found.get("seq"), str | list) else None
    shapes: dict[str, tuple[int | None, ...]] = {"ss": (3, length), "pssm": (length, 22), "sa": (length,)}
    shapes |= {"entropy": (length,)} | dict.fromkeys(PAIRS, (length, length))
    if length is None:
        raise UserError(f"{path}: expected a dictionary with a sequence under 'seq'")
    values = {
        key: _finite(contents.array(value, f"{path}: {key}", shapes[key]), f"{path}: {key}")
        for key, value in contents.entries(found, path, shapes).items()
    }
    values["pssm"] = values["pssm"].T
    single = np.concatenate([np.atleast_2d(values[name]) for name in SINGLE])
    return single, np.stack([values[name] for name in PAIRS])


def _distances(path: Path, length: int) -> np.ndarray:
    """Distances (L, L) of at least 1 angstrom, float32; on the diagonal the mean of what is beside it."""
    found: Any = read_pickle(path)
    if not isinstance(found, tuple | list | np.ndarray) or len(found) != 3:
        raise UserError(f"{path}: expected a length, a sequence and a map of distances")
    distances = np.maximum(_finite(contents.array(found[2], f"{path}: map", (length, length)), f"{path}: map"), 1)
    beside = np.diagonal(distances, 1)
    before, after = np.append(beside[:1], beside), np.append(beside, beside[-1:])
    np.fill_diagonal(distances, (before + after) / 2)
    return distances


def _finite(values: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{name}: holds NaN or infinity, or what is infinite in float32")
    return values
