"""Flow through a porous medium, -div(a grad u) = f on the unit square: PDEBench's, and that of the FNO paper."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy import fft, sparse
from scipy.interpolate import RectBivariateSpline
from scipy.sparse.linalg import splu

from crossmodal.pde.base import Equation, Generators, register
from crossmodal.pde.initial import EDGE

FORCE = 0.1
LOW, HIGH = 0.1, 1.0
BUMPS = 5
END, STEP = 1.75, 0.025  # of the transient
FNO_LOW, FNO_HIGH = 3.0, 12.0


def operator(a: np.ndarray, width: float) -> sparse.csc_matrix:
    """-div(a grad) by the five-point scheme with the mean of a at the faces, `(R R, R R)`.

    Args:
        a: of the cells and one ring of ghosts, `(R + 2, R + 2)`; u is 0 in the ghosts.
        width: of a cell.
    """
    size = a.shape[0] - 2
    inner = a[1:-1, 1:-1]
    north, south = 0.5 * (inner + a[:-2, 1:-1]), 0.5 * (inner + a[2:, 1:-1])
    west, east = 0.5 * (inner + a[1:-1, :-2]), 0.5 * (inner + a[1:-1, 2:])
    beside = east.copy()
    beside[:, -1] = 0  # the last cell of a row and the first of the next one are no neighbours
    beside = beside.ravel()[:-1]
    below = south.ravel()[:-size]
    diagonals = [(north + south + west + east).ravel(), -beside, -beside, -below, -below]
    return sparse.diags(diagonals, [0, 1, -1, size, -size], format="csc") / width**2


def permeability(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """1 where a sum of five bumps exceeds its own mean, 0.1 elsewhere, `(R, R)`.

    PDEBench compares with the mean over the 200 samples that it draws together; here each sample is its own.
    """
    centre, spread = rng.uniform(0, 1, (2, BUMPS)), 0.5 * rng.uniform(0, 1, BUMPS)
    bumps = sum(np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / s) for cx, cy, s in zip(*centre, spread, strict=True))
    return np.where(bumps > bumps.mean(), HIGH, LOW)


def rough_state(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the transient starts: u0 + d f / mean |f| with random waves f, of half the samples within a window alone, `(R, R)`.

    The window is 0.45 wide, from 0.1 + 0.35 w on, and w < 0.5 along x is also what decides about it.
    """
    field = np.zeros_like(x)
    for i in range(-4, 5):
        for j in range(-4, 5):
            if i and j:
                phase = rng.uniform(0, 2 * np.pi)
                field += np.hypot(i, j) ** -0.5 * np.sin(2 * np.pi * (i * x + j * y) + phase)
    level, size = rng.uniform(0.1, 10), rng.uniform(0.01, 0.5)
    field *= size / np.abs(field).mean()
    places = rng.uniform(0, 1, 2)
    if places[0] < 0.5:
        for positions, left in zip((x, y), 0.1 + 0.35 * places, strict=True):
            field *= 0.5 * (np.tanh((positions - left) / EDGE) - np.tanh((positions - left - 0.45) / EDGE))
    return level + field


def march(matrix: sparse.csc_matrix, u: np.ndarray, force: float, end: float, step: float) -> np.ndarray:
    """u_t = force - A u until `end`, by the two-stage implicit Runge-Kutta method of order 2 that damps all it cannot follow."""
    gamma = 1 - np.sqrt(0.5)
    factor = splu(sparse.identity(len(u), format="csc") + gamma * step * matrix)
    for _ in range(round(end / step)):
        first = factor.solve(force - matrix @ u)
        second = factor.solve(force - matrix @ (u + (1 - gamma) * step * first))
        u = u + step * ((1 - gamma) * first + gamma * second)
    return u


@register
class Darcy(Equation):
    """The steady state, by a sparse factorisation."""

    name = "darcy"
    description = "Darcy flow, beta 0.1: permeability to pressure, steady, or at t = 1.75 as in PDEBench's file"
    resolution = 128
    batch = 10
    axes = ((0.0, 1.0), (0.0, 1.0))
    facts: ClassVar = {
        "equation": "-div(a grad u) = beta",
        "beta": FORCE,
        "boundary": "u = 0 in the cells around the square, where a continues",
        "scheme": "five-point finite volumes, mean of a at the faces, sparse LU",
    }

    def state(self, matrix: sparse.csc_matrix, rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The field that is stored, `(R R,)`, for the operator `(R R, R R)`; x and y are the centres of the cells, `(R, R)`."""
        return splu(matrix).solve(np.full(matrix.shape[0], FORCE))

    def solve(self, rngs: Generators, resolution: int) -> dict[str, np.ndarray]:
        x, y = np.meshgrid(*self.coordinates(resolution), indexing="ij")
        fields, media = [], []
        for rng in rngs:
            a = permeability(rng, x, y)
            matrix = operator(np.pad(a, 1, mode="edge"), 1.0 / resolution)
            media.append(a)
            fields.append(self.state(matrix, rng, x, y).reshape(a.shape))
        return {"tensor": np.stack(fields)[:, None], "nu": np.stack(media)}


class TransientDarcy(Darcy):
    """What PDEBench stores: a rough state that has flowed until t = 1.75 and need not have settled."""

    facts = Darcy.facts | {
        "equation": "u_t = div(a grad u) + beta, from a random state",
        "time": END,
        "start": "a level, and waves around it, of half the samples within a window alone",
        "scheme": f"five-point finite volumes, mean of a at the faces; two-stage implicit Runge-Kutta, steps of {STEP}",
    }

    def state(self, matrix: sparse.csc_matrix, rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return march(matrix, rough_state(rng, x, y).ravel(), FORCE, END, STEP)


def gaussian_field(rng: np.random.Generator, size: int) -> np.ndarray:
    """A Gaussian random field with covariance 9 (9 - Laplacian)^-2 and no flux through the edges, `(size, size)`."""
    k = np.pi * np.arange(size)
    spectrum = size * 3.0 / (k[:, None] ** 2 + k**2 + 9.0) * rng.standard_normal((size, size))
    spectrum[0, 0] = 0
    return fft.idctn(spectrum, norm="ortho")


@register
class DarcyFlow(Equation):
    """The two-phase medium of the FNO paper (Li et al., ICLR 2021), on which NAS-Bench-360's task rests: 12 where a Gaussian
    field is positive, 3 elsewhere, and a unit force.

    As in its authors' generator the medium is drawn at the centres of the cells, carried to their corners by splines, solved
    there, and carried back.
    """

    name = "darcy_flow"
    description = "the FNO paper's Darcy flow in its MATLAB layout, for NAS-Bench-360"
    layout = "mat"
    resolution = 421
    batch = 4
    axes = ((0.0, 1.0), (0.0, 1.0))
    facts: ClassVar = {
        "equation": "-div(a grad u) = 1",
        "boundary": "u = 0",
        "scheme": "five-point finite differences on the nodes, mean of a at the faces, sparse LU, cubic splines",
    }

    def solve(self, rngs: Generators, resolution: int) -> dict[str, np.ndarray]:
        centres, nodes = self.coordinates(resolution)[0], np.linspace(0, 1, resolution)
        media, fields = [], []
        for rng in rngs:
            a = np.where(gaussian_field(rng, resolution) >= 0, FNO_HIGH, FNO_LOW)
            at_nodes = RectBivariateSpline(centres, centres, a)(nodes, nodes)
            u = np.zeros_like(a)
            matrix = operator(at_nodes, nodes[1])
            u[1:-1, 1:-1] = splu(matrix).solve(np.ones(matrix.shape[0])).reshape(resolution - 2, resolution - 2)
            media.append(a)
            fields.append(RectBivariateSpline(nodes, nodes, u)(centres, centres))
        return {"coeff": np.stack(media), "sol": np.stack(fields)}
