"""Diffusion slowed by sorption, u_t = D / R(u) u_xx with the retardation of Freundlich's isotherm."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy.integrate import solve_ivp

from crossmodal.pde.base import Equation, Generators, register

D, POROSITY, DENSITY, KF, NF = 5e-4, 0.29, 2880.0, 3.5e-4, 0.874


def retardation(u: np.ndarray) -> np.ndarray:
    """R(u) = 1 + (1 - phi) / phi rho_s k n_f (u + 1e-6)^(n_f - 1)."""
    return 1 + (1 - POROSITY) / POROSITY * DENSITY * KF * NF * (u + 1e-6) ** (NF - 1)


def rate(u: np.ndarray, width: float) -> np.ndarray:
    """du/dt of the cells `(N,)`, which are `width` wide. Beyond the left end lies 1, beyond the right end -D u_x."""
    padded = np.concatenate([[1.0], u, [D * (u[-2] - u[-1]) / width]])
    return D / retardation(u) * (padded[2:] - 2 * u + padded[:-2]) / width**2


@register
class DiffusionSorption(Equation):
    """Starts from one random value everywhere."""

    name = "diffusion_sorption"
    description = "a solute that diffuses into a column and is held back by sorption"
    layout = "groups"
    times = np.linspace(0, 500, 101)
    facts: ClassVar = {
        "equation": "u_t = D/R(u) u_xx, R(u) = 1 + (1-phi)/phi rho_s k n_f (u + 1e-6)^(n_f-1)",
        "D": D,
        "porosity": POROSITY,
        "rho_s": DENSITY,
        "k_f": KF,
        "n_f": NF,
        "boundary": "u = 1 beyond the left end, u = -D u_x beyond the right end",
        "scheme": "finite volumes, LSODA with a banded Jacobian, relative tolerance 1e-6",
    }

    def solve(self, rngs: Generators, resolution: int) -> dict[str, np.ndarray]:
        start = np.array([rng.uniform(0, 0.2) for rng in rngs])
        width = 1.0 / resolution
        frames = [
            solve_ivp(
                lambda _, u: rate(u, width),
                (self.times[0], self.times[-1]),
                np.full(resolution, value),
                method="LSODA",
                t_eval=self.times,
                rtol=1e-6,
                atol=1e-9,
                lband=1,
                uband=1,
            ).y.T
            for value in start
        ]
        return {"data": np.stack(frames)[..., None]}
