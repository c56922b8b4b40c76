"""The compressible Navier-Stokes equations in one dimension, on a ring."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from crossmodal.pde.base import Equation, Generators, register
from crossmodal.pde.finite_volumes import faces, march
from crossmodal.pde.initial import column, unit_range, waves

GAMMA = 5.0 / 3.0
ETA = ZETA = 0.1
VISCOSITY = 4.0 / 3.0 * ETA + ZETA  # times the density
CFL, DIFFUSION_NUMBER = 0.4, 0.4
LENGTH = 2.0
LOWEST = 1e-4  # of pressure and density: a floor that these initial states do not reach


def primitive(state: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Density, velocity and pressure of the conserved quantities `(n, 3, N)`: density, momentum, energy."""
    density = np.maximum(state[:, 0], LOWEST)
    velocity = state[:, 1] / density
    pressure = np.maximum((GAMMA - 1) * (state[:, 2] - 0.5 * density * velocity**2), LOWEST)
    return density, velocity, pressure


def conserved(density: np.ndarray, velocity: np.ndarray, pressure: np.ndarray) -> np.ndarray:
    """The inverse of `primitive`, `(n, 3, N)`."""
    return np.stack([density, density * velocity, pressure / (GAMMA - 1) + 0.5 * density * velocity**2], axis=1)


def hllc(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Flux through faces, `(n, 3, F)`, by the HLLC solver (Toro, chapter 10).

    Args:
        left, right: density, velocity and pressure on both sides, `(3, n, F)`.
    """
    (dl, ul, pl), (dr, ur, pr) = left, right
    cl, cr = np.sqrt(GAMMA * pl / dl), np.sqrt(GAMMA * pr / dr)
    slowest, fastest = np.minimum(ul - cl, ur - cr), np.maximum(ul + cl, ur + cr)
    ml, mr = dl * (slowest - ul), dr * (fastest - ur)
    contact = (pr - pl + ul * ml - ur * mr) / (ml - mr)
    flux = 0.0
    for (d, u, p), speed, mass, chosen in (
        (left, slowest, ml, contact >= 0),
        (right, fastest, mr, contact < 0),
    ):
        energy = p / (GAMMA - 1) + 0.5 * d * u * u
        plain = np.stack([d * u, d * u * u + p, (energy + p) * u], axis=1)
        star = mass / (speed - contact)
        beyond = speed >= 0 if speed is slowest else speed <= 0
        jump = np.stack(
            [
                speed * (star - d),
                speed * (star * contact - d * u),
                speed * (star * (energy / d + (contact - u) * (contact + p / mass)) - energy),
            ],
            axis=1,
        )
        flux = flux + np.where(chosen[:, None], plain + np.where(beyond[:, None], 0, jump), 0)
    return flux


def convection(state: np.ndarray, width: float) -> np.ndarray:
    """Rates `(n, 3, N)` of the inviscid part."""
    cells = np.stack(primitive(state))
    left, right = faces(np.concatenate([cells[..., -2:], cells, cells[..., :2]], axis=-1), axis=-1)
    return -np.diff(hllc(left, right)) / width


def friction(state: np.ndarray, width: float) -> np.ndarray:
    """Rates `(n, 3, N)` of the viscous part: what momentum loses to friction stays as heat."""
    density, momentum, _ = state.swapaxes(0, 1)
    velocity = momentum / density
    after = np.roll(velocity, -1, axis=-1)
    stress = VISCOSITY * 0.5 * (density + np.roll(density, -1, axis=-1)) * (after - velocity) / width
    work = 0.5 * (velocity + after) * stress
    rates = np.zeros_like(state)
    rates[:, 1] = (stress - np.roll(stress, 1, axis=-1)) / width
    rates[:, 2] = (work - np.roll(work, 1, axis=-1)) / width
    return rates


def rubbed(state: np.ndarray, dt: np.ndarray, parts: np.ndarray, width: float) -> np.ndarray:
    """The state `(n, 3, N)` after friction for `dt`, in so many `parts`, both `(n, 1, 1)`."""
    for part in range(int(parts.max())):
        state = state + np.where(part < parts, dt / parts, 0) * friction(state, width)
    return state


def step(state: np.ndarray, dt: np.ndarray, width: float) -> np.ndarray:
    """The state `(n, 3, N)` after steps of `(n,)`: half the friction, in as many parts as stability asks for, convection (Heun's
    method), and the other half."""
    dt = column(dt, 3)
    parts = np.maximum(1, np.ceil(dt / 2 * VISCOSITY / (DIFFUSION_NUMBER * width**2)))  # of each sample, (n, 1, 1)
    state = rubbed(state, dt / 2, parts, width)
    ahead = state + dt * convection(state, width)
    state = 0.5 * (state + ahead + dt * convection(ahead, width))
    return rubbed(state, dt / 2, parts, width)


@register
class NavierStokes1D(Equation):
    """Density and pressure start as m f + b with waves f like those of the velocity, scaled to [0, 1], and m and b log-uniform, in
    [1, 10] for the density and in [10, 100] for the pressure."""

    name = "navier_stokes_1d"
    description = "compressible Navier-Stokes on a ring: density, pressure, velocity"
    batch = 10
    axes = ((-1.0, 1.0),)
    times = np.linspace(0, 1, 101)
    facts: ClassVar = {
        "equation": "compressible Navier-Stokes, ideal gas, viscosities proportional to the density, no heat conduction",
        "eta": ETA,
        "zeta": ZETA,
        "gamma": GAMMA,
        "boundary": "periodic",
        "start": "m f + b of density and pressure, m and b log-uniform",
        "scheme": f"finite volumes, MUSCL (van Leer), HLLC, Heun, CFL {CFL}; friction split off, in as many parts as each needs",
    }

    def solve(self, rngs: Generators, resolution: int) -> dict[str, np.ndarray]:
        width = LENGTH / resolution
        x, grid = self.coordinates(resolution)[0][None], self.coordinates(self.resolution)[0][None]

        def positive(lowest: float) -> np.ndarray:
            """m f + b with f from 0 to 1, and m and b log-uniform in [lowest, 10 lowest]."""
            field = unit_range(waves(rngs, modes=3, windowed=0.5, length=LENGTH), grid)(x)
            drawn = lowest * 10.0 ** np.stack([rng.uniform(0, 1, 2) for rng in rngs])
            return drawn[:, :1] * field + drawn[:, 1:]

        density, pressure = positive(1.0), positive(10.0)
        velocity = waves(rngs, modes=3, windowed=0.5, length=LENGTH)(x)

        def largest(state):
            density, velocity, pressure = primitive(state)
            return CFL * width / (np.abs(velocity) + np.sqrt(GAMMA * pressure / density)).max(axis=-1)

        frames = march(conserved(density, velocity, pressure), self.times, lambda s, dt: step(s, dt, width), largest)
        values = [primitive(frame) for frame in frames]
        names = ("density", "Vx", "pressure")
        return {name: np.stack([value[i] for value in values], axis=1) for i, name in enumerate(names)}
