"""The operators of last resort: `pare_kernels.reference` put together as raw operators, with the backward pass written out.

They serve every device that has no kernels of its own, and the CPU without the C++ ones. What each operator takes and returns is
said in `_library.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import reference
from ._checks import ALL_EXACT, ReplaceArguments, accumulation_dtype
from ._ops import ops
from ._types import ChoiceScores


def _rows(index: Tensor, tokens: Tensor) -> Tensor:
    """(B, k) patch indices as a gather / scatter index over the rows of (B, N, D) tokens."""
    return index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])


def _steps(exact_steps: int) -> int | None:
    return None if exact_steps == ALL_EXACT else exact_steps


def gate_scores(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return reference.gate_scores(tokens, weight, bias)


def _gate_backward(dz: Tensor, tokens: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """dz (B, N), tokens (B, N, D) -> dw = sum dz * token, in the shape of the weight, dbias = sum dz, (1,); summed in float64."""
    wide = dz.double()
    dweight = torch.einsum("bn,bnd->d", wide, tokens.double()).reshape(weight.shape)
    return dweight.to(dz.dtype), wide.sum().reshape(1).to(dz.dtype)


def gate_scores_backward(
    grad: Tensor, scores: Tensor, tokens: Tensor, weight: Tensor, need_tokens: bool, need_weight: bool
) -> tuple[Tensor, Tensor, Tensor]:
    dz = grad * scores * (1 - scores)
    dtokens, dweight, dbias = tokens.new_empty(0), scores.new_empty(0), scores.new_empty(0)
    if need_tokens:
        dtokens = (dz.unsqueeze(-1) * weight.reshape(-1).to(dz.dtype)).to(tokens.dtype)
    if need_weight:
        dweight, dbias = _gate_backward(dz, tokens, weight)
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
    if seed is not None:
        noise = reference.gumbel_noise(seed, *scores.shape, stream, scores.dtype, first_row)
    noisy = scores if noise is None else reference.noisy_scores(scores, noise, noise_scale)
    noisy = noisy.clone(memory_format=torch.contiguous_format)
    mask = reference.topk_mask(noisy, k)
    relaxed = reference.relaxed_topk(noisy, k, tau, _steps(exact_steps))
    return mask.to(scores.dtype), relaxed, noisy, reference.mask_to_index(mask, k)


def gumbel_topk_backward(grad: Tensor, noisy: Tensor, k: int, tau: float, exact_steps: int) -> Tensor:
    return reference.relaxed_topk_adjoint(grad, noisy, k, tau, _steps(exact_steps))


def _choose(arguments: ReplaceArguments) -> tuple[Tensor, ...]:
    """Everything of the forward pass but the rows: target_index and source_index (B, k), flat scores (see `ChoiceScores`)."""
    options, scores = arguments.options, reference.choice_scores(arguments)
    index = reference.choose_patches(*scores[:2], arguments.k, replace=options.replace, pairing=options.pairing)
    return *index, scores.flat()


def patch_replace(target: Tensor, source: Tensor, *arguments) -> tuple[Tensor, ...]:
    target_index, source_index, scores = _choose(ReplaceArguments(target, source, *arguments))
    placed = source.gather(1, _rows(source_index, source))
    mixed = target.contiguous().scatter(1, _rows(target_index, target), placed)
    return mixed, target_index, source_index, scores


def patch_swap_(target: Tensor, source: Tensor, *arguments) -> tuple[Tensor, ...]:
    target_index, source_index, scores = _choose(ReplaceArguments(target, source, *arguments))
    placed = source.gather(1, _rows(source_index, source))
    displaced = target.gather(1, _rows(target_index, target))
    target.scatter_(1, _rows(target_index, target), placed)
    source.scatter_(1, _rows(source_index, source), displaced)
    return target_index, source_index, scores


def patch_swap(target: Tensor, source: Tensor, *arguments) -> tuple[Tensor, ...]:
    mixed, displaced = (tokens.clone(memory_format=torch.contiguous_format) for tokens in (target, source))
    return mixed, displaced, *ops.patch_swap_(mixed, displaced, *arguments)


def patch_replace_backward(
    grad: Tensor,
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
    need_target: bool,
    need_source: bool,
    need_gate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = accumulation_dtype(target.dtype)
    k, num_target = target_index.shape[1], target.shape[1]
    placed_grad = grad.gather(1, _rows(target_index, grad))

    # 1. Tokens: kept slots and placed patches get the gradient of the row they became.
    dtarget = grad.scatter(1, _rows(target_index, grad), 0.0) if need_target else None
    dsource = torch.zeros_like(source).scatter_(1, _rows(source_index, source), placed_grad) if need_source else None
    dweight = torch.zeros(gate_weight.shape if need_gate else 0, dtype=dtype, device=target.device)
    dbias = torch.zeros(1 if need_gate else 0, dtype=dtype, device=target.device)

    if relax:
        noisy_target, noisy_source, gate_target, gate_source = ChoiceScores.split(scores, target, source)
        # 2. Masks: c = <gradient of the row, token> on kept slots and on placed patches.
        c_target = (grad.to(dtype) * target.to(dtype)).sum(-1).scatter(1, target_index, 0.0)
        placed = source.gather(1, _rows(source_index, source))
        c_placed = (placed_grad.to(dtype) * placed.to(dtype)).sum(-1)
        c_source = torch.zeros_like(noisy_source).scatter_(1, source_index, c_placed)
        # 3. Relaxation: Nt - k of the target stay, k of the source come.
        sign = -1.0 if highest else 1.0
        steps = _steps(exact_steps)
        ds_target = sign * reference.relaxed_topk_adjoint(c_target, sign * noisy_target, num_target - k, tau, steps)
        ds_source = reference.relaxed_topk_adjoint(c_source, noisy_source, k, tau, steps)
        # 4. Gate: z = token @ w + b, g = sigmoid(z).
        dz_target = ds_target * gate_target * (1 - gate_target)
        dz_source = ds_source * gate_source * (1 - gate_source)
        weight = gate_weight.reshape(-1).to(dtype)
        if need_target:
            dtarget = (dtarget.to(dtype) + dz_target.unsqueeze(-1) * weight).to(target.dtype)
        if need_source:
            dsource = (dsource.to(dtype) + dz_source.unsqueeze(-1) * weight).to(source.dtype)
        if need_gate:
            dweight, dbias = (
                of_target + of_source
                for of_target, of_source in zip(
                    _gate_backward(dz_target, target, gate_weight),
                    _gate_backward(dz_source, source, gate_weight),
                    strict=True,
                )
            )
    return (
        dtarget.contiguous() if need_target else target.new_empty(0),
        dsource.contiguous() if need_source else source.new_empty(0),
        dweight,
        dbias,
    )


def patch_swap_backward(
    grad_target: Tensor,
    grad_source: Tensor | None,
    target: Tensor,
    source: Tensor,
    gate_weight: Tensor,
    target_index: Tensor,
    source_index: Tensor,
    *rest,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *_, need_target, need_source, _ = rest
    slots, patches = _rows(target_index, target), _rows(source_index, source)
    original_target = target.scatter(1, slots, source.gather(1, patches))
    original_source = source.scatter(1, patches, target.gather(1, slots))
    original = original_target, original_source, gate_weight, target_index, source_index
    dtarget, dsource, dweight, dbias = patch_replace_backward(grad_target, *original, *rest)
    # The source buffer's own gradient only moves: to the patches that stayed, and back to the target's displaced ones.
    if grad_source is None:
        return dtarget, dsource, dweight, dbias
    if need_target:
        dtarget.scatter_add_(1, slots, grad_source.gather(1, patches))
    if need_source:
        dsource.add_(grad_source.scatter(1, patches, 0.0))
    return dtarget, dsource, dweight, dbias
