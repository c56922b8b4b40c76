"""Diffusion with a reaction: a logistic one on a ring, and FitzHugh and Nagumo's on a square."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy import fft

from crossmodal.pde.base import Equation, Generators, at_centres, register
from crossmodal.pde.initial import unit_range, waves

NU, RHO = 0.5, 1.0
POINTS = 512


def logistic(u: np.ndarray, t: float) -> np.ndarray:
    """u' = rho u (1 - u) after a time t, exactly."""
    return u / (u + (1 - u) * np.exp(-RHO * t))


def solve_1d(u: np.ndarray, times: np.ndarray, steps: int) -> np.ndarray:
    """Strang splitting: half a reaction, a diffusion, half a reaction, each exact.

    Args:
        u: initial state on the points j / N, `(n, N)`.
        times: of the frames, equally spaced from 0.
        steps: from one frame to the next.

    Returns:
        `(n, frames, N)`.
    """
    dt = (times[1] - times[0]) / steps
    wave = 2 * np.pi * np.arange(u.shape[1] // 2 + 1)
    decay = np.exp(-NU * wave**2 * dt)
    frames = [u]
    for _ in times[1:]:
        for _ in range(steps):
            u = logistic(u, dt / 2)
            u = fft.irfft(decay * fft.rfft(u), u.shape[1])
            u = logistic(u, dt / 2)
        frames.append(u)
    return np.stack(frames, axis=1)


@register
class DiffusionReaction1D(Equation):
    """Initial states run from 0 to 1, where logistic growth is defined."""

    name = "diffusion_reaction_1d"
    description = "diffusion with logistic growth on a ring"
    times = np.linspace(0, 1, 101)
    facts: ClassVar = {
        "equation": "u_t = nu u_xx + rho u (1 - u)",
        "nu": NU,
        "rho": RHO,
        "boundary": "periodic",
        "scheme": f"Strang splitting, exact parts, Fourier on {POINTS} points, 8 steps per frame",
    }

    def solve(self, rngs: Generators, resolution: int) -> dict[str, np.ndarray]:
        states = unit_range(waves(rngs), self.coordinates(self.resolution)[0][None])
        frames = solve_1d(states(np.arange(POINTS)[None] / POINTS), self.times, 8)
        frames = at_centres(fft.rfft(frames), POINTS, resolution)
        frames[:, 0] = states(self.coordinates(resolution)[0][None])
        return {"tensor": frames}


DU, DV, K = 1e-3, 5e-3, 5e-3


def reaction(state: np.ndarray) -> np.ndarray:
    """Rates of u and v, `(2, ...)`."""
    u, v = state
    return np.stack([u - u * u * u - K - v, u - v])  # a power takes ten times as long


def solve_2d(state: np.ndarray, times: np.ndarray, steps: int, length: float) -> np.ndarray:
    """Strang splitting: the five-point Laplacian without flux through the edges, exact by cosine transforms, and the reaction by
    fourth-order Runge-Kutta.

    Args:
        state: initial u and v, `(2, n, R, R)`.
        times: of the frames, equally spaced from 0.
        steps: from one frame to the next.
        length: of each side.

    Returns:
        `(n, frames, R, R, 2)`.
    """
    size = state.shape[-1]
    dt = (times[1] - times[0]) / steps
    one = (2 * np.cos(np.pi * np.arange(size) / size) - 2) * (size / length) ** 2
    eigenvalues = one[:, None] + one
    decay = np.exp(np.array([DU, DV])[:, None, None] * eigenvalues * dt / 2)[:, None]

    def diffuse(state):
        return fft.idctn(decay * fft.dctn(state, axes=(-2, -1)), axes=(-2, -1))

    frames = [state]
    for _ in times[1:]:
        for _ in range(steps):
            state = diffuse(state)
            a = reaction(state)
            b = reaction(state + dt / 2 * a)
            c = reaction(state + dt / 2 * b)
            d = reaction(state + dt * c)
            state = diffuse(state + dt / 6 * (a + 2 * b + 2 * c + d))
        frames.append(state)
    return np.stack(frames).transpose(2, 0, 3, 4, 1)


@register
class DiffusionReaction2D(Equation):
    """Starts from white noise, one value per cell."""

    name = "diffusion_reaction_2d"
    description = "FitzHugh-Nagumo: activator and inhibitor on a square"
    layout = "groups"
    resolution = 128
    batch = 2
    axes = ((-1.0, 1.0), (-1.0, 1.0))
    times = np.linspace(0, 5, 101)
    facts: ClassVar = {
        "equation": "u_t = Du lap u + u - u^3 - k - v; v_t = Dv lap v + u - v",
        "Du": DU,
        "Dv": DV,
        "k": K,
        "boundary": "no flux",
        "scheme": "Strang splitting, exact five-point diffusion (cosine transform), Runge-Kutta 4 reaction, 10 steps per frame",
    }

    def solve(self, rngs: Generators, resolution: int) -> dict[str, np.ndarray]:
        state = np.stack([rng.standard_normal((2, resolution, resolution)) for rng in rngs], axis=1)
        return {"data": solve_2d(state, self.times, 10, length=2.0)}
