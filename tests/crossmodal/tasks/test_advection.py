from __future__ import annotations

import numpy as np
import pytest
import torch

from crossmodal import tasks
from crossmodal.tasks import advection


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return advection.trajectories(60, np.random.default_rng(3))


def shifted(states: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Band-limited states (n, points) of a ring of length 1, moved to the right by each distance: (n, distances, points)."""
    number = np.arange(states.shape[-1] // 2 + 1)
    spectrum = np.fft.rfft(states.astype(float))[:, None] * np.exp(-2j * np.pi * number * distance[:, None])
    return np.fft.irfft(spectrum, states.shape[-1])


def test_waves_move_unchanged_at_the_speed_of_the_equation(frames):
    distance = advection.SPEED * np.linspace(0, advection.DURATION, advection.FRAMES)
    spectrum = np.abs(np.fft.rfft(frames[:, 0]))
    plain = spectrum[:, advection.HIGHEST + 1 :].max(1) < 1e-4
    assert 30 < plain.sum() < 60  # the others are folded or cut out, and have no highest wave number
    np.testing.assert_allclose(frames[plain], shifted(frames[plain, 0], distance), atol=1e-6)


def test_folded_and_cut_out_states_are_where_they_should_be():
    """At distances that are a whole number of cells a shift is exact for any function."""
    states = advection.initial_states(200, np.random.default_rng(5))
    x = np.arange(64) / 64
    start, later = states(x[None]), states((x - 5 / 64)[None])
    np.testing.assert_allclose(later, np.roll(start, 5, axis=1), atol=1e-12)
    one_signed = (start.min(1) > -1e-9) | (start.max(1) < 1e-9)
    empty = np.abs(start[:, [0, -1]]).max(1) < 1e-6
    assert 8 <= one_signed.sum() <= 45
    assert 8 <= empty.sum() <= 45
    assert (start[one_signed].max(1) > 1e-9).any()
    assert (start[one_signed].min(1) < -1e-9).any()


def test_seeds():
    one, same, other = (advection.trajectories(3, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.isclose(one, other).all(axis=(1, 2)).any()
    assert tasks.load("advection").fingerprint == tasks.load("advection", split_seed=7).fingerprint


@pytest.mark.parametrize("protocol", ["rollout", "single"])
def test_parts(protocol):
    task = tasks.load("advection", protocol=protocol)
    steps = advection.FRAMES - 1
    assert (task.kind, task.protocol, task.metric) == ("dense", protocol, "relative_l2")
    assert task.steps == (steps if protocol == "rollout" else 0)
    seen: set[int] = set()
    for part, count in advection.TRAJECTORIES.items():
        split = getattr(task, {"val": "validation"}.get(part, part))
        batch = split.read(torch.arange(len(split)))
        whole = protocol == "rollout" and part != "train"
        assert len(split) == count * (1 if whole else steps)
        assert batch.x.shape[1:] == (1, advection.POINTS)
        assert batch.y.shape[1:] == (steps if whole else 1, advection.POINTS)
        groups = set(batch.extras["group"].tolist())
        assert len(groups) == count
        assert not groups & seen  # every trajectory belongs to one part
        seen |= groups
    assert tasks.protocols("advection")[0] == tasks.load("advection").protocol == "rollout"


def test_pairs_are_successive_frames_of_one_trajectory():
    task = tasks.load("advection")
    batch = task.train.read(torch.arange(len(task.train)))
    following = batch.extras["group"][1:] == batch.extras["group"][:-1]
    as_inputs = task.normalizer.as_input(batch.y)
    torch.testing.assert_close(as_inputs[:-1][following], batch.x[1:][following], atol=1e-5, rtol=0)
    assert not torch.isclose(as_inputs[:-1][~following], batch.x[1:][~following], atol=1e-3).all(2).any()


def test_roll_outs_begin_where_single_steps_do():
    rollout, single = tasks.load("advection"), tasks.load("advection", protocol="single")
    steps = advection.FRAMES - 1
    one, other = (task.test.read(torch.arange(count)) for task, count in ((rollout, 2), (single, 2 * steps)))
    torch.testing.assert_close(one.x, other.x[::steps])
    torch.testing.assert_close(one.y.flatten(), other.y.flatten())
    assert rollout.train.read(torch.arange(30)).y.equal(single.train.read(torch.arange(30)).y)
