"""Physics-informed networks: residuals against exact solutions and the solvers' own rates, fits of every equation."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import spsolve

import crossmodal
from crossmodal import evaluate, parsing, pde, run, tasks
from crossmodal.data.normalizer import Normalizer
from crossmodal.errors import UserError
from crossmodal.models.pinn import PINN
from crossmodal.models.residuals import PHYSICS
from crossmodal.pde import darcy, diffusion_reaction, diffusion_sorption, navier_stokes, shallow_water
from crossmodal.pde.base import SolvedEquation

SCALES = {name: (1.0, 1.0) for physics in PHYSICS.values() for name in physics.fields}


def residuals(name: str, axes: list[torch.Tensor], fields) -> list[np.ndarray]:
    """Residuals on the product of axes, time first where there is time, of functions of these."""
    points = (
        torch.stack(torch.meshgrid(*(axis.double() for axis in axes), indexing="ij"), dim=-1)
        .flatten(0, -2)[None]
        .requires_grad_()
    )

    def derivatives(values):
        return torch.autograd.grad(values.sum(), points, create_graph=True)[0].unbind(2)

    parameters = {key: value for key, value in pde.get(name).facts.items() if isinstance(value, float)}
    values = fields(*points.unbind(2))
    found = PHYSICS[name].residuals(values, derivatives, parameters, SCALES)
    return [one.detach().view(tuple(map(len, axes))).numpy() for one, _ in found]


T, X = torch.linspace(0.1, 1, 5), torch.linspace(0, 1, 9)
NU = 1 / np.pi


@pytest.mark.parametrize(
    ("name", "solution"),
    [
        ("advection", lambda t, x: (6 * (x - 0.4 * t)).sin()),
        # Cole and Hopf: u = -2 nu p_x / p of p = 1 + exp(x + nu t), which solves the heat equation.
        ("burgers", lambda t, x: -2 * NU * (x + NU * t).sigmoid()),
        # Ablowitz and Zeppetella: a wave of the speed 5 / sqrt(6) in scaled coordinates.
        ("diffusion_reaction_1d", lambda t, x: (1 + (x * 2**0.5 / 6**0.5 - 5 / 6 * t).exp()) ** -2),
    ],
)
def test_residuals_of_exact_solutions_are_zero(name, solution):
    (found,) = residuals(name, [T, X], lambda t, x: {"u": solution(t, x)})
    np.testing.assert_allclose(found, 0, atol=1e-12)
    (wrong,) = residuals(name, [T, X], lambda t, x: {"u": solution(t, 1.1 * x)})
    assert np.abs(wrong).max() > 1e-3


def at_rest(values: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Values that do not change in time, as functions of it."""
    return values + 0 * t


def test_residuals_of_fields_at_rest_are_the_solvers_rates():
    size = 400
    x = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    (found,) = residuals("diffusion_sorption", [T[:1], x], lambda t, x: {"u": at_rest(0.2 + x**3, t)})
    rate = diffusion_sorption.rate(0.2 + x.numpy() ** 3, 1 / size)
    np.testing.assert_allclose(found[0, 1:-1], -rate[1:-1], rtol=1e-3, atol=1e-6)

    ring = 2 * x - 1

    def gas(t, x):
        wave = at_rest(np.pi * x, t)
        return {"density": 2 + wave.sin(), "velocity": wave.cos(), "pressure": 9 + (2 * wave).sin()}

    found = residuals("navier_stokes_1d", [T[:1], ring], gas)
    state = navier_stokes.conserved(*(value.numpy()[None] for value in gas(torch.zeros(size), ring).values()))
    rate = navier_stokes.convection(state, 2 / size) + navier_stokes.friction(state, 2 / size)
    np.testing.assert_allclose(np.concatenate(found), -rate[0], atol=2e-2 * np.abs(rate).max())


def test_residuals_of_fields_at_rest_are_the_solvers_rates_in_two_dimensions():
    size = 60
    places = 5 * (torch.arange(size, dtype=torch.float64) + 0.5) / size - 2.5
    inner = (slice(None), slice(3, -3), slice(3, -3))

    def water(t, x, y):
        return {
            "depth": at_rest(2 + 0.3 * (x + 2 * y).sin(), t),
            "u": (x - y).cos() + 0 * t,
            "v": 0.3 * (x * y) + 0 * t,
        }

    found = residuals("shallow_water", [T[:1], places, places], water)
    x, y = torch.meshgrid(places, places, indexing="ij")
    depth, u, v = (value.numpy() for value in water(torch.zeros(()), x, y).values())
    rate = shallow_water.rate(np.stack([depth, depth * u, depth * v])[None], 5 / size)
    np.testing.assert_allclose(np.concatenate(found)[inner], -rate[0][inner], atol=0.05 * np.abs(rate).max())

    def chemistry(t, x, y):
        return {"u": at_rest((x + 2 * y).sin(), t), "v": at_rest((x - y).cos(), t)}

    found = residuals("diffusion_reaction_2d", [T[:1], places, places], chemistry)
    state = np.stack([value.numpy() for value in chemistry(torch.zeros(()), x, y).values()])
    laplacian = np.array([-5 * diffusion_reaction.DU, -2 * diffusion_reaction.DV])[:, None, None] * state
    np.testing.assert_allclose(np.concatenate(found), -diffusion_reaction.reaction(state) - laplacian, atol=1e-9)


def test_darcys_mixed_form_is_the_operator():
    size = 50
    places = (torch.arange(size, dtype=torch.float64) + 0.5) / size

    def flow(x, y):
        a, u = 1 + 0.5 * x, (np.pi * x).sin() * (np.pi * y).sin()
        u_x, u_y = np.pi * (np.pi * x).cos() * (np.pi * y).sin(), np.pi * (np.pi * x).sin() * (np.pi * y).cos()
        return {"a": a, "u": u, "qx": -a * u_x, "qy": -a * u_y}

    across, along, divergence = residuals("darcy", [places, places], flow)
    np.testing.assert_allclose(across, 0, atol=1e-9)
    np.testing.assert_allclose(along, 0, atol=1e-9)
    x, y = torch.meshgrid(places, places, indexing="ij")
    values = flow(x, y)
    matrix = darcy.operator(np.pad(values["a"].numpy(), 1, mode="edge"), 1 / size)
    expected = (matrix @ values["u"].numpy().ravel()).reshape(size, size) - darcy.FORCE
    np.testing.assert_allclose(divergence[1:-1, 1:-1], expected[1:-1, 1:-1], rtol=2e-2, atol=5e-2)


@pytest.mark.parametrize("name", PHYSICS)
def test_every_equation_is_fitted(name):
    """Two samples of its task, by a few steps of a small network: each by its own, and in the form of targets."""
    protocol = "single" if name == "darcy" else "rollout"
    task = tasks.load(name, protocol=protocol)
    given = ["--task", name, "--method", "pinn", "--protocol", protocol, "--pinn.steps", "3", "--pinn.width", "8"]
    _, model, objective = run.build(parsing.parse([*given, "--pinn.points", "16", "--pinn.depth", "2"]))
    batch = task.test.read(torch.arange(2))
    outputs = objective.predict(model, batch)
    assert outputs.shape == batch.y.shape
    assert torch.isfinite(outputs).all()
    assert not torch.equal(outputs[0], outputs[1])
    alone = objective.predict(model, task.test.read(torch.arange(1, 2)))
    torch.testing.assert_close(alone[0], outputs[1], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_wave_is_found_from_its_first_frame():
    x, times = np.arange(32) / 32, np.linspace(0, 1, 6)
    frames = np.sin(2 * np.pi * (x - 0.4 * times[:, None]))[None]
    normalizer = Normalizer.fit(frames[:, :1].repeat(2, 0), frames[0, 1:, None])
    equation = SolvedEquation(
        "advection", {"beta": 0.4}, ((0.0, 1.0),), (x,), known=(0.0,), asked=tuple(times[1:].tolist())
    )
    scaling = {key: value.tolist() for key, value in normalizer.state().items()}
    torch.manual_seed(0)
    model = PINN(asdict(equation) | {"points": [x.tolist()]}, scaling, 6, 40, 400, 128, 3e-3, 0)
    assert model.count_parameters() == 8361 + 40  # PDEBench's network, and the second half of a place on a ring
    found = normalizer.inverse_y(model(normalizer.apply_x(frames[:, :1]))).numpy()
    assert np.linalg.norm(found - frames[:, 1:]) < 0.1 * np.linalg.norm(frames[:, 1:])


def test_pressure_in_a_smooth_medium_is_found():
    centres = pde.get("darcy").coordinates(16)
    x, y = np.meshgrid(*centres, indexing="ij")
    media = np.stack([(1 + 0.5 * np.sin(np.pi * x) * y) * level for level in (1, 0.1)])
    pressures = np.stack(
        [spsolve(darcy.operator(np.pad(a, 1, mode="edge"), 1 / 16), np.full(256, 0.1)).reshape(16, 16) for a in media]
    )
    normalizer = Normalizer.fit(media[:, None], pressures[:, None])
    equation = SolvedEquation("darcy", {"beta": 0.1}, ((0.0, 1.0),) * 2, centres, inputs=("a",), outputs=("u",))
    scaling = {key: value.tolist() for key, value in normalizer.state().items()}
    torch.manual_seed(0)
    model = PINN(asdict(equation) | {"points": [c.tolist() for c in centres]}, scaling, 3, 40, 1000, 128, 3e-3, 0)
    found = normalizer.inverse_y(model(normalizer.apply_x(media[:1, None]))).numpy()[0, 0]
    assert np.linalg.norm(found - pressures[0]) < 0.25 * np.linalg.norm(pressures[0])


def test_a_run_tests_few_samples_and_is_repeated_from_its_folder(tmp_path):
    given = ["--task", "advection", "--protocol", "rollout", "--method", "pinn", "--pinn.steps", "2", "--threads", "1"]
    results = run.train(parsing.parse([*given, "--split.test_limit", "1", "--output_dir", str(tmp_path)]))
    assert results["samples"]["test"] == 1
    assert evaluate.evaluate(tmp_path)["value"] == results["test"]
    assert parsing.parse(given).split.test_limit == 10


@pytest.mark.parametrize(
    ("task", "protocol", "reason"),
    [
        ("navier_stokes_1d", "released", "it needs the equation"),
        ("shallow_water", "step", "its samples start where"),
    ],
)
def test_what_it_cannot_do_is_refused_with_the_reason(tmp_path, task, protocol, reason):
    given = ["--task", task, "--protocol", protocol, "--method", "pinn", "--output_dir", str(tmp_path)]
    with pytest.raises(UserError, match=rf"^method: pinn cannot do {task}: {reason}"):
        run.train(parsing.parse(given))


def test_all_frames_come_at_once(tmp_path):
    given = ["--task", "advection", "--protocol", "markov", "--method", "pinn", "--pinn.steps", "1"]
    run.train(parsing.parse([*given, "--output_dir", str(tmp_path)]))
    predictor, x = crossmodal.load(tmp_path), np.zeros((1, 16), np.float32)
    assert predictor.predict(x).predictions.shape == (1, 40, 16)
    with pytest.raises(UserError, match=r"^steps: this model gives all of its 40 frames at once, got 3"):
        predictor.predict(x, steps=3)
