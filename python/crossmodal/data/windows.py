"""Windows of recordings, of one length and rate."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial

import numpy as np
from scipy.signal import resample_poly

from crossmodal.data.arrays import Rows, free_memory
from crossmodal.data.dataset import ArrayLike
from crossmodal.data.derived import New, derived
from crossmodal.data.numeric import float_dtype
from crossmodal.data.readers.recordings import Recording
from crossmodal.errors import UserError
from crossmodal.files import digest

FINEST = 1000  # greatest denominator of a ratio of rates
Load = Callable[[], np.ndarray]


def ratio(new: float, old: float) -> Fraction:
    """By which the number of values grows from the old rate to the new."""
    return (Fraction(new).limit_denominator(10**6) / Fraction(old).limit_denominator(10**6)).limit_denominator(FINEST)


def at_rate(values: np.ndarray, grow: Fraction) -> np.ndarray:
    """Values (C, n) at another rate, (C, ceil(n * grow)), by a polyphase filter that takes away what the new rate cannot hold.

    What lies beyond the ends is taken for the line from the first value to the last, not for zero, which would ring.
    """
    if grow == 1:
        return values
    return resample_poly(
        values.astype(float_dtype(values.dtype)), grow.numerator, grow.denominator, axis=1, padtype="line"
    )


def loaded(recording: Recording, grow: Fraction) -> np.ndarray:
    """All values of a recording at the common rate, (C, n), floating point.

    Raises:
        UserError: a value is not finite; names file, channel and place.
    """
    values = recording.load()
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        channel, place = (int(i) for i in np.argwhere(~finite)[0])
        raise UserError(
            f"{recording.path}: channel {recording.channels[channel]!r} holds {values[channel, place]} at place {place}; "
            "start and stop in an index cut a piece without it out, --table.ignore leaves the channel out"
        )
    return at_rate(values, grow)


def cut(
    recordings: Sequence[Recording],
    grows: Sequence[Fraction],
    of: np.ndarray,
    starts: np.ndarray,
    length: int,
    look: Callable[[int, np.ndarray], None],
    copies: bool = True,
) -> ArrayLike:
    """Windows of recordings (n, C, length), in memory where they fit, else read as they are needed.

    Args:
        recordings: with the same channels.
        grows: the ratio of the common rate to that of each.
        of: int64 (n,), the recording of each window.
        starts: int64 (n,), where it begins, at the common rate.
        length: values of a channel in it.
        look: is shown the number and the values (C, m) of every recording, each once.
        copies: of what does not fit into memory, keep files beside the recordings that can be mapped; else a recording is read
            anew whenever another one was read before it.

    Raises:
        UserError: see `loaded`; every value is looked at before this returns.
    """
    shape = (len(recordings[0].channels), length)
    held: dict[int, np.ndarray] = {}
    size, most, dtype = 0, free_memory() // 4, np.dtype(np.float32)
    for number, (recording, grow) in enumerate(zip(recordings, grows, strict=True)):
        values = loaded(recording, grow)
        look(number, values)
        dtype = np.result_type(dtype, float_dtype(values.dtype))
        size += values.nbytes
        if size <= most:
            held[number] = values
    if len(of) * math.prod(shape) * (dtype.itemsize + 4) <= 2 * most:  # with the normalised copy
        found = np.empty((len(of), *shape), dtype)
        for number in np.unique(of):
            values = held.pop(number, None)
            values = loaded(recordings[number], grows[number]) if values is None else values
            for row in np.flatnonzero(of == number):
                found[row] = values[:, starts[row] : starts[row] + length]
        return found
    held.clear()
    if copies:
        loads = [_mapped(recording, grow, dtype) for recording, grow in zip(recordings, grows, strict=True)]
    else:
        one = functools.lru_cache(maxsize=1)(lambda number: loaded(recordings[number], grows[number]))
        loads = [partial(one, number) for number in range(len(recordings))]
    sha = hashlib.sha256(of.tobytes() + starts.tobytes())
    for recording in recordings:
        sha.update(digest(recording.path).encode())
    return Rows(len(of), partial(_window, loads, of, starts, length), shape, dtype, sha.hexdigest())


def _mapped(recording: Recording, grow: Fraction, dtype: np.dtype) -> Load:
    """The values of a recording in a file that can be mapped: its own, or one that is made of it once."""
    if recording.path.suffix.lower() == ".npy" and grow == 1:
        return recording.load

    def make(new: New) -> None:
        values = loaded(recording, grow)
        new(values.shape, dtype)[...] = values

    # Runs that read it in another way have files of their own: this one is opened by its name.
    way = {"channels": recording.channels, "grow": str(grow), "version": 1}
    name = f".{recording.path.name}.{hashlib.sha256(json.dumps(way).encode()).hexdigest()[:8]}.npy"
    made = derived(recording.path.with_name(name), way | {"file": digest(recording.path)}, make)
    return partial(np.load, made.filename, mmap_mode="r")


def _window(loads: Sequence[Load], of: np.ndarray, starts: np.ndarray, length: int, row: int) -> np.ndarray:
    return loads[of[row]]()[:, starts[row] : starts[row] + length]
