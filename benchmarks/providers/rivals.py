"""The whole operator as the paper's code runs it, and as others would write it: eager PyTorch and `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.operations import Workload
from benchmarks.providers.base import DEFAULT, DEFAULT_STEPS, EXACT, Call, Provider, draw_gumbel, register
from benchmarks.providers.relaxations import (
    ClosedForm,
    LapSum,
    SigmoidThreshold,
    advance,
    closed_form,
    closed_form_adjoint,
    log_steps,
    paper_steps,
    straight_through,
)

COMPILE_CHUNK = 8
# Beyond this many steps the unrolled graph takes minutes to compile.
COMPILE_WHOLE = 64

Relaxation = Callable[[Tensor, int, float], Tensor]


def gate(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Scores in float32, as everywhere here: half precision would ruin a relaxation of thousands of steps."""
    return torch.sigmoid(
        torch.nn.functional.linear(tokens.float(), weight.float()[None], bias.float().reshape(1)).squeeze(-1)
    )


def own_noise(workload: Workload, noise):
    if noise is not None:
        return noise
    return tuple(draw_gumbel(part) for part in workload.noise)


def steps_memory(case: Case) -> int:
    """What autograd keeps of the sequential relaxation: seven float32 vectors per step (measured 6.8 to 7.2)."""
    source, target = case.k * case.num_source, (case.num_target - case.k) * case.num_target
    return 7 * 4 * case.batch * (source + target)


# ---------------------------------------------------------------------------------------------------------------------
# The paper's algorithm: masks with straight-through gradient, then one sample after the other.
# ---------------------------------------------------------------------------------------------------------------------


def paper_mix(target, source, weight, bias, noise, k: int, tau: float) -> Tensor:
    if noise is None:
        gumbel = torch.distributions.Gumbel(torch.zeros((), device=target.device), torch.ones((), device=target.device))
        noise = tuple(gumbel.sample(tokens.shape[:2]) for tokens in (target, source))
    masks = []
    for tokens, values, n in ((target, noise[0], target.shape[1] - k), (source, noise[1], k)):
        khot = paper_steps(gate(tokens, weight, bias) + values, n, tau)
        masks.append(straight_through(khot, khot, n))
    kept = target * masks[0].unsqueeze(-1).to(target.dtype)
    taken = source * masks[1].unsqueeze(-1).to(source.dtype)
    rows = []
    for sample in range(target.shape[0]):
        slots = torch.nonzero(1 - masks[0][sample]).squeeze(1)
        patches = torch.nonzero(masks[1][sample]).squeeze(1)
        row = kept[sample].clone()
        row[slots] = taken[sample][patches]
        rows.append(row)
    return torch.stack(rows)


# ---------------------------------------------------------------------------------------------------------------------
# The same operator over the whole batch, with any relaxation.
# ---------------------------------------------------------------------------------------------------------------------


def choose(s_target: Tensor, s_source: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k lowest of the target and the k highest of the source, both ascending by position."""
    slots = s_target.topk(k, dim=1, largest=False, sorted=False).indices.sort(dim=1).values
    patches = s_source.topk(k, dim=1, sorted=False).indices.sort(dim=1).values
    return slots, patches


def masked(tokens: Tensor, relaxed: Tensor) -> Tensor:
    """tokens with the straight-through gradient of a mask that is 1 wherever the row is used."""
    return tokens * (1.0 - relaxed.detach() + relaxed).unsqueeze(-1).to(tokens.dtype)


def batched_mix(target, source, weight, bias, noise, k: int, tau: float, relax: Relaxation) -> Tensor:
    s_target = gate(target, weight, bias) + noise[0]
    s_source = gate(source, weight, bias) + noise[1]
    slots, patches = choose(s_target.detach(), s_source.detach(), k)
    slots, patches = (index.unsqueeze(-1).expand(-1, -1, target.shape[2]) for index in (slots, patches))
    kept = masked(target, relax(s_target, target.shape[1] - k, tau))
    # Gathered before it is multiplied: fewer rows.
    h_source = relax(s_source, k, tau)
    taken = masked(source.gather(1, patches), h_source.gather(1, patches[..., 0]))
    return kept.scatter(1, slots, taken)


# ---------------------------------------------------------------------------------------------------------------------
# Closed form with a backward pass by hand, in two styles of moving rows: lists of indices, and a map with torch.where, which
# `torch.compile` fuses with everything around it.
# ---------------------------------------------------------------------------------------------------------------------


def rows_of(index: Tensor, patches: int) -> Tensor:
    """(B, k) patch indices as row numbers of the (B * N, D) view."""
    return (index + patches * torch.arange(index.shape[0], device=index.device).unsqueeze(1)).flatten()


def forward_by_index(target, source, weight, bias, noise_target, noise_source, k: int):
    g_target, g_source = gate(target, weight, bias), gate(source, weight, bias)
    s_target, s_source = g_target + noise_target, g_source + noise_source
    slots, patches = choose(s_target, s_source, k)
    slots, patches = rows_of(slots, target.shape[1]), rows_of(patches, source.shape[1])
    mixed = target.clone()
    mixed.flatten(0, 1).index_copy_(0, slots, source.flatten(0, 1).index_select(0, patches))
    return mixed, g_target, g_source, s_target, s_source, slots, patches


def backward_by_index(y, target, source, weight, g_target, g_source, s_target, s_source, slots, patches, k, tau):
    y_rows = y.flatten(0, 1).index_select(0, slots)
    dtarget, dsource = y.clone(), torch.zeros_like(source)
    dtarget.flatten(0, 1).index_fill_(0, slots, 0.0)
    dsource.flatten(0, 1).index_copy_(0, patches, y_rows)
    c_target = (dtarget * target).sum(-1, dtype=torch.float32)
    c_source = torch.zeros_like(s_source)
    placed = source.flatten(0, 1).index_select(0, patches)
    c_source.view(-1).index_copy_(0, patches, (y_rows * placed).sum(-1, dtype=torch.float32))
    dz_target, dz_source = _gate_adjoint(c_target, c_source, g_target, g_source, s_target, s_source, k, tau)
    dweight = dz_target.view(-1) @ target.flatten(0, 1).float() + dz_source.view(-1) @ source.flatten(0, 1).float()
    dtarget.flatten(0, 1).addr_(dz_target.view(-1).to(target.dtype), weight)
    dsource.flatten(0, 1).addr_(dz_source.view(-1).to(source.dtype), weight)
    return dtarget, dsource, dweight, dz_target.sum() + dz_source.sum()


def forward_by_map(target, source, weight, bias, noise_target, noise_source, k: int):
    g_target, g_source = gate(target, weight, bias), gate(source, weight, bias)
    s_target, s_source = g_target + noise_target, g_source + noise_source
    slots, patches = choose(s_target, s_source, k)
    patch_of_slot = torch.full_like(s_target, -1, dtype=torch.int64).scatter(1, slots, patches)
    slot_of_patch = torch.full_like(s_source, -1, dtype=torch.int64).scatter(1, patches, slots)
    mixed = torch.where(patch_of_slot.unsqueeze(-1) >= 0, _rows(source, patch_of_slot), target)
    return mixed, g_target, g_source, s_target, s_source, patch_of_slot, slot_of_patch


def backward_by_map(
    y, target, source, weight, g_target, g_source, s_target, s_source, patch_of_slot, slot_of_patch, k, tau
):
    y_target = torch.where(patch_of_slot.unsqueeze(-1) < 0, y, 0.0).float()
    y_source = torch.where(slot_of_patch.unsqueeze(-1) >= 0, _rows(y, slot_of_patch), 0.0).float()
    c_target, c_source = (y_target * target.float()).sum(-1), (y_source * source.float()).sum(-1)
    dz_target, dz_source = _gate_adjoint(c_target, c_source, g_target, g_source, s_target, s_source, k, tau)
    dweight = (dz_target.unsqueeze(-1) * target.float()).sum((0, 1)) + (dz_source.unsqueeze(-1) * source.float()).sum(
        (0, 1)
    )
    dtarget = (y_target + dz_target.unsqueeze(-1) * weight.float()).to(target.dtype)
    dsource = (y_source + dz_source.unsqueeze(-1) * weight.float()).to(source.dtype)
    return dtarget, dsource, dweight, dz_target.sum() + dz_source.sum()


def _rows(tokens: Tensor, index: Tensor) -> Tensor:
    return tokens.gather(1, index.clamp_min(0).unsqueeze(-1).expand(-1, -1, tokens.shape[2]))


def _gate_adjoint(c_target, c_source, g_target, g_source, s_target, s_source, k: int, tau: float):
    ds_target = closed_form_adjoint(c_target, s_target, s_target.shape[1] - k, tau, DEFAULT_STEPS)
    ds_source = closed_form_adjoint(c_source, s_source, k, tau, DEFAULT_STEPS)
    return ds_target * g_target * (1 - g_target), ds_source * g_source * (1 - g_source)


def by_hand(run_forward, run_backward, k: int, tau: float):
    """An autograd function from a forward and a backward pass, either of which may be compiled."""

    class ByHand(torch.autograd.Function):
        @staticmethod
        def forward(ctx, target, source, weight, bias, noise_target, noise_source):
            mixed, *saved = run_forward(target, source, weight, bias, noise_target, noise_source, k)
            ctx.save_for_backward(target, source, weight, *saved)
            ctx.bias_dtype = bias.dtype
            return mixed

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, y):
            target, source, weight, *saved = ctx.saved_tensors
            dtarget, dsource, dweight, dbias = run_backward(y, target, source, weight, *saved, k, tau)
            return dtarget, dsource, dweight.to(weight.dtype), dbias.to(ctx.bias_dtype), None, None

    return ByHand.apply


# ---------------------------------------------------------------------------------------------------------------------
# Registration.
# ---------------------------------------------------------------------------------------------------------------------


def _build_paper(case: Case, device: torch.device) -> Call:
    return lambda workload, noise: paper_mix(*workload.leaves, noise, case.k, case.tau)


def _build_batched(relax: Relaxation, compiled: bool = False):
    def build(case: Case, device: torch.device) -> Call:
        mix = torch.compile(batched_mix, dynamic=False) if compiled else batched_mix
        return lambda workload, noise: mix(*workload.leaves, own_noise(workload, noise), case.k, case.tau, relax)

    return build


def _build_compiled_batched(case: Case, device: torch.device) -> Call:
    """Few steps: the whole operator in one graph. Many: the relaxation in graphs of a few steps each, called in a loop."""
    if case.num_target <= COMPILE_WHOLE:
        return _build_batched(_steps_unrolled, compiled=True)(case, device)
    chunk = torch.compile(advance, dynamic=False)

    def relax(scores: Tensor, n: int, tau: float) -> Tensor:
        p = torch.softmax(scores / tau, dim=1)
        h = torch.zeros_like(p)
        for _ in range(n // COMPILE_CHUNK):
            p, h = chunk(p, h, tau, COMPILE_CHUNK)
        return advance(p, h, tau, n % COMPILE_CHUNK)[1]

    return _build_batched(relax)(case, device)


def _steps_unrolled(scores: Tensor, n: int, tau: float) -> Tensor:
    p = torch.softmax(scores / tau, dim=1)
    return advance(p, torch.zeros_like(p), tau, n)[1]


def _build_by_hand(forward, backward, compiled: bool = False):
    def build(case: Case, device: torch.device) -> Call:
        passes = [torch.compile(f, dynamic=False) if compiled else f for f in (forward, backward)]
        mix = by_hand(*passes, case.k, case.tau)
        return lambda workload, noise: mix(*workload.leaves, *own_noise(workload, noise))

    return build


def _build_forward(forward, compiled: bool = False):
    def build(case: Case, device: torch.device) -> Call:
        mix = torch.compile(forward, dynamic=False) if compiled else forward
        return lambda workload, noise: mix(*workload.leaves, *own_noise(workload, noise), case.k)[0]

    return build


def closed(scores: Tensor, n: int, tau: float) -> Tensor:
    return closed_form(scores, n, tau, DEFAULT_STEPS)


def closed_by_hand(scores: Tensor, n: int, tau: float) -> Tensor:
    return ClosedForm.apply(scores, n, tau, DEFAULT_STEPS)


for _provider in (
    Provider(
        "replace",
        "paper",
        "the paper's algorithm: sequential softmaxes, one sample after the other",
        _build_paper,
        family="paper",
        estimator=EXACT,
        memory=steps_memory,
    ),
    Provider(
        "replace",
        "paper-batched",
        "the same relaxation, rows by batched gather and scatter",
        _build_batched(log_steps),
        estimator=EXACT,
        memory=steps_memory,
    ),
    Provider("replace", "eager-closed", "closed form, autograd", _build_batched(closed), estimator=DEFAULT),
    Provider(
        "replace",
        "eager-closed-manual",
        "closed form, backward by hand",
        _build_by_hand(forward_by_index, backward_by_index),
        estimator=DEFAULT,
    ),
    Provider(
        "replace",
        "compile-batched",
        "torch.compile of the batched form; 8 steps per graph above 64 patches",
        _build_compiled_batched,
        estimator=EXACT,
        compiled=True,
        memory=lambda case: steps_memory(case) // COMPILE_CHUNK,
    ),
    Provider(
        "replace",
        "compile-closed",
        "torch.compile of the closed form",
        _build_batched(closed, compiled=True),
        estimator=DEFAULT,
        compiled=True,
    ),
    Provider(
        "replace",
        "compile-closed-manual",
        "torch.compile of the closed form, both passes by hand, rows by torch.where",
        _build_by_hand(forward_by_map, backward_by_map, compiled=True),
        estimator=DEFAULT,
        compiled=True,
    ),
    Provider(
        "replace",
        "sigmoid",
        "sigmoid with a threshold instead of the relaxation",
        _build_batched(lambda scores, n, tau: SigmoidThreshold.apply(scores, n, tau)),
        estimator="sigmoid",
    ),
    Provider(
        "replace",
        "lapsum",
        "LapSum soft top-k instead of the relaxation",
        _build_batched(lambda scores, n, tau: LapSum.apply(scores, n, tau)),
        estimator="lapsum",
    ),
    Provider(
        "forward",
        "topk-gather",
        "linear, torch.topk, index_select and index_copy_",
        _build_forward(forward_by_index),
    ),
    Provider(
        "forward",
        "compile-topk-gather",
        "torch.compile of linear, torch.topk, gather and torch.where",
        _build_forward(forward_by_map, compiled=True),
        compiled=True,
    ),
):
    register(_provider)
