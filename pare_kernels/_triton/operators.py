"""The raw operators of `pare_kernels._library` on CUDA tensors: at most three launches forward, five backward, no host wait.

(All steps of the relaxation of long rows: eight backward.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._checks import ReplaceArguments, accumulation_dtype
from .._types import ChoiceScores
from . import launchers, tokens

REPLACE, SWAP, GATE = tokens.REPLACE.value, tokens.SWAP.value, tokens.GATE.value


def gate_scores(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    scores = torch.empty(tokens.shape[:2], dtype=accumulation_dtype(tokens.dtype), device=tokens.device)
    launchers.gate_scores([tokens], weight, bias, [scores])
    return scores


def gate_scores_backward(
    grad: Tensor, scores: Tensor, tokens: Tensor, weight: Tensor, need_tokens: bool, need_weight: bool
) -> tuple[Tensor, Tensor, Tensor]:
    dtokens, dweight, dbias = tokens.new_empty(0), scores.new_empty(0), scores.new_empty(0)
    if need_tokens or need_weight:
        rows, gates = (grad.contiguous(),) * 2, (scores.contiguous(),) * 2
        need = need_tokens, False, need_weight
        dtokens, _, partial = launchers.gradients(
            GATE, (tokens, None), (tokens, tokens), None, rows, gates, weight, need, scores.dtype, one=True
        )
        if need_weight:
            dweight, dbias = launchers.reduce(partial, weight)
    return dtokens, dweight, dbias


def gumbel_topk(
    scores: Tensor,
    noise: Tensor | None,
    seed: Tensor | None,
    stream: int,
    k: int,
    tau: float,
    noise_scale: float,
    exact_steps: int,
    first_row: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    noise = None if noise is None else noise.contiguous()
    noisy, mask, indices = launchers.select_rows(scores.contiguous(), noise, seed, stream, k, noise_scale, first_row)
    return mask, launchers.relaxed(noisy, k, tau, exact_steps), noisy, indices


def gumbel_topk_backward(grad: Tensor, noisy: Tensor, k: int, tau: float, exact_steps: int) -> Tensor:
    return launchers.topk_adjoint(grad.contiguous(), noisy.contiguous(), k, tau, exact_steps)


def _choose(arguments: ReplaceArguments) -> tuple[Tensor, ...]:
    """Everything of the forward pass but the rows: target_index and source_index (B, k), flat scores (see `ChoiceScores`)."""
    target, source, gate_weight, gate_bias, seed, noise_target, noise_source, k, *_ = arguments
    options = arguments.options
    gated = options.selection != "random"
    numel = ChoiceScores.numel(target.shape[0], target.shape[1], source.shape[1], gated)
    scores = torch.empty(numel, dtype=accumulation_dtype(target.dtype), device=target.device)
    noisy_target, noisy_source, *gates = ChoiceScores.split(scores, target, source)
    if gated:
        launchers.gate_scores((target, source), gate_weight, gate_bias, gates)
    noise = None
    if options.selection == "topk":
        seed = None
    elif noise_target is not None:
        noise, seed = (noise_target.contiguous(), noise_source.contiguous()), None
    noisy = noisy_target, noisy_source
    index = launchers.select(noisy, gates if gated else None, noise, seed, k, options, arguments.first_row)
    return *index, scores


def patch_replace(target: Tensor, source: Tensor, *arguments) -> tuple[Tensor, ...]:
    *index, scores = _choose(ReplaceArguments(target, source, *arguments))
    return launchers.replace(target, source, *index), *index, scores


def patch_swap_(target: Tensor, source: Tensor, *arguments) -> tuple[Tensor, ...]:
    *index, scores = _choose(ReplaceArguments(target, source, *arguments))
    launchers.swap(target, source, *index)
    return *index, scores


def _backward(
    mode: int,
    grads: tuple[Tensor, Tensor | None],
    target: Tensor,
    source: Tensor,
    gate_weight: Tensor,
    target_index: Tensor,
    source_index: Tensor,
    scores: Tensor,
    tau: float,
    exact_steps: int,
    highest: bool,
    relax: bool,
    *need: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *need_tokens, need_gate = need
    index, dtype, dweight = (target_index, source_index), scores.dtype, None
    if relax and any(need):
        *noisy, gate_target, gate_source = ChoiceScores.split(scores, target, source)
        row_dots = launchers.dots(grads[0], target, source, index, dtype, mode == SWAP)
        dscores, partner = launchers.adjoint(row_dots, noisy, index, tau, exact_steps, highest)
        dtarget, dsource, partial = launchers.gradients(
            mode, grads, (target, source), partner, dscores, (gate_target, gate_source), gate_weight, need, dtype
        )
        if need_gate and partial.numel() > 0:
            dweight, dbias = launchers.reduce(partial, gate_weight)
    elif any(need_tokens):
        partner = launchers.partners(index, (target.shape[1], source.shape[1]))
        dtarget, dsource, _ = launchers.gradients(
            mode, grads, (target, source), partner, None, None, gate_weight, (*need_tokens, False), dtype
        )
    else:
        dtarget, dsource = target.new_empty(0), source.new_empty(0)
    if dweight is None:
        dweight = scores.new_zeros(gate_weight.shape if need_gate else 0)
        dbias = scores.new_zeros(1 if need_gate else 0)
    return dtarget, dsource, dweight, dbias


def patch_replace_backward(grad: Tensor, target: Tensor, source: Tensor, *arguments) -> tuple[Tensor, ...]:
    return _backward(REPLACE, (grad.contiguous(), None), target, source, *arguments)


def patch_swap_backward(
    grad_target: Tensor, grad_source: Tensor | None, target: Tensor, source: Tensor, *arguments
) -> tuple[Tensor, ...]:
    grads = grad_target.contiguous(), None if grad_source is None else grad_source.contiguous()
    return _backward(SWAP, grads, target, source, *arguments)
