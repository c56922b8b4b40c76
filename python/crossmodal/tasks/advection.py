"""Advection u_t + beta u_x = 0 on a ring: what starts at t = 0 moves on unchanged, so every frame is known exactly.

Initial states are drawn as PDEBench describes them (Takamoto et al., NeurIPS 2022, appendix D): a few sine waves of whole
wave numbers, now and then folded by the absolute value or cut out by a window. Grid and number of trajectories are small, so
that a network learns it in a minute on one core.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from crossmodal.tasks.base import Options, RawTask, SolvedEquation, register

SPEED = 0.4  # beta; the ring has length 1
DURATION = 2.0
POINTS, FRAMES = 64, 11
X, T = np.arange(POINTS) / POINTS, np.linspace(0, DURATION, FRAMES)
TRAJECTORIES = {"train": 160, "val": 20, "test": 40}
SEED = 0
WAVES, HIGHEST = 2, 8  # of an initial state, and their greatest wave number
RARE = 0.1  # probability of the absolute value, and of the window
EDGE = 0.01  # width of the window's edges


def initial_states(count: int, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Random functions on the ring [0, 1): positions, broadcastable to (count, ...), to values."""
    amplitude, phase = rng.uniform(0, 1, (WAVES, count)), rng.uniform(0, 2 * np.pi, (WAVES, count))
    number = rng.integers(1, HIGHEST + 1, (WAVES, count))
    sign, folded, windowed = rng.choice((-1.0, 1.0), count), rng.random(count) < RARE, rng.random(count) < RARE
    left, right = rng.uniform(0.1, 0.45, count), rng.uniform(0.55, 0.9, count)

    def states(x: np.ndarray) -> np.ndarray:
        x = x % 1.0

        def one_each(values: np.ndarray) -> np.ndarray:
            return values.reshape(-1, *[1] * (x.ndim - 1))

        u = sum(
            one_each(a) * np.sin(2 * np.pi * one_each(n) * x + one_each(p))
            for a, n, p in zip(amplitude, number, phase, strict=True)
        )
        u = np.where(one_each(folded), one_each(sign) * np.abs(u), u)
        window = 0.5 * (np.tanh((x - one_each(left)) / EDGE) - np.tanh((x - one_each(right)) / EDGE))
        return np.where(one_each(windowed), window * u, u)

    return states


def trajectories(count: int, rng: np.random.Generator) -> np.ndarray:
    """Exact solutions u(t, x) = u(0, x - beta t), float32 (count, FRAMES, POINTS), from t = 0 to `DURATION`."""
    return initial_states(count, rng)((X - SPEED * T[:, None])[None]).astype(np.float32)


@register(
    "advection",
    f"waves that move along a ring (1 x {POINTS} fields, generated); {FRAMES - 1} steps of a roll-out, or one",
    protocols=("rollout", "single"),
)
def advection(options: Options) -> RawTask:
    """Learned from are pairs of successive frames; `rollout` predicts all later frames from the first, `single` each from the
    one before it."""
    rng = np.random.default_rng(SEED)
    rollout = options.protocol == "rollout"
    arrays: dict[str, np.ndarray] = {}
    first = 0
    for part, count in TRAJECTORIES.items():
        frames, group = trajectories(count, rng), np.arange(first, first + count)
        first += count
        if rollout and part != "train":
            x, y = frames[:, :1], frames[:, 1:]
        else:
            x, y = (pairs.reshape(-1, 1, POINTS) for pairs in (frames[:, :-1], frames[:, 1:]))
            group = group.repeat(FRAMES - 1)
        arrays |= {f"x_{part}": x, f"y_{part}": y, f"group_{part}": group}
    return RawTask(
        kind="dense",
        **arrays,
        origin=f"the exact solution (seed {SEED})",
        notes=(
            f"training: pairs of successive frames of {TRAJECTORIES['train']} trajectories; validation: "
            f"{TRAJECTORIES['val']} others, test: {TRAJECTORIES['test']} others.",
        ),
        loss="relative_l2",
        metrics=("relative_l2", "rmse"),
        protocol=options.protocol,
        steps=FRAMES - 1 if rollout else 0,
        equation=SolvedEquation(
            "advection",
            {"beta": SPEED},
            domain=((0.0, 1.0),),
            points=(X,),
            known=(0.0,),
            asked=tuple(T[1 : FRAMES if rollout else 2].tolist()),
        ),
    )
