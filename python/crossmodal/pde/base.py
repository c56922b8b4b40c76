"""What an equation is, and the registry of equations.

An equation draws random initial states, one generator per sample, and solves a batch of them at once:

    @register
    class Advection(Equation):
        name = "advection"
        def solve(self, rngs, resolution): ...     # -> {"tensor": (n, frames, points)}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import fft

from crossmodal.naming import Registry

Generators = list[np.random.Generator]  # one per sample: what a sample is does not depend on which others are drawn


@dataclass(frozen=True)
class SolvedEquation:
    """The equation that the fields of a task solve, for methods that use it.

    Attributes:
        name: one of ``crossmodal.pde.EQUATIONS``.
        parameters: its constants, by the names that ``facts`` of the equation and its files have for them.
        domain: lower and upper end of each axis.
        points: positions of a field's values along each axis.
        inputs, outputs: what the channels of one frame of a sample and of its target are, as the equation writes them:
            ("u",), ("u", "v"), ("density", "velocity", "pressure"), ("depth",); of Darcy's ("a",) and ("u",).
        known: times of the frames of a sample, oldest first, which lie along its channels, frame by frame; empty without time.
        asked: likewise, of the frames of a target of the test part.
    """

    name: str
    parameters: dict[str, float]
    domain: tuple[tuple[float, float], ...]
    points: tuple[np.ndarray, ...]
    inputs: tuple[str, ...] = ("u",)
    outputs: tuple[str, ...] = ("u",)
    known: tuple[float, ...] = ()
    asked: tuple[float, ...] = ()


class Equation:
    """An equation with its parameters, and a way to draw solutions.

    Attributes:
        name: as on the command line.
        description: one line.
        layout: file layout, see `pde.files`: "arrays" (one HDF5 data set for all samples), "groups" (one HDF5 group per sample)
            or "mat" (MATLAB).
        resolution: cells per axis in the published file.
        batch: samples that are solved together; part of what defines the bytes of a file.
        axes: lower and upper end of each axis.
        times: of the frames; empty where there is one steady state.
        facts: equation, parameters, boundary and scheme in words, written into the file.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    layout: ClassVar[str] = "arrays"
    resolution: ClassVar[int] = 1024
    batch: ClassVar[int] = 50
    axes: ClassVar[tuple[tuple[float, float], ...]] = ((0.0, 1.0),)
    times: ClassVar[np.ndarray] = np.zeros(0)
    facts: ClassVar[dict[str, Any]] = {}

    def solve(self, rngs: Generators, resolution: int) -> dict[str, np.ndarray]:
        """Solutions from random initial states.

        Args:
            rngs: one generator for each of the n samples.
            resolution: cells per axis.

        Returns:
            Arrays by their name in the file, `(n, frames, points)` and the like as PDEBench has them, real numbers.
        """
        raise NotImplementedError

    def coordinates(self, resolution: int) -> list[np.ndarray]:
        """Centres of the cells along each axis, float64 `(resolution,)`."""
        return [low + (high - low) * (np.arange(resolution) + 0.5) / resolution for low, high in self.axes]


EQUATIONS: Registry[Equation] = Registry("equation")
get = EQUATIONS.find


def register(cls: type[Equation]) -> type[Equation]:
    """Decorator that makes an equation known."""
    EQUATIONS.add(cls.name, cls())
    return cls


def at_centres(modes: np.ndarray, size: int, resolution: int) -> np.ndarray:
    """Values at the centres of `resolution` cells of what has these modes on `size` points, `(..., size // 2 + 1)`."""
    kept = min(modes.shape[-1], resolution // 2 + 1)
    shifted = modes[..., :kept] * np.exp(1j * np.pi * np.arange(kept) / resolution)
    return fft.irfft(shifted, resolution) * (resolution / size)
