"""Our solvers beside py-pde's on the same initial states: `python -m benchmarks.pde_solvers`.

Needs numpy, scipy and py-pde, which brings numba: an environment of its own, with `python/` on the path, and no torch. Errors are
against ours with eight times as many steps, of Burgers on four times as many points; times are of one thread without compilation.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pde

from crossmodal.pde import burgers, diffusion_reaction
from crossmodal.pde.initial import waves

FRAMES = 21  # of each solution; the first tenth of a published run of the 1-D equation, a fifth of the 2-D one


def fastest(call: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """What it returns, and the least seconds of three calls after one that compiles."""
    found, seconds = call(), float("inf")
    for _ in range(3):
        start = time.perf_counter()
        found = call()
        seconds = min(seconds, time.perf_counter() - start)
    return found, seconds


def theirs(equation: pde.PDE, state: pde.FieldBase, times: np.ndarray) -> np.ndarray:
    """Frames of one sample by py-pde: finite differences, adaptive Euler steps, its default tolerance (Runge-Kutta took longer)."""
    storage = pde.MemoryStorage()
    tracker = storage.tracker(times[1] - times[0])
    equation.solve(state, t_range=times[-1], dt=1e-6, adaptive=True, solver="euler", backend="numba", tracker=tracker)
    return np.stack([np.asarray(frame) for frame in storage.data])


def burgers_case(samples: int, points: int) -> tuple[Callable, Callable, np.ndarray]:
    """Burgers' equation: ours, theirs, and the reference, each `(samples, frames, points)`."""
    times = np.linspace(0, 0.2, FRAMES)
    rngs = [np.random.default_rng((0, number)) for number in range(samples)]
    x = np.arange(points) / points
    start = waves(rngs)(x[None])
    grid = pde.CartesianGrid([[-0.5 / points, 1 - 0.5 / points]], points, periodic=True)  # cell centres at j / points
    equation = pde.PDE({"u": f"{burgers.VISCOSITY!r} * laplace(u) - u * d_dx(u)"})
    again = [np.random.default_rng((0, number)) for number in range(samples)]
    finer = waves(again)(np.arange(4 * points)[None] / (4 * points))
    reference = np.fft.irfft(burgers.solve(finer, times, 64, 512), 4 * points)[..., ::4]
    return (
        lambda: np.fft.irfft(burgers.solve(start, times, 8, 64), points)[
            :, 1:
        ],  # the first is the initial state itself
        lambda: np.stack([theirs(equation, pde.ScalarField(grid, one), times) for one in start])[:, 1:],
        reference[:, 1:],
    )


def reaction_case(samples: int, points: int) -> tuple[Callable, Callable, np.ndarray]:
    """FitzHugh-Nagumo on a square: ours, theirs, and the reference, each `(samples, frames, points, points, 2)`."""
    times = np.linspace(0, 1, FRAMES)
    start = np.random.default_rng(0).standard_normal((2, samples, points, points))
    grid = pde.CartesianGrid([[-1, 1]] * 2, points)
    constants = {"Du": diffusion_reaction.DU, "Dv": diffusion_reaction.DV, "k": diffusion_reaction.K}
    rates = {"u": "Du * laplace(u) + u - u**3 - k - v", "v": "Dv * laplace(v) + u - v"}
    equation = pde.PDE(rates, consts=constants, bc={"derivative": 0})

    def their_frames() -> np.ndarray:
        fields = [[pde.ScalarField(grid, start[part, one]) for part in (0, 1)] for one in range(samples)]
        found = [theirs(equation, pde.FieldCollection(pair, labels=["u", "v"]), times) for pair in fields]
        return np.stack(found).transpose(0, 1, 3, 4, 2)

    reference = diffusion_reaction.solve_2d(start, times, 80, length=2.0)
    return lambda: diffusion_reaction.solve_2d(start, times, 10, length=2.0), their_frames, reference


def main() -> None:
    """Prints the table."""
    print("| equation | solver | samples/s | greatest error |\n| --- | --- | ---: | ---: |")
    cases = {"Burgers, 512 points": burgers_case(10, 512), "2-D diffusion-reaction, 128 x 128": reaction_case(2, 128)}
    for name, (*solvers, reference) in cases.items():
        for who, solver in zip(("ours", f"py-pde {pde.__version__}"), solvers, strict=True):
            found, seconds = fastest(solver)
            print(
                f"| {name} | {who} | {len(found) / seconds:.3g} | {np.abs(found - reference).max():.1e} |", flush=True
            )


if __name__ == "__main__":
    main()
