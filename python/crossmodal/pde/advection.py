"""Advection u_t + beta u_x = 0 on a ring: what starts at t = 0 moves on unchanged, so every frame is known exactly."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from crossmodal.pde.base import Equation, Generators, register
from crossmodal.pde.initial import waves

SPEED = 0.4


@register
class Advection(Equation):
    """The exact solution u(t, x) = u0(x - beta t)."""

    name = "advection"
    description = "waves that move along a ring, exact"
    times = np.linspace(0, 2, 201)
    facts: ClassVar = {
        "equation": "u_t + beta u_x = 0",
        "beta": SPEED,
        "boundary": "periodic",
        "scheme": "exact, values at cell centres",
    }

    def solve(self, rngs: Generators, resolution: int) -> dict[str, np.ndarray]:
        (x,) = self.coordinates(resolution)
        states = waves(rngs)
        return {"tensor": states(((x - SPEED * self.times[:, None]) % 1.0)[None])}
