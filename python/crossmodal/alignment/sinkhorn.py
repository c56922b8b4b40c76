"""Entropic optimal transport between groups of points, all pairs of groups at once (Cuturi 2013; Feydy et al. 2019).

Between two measures with weights a, b and costs C

    OT_e = max over f, g of <a, f> + <b, g>,    f_i = -e log sum_j b_j exp((g_j - C_ij) / e),    g likewise,

and the debiased divergence is OT_e(a, b) - OT_e(a, a) / 2 - OT_e(b, b) / 2. All of it is float64: a divergence is a small
difference of large numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

ANNEALING = 0.25  # Factor from each temperature to the next, from the greatest cost down to e.
RELAXATION = 1.7  # Of the steps at e itself; over-relaxed they converge several times faster (Thibault et al. 2021).
# Steps end when they change no potential by more than this part of e: when the rows of the plan add up to their weights so far.
# The value is exact to second order, and needs less.
EXACT, VALUE = 1e-4, 1e-3
MOST_STEPS = 500  # At e; where they do not suffice, OT_e is what they came to, from below.
CHUNK = 2**21  # Numbers of a cost matrix that are worked on at a time.


@dataclass(frozen=True, eq=False)
class Groups:
    """How points, in their order, fall into groups.

    Attributes:
        sizes: points in each group.
        weights: float64 (n,), positive; those of a group add up to 1.
    """

    sizes: list[int]
    weights: Tensor

    @cached_property
    def index(self) -> Tensor:
        """The group of each point, int64 (n,)."""
        sizes = torch.tensor(self.sizes, device=self.weights.device)
        return torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)

    def blocks(self, values: Tensor) -> list[Tensor]:
        """Of values (n, n) those within each group."""
        rows = values.split(self.sizes)
        return [row.split(self.sizes, dim=1)[group] for group, row in enumerate(rows)]

    def mean(self, values: Tensor) -> Tensor:
        """Of values (n, k) the weighted mean over each group: (groups, k)."""
        return torch.stack([part.sum(0) for part in (self.weights[:, None] * values).split(self.sizes)])


def transport(
    cost: Tensor, rows: Groups, columns: Groups, epsilon: float, tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """OT_e of every group of rows with every group of columns.

    Args:
        cost: float64 (n, m).
        rows, columns: how the n rows fall into G groups, and the m columns into H.
        epsilon: e, in the unit of the costs.
        tolerance: `EXACT` where the potentials count, `VALUE` where OT_e alone does.

    Returns:
        OT_e, float64 (G, H); potentials (n, H), of each row against each group of columns, and (m, G).
    """
    transposed = cost.T.contiguous()

    def of_rows(g: Tensor, e: float) -> Tensor:
        return _softmin(cost, rows, g, columns, e)

    def of_columns(f: Tensor, e: float) -> Tensor:
        return _softmin(transposed, columns, f, rows, e)

    temperatures = _temperatures(cost.max().item(), epsilon)
    f = of_rows(cost.new_zeros(len(columns.weights), len(rows.sizes)), temperatures[0])
    g = of_columns(cost.new_zeros(len(rows.weights), len(columns.sizes)), temperatures[0])
    # Both sides alike down to e: of two equal measures the potentials stay equal, and their divergence is zero.
    for e in temperatures:
        f, g = (f + of_rows(g, e)) / 2, (g + of_columns(f, e)) / 2
    for _ in range(MOST_STEPS):
        change = of_rows(g, epsilon) - f
        if change.abs().max() <= tolerance * epsilon:
            break
        f = f + RELAXATION * change
        g = g + RELAXATION * (of_columns(f, epsilon) - g)
    f = of_rows(g, epsilon)
    g = of_columns(f, epsilon)
    return rows.mean(f) + columns.mean(g).T, f, g


def self_transport(cost: Tensor, groups: Groups, epsilon: float) -> tuple[Tensor, Tensor]:
    """OT_e of every group with itself, where one potential is both.

    Args:
        cost: float64 (n, n).
        groups, epsilon: see `transport`.

    Returns:
        OT_e, float64 (G,); the potential (n,).
    """
    potentials = []
    for block, weights in zip(groups.blocks(cost), groups.weights.split(groups.sizes), strict=True):
        alone = Groups([len(block)], weights)
        potential = block.new_zeros(len(block), 1)
        temperatures = _temperatures(block.max().item(), epsilon)
        for e in temperatures + [epsilon] * MOST_STEPS:
            change = _softmin(block, alone, potential, alone, e) - potential
            potential = potential + change / 2  # the averaged step, which converges in a few
            if e == epsilon and change.abs().max() <= EXACT * epsilon:
                break
        potentials.append(potential)
    potential = torch.cat(potentials)
    return 2 * groups.mean(potential).squeeze(1), potential.squeeze(1)


def plan(cost: Tensor, f: Tensor, g: Tensor, rows: Groups, columns: Groups, epsilon: float) -> Tensor:
    """What goes from each row to each column between their groups, float64 (n, m), by the potentials of `transport`."""
    exponents = (f[:, columns.index] + g[:, rows.index].T - cost) / epsilon
    return torch.outer(rows.weights, columns.weights) * exponents.exp()


def _temperatures(greatest: float, epsilon: float) -> list[float]:
    falling = [max(greatest, epsilon)]
    while falling[-1] > epsilon:
        falling.append(max(falling[-1] * ANNEALING, epsilon))
    return falling


def _softmin(cost: Tensor, rows: Groups, potential: Tensor, columns: Groups, e: float) -> Tensor:
    """-e log sum_j b_j exp((g_j - C_ij) / e) over each group of columns: (n, H), from their potentials (m, G)."""
    heights = (potential / e + columns.weights.log()[:, None]).T  # (G, m)
    size = max(1, CHUNK // cost.shape[1])
    chunks = []
    for part, of in zip(cost.split(size), rows.index.split(size), strict=True):
        exponents = heights[of].sub_(part, alpha=1 / e)
        chunks.append(torch.stack([one.logsumexp(1) for one in exponents.split(columns.sizes, dim=1)], dim=1))
    return -e * torch.cat(chunks)
