"""Burgers' equation u_t + (u^2 / 2)_x = (nu / pi) u_xx on a ring."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy import fft

from crossmodal.pde.base import Equation, Generators, at_centres, register
from crossmodal.pde.initial import waves

VISCOSITY = 1.0 / np.pi  # nu / pi with nu = 1
POINTS = 512  # of the solver: a window's edges take about 250 modes, and after a hundredth of a second 20 are left


def solve(u: np.ndarray, times: np.ndarray, steps: int, first_steps: int) -> np.ndarray:
    """Fourier modes of the solution: pseudo-spectral with 2/3 dealiasing, fourth-order Runge-Kutta with integrating factor.

    Args:
        u: initial state on the points j / N, `(n, N)`.
        times: of the frames, equally spaced from 0.
        steps: from one frame to the next; `first_steps` from the first to the second, in which all modes are alive.

    Returns:
        `(n, frames, N // 2 + 1)` complex, as `rfft` gives them.
    """
    size = u.shape[1]
    wave = 2 * np.pi * np.arange(size // 2 + 1)
    kept = np.arange(size // 2 + 1) < size / 3
    state = fft.rfft(u) * kept
    frames = [state]

    def slope(modes):
        return -0.5j * wave * kept * fft.rfft(fft.irfft(modes, size) ** 2)

    for number in range(1, len(times)):
        count = first_steps if number == 1 else steps
        dt = (times[number] - times[number - 1]) / count
        half = np.exp(-VISCOSITY * wave**2 * dt / 2)
        full = half**2
        for _ in range(count):
            a = slope(state)
            b = slope(half * (state + dt / 2 * a))
            c = slope(half * state + dt / 2 * b)
            d = slope(full * state + dt * half * c)
            state = full * state + dt / 6 * (full * a + 2 * half * (b + c) + d)
        frames.append(state)
    return np.stack(frames, axis=1)


@register
class Burgers(Equation):
    """Solved on 512 points whatever the resolution asked for; the frames are read off at the centres of its cells."""

    name = "burgers"
    description = "Burgers' equation, nu 1.0: waves that steepen and decay"
    times = np.linspace(0, 2, 201)
    facts: ClassVar = {
        "equation": "u_t + (u^2/2)_x = (nu/pi) u_xx",
        "nu": 1.0,
        "boundary": "periodic",
        "scheme": f"pseudo-spectral, {POINTS} points, 2/3 dealiasing, integrating factor, Runge-Kutta 4, 8 steps per frame",
    }

    def solve(self, rngs: Generators, resolution: int) -> dict[str, np.ndarray]:
        states = waves(rngs)
        modes = solve(states(np.arange(POINTS)[None] / POINTS), self.times, 8, 64)
        frames = at_centres(modes, POINTS, resolution)
        frames[:, 0] = states(self.coordinates(resolution)[0][None])
        return {"tensor": frames}
