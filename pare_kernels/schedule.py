"""How many patches are replaced as training goes on: the only place where k is computed."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import SupportsIndex

from ._checks import as_int, check_int, check_word

KINDS = ("constant", "linear", "exponential", "piecewise")


@dataclass(frozen=True)
class ReplaceSchedule:
    """k as a function of training progress t in [0, 1], from `start` at t = 0 to `end` at t = 1: PaRe's walk to the target.

    constant:     k = start
    linear:       k = start + (end - start) t
    exponential:  k = start (end / start)^t; with end = 0 it falls towards one patch and is 0 at t = 1; from 0 it does not rise
                  before t = 1
    piecewise:    `steps` equal stretches of progress, each with its own constant k, evenly spaced from start to end

    Args:
        kind: one of those words.
        start, end: a number of patches (int), or a share of the patches at hand (float in [0, 1]): 32 is 32 patches, 1.0 is all, 1
            is one patch. `end` is not used by "constant".
        steps: how many stretches of "piecewise", >= 2.

    Raises:
        TypeError, ValueError: an argument out of its range; the message names it.
    """

    kind: str = "linear"
    start: int | float = 1.0
    end: int | float = 0
    steps: int = 4

    def __post_init__(self) -> None:
        check_word("kind", self.kind, KINDS)
        for name in ("start", "end"):
            given = getattr(self, name)
            value: int | float | None = as_int(given)
            if value is None and isinstance(given, numbers.Real) and not isinstance(given, bool):
                value = float(given)
            if value is None:
                raise TypeError(f"{name} must be an int (patches) or a float (share), got {type(given).__name__}")
            if isinstance(value, float) and not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} as a float is a share of the patches and must lie in [0, 1], got {value}")
            if value < 0:
                raise ValueError(f"{name} must be >= 0 patches, got {value}")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "steps", check_int("steps", self.steps, 2, None, "an int >= 2"))

    def __call__(self, progress: float, num_patches: SupportsIndex) -> int:
        """k at `progress` in [0, 1] with `num_patches` at hand (the smaller of target and source); 0 <= k <= num_patches."""
        if not 0.0 <= progress <= 1.0:
            raise ValueError(f"progress must lie in [0, 1], got {progress}")
        progress = float(progress)
        at_hand = check_int("num_patches", num_patches, 0, None, "an int >= 0")
        start, end = (value * at_hand if isinstance(value, float) else value for value in (self.start, self.end))
        if self.kind == "constant":
            k = start
        elif self.kind == "linear":
            k = start + (end - start) * progress
        elif self.kind == "exponential":
            k = end if progress == 1.0 else start * (max(end, 1.0) / start) ** progress if start >= 1.0 else 0.0
        else:
            piece = min(int(progress * self.steps + 1e-9), self.steps - 1)
            k = start + (end - start) * piece / (self.steps - 1)
        # Rounded down as in the paper's code; the small term keeps 1825 from becoming 1824.9999999999998.
        return max(0, min(math.floor(k + 1e-6), at_hand))
