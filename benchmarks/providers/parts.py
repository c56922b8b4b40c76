"""Rivals for the parts of the operator: moving rows, scoring, sampling, selecting."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.operations import Workload
from benchmarks.providers.base import DEFAULT, EXACT, Call, Provider, draw_gumbel, register
from benchmarks.providers.relaxations import (
    LapSum,
    SigmoidThreshold,
    log_steps,
    paper_steps,
    straight_through,
)
from benchmarks.providers.rivals import closed, closed_by_hand, gate, rows_of

# ---------------------------------------------------------------------------------------------------------------------
# Rows, the choice being given.
# ---------------------------------------------------------------------------------------------------------------------


def _rows(workload: Workload) -> tuple[Tensor, Tensor]:
    target, source = workload.leaves
    slots, patches = workload.choice
    return rows_of(slots, target.shape[1]), rows_of(patches, source.shape[1])


def index_copy(workload: Workload) -> Tensor:
    (target, source), (slots, patches) = workload.leaves, _rows(workload)
    mixed = target.clone()
    mixed.flatten(0, 1).index_copy_(0, slots, source.flatten(0, 1).index_select(0, patches))
    return mixed


def index_copy_inplace(workload: Workload) -> Tensor:
    (target, source), (slots, patches) = workload.leaves, _rows(workload)
    target_rows, source_rows = target.flatten(0, 1), source.flatten(0, 1)
    displaced, placed = target_rows.index_select(0, slots), source_rows.index_select(0, patches)
    target_rows.index_copy_(0, slots, placed)
    source_rows.index_copy_(0, patches, displaced)
    return target


def topk_gather(workload: Workload) -> Tensor:
    (low, high), k = workload.noise, workload.case.k
    return index_copy(replace(workload, choice=(low.topk(k, largest=False).indices, high.topk(k).indices)))


def scatter(workload: Workload) -> Tensor:
    target, source = workload.leaves
    slots, patches = (index.unsqueeze(-1).expand(-1, -1, target.shape[2]) for index in workload.choice)
    return target.scatter(1, slots, source.gather(1, patches))


def where(workload: Workload) -> Tensor:
    target, source = workload.leaves
    slots, patches = workload.choice
    patch_of_slot = torch.full(target.shape[:2], -1, dtype=torch.int64, device=target.device).scatter_(
        1, slots, patches
    )
    rows = source.gather(1, patch_of_slot.clamp_min(0).unsqueeze(-1).expand_as(target))
    return torch.where(patch_of_slot.unsqueeze(-1) >= 0, rows, target)


for _name, _function, _summary in (
    ("index_copy", index_copy, "clone, index_select, index_copy_"),
    ("index_copy-inplace", index_copy_inplace, "index_select and index_copy_ both ways"),
    ("scatter", scatter, "gather, scatter"),
    ("where", where, "gather by a map, torch.where"),
):
    register(
        Provider(
            "swap",
            _name,
            _summary,
            lambda case, device, function=_function: lambda workload, noise: function(workload),
            in_place=_name.endswith("-inplace"),
        )
    )
register(
    Provider(
        "pairs",
        "topk-gather",
        "torch.topk in order, index_select and index_copy_",
        lambda case, device: lambda workload, noise: topk_gather(workload),
    )
)

# ---------------------------------------------------------------------------------------------------------------------
# Scores.
# ---------------------------------------------------------------------------------------------------------------------


def mv(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.sigmoid(torch.mv(tokens.flatten(0, 1).float(), weight.float()) + bias.float()).view(tokens.shape[:2])


for _name, _function, _summary in (
    ("linear", gate, "linear and sigmoid"),
    ("mv", mv, "matrix times vector and sigmoid"),
):
    register(
        Provider(
            "scores",
            _name,
            _summary,
            lambda case, device, function=_function: lambda workload, noise: function(*workload.leaves),
        )
    )

# ---------------------------------------------------------------------------------------------------------------------
# Sampling: noise, the hard choice, its relaxation.
# ---------------------------------------------------------------------------------------------------------------------


def _sampler(relax, ranked_by_relaxed: bool = False):
    def build(case: Case, device: torch.device) -> Call:
        def call(workload: Workload, noise) -> Tensor:
            (scores,) = workload.leaves
            noisy = scores + (draw_gumbel(scores) if noise is None else noise[0])
            relaxed = relax(noisy, case.k, case.tau)
            return straight_through(relaxed, relaxed if ranked_by_relaxed else noisy, case.k)

        return call

    return build


def _steps_memory(case: Case) -> int:
    return 7 * 4 * case.batch * case.k * case.num_target


for _provider in (
    Provider(
        "sampler",
        "paper",
        "the paper's sampler",
        _sampler(paper_steps, ranked_by_relaxed=True),
        family="paper",
        estimator=EXACT,
        memory=_steps_memory,
    ),
    Provider(
        "sampler",
        "batched",
        "the same steps, ranked by the scores",
        _sampler(log_steps),
        estimator=EXACT,
        memory=_steps_memory,
    ),
    Provider(
        "sampler",
        "closed",
        "closed form, autograd",
        _sampler(closed),
        estimator=DEFAULT,
    ),
    Provider(
        "sampler",
        "closed-manual",
        "closed form, backward by hand",
        _sampler(closed_by_hand),
        estimator=DEFAULT,
    ),
    Provider(
        "sampler",
        "sigmoid",
        "sigmoid with a threshold",
        _sampler(lambda scores, n, tau: SigmoidThreshold.apply(scores, n, tau)),
        estimator="sigmoid",
    ),
    Provider(
        "sampler",
        "lapsum",
        "LapSum soft top-k",
        _sampler(lambda scores, n, tau: LapSum.apply(scores, n, tau)),
        estimator="lapsum",
    ),
):
    register(_provider)

# ---------------------------------------------------------------------------------------------------------------------
# Selecting.
# ---------------------------------------------------------------------------------------------------------------------


def _topk(case: Case, device: torch.device) -> Call:
    return lambda workload, noise: workload.leaves[0].topk(case.k, dim=1, sorted=False).indices


def _topk_sorted(case: Case, device: torch.device) -> Call:
    return lambda workload, noise: workload.leaves[0].topk(case.k, dim=1, sorted=False).indices.sort(dim=1).values


register(Provider("select", "topk", "torch.topk, indices in any order", _topk))
register(Provider("select", "topk-sorted", "torch.topk, indices ascending", _topk_sorted))

# ---------------------------------------------------------------------------------------------------------------------
# What a call of a plain C++ operator of PyTorch costs: the fused Adam step has as many arguments, fifteen.
# ---------------------------------------------------------------------------------------------------------------------


def _fused_adam(case: Case, device: torch.device) -> Call:
    state = [[torch.ones(1, device=device)] for _ in range(4)]
    step = [torch.ones((), device=device)]
    options = {
        "lr": 0.0,
        "beta1": 0.9,
        "beta2": 0.999,
        "weight_decay": 0.0,
        "eps": 1e-8,
        "amsgrad": False,
        "maximize": False,
        "grad_scale": None,
        "found_inf": None,
    }
    operator = torch.ops.aten._fused_adam_

    def call(workload: Workload, noise) -> None:
        operator(*state, [], step, **options)

    return call


register(Provider("overhead", "fused_adam", "torch.ops.aten._fused_adam_ of one number", _fused_adam, yardstick=True))
