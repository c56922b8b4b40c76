"""The shallow-water equations over a flat bed: a dam of round shape breaks."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from crossmodal.pde.base import Equation, Generators, register
from crossmodal.pde.finite_volumes import faces, march
from crossmodal.pde.initial import column

GRAVITY = 1.0
CFL = 0.4
SIDE = 5.0


def flux(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Flux through faces across the first velocity, by the HLL solver with a contact for the second (HLLC).

    Args:
        left, right: depth, velocity across and velocity along the face, `(3, n, ...)`.

    Returns:
        Of mass and both momenta, `(3, n, ...)`.
    """
    (hl, ul, vl), (hr, ur, vr) = left, right
    cl, cr = np.sqrt(GRAVITY * hl), np.sqrt(GRAVITY * hr)
    slowest = np.minimum(np.minimum(ul - cl, ur - cr), 0)
    fastest = np.maximum(np.maximum(ul + cl, ur + cr), 0)

    def average(flux_left, flux_right, jump):
        return (fastest * flux_left - slowest * flux_right + slowest * fastest * jump) / (fastest - slowest)

    mass = average(hl * ul, hr * ur, hr - hl)
    across = average(hl * ul**2 + GRAVITY / 2 * hl**2, hr * ur**2 + GRAVITY / 2 * hr**2, hr * ur - hl * ul)
    return np.stack([mass, across, mass * np.where(mass > 0, vl, vr)])


def rate(state: np.ndarray, width: float) -> np.ndarray:
    """Rates of depth and momenta, `(n, 3, R, R)`; the water runs out freely at the edges."""
    depth = state[:, 0]
    cells = np.stack([depth, state[:, 1] / depth, state[:, 2] / depth])
    total = 0.0
    for axis, order in ((-2, [0, 1, 2]), (-1, [0, 2, 1])):  # across comes first, along second
        ghosts = [(0, 0)] * cells.ndim
        ghosts[axis] = (2, 2)
        left, right = faces(np.pad(cells[order], ghosts, mode="edge"), axis)
        total = total - np.diff(flux(left, right), axis=axis)[order] / width
    return total.swapaxes(0, 1)


def step(state: np.ndarray, dt: np.ndarray, width: float) -> np.ndarray:
    """The state `(n, 3, R, R)` after steps of `(n,)`, by Heun's method: what is positive stays so under the CFL condition."""
    dt = column(dt, 4)
    ahead = state + dt * rate(state, width)
    return 0.5 * (state + ahead + dt * rate(ahead, width))


def solve(depth: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Frames of depth and momenta, `(frames, n, 3, R, R)`, from water at rest of that depth, `(n, R, R)`."""
    width = SIDE / depth.shape[-1]
    state = np.stack([depth, np.zeros_like(depth), np.zeros_like(depth)], axis=1)

    def largest(state):
        speed = np.abs(state[:, 1:] / state[:, :1]).max(axis=1) + np.sqrt(GRAVITY * state[:, 0])
        return CFL * width / speed.max(axis=(1, 2))

    return march(state, times, lambda s, dt: step(s, dt, width), largest)


@register
class ShallowWater(Equation):
    """The depth is 2 inside a circle of random radius, 1 outside; in cells that the rim cuts, between them.

    PDEBench's formula goes by the centres of cells instead, which knows only 81 such states on 128 x 128 cells: of its 1000 samples
    most would be copies of others, test samples of training samples.
    """

    name = "shallow_water"
    description = "shallow water: a round dam breaks"
    layout = "groups"
    resolution = 128
    batch = 2
    axes = ((-SIDE / 2, SIDE / 2), (-SIDE / 2, SIDE / 2))
    times = np.linspace(0, 1, 101)
    facts: ClassVar = {
        "equation": "shallow water over a flat bed",
        "g": GRAVITY,
        "boundary": "free outflow",
        "initial": "depth 2 inside a circle, 1 outside, between them in cells that the rim cuts",
        "scheme": f"finite volumes, MUSCL (van Leer), HLLC, Heun, CFL {CFL}",
    }

    def solve(self, rngs: Generators, resolution: int) -> dict[str, np.ndarray]:
        x, y = np.meshgrid(*self.coordinates(resolution), indexing="ij")
        radius = np.array([rng.uniform(0.3, 0.7) for rng in rngs])
        inside = (
            column(radius, 3) - np.hypot(x, y)
        ) * resolution / SIDE + 0.5  # share of a cell, by its distance from the rim
        depth = 1 + inside.clip(0, 1)
        frames = solve(depth, self.times)
        return {"data": frames[:, :, 0].swapaxes(0, 1)[..., None]}
