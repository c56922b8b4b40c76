"""Solutions of the equations of PDEBench and of the FNO paper's Darcy problem, computed here."""

from crossmodal.pde import (
    advection,
    burgers,
    darcy,
    diffusion_reaction,
    diffusion_sorption,
    navier_stokes,
    shallow_water,
)
from crossmodal.pde.base import EQUATIONS, Equation, get

__all__ = [
    "EQUATIONS",
    "Equation",
    "advection",
    "burgers",
    "darcy",
    "diffusion_reaction",
    "diffusion_sorption",
    "get",
    "navier_stokes",
    "shallow_water",
]
