"""How cost grows: fitted exponents of time over N, k, B and D, one at a time, from the points of the "growth" suite.

`python -m benchmarks.run --suite growth` measures the points (they are part of the standard suite); this module fits them, and
`python -m benchmarks.plot` draws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.cases import SIZE_OF
from benchmarks.measure import honest_ms
from benchmarks.records import OK, Row


@dataclass(frozen=True)
class Curve:
    """time = a * size^exponent for one provider, forward and backward together.

    The exponent is fitted by least squares in the logarithms over the upper half of the sizes (at least three points), where the
    cost of the call itself no longer counts.
    """

    quantity: str
    provider: str
    sizes: tuple[int, ...]
    ms: tuple[float, ...]
    exponent: float


def curves(rows: Sequence[Row]) -> list[Curve]:
    """One curve per quantity and provider with at least three points."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.sweep and row.status == OK and row.family in ("ours", "paper", "rival"):
            groups.setdefault((row.sweep, row.provider), []).append(row)
    result = []
    for (quantity, provider), members in groups.items():
        points = sorted((getattr(row, SIZE_OF[quantity]), honest_ms(row)) for row in members)
        if len(points) >= 3:
            sizes, ms = zip(*points, strict=True)
            result.append(Curve(quantity, provider, sizes, ms, fit_exponent(sizes, ms)))
    return result


def fit_exponent(sizes: Sequence[float], ms: Sequence[float]) -> float:
    """Slope of log time over log size in the upper half of the points, at least three of them."""
    first = min(len(sizes) // 2, len(sizes) - 3)
    slope, _ = np.polyfit(np.log(sizes[first:]), np.log(ms[first:]), 1)
    return float(slope)


def summary(rows: Sequence[Row]) -> str:
    """One line per curve."""
    lines = []
    for curve in curves(rows):
        span = f"{curve.sizes[0]} to {curve.sizes[-1]}"
        lines.append(f"{curve.provider:22} time ~ {curve.quantity}^{curve.exponent:.2f}   ({curve.quantity} {span})")
    return "\n".join(lines)
