"""What parts of the data share and should not: equal samples, nearly equal ones, windows of one stretch of a series."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from crossmodal.data import numeric
from crossmodal.data.dataset import ArrayDataset

MOST_COMPARED = 1000  # samples of a part whose distances to those of another are taken
NEAR = 0.02  # a distance is that of nearly equal samples below this share of the median distance
FEWEST_VALUES = 8  # of a sample, below which samples may be near one another by chance
SHORTEST = 16  # series in which overlaps are looked for
SHARED = 0.25  # least share of a window that is found in another


def overlaps(splits: Mapping[str, ArrayDataset], has_groups: bool) -> list[str]:
    """Warnings, in words; of splits whose samples are in memory, normalised.

    Equal samples are found by their bytes, nearly equal ones by their distance to the nearest of up to 1000 samples of the other
    part, windows that overlap by a quarter of their length or more by hashes of all stretches of that length.
    """
    filled = {part: split for part, split in splits.items() if split.in_memory and len(split)}
    hashes = {part: _bytes(split.x.numpy()) for part, split in filled.items()}
    samples = {part: _some(split) for part, split in filled.items()}
    notes = []
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if one not in filled or other not in filled:
            continue
        a, b = samples[one], samples[other]
        remedy = "" if has_groups else " If samples come from one recording or person, name it: `group`."
        equal = np.isin(hashes[other], hashes[one])
        if equal.any():
            notes.append(
                f"warning: {other} samples that are in the {one} part, too: {_of(equal, splits[other])}.{remedy}"
            )
            continue
        shared = _overlapping(a, b)
        if shared.any():
            notes.append(
                f"warning: {other} samples that hold the same stretch of a series as samples of the {one} part: "
                f"{_of(shared, splits[other])}.{remedy}"
            )
            continue
        near = _near(a.reshape(len(a), -1), b.reshape(len(b), -1))
        if near.any():
            notes.append(
                f"warning: {other} samples nearly equal to one of the {one} part (nearer than {NEAR:.0%} of the usual distance): "
                f"{_of(near, splits[other])}.{remedy}"
            )
    return notes


def _of(found: np.ndarray, split: ArrayDataset) -> str:
    looked = "" if len(found) == len(split) else " that were looked at"
    return f"{int(found.sum())} of {len(found)}{looked}"


def _some(split: ArrayDataset) -> np.ndarray:
    """Samples (m, C, ...) of a split."""
    x = split.x.numpy()
    most = max(numeric.CHUNK_VALUES // x[0].size, 1)
    return x if len(x) <= most else x[np.sort(np.random.default_rng(0).permutation(len(x))[:most])]


def _bytes(x: np.ndarray) -> np.ndarray:
    """A hash of the bits of each sample, uint64 (n,)."""
    factors, size = _factors(x[0].size), max(numeric.CHUNK_VALUES // 4 // x[0].size, 1)
    bits = (np.ascontiguousarray(x[start : start + size]).view(np.uint32) for start in range(0, len(x), size))
    return np.concatenate([(part.reshape(len(part), -1) * factors).sum(1, dtype=np.uint64) for part in bits])


def _factors(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 2**63, count, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def _overlapping(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which samples of b begin with what is somewhere in one of a, or hold what one of a begins with; bool (n,)."""
    if a.ndim != 3 or a.shape[2] < SHORTEST:
        return np.zeros(len(b), bool)
    (of_a, flat_a), (of_b, flat_b) = _stretches(a), _stretches(b)
    begins = np.isin(of_b[:, 0], of_a[:, 1:][~flat_a[:, 1:]]) & ~flat_b[:, 0]
    holds = np.isin(of_b[:, 1:], of_a[:, 0][~flat_a[:, 0]]) & ~flat_b[:, 1:]
    return begins | holds.any(1)


def _stretches(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the stretches that begin at each place, uint64 (n, places), and whether nothing changes in them.

    The hash is a polynomial in the bits of the values, modulo 2^64, and of a stretch the difference of two of its beginnings.
    """
    size = max(int(SHARED * x.shape[2]), FEWEST_VALUES)
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    values = (bits * _factors(x.shape[1])[:, None]).sum(1, dtype=np.uint64)
    base, prefix = np.uint64(0x9E3779B97F4A7C15), np.zeros((len(x), x.shape[2] + 1), np.uint64)
    with np.errstate(over="ignore"):
        power = np.uint64(1)
        for place in range(x.shape[2]):
            prefix[:, place + 1] = prefix[:, place] * base + values[:, place]
            power = power * base if place < size else power
        hashes = prefix[:, size:] - prefix[:, :-size] * power
    steps = np.cumsum(np.pad(values[:, 1:] != values[:, :-1], ((0, 0), (1, 0))), axis=1)
    return hashes, steps[:, size - 1 :] == steps[:, : steps.shape[1] - size + 1]


def _near(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which samples of b, (n, F), lie next to one of a; bool, of up to 1000 of them."""
    if a.shape[1] < FEWEST_VALUES:
        return np.zeros(len(b), bool)
    rng = np.random.default_rng(0)
    a, b = (x[np.sort(rng.permutation(len(x))[:MOST_COMPARED])].astype(np.float32) for x in (a, b))
    centre = a.mean(0)
    a, b = a - centre, b - centre
    squares = np.square(b).sum(1)[:, None] + np.square(a).sum(1) - 2 * (b @ a.T)
    return squares.min(1) < NEAR**2 * np.median(squares)
