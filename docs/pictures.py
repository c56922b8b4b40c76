"""The pictures of "How it works", drawn from the reference."""

from __future__ import annotations

import io

import matplotlib
import torch
from matplotlib.figure import Figure

from pare_kernels import ReplaceSchedule, reference

TAU = 0.9
matplotlib.rcParams["svg.hashsalt"] = "pare-kernels"  # the same file each time


def noisy_scores(rows: int, patches: int) -> torch.Tensor:
    """Scores of a fresh gate with Gumbel noise, float64 (rows, patches)."""
    generator = torch.Generator().manual_seed(0)
    gate = torch.sigmoid(torch.randn(rows, patches, generator=generator, dtype=torch.float64))
    noise = -torch.log(-torch.log(torch.rand(rows, patches, generator=generator, dtype=torch.float64)))
    return gate + noise


def schedules(axes) -> None:
    progress = torch.linspace(0, 1, 201).tolist()
    for kind in ("linear", "exponential", "piecewise", "constant"):
        schedule = ReplaceSchedule(kind, start=0.5 if kind == "constant" else 1.0, end=0)
        axes.plot(progress, [schedule(t, 196) for t in progress], label=kind)
    axes.set(xlabel="training progress", ylabel="k of 196 patches")
    axes.legend()


def relaxation(axes) -> None:
    scores, n = noisy_scores(1, 64), 24
    order = scores[0].argsort(descending=True)
    axes.step(range(64), [1.0] * n + [0.0] * (64 - n), where="mid", color="grey", label="choice")
    for steps, label, style in (
        (None, "h, all 24 steps", "-"),
        (8, "h, 8 steps and the tail", "--"),
        (0, "h, the tail alone", ":"),
    ):
        axes.plot(reference.relaxed_topk(scores, n, TAU, steps)[0, order], style, label=label)
    axes.set(xlabel="patches, from the highest score down", ylabel="chosen")
    axes.legend()


def gradient(axes) -> None:
    steps = [0, 1, 2, 4, 8, 16]
    for patches, n in ((64, 32), (196, 98), (784, 392)):
        scores = noisy_scores(8, patches)
        upstream = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        upstream *= reference.topk_mask(scores, n)
        exact = reference.relaxed_topk_adjoint(upstream, scores, n, TAU, None)
        worst = [
            (1 - torch.cosine_similarity(reference.relaxed_topk_adjoint(upstream, scores, n, TAU, m), exact))
            .max()
            .item()
            for m in steps
        ]
        axes.plot(steps, worst, "o-", label=f"{n} of {patches}")
    axes.set(xlabel="exact_steps", ylabel="1 - cosine, worst of 8 samples", yscale="log")
    axes.legend()


PICTURES = {draw.__name__: draw for draw in (schedules, relaxation, gradient)}


def svg(draw) -> str:
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    draw(axes)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
