"""Each solver against a truth that it does not share: an exact solution, a refined one, or what must be conserved."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import fft
from scipy.sparse.linalg import expm_multiply, spsolve

from crossmodal.pde import burgers, darcy, diffusion_reaction, diffusion_sorption, get, navier_stokes, shallow_water
from crossmodal.pde.initial import unit_range, waves


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, number]) for number in range(count)]


def relative(found: np.ndarray, truth: np.ndarray) -> float:
    """Norm of the error over the norm of the truth."""
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def block_means(values: np.ndarray, size: int) -> np.ndarray:
    """Means over cells of the coarser grid along the last axis."""
    return values.reshape(*values.shape[:-1], size, -1).mean(axis=-1)


@pytest.mark.parametrize("name", ["advection", "burgers", "diffusion_reaction_1d"])
def test_a_sample_does_not_depend_on_its_neighbours_nor_on_the_resolution(name):
    equation = get(name)
    many = equation.solve(generators(3), 96)["tensor"]
    alone = equation.solve(generators(3)[2:], 96)["tensor"]
    np.testing.assert_allclose(alone[0], many[2], rtol=0, atol=1e-12)
    finer = equation.solve(generators(3)[2:], 288)["tensor"][0]
    np.testing.assert_allclose(
        finer[1:, 1::3], alone[0][1:], rtol=0, atol=1e-6
    )  # centres of 96 cells are among those of 288


def test_a_gas_does_not_depend_on_its_neighbours():
    """At this size some samples of a batch need more parts of friction than others."""
    many = get("navier_stokes_1d").solve(generators(10), 64)
    alone = get("navier_stokes_1d").solve(generators(1), 64)
    for name, values in many.items():
        np.testing.assert_array_equal(alone[name][0], values[0])


def test_advection_is_a_shift():
    frames = get("advection").solve(generators(20), 200)["tensor"]
    assert frames.shape == (20, 201, 200)
    for number in (25, 200):  # a multiple of a fortieth of the ring, hence of whole cells
        cells = round(0.4 * get("advection").times[number] * 200)
        np.testing.assert_allclose(frames[:, number], np.roll(frames[:, 0], cells, axis=1), atol=1e-9)


def cole_hopf(u: np.ndarray, t: float) -> np.ndarray:
    """The exact solution of Burgers' equation at a time, on the points j / N of the ring; `u` `(n, N)`.

    In the frame that moves with the mean, u = -2 nu phi_x / phi, where phi obeys the heat equation.
    """
    size, nu = u.shape[1], burgers.VISCOSITY
    wave = 2j * np.pi * np.arange(size // 2 + 1)
    mean = u.mean(axis=1, keepdims=True)
    modes = fft.rfft(u - mean)
    integral = fft.irfft(np.divide(modes, wave, out=np.zeros_like(modes), where=wave != 0), size)
    phi = fft.rfft(np.exp(-integral / (2 * nu))) * np.exp(nu * wave**2 * t)
    moving = -2 * nu * fft.irfft(wave * phi, size) / fft.irfft(phi, size)
    return mean + fft.irfft(fft.rfft(moving) * np.exp(-wave * mean * t), size)


def test_burgers_is_cole_and_hopfs_solution():
    u = waves(generators(12, seed=1))(np.arange(2048)[None] / 2048)
    times = burgers.Burgers.times
    size = burgers.POINTS
    frames = fft.irfft(burgers.solve(u[:, :: 2048 // size], times[:101], 8, 64), size)
    for number in (1, 2, 10, 100):
        assert relative(frames[:, number], cole_hopf(u, times[number])[:, :: 2048 // size]) < 1e-4


def test_stored_frames_of_burgers_are_cole_and_hopfs_solution():
    frames = get("burgers").solve(generators(8), 64)["tensor"]
    u = waves(generators(8))(np.arange(2048)[None] / 2048)
    for number in (1, 10, 100, 200):
        truth = cole_hopf(u, burgers.Burgers.times[number])[:, 16::32]  # centres of 64 cells
        assert relative(frames[:, number], truth) < 1e-4


def test_burgers_converges_with_order_four():
    u = np.sin(2 * np.pi * np.arange(64)[None] / 64)
    truth = cole_hopf(u, 0.2)
    errors = [relative(fft.irfft(burgers.solve(u, np.array([0, 0.2]), 0, n)[:, -1], 64), truth) for n in (8, 16, 32)]
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    print("order of convergence:", orders)
    assert np.all(np.abs(orders - 4) < 0.7)


def test_diffusion_reaction_1d_is_the_refined_solution():
    """Against an explicit method on twice the points, which shares neither the splitting nor the exact logistic curve."""
    size, times = 128, np.array([0, 0.01, 0.02])
    states = unit_range(waves(generators(6)), np.arange(4096)[None] / 4096)
    u = states(np.arange(2 * size)[None] / (2 * size))
    frames = diffusion_reaction.solve_1d(states(np.arange(size)[None] / size), times, 8)
    second = -((2 * np.pi * np.arange(size + 1)) ** 2)
    steps = 16000
    for _ in range(steps):
        ahead = u + times[-1] / steps * rate(u, second)
        u = 0.5 * (u + ahead + times[-1] / steps * rate(ahead, second))
    assert relative(frames[:, -1], u[:, ::2]) < 1e-4


def rate(u: np.ndarray, second: np.ndarray) -> np.ndarray:
    nu, rho = diffusion_reaction.NU, diffusion_reaction.RHO
    return nu * fft.irfft(second * fft.rfft(u), u.shape[1]) + rho * u * (1 - u)


def test_diffusion_reaction_1d_grows_as_its_mean_when_diffusion_is_over():
    frames = get("diffusion_reaction_1d").solve(generators(4), 64)["tensor"]
    flat = frames[:, 90]  # what is left of the slowest wave is e^-17 of it
    np.testing.assert_allclose(frames[:, -1], diffusion_reaction.logistic(flat, 0.1), rtol=1e-6)


def test_diffusion_sorption_keeps_what_flows_in():
    """The solute stored, dissolved and sorbed, grows by the flux through the ends; and finer grids come ever closer."""
    equation = get("diffusion_sorption")
    runs = [equation.solve(generators(2), size)["data"][..., 0] for size in (48, 96, 192)]
    near, nearer = (relative(a, block_means(b, a.shape[-1])) for a, b in pairwise(runs))
    assert nearer < 0.6 * near < 0.02  # order one: the ends are half a cell beyond the last centres
    fine, width = runs[-1], 1 / 192
    stored = np.array(
        [
            [
                np.trapezoid(diffusion_sorption.retardation(s := np.linspace(0, u, 400)), s, axis=0).sum() * width
                for u in sample
            ]
            for sample in fine
        ]
    )
    left = diffusion_sorption.D * (1.0 - fine[..., 0]) / width
    beyond = diffusion_sorption.D * (fine[..., -2] - fine[..., -1]) / width
    right = diffusion_sorption.D * (fine[..., -1] - beyond) / width
    flowed = np.stack([np.trapezoid((left - right)[:, 20:n], dx=5.0, axis=1) for n in range(30, 102, 10)], axis=1)
    np.testing.assert_allclose(stored[:, 29:101:10] - stored[:, 20:21], flowed, rtol=5e-3)


def test_navier_stokes_conserves_and_stays_positive():
    frames = get("navier_stokes_1d").solve(generators(3), 64)
    density, velocity, pressure = frames["density"], frames["Vx"], frames["pressure"]
    assert density.min() > 0.5
    assert pressure.min() > 5
    energy = pressure / (navier_stokes.GAMMA - 1) + 0.5 * density * velocity**2
    for quantity in (density, density * velocity, energy):
        total = quantity.mean(axis=-1)
        assert np.abs(total - total[:, :1]).max() < 1e-10 * np.abs(quantity).max()


def sod(x: np.ndarray, t: float) -> np.ndarray:
    """Density of Sod's shock tube for gamma = 1.4, from its known constants (Toro, section 4.3.3)."""
    gamma, pressure, velocity = 1.4, 0.30313, 0.92745
    left, right, shock = 0.42632, 0.26557, 1.75216
    sound = np.sqrt(gamma)
    fan = (2 / (gamma + 1) + (gamma - 1) / ((gamma + 1) * sound) * np.maximum(-x / t, -1)) ** (2 / (gamma - 1))
    tail = velocity - np.sqrt(gamma * pressure / left)
    return np.select(
        [x < -sound * t, x < tail * t, x < velocity * t, x < shock * t], [np.ones_like(x), fan, left, right], 0.125
    )


def test_the_gas_solver_resolves_a_shock_tube(monkeypatch):
    monkeypatch.setattr(navier_stokes, "GAMMA", 1.4)
    size, end = 200, 0.2
    x = (np.arange(4 * size) + 0.5) / size - 2  # the ring is long enough that its other jump is not seen
    inside = np.abs(x + 0.5) < 0.5
    state = navier_stokes.conserved(
        np.where(inside, 1.0, 0.125)[None], np.zeros((1, len(x))), np.where(inside, 1.0, 0.1)[None]
    )
    dt = 0.4 / size / 2.5
    for _ in range(round(end / dt)):
        ahead = state + dt * navier_stokes.convection(state, 1 / size)
        state = 0.5 * (state + ahead + dt * navier_stokes.convection(ahead, 1 / size))
    seen = np.abs(x) < 0.45
    assert np.abs(state[0, 0] - sod(x, end))[seen].mean() < 0.006


def test_friction_turns_motion_into_heat():
    """A shear-free wave of small amplitude decays as exp(-(4/3 eta + zeta) k^2 t) while the gas warms up by as much."""
    size = 64
    x = 2 * (np.arange(size) + 0.5) / size - 1
    state = navier_stokes.conserved(np.ones((1, size)), 0.01 * np.sin(np.pi * x)[None], np.ones((1, size)))
    energy = state[:, 2].mean()
    for _ in range(400):
        state = state + 1e-3 * navier_stokes.friction(state, 2 / size)
    amplitude = np.abs(state[0, 1]).max() / np.abs(0.01 * np.sin(np.pi * x)).max()
    assert amplitude == pytest.approx(np.exp(-navier_stokes.VISCOSITY * np.pi**2 * 0.4), rel=2e-3)
    assert state[:, 2].mean() == pytest.approx(energy, rel=1e-12)


def test_navier_stokes_converges(monkeypatch):
    monkeypatch.setattr(navier_stokes.NavierStokes1D, "times", np.linspace(0, 0.05, 3))
    coarse, middle, fine = (get("navier_stokes_1d").solve(generators(2, 4), size) for size in (64, 128, 256))
    for name in ("density", "Vx", "pressure"):
        truth = block_means(fine[name], 64)[:, -1]
        errors = [relative(block_means(run[name], 64)[:, -1], truth) for run in (coarse, middle)]
        assert errors[1] < 0.5 * errors[0] < 0.03


def test_shallow_water_conserves_and_is_round():
    equation = get("shallow_water")
    depth = equation.solve(generators(1), 64)["data"][0, ..., 0]
    assert depth.min() > 0.1
    mass = depth.mean(axis=(1, 2))
    assert np.abs(mass / mass[0] - 1).max() < 1e-3
    np.testing.assert_allclose(depth, depth.transpose(0, 2, 1), atol=1e-12)
    np.testing.assert_allclose(depth, depth[:, ::-1], atol=1e-12)
    middle, diagonal = depth[-1, 32, 32:], np.diagonal(depth[-1])[32:]
    x = (np.arange(32) + 0.5) * 5 / 64
    along = np.interp(x[:20], x * np.sqrt(2), diagonal)
    assert np.abs(along - np.interp(x[:20], np.hypot(x, x[0]), middle)).max() < 0.06


def test_shallow_water_converges():
    """To the finest grid, in first order, since there is a shock."""
    finest = dam(128)
    error, smaller = (relative(dam(size), block_means(block_means(finest, size).T, size).T) for size in (32, 64))
    assert smaller < 0.5 * error < 0.02


def dam(size: int) -> np.ndarray:
    """The depth (R, R) at t = 1 of a dam whose cells at the edge are as full as they are covered."""
    x = (np.arange(size) + 0.5) * 5 / size - 2.5
    full = ((0.5 - np.hypot(x[:, None], x)) * size / 5 + 0.5).clip(0, 1)
    return shallow_water.solve(1 + full[None], np.array([0, 0.5, 1.0]))[-1, 0, 0]


def test_each_dam_is_its_own_and_holds_its_water(monkeypatch):
    equation = get("shallow_water")
    monkeypatch.setattr(equation, "times", np.zeros(1))
    depth = equation.solve(generators(40), 32)["data"][:, 0, ..., 0]
    assert len(np.unique(depth, axis=0)) == 40
    radius = np.array([rng.uniform(0.3, 0.7) for rng in generators(40)])
    water = (depth - 1).mean(axis=(1, 2)) * 25
    np.testing.assert_allclose(water, np.pi * radius**2, rtol=0.05)


def test_shallow_water_loses_energy_only_in_its_shock():
    x = (np.arange(64) + 0.5) * 5 / 64 - 2.5
    depth = np.where(np.hypot(x[:, None], x) <= 0.5, 2.0, 1.0)[None]
    states = shallow_water.solve(depth, np.linspace(0, 1, 11))[:, 0]
    energy = (0.5 * (states[:, 1] ** 2 + states[:, 2] ** 2) / states[:, 0] + 0.5 * states[:, 0] ** 2).mean(axis=(1, 2))
    assert np.all(np.diff(energy) <= 1e-12)
    print("energy lost:", 1 - energy[-1] / energy[0])
    assert 1 - energy[-1] / energy[0] < 0.01


def test_a_wave_of_shallow_water_runs_at_its_speed():
    """A small hump splits into two that run at sqrt(g h)."""
    x = (np.arange(128) + 0.5) * 5 / 128 - 2.5
    hump = 1 + 1e-3 * np.exp(-((x / 0.3) ** 2))
    depth = np.repeat(hump[:, None], 4, axis=1)[None]
    monkey_times = np.array([0, 1.0])
    state = depth
    width = 5 / 128
    momenta = np.zeros_like(state)
    state = np.stack([state, momenta, momenta], axis=1)
    for _ in range(64):
        state = shallow_water.step(state, np.array([monkey_times[1] / 64]), width)
    half = 1 + 0.5e-3 * (np.exp(-(((x - 1) / 0.3) ** 2)) + np.exp(-(((x + 1) / 0.3) ** 2)))
    assert np.abs(state[0, 0, :, 0] - half).max() < 3e-5


def test_darcy_solves_its_equation():
    out = get("darcy").solve(generators(3), 64)
    for u, a in zip(out["tensor"][:, 0], out["nu"], strict=True):
        assert set(np.unique(a)) == {0.1, 1.0}
        flux = 0.0  # divergence of a grad u by its own few lines
        padded, medium = np.pad(u, 1), np.pad(a, 1, mode="edge")
        for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
            neighbour, beside = np.roll(padded, shift, axis), np.roll(medium, shift, axis)
            flux = flux + 0.5 * (medium + beside) * (neighbour - padded)
        residual = -(flux[1:-1, 1:-1]) * 64**2 - darcy.FORCE
        assert np.abs(residual).max() < 1e-9


def test_darcy_reaches_a_manufactured_solution_with_order_two():
    errors = []
    for size in (16, 32, 64):
        x = np.arange(size + 2) / (size + 1)  # ghosts lie on the boundary
        a = 1 + 0.5 * x[:, None] * x
        u = np.sin(np.pi * x[:, None]) * np.sin(2 * np.pi * x)
        ux, uy = (
            np.pi * np.cos(np.pi * x[:, None]) * np.sin(2 * np.pi * x),
            2 * np.pi * np.sin(np.pi * x[:, None]) * np.cos(2 * np.pi * x),
        )
        force = 5 * np.pi**2 * a * u - 0.5 * x * ux - 0.5 * x[:, None] * uy
        found = spsolve(darcy.operator(a, 1 / (size + 1)), force[1:-1, 1:-1].ravel())
        errors.append(relative(found, u[1:-1, 1:-1].ravel()))
    assert np.all(np.abs(np.log2(np.divide(errors[:-1], errors[1:])) - 2) < 0.25)


def test_the_transient_settles_at_the_steady_state():
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(*get("darcy").coordinates(24), indexing="ij")
    matrix = darcy.operator(np.pad(darcy.permeability(rng, x, y), 1, mode="edge"), 1 / 24)
    start = darcy.rough_state(rng, x, y).ravel()
    steady = darcy.Darcy().state(matrix, rng, x, y)
    assert relative(darcy.march(matrix, start, darcy.FORCE, 40, 0.5), steady) < 1e-6
    exact = steady + expm_multiply(-0.5 * matrix, start - steady)
    assert relative(darcy.march(matrix, start, darcy.FORCE, 0.5, darcy.STEP), exact) < 1e-2


def test_darcy_flow_is_the_papers_problem():
    out = get("darcy_flow").solve(generators(6), 85)
    assert out["coeff"].shape == out["sol"].shape == (6, 85, 85)
    assert set(np.unique(out["coeff"])) == {3.0, 12.0}
    assert 0.006 < out["sol"].max() < 0.03
    assert out["sol"].min() > -1e-6


def test_the_gaussian_field_has_its_covariance():
    """Modes of cosine transforms are independent, with variance (3 R / (pi^2 |k|^2 + 9))^2 before normalisation."""
    size = 16
    modes = np.stack([fft.dctn(darcy.gaussian_field(rng, size), norm="ortho") for rng in generators(2000)])
    k = np.pi * np.arange(size)
    wanted = (size * 3.0 / (k[:, None] ** 2 + k**2 + 9.0)) ** 2
    wanted[0, 0] = 0
    np.testing.assert_allclose(modes.var(axis=0), wanted, rtol=0.2, atol=1e-12)


def test_diffusion_reaction_2d_is_the_refined_solution():
    """From a smooth state; against small explicit steps of the same cells, and of finer ones."""

    def start(size):
        x = (np.arange(size) + 0.5) / size
        u = np.cos(np.pi * x)[:, None] * np.cos(2 * np.pi * x)
        return np.stack([u, 0.5 * u.T])[:, None]

    times = np.array([0, 0.5, 1.0])
    frames = diffusion_reaction.solve_2d(start(32), times, 10, 2.0)
    state, dt = start(32), 1 / 4000
    for _ in range(4000):
        padded = np.pad(state, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        laplacian = (
            sum(np.roll(padded, s, a) for s, a in ((1, 2), (-1, 2), (1, 3), (-1, 3)))[..., 1:-1, 1:-1] - 4 * state
        )
        constants = np.array([diffusion_reaction.DU, diffusion_reaction.DV]).reshape(2, 1, 1, 1)
        state = state + dt * (constants * laplacian * 16**2 + diffusion_reaction.reaction(state))
    assert relative(frames[0, -1], state[:, 0].transpose(1, 2, 0)) < 1e-3
    finer = diffusion_reaction.solve_2d(start(64), times, 20, 2.0)[0, -1]
    assert relative(frames[0, -1], finer.reshape(32, 2, 32, 2, 2).mean(axis=(1, 3))) < 3e-3


def test_diffusion_reaction_2d_from_noise_does_not_depend_on_the_step(monkeypatch):
    noise = np.random.default_rng(3).standard_normal((2, 1, 16, 16))
    times = diffusion_reaction.DiffusionReaction2D.times[:21]
    coarse, fine = (diffusion_reaction.solve_2d(noise, times, steps, 2.0) for steps in (10, 40))
    assert relative(coarse, fine) < 1e-3


def test_initial_states_have_the_statistics_of_the_formula():
    count = 20000
    x = np.array([[0.02, 0.35]])
    values = waves(generators(count))(x)
    assert np.abs(values.mean(axis=0)).max() < 0.05  # the sign is random
    # Mean squares: 4 modes of E A^2 E sin^2 = 1/6 each, less what the windows cut out (a tenth, all of it at 0.02).
    np.testing.assert_allclose((values**2).mean(axis=0), [0.9 * 4 / 6, 4 / 6], rtol=0.05)


def test_a_gas_starts_as_m_f_plus_b(monkeypatch):
    """The least value of a sample is b, its range m: both log-uniform, and independent."""
    equation = get("navier_stokes_1d")
    monkeypatch.setattr(equation, "times", np.zeros(1))
    out = equation.solve(generators(1000), 256)
    for name, lowest in (("density", 1), ("pressure", 10)):
        low, high = out[name][:, 0].min(axis=1), out[name][:, 0].max(axis=1)
        exponents = np.log10(np.stack([low, high - low]) / lowest)
        places = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
        np.testing.assert_allclose(np.quantile(exponents, places, axis=1), np.stack([places] * 2, axis=1), atol=0.05)
        assert abs(np.corrcoef(exponents)[0, 1]) < 0.1


def test_media_have_the_statistics_of_the_formula():
    """The mean medium, against a loop over cells with other draws."""
    count, size = 2000, 8
    places = (np.arange(size) + 0.5) / size
    media = [darcy.permeability(rng, *np.meshgrid(places, places, indexing="ij")) for rng in generators(count)]
    rng, total = np.random.default_rng(1), np.zeros((size, size))
    for _ in range(count):
        bumps = np.zeros((size, size))
        for _ in range(5):
            x, y, spread = rng.random(3)
            bumps += np.outer(np.exp(-2 * (places - x) ** 2 / spread), np.exp(-2 * (places - y) ** 2 / spread))
        total += np.where(bumps > bumps.mean(), 1.0, 0.1)
    np.testing.assert_allclose(np.mean(media, axis=0), total / count, atol=0.06)


def test_a_transient_starts_with_waves_around_a_level():
    """Half of the samples are the level alone outside a window 0.45 wide."""
    places = (np.arange(64) + 0.5) / 64
    starts = np.stack([darcy.rough_state(rng, *np.meshgrid(places, places, indexing="ij")) for rng in generators(600)])
    level, size = starts[:, 0, 0], np.abs(starts - starts.mean(axis=(1, 2), keepdims=True)).mean(axis=(1, 2))
    flat = np.ptp(starts[:, 0], axis=1) < 1e-6
    assert abs(flat.mean() - 0.5) < 0.06
    np.testing.assert_allclose(np.quantile(level[flat], [0, 0.5, 1]), [0.1, 5.05, 10], atol=0.7)
    np.testing.assert_allclose(np.quantile(size[~flat], [0, 0.5, 1]), [0.01, 0.255, 0.5], atol=0.05)
    waves_there = np.abs(starts[flat] - level[flat, None, None]) > 1e-3
    for axis, last in ((1, 0.275), (2, 0.45)):
        along = waves_there.any(axis=3 - axis)
        first, width = along.argmax(axis=1) / 64, along.sum(axis=1) / 64
        np.testing.assert_allclose([first.min(), first.max()], [0.1, last], atol=0.05)
        np.testing.assert_allclose(width, 0.45, atol=0.09)


def test_noise_and_reacting_waves_start_as_published():
    noise = get("diffusion_reaction_2d").solve(generators(4), 32)["data"][:, 0]
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 1], atol=0.05)
    u = get("diffusion_reaction_1d").solve(generators(20), 256)["tensor"][:, 0]
    np.testing.assert_allclose(
        np.stack([u.min(axis=1), u.max(axis=1)]), [[0.0] * 20, [1.0] * 20], atol=1e-2
    )  # at kinks of |u|


def test_waves_have_the_wave_numbers_of_two_draws():
    """Power of mode m: chosen once (6/16) as i = m, or twice (1/16) as i = m / 2."""
    count = 4000
    u = waves(generators(count), windowed=0)(np.arange(64)[None] / 64)
    power = (np.abs(fft.rfft(u)) ** 2).mean(axis=0) / 64**2
    unfolded = 0.9 / 12  # half of E A^2 / 2 on either side, of what the absolute value leaves as it is
    assert power[3] == pytest.approx(unfolded * 6 / 16, rel=0.15)
    assert power[6] == pytest.approx(unfolded * 1 / 16, rel=0.3)
    assert power[8] == pytest.approx(unfolded * 1 / 16, rel=0.3)
