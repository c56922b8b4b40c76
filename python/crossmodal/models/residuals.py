"""What a physics-informed network is held to: for each equation of PDEBench its residuals, boundary and fields.

Residuals of conservation laws are those of the conserved quantities. Each is returned with its size, so that all weigh alike: what
the quantity itself varies by, or its source.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import Tensor

Fields = dict[str, Tensor]  # (B, P) by name, at points
Derivatives = Callable[
    [Tensor], tuple[Tensor, ...]
]  # (B, P) to its derivatives by time, where there is one, and each axis
Scales = dict[str, tuple[float, float]]  # by field: what it is about, and what it varies by


@dataclass(frozen=True)
class Physics:
    """An equation as a network knows it.

    Attributes:
        fields: what the network gives.
        residuals: (fields, derivatives, parameters, scales) to pairs of a residual (B, P) and its size; sizes of what changes in
            time count per duration.
        boundary: "ring" (which a network of places on a circle keeps to by itself), "no flux" (the normal derivative is 0), "zero"
            (all of `held` is 0) or "column" (diffusion-sorption).
        held: fields that are 0 on a boundary "zero".
        sizes: scales of fields that no data tell.
        at_rest: fields that are 0 where time begins.
        ghosts: whether the boundary lies in the centres of the cells around the grid.
    """

    fields: tuple[str, ...]
    residuals: Callable[[Fields, Derivatives, dict[str, float], Scales], Iterable[tuple[Tensor, float]]]
    boundary: str = "ring"
    held: tuple[str, ...] = ()
    sizes: Scales = field(default_factory=dict)
    at_rest: tuple[str, ...] = ()
    ghosts: bool = False


def _advection(f, d, c, scales):
    """u_t + beta u_x = 0."""
    u_t, u_x = d(f["u"])
    yield u_t + c["beta"] * u_x, scales["u"][1]


def _burgers(f, d, c, scales):
    """u_t + u u_x = nu / pi u_xx."""
    u_t, u_x = d(f["u"])
    yield u_t + f["u"] * u_x - c["nu"] / math.pi * d(u_x)[1], scales["u"][1]


def _diffusion_reaction_1d(f, d, c, scales):
    """u_t = nu u_xx + rho u (1 - u)."""
    u = f["u"]
    u_t, u_x = d(u)
    yield u_t - c["nu"] * d(u_x)[1] - c["rho"] * u * (1 - u), scales["u"][1]


def _diffusion_sorption(f, d, c, scales):
    """u_t = D / R(u) u_xx; R is defined for what is not negative."""
    u = f["u"]
    slowness = (1 - c["porosity"]) / c["porosity"] * c["rho_s"] * c["k_f"] * c["n_f"]
    retardation = 1 + slowness * (u.clamp_min(0) + 1e-6) ** (c["n_f"] - 1)
    u_t, u_x = d(u)
    yield u_t - c["D"] / retardation * d(u_x)[1], scales["u"][1]


def _navier_stokes_1d(f, d, c, scales):
    """Mass, momentum and energy, with friction 4/3 eta + zeta times the density."""
    density, velocity, pressure = f["density"], f["velocity"], f["pressure"]
    momentum = density * velocity
    energy = pressure / (c["gamma"] - 1) + 0.5 * momentum * velocity
    stress = (4 / 3 * c["eta"] + c["zeta"]) * density * d(velocity)[1]
    momentum_t, momentum_x = d(momentum)
    yield d(density)[0] + momentum_x, scales["density"][1]
    yield (
        momentum_t + d(momentum * velocity + pressure - stress)[1],
        scales["density"][0] * scales["velocity"][1],
    )
    yield (
        d(energy)[0] + d((energy + pressure - stress) * velocity)[1],
        scales["pressure"][1] / (c["gamma"] - 1),
    )


def _shallow_water(f, d, c, scales):
    """Mass and both momenta over a flat bed."""
    depth, u, v = f["depth"], f["u"], f["v"]
    weight = 0.5 * c["g"] * depth**2
    size = scales["depth"][1]
    across, along = depth * u, depth * v
    across_t, across_x, _ = d(across)
    along_t, _, along_y = d(along)
    cross = d(across * v)
    yield d(depth)[0] + across_x + along_y, size
    yield across_t + d(across * u + weight)[1] + cross[2], size
    yield along_t + cross[1] + d(along * v + weight)[2], size


def _diffusion_reaction_2d(f, d, c, scales):
    """u_t = Du lap u + u - u^3 - k - v, v_t = Dv lap v + u - v."""
    u, v = f["u"], f["v"]
    for name, constant, reaction in (("u", c["Du"], u - u**3 - c["k"] - v), ("v", c["Dv"], u - v)):
        rate, by_x, by_y = d(f[name])
        yield rate - constant * (d(by_x)[1] + d(by_y)[2]) - reaction, scales[name][1]


def _darcy(f, d, c, scales):
    """The mixed form, q = -a grad u and div q = beta: a, which jumps, is not differentiated."""
    u_x, u_y = d(f["u"])
    yield f["qx"] + f["a"] * u_x, scales["qx"][1]
    yield f["qy"] + f["a"] * u_y, scales["qy"][1]
    yield d(f["qx"])[0] + d(f["qy"])[1] - c["beta"], c["beta"]


PHYSICS = {
    "advection": Physics(("u",), _advection),
    "burgers": Physics(("u",), _burgers),
    "diffusion_reaction_1d": Physics(("u",), _diffusion_reaction_1d),
    "diffusion_sorption": Physics(("u",), _diffusion_sorption, "column", ghosts=True),
    "navier_stokes_1d": Physics(("density", "velocity", "pressure"), _navier_stokes_1d),
    "shallow_water": Physics(
        ("depth", "u", "v"),
        _shallow_water,
        "no flux",
        sizes={"u": (0.0, 0.5), "v": (0.0, 0.5)},
        at_rest=("u", "v"),
    ),
    "diffusion_reaction_2d": Physics(("u", "v"), _diffusion_reaction_2d, "no flux"),
    "darcy": Physics(
        ("u", "qx", "qy"),
        _darcy,
        "zero",
        held=("u",),
        sizes={"qx": (0.0, 0.015), "qy": (0.0, 0.015)},  # what fluxes are about for beta 0.1
        ghosts=True,
    ),
}


def boundary_errors(
    physics: Physics,
    low: tuple[Fields, Derivatives],
    high: tuple[Fields, Derivatives],
    axis: int,
    length: float,
    parameters: dict[str, float],
    scales: Scales,
) -> Iterable[Tensor]:
    """What a boundary condition is missed by, (B, P) each, in scales of the fields.

    Args:
        physics: which condition.
        low, high: fields and their derivatives on either end of an axis, at the same other coordinates.
        axis: of the derivatives.
        length: of the axis, for derivatives.
        parameters, scales: of the equation.
    """
    (below, d_below), (above, d_above) = low, high
    if physics.boundary == "zero":
        for name in physics.held:
            yield from (below[name] / scales[name][1], above[name] / scales[name][1])
    elif physics.boundary == "column":  # 1 at the left end, -D u_x at the right one
        size = scales["u"][1]
        yield (below["u"] - 1) / size
        yield (above["u"] + parameters["D"] * d_above(above["u"])[axis]) / size
    elif physics.boundary == "no flux":
        for name in physics.fields:
            size = scales[name][1]
            yield from (d_below(below[name])[axis] * length / size, d_above(above[name])[axis] * length / size)
