"""The definition of the operator, in plain PyTorch: any device, any dtype, float64 for the tests that hold every kernel to it.

The method is PaRe (Cai et al., ICML 2024): a gate scores the patches of both modalities, Gumbel noise makes a random top-k of
the scores, the k best source patches replace k target patches, and the gradient of the hard choice is that of a relaxed one
(straight-through). The relaxation is the subset sampler of Xie and Ermon (IJCAI 2019),

    p_1 = softmax(s / tau),   p_{i+1} = normalize(p_i (1 - p_i)^(1/tau)),   h = p_1 + ... + p_n,

of which the first m = `exact_steps` steps run one by one and the other n - m in closed form: when every p is small, a log-weight
falls by p/tau per step while h grows by p, so e^(h/tau) dh is proportional to p, and with p = p_{m+1}

    tail_j = tau log(1 + T p_j / tau),   T such that sum_j tail_j = n - m.

Scores more than 700 tau below the largest of their row count as -inf, their weight e^-700 being next to none. So those of +inf
share their row. A patch that is alone keeps p = 1 and has h = n: every row that has a score sums to n.

Everything here favours being read over being fast. Shapes: B samples of a batch, N patches (Nt target, Ns source), D features.
"""

from __future__ import annotations

import math
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from ._checks import (
    ReplaceArguments,
    accumulation_dtype,
    check_replace,
    first_derivative_only,
    replace_options,
)
from ._types import ChoiceScores, PatchReplaceResult, replaced_share

TARGET_STREAM, SOURCE_STREAM = 0, 1
FARTHEST = 700  # how many tau a score that counts may lie below the largest of its row: e^-700 is still a normal double

# ---------------------------------------------------------------------------------------------------------------------
# Noise: Philox-4x32-10 (Salmon et al., SC 2011), one counter per (stream, row, patch).
# ---------------------------------------------------------------------------------------------------------------------

PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
PHILOX_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
PHILOX_ROUNDS = 10
_WORD = 0xFFFFFFFF


def philox_4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four 32-bit words per counter. Words, counters and keys are int64 tensors that hold values in [0, 2^32)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(PHILOX_ROUNDS):
        # The product of two 32-bit words wraps in int64; both of its halves are still right modulo 2^32.
        product0, product1 = PHILOX_MULTIPLIERS[0] * c0, PHILOX_MULTIPLIERS[1] * c2
        high0, low0 = (product0 >> 32) & _WORD, product0 & _WORD
        high1, low1 = (product1 >> 32) & _WORD, product1 & _WORD
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + PHILOX_KEY_STEPS[0]) & _WORD, (k1 + PHILOX_KEY_STEPS[1]) & _WORD
    return c0, c1, c2, c3


def philox_bits(seed: Tensor, rows: int, patches: int, stream: int, first_row: int = 0) -> Tensor:
    """The 24 random bits of every patch of rows `first_row` on, int64 (rows, patches) in [0, 2^24): what every backend agrees on
    to the bit."""
    seed = seed.reshape(()).to(torch.int64)
    patch = torch.arange(patches, device=seed.device).expand(rows, patches)
    row = first_row + torch.arange(rows, device=seed.device).unsqueeze(1).expand(rows, patches)
    counter = (patch, row & _WORD, row >> 32, torch.full_like(patch, stream))
    word, *_ = philox_4x32(counter, (seed & _WORD, (seed >> 32) & _WORD))
    return word >> 8


def gumbel_noise(
    seed: Tensor, rows: int, patches: int, stream: int, dtype: torch.dtype = torch.float64, first_row: int = 0
) -> Tensor:
    """Standard Gumbel noise G = -log(-log(u)), (rows, patches), u = (bits + 1/2) 2^-24 in the open interval (0, 1)."""
    u = (philox_bits(seed, rows, patches, stream, first_row).double() + 0.5) * 2.0**-24
    return (-torch.log(-torch.log(u))).to(dtype)


# ---------------------------------------------------------------------------------------------------------------------
# Scores and the hard choice.
# ---------------------------------------------------------------------------------------------------------------------


def gate_scores(tokens: Tensor, gate_weight: Tensor, gate_bias: Tensor | None = None) -> Tensor:
    """g = sigmoid(tokens @ w + b): (B, N, D) -> (B, N), in float32 whatever the tokens' type (float64 for float64)."""
    dtype = accumulation_dtype(tokens.dtype)
    with torch.autocast(tokens.device.type, enabled=False):
        z = tokens.to(dtype) @ gate_weight.reshape(-1).to(dtype)
        return torch.sigmoid(z if gate_bias is None else z + gate_bias.to(dtype).reshape(()))


def noisy_scores(gate: Tensor | None, noise: Tensor | None, noise_scale: float) -> Tensor:
    """s = g + noise_scale G; g alone without noise ("topk"), G alone without a gate ("random")."""
    if gate is None:
        return noise
    return gate if noise is None else gate + noise_scale * noise


def choice_scores(arguments: ReplaceArguments) -> ChoiceScores:
    """The scores that decide, (B, Nt) and (B, Ns), and the gates behind them."""
    target, source, *gate, seed, noise_target, noise_source = arguments[:7]
    selection = arguments.options.selection
    noisy, gates = [], []
    for stream, noise, tokens in ((TARGET_STREAM, noise_target, target), (SOURCE_STREAM, noise_source, source)):
        if selection == "topk":
            noise = None
        elif seed is not None:
            dtype = accumulation_dtype(tokens.dtype)
            noise = gumbel_noise(seed, *tokens.shape[:2], stream, dtype, arguments.first_row)
        gates.append(None if selection == "random" else gate_scores(tokens, *gate))
        noisy.append(noisy_scores(gates[-1], noise, arguments.noise_scale))
    return ChoiceScores(*noisy, *gates)


def ranking(scores: Tensor) -> Tensor:
    """Patch indices from best to worst, (B, N). Equal scores: the lower index ranks higher; NaN ranks below everything."""
    is_nan = scores.isnan()
    order = scores.masked_fill(is_nan, -math.inf).argsort(dim=-1, descending=True, stable=True)
    nan_last = is_nan.gather(-1, order).to(torch.int8).argsort(dim=-1, stable=True)
    return order.gather(-1, nan_last)


def topk_mask(scores: Tensor, n: int) -> Tensor:
    """True on the n best of each row, bool (B, N)."""
    mask = torch.zeros_like(scores, dtype=torch.bool)
    return mask.scatter_(-1, ranking(scores)[..., :n], True)


def mask_to_index(mask: Tensor, n: int) -> Tensor:
    """Ascending positions of the n true entries of each row, int64 (B, n)."""
    return (~mask).to(torch.int8).argsort(dim=-1, stable=True)[..., :n].contiguous()


def choose_patches(
    noisy_target: Tensor, noisy_source: Tensor, k: int, *, replace: str, pairing: str
) -> tuple[Tensor, Tensor]:
    """From scores (B, Nt) and (B, Ns) the k free target slots, ascending, and the source patch that goes into each: int64 (B, k).

    The Nt - k largest target scores stay (of the negated ones with `replace="highest"`), the k largest source scores come.
    By position the j-th free slot takes the j-th chosen source patch, both ascending; by score the free slots from the lowest
    noisy score up take the chosen source patches from the highest down. As the lower index ranks higher, of tied source patches
    the lower index goes first, of tied slots the higher one.
    """
    kept = topk_mask(-noisy_target if replace == "highest" else noisy_target, noisy_target.shape[-1] - k)
    taken = topk_mask(noisy_source, k)
    target_index, source_index = mask_to_index(~kept, k), mask_to_index(taken, k)
    if pairing == "score":
        best_first = source_index.gather(-1, ranking(noisy_source.gather(-1, source_index)))
        lowest_first = ranking(noisy_target.gather(-1, target_index)).flip(-1)
        source_index = torch.empty_like(source_index).scatter_(-1, lowest_first, best_first)
    return target_index, source_index


# ---------------------------------------------------------------------------------------------------------------------
# The relaxation h and the product of its transposed Jacobian with a vector. Scores, p, h, a and c are (B, N).
# ---------------------------------------------------------------------------------------------------------------------


def one_minus(p: Tensor) -> Tensor:
    """1 - p for rows that sum to one; for the largest entry as the sum of the others, which does not cancel when p is near 1."""
    if p.shape[-1] == 0:
        return 1 - p
    largest = p.argmax(dim=-1, keepdim=True)
    others = p.scatter(-1, largest, 0.0).sum(dim=-1, keepdim=True)
    return (1 - p).scatter(-1, largest, others)


def first_step(scores: Tensor, tau: float) -> Tensor:
    """p_1 = softmax(s / tau). NaN, and what lies more than `FARTHEST` tau below the largest score of its row, count as -inf, a
    row of nothing else as all zero. So scores of +inf share their row among themselves."""
    s = scores.masked_fill(scores.isnan(), -math.inf)
    top = s.amax(dim=-1, keepdim=True)
    below = torch.where(s == top, 0.0, (s - top) / tau)
    weight = below.exp().masked_fill((s == -math.inf) | (below < -FARTHEST), 0.0)
    return weight / weight.sum(dim=-1, keepdim=True).clamp(min=1)  # the largest score has weight 1


def next_step(p: Tensor, tau: float) -> Tensor:
    """p_{i+1} = normalize(p_i (1 - p_i)^(1/tau)); a patch that is alone keeps p = 1."""
    weight = p * one_minus(p).pow(1 / tau)
    total = weight.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, weight / total, p)


def step_back(a: Tensor, c: Tensor, p: Tensor, tau: float) -> Tensor:
    """The adjoint of a step: `relaxed_topk_adjoint` says of what.

    For the largest p of a row, 1 - p may be as small as e^-700, and A as large as its inverse; it is carried as A (1 - p), and
    p_j (A (1 - p)) / (1 - p) is formed with the share p_j / (1 - p) that the others have among themselves.
    """
    rest = one_minus(p)
    largest = torch.zeros_like(p, dtype=torch.bool).scatter_(-1, p.argmax(dim=-1, keepdim=True), True)
    scale, ratio = torch.where(largest, rest, 1.0), torch.where(largest, p, p / rest)
    a = scale * c * p + a * (scale - ratio / tau)
    of_largest, rest_of_largest = (x.masked_fill(~largest, 0.0).sum(dim=-1, keepdim=True) for x in (a, rest))
    of_others = a.masked_fill(largest, 0.0).sum(dim=-1, keepdim=True)
    share = torch.where(largest | (rest_of_largest == 0), 0.0, p / rest_of_largest)
    return a - p * of_others - share * of_largest


def solve_tail(p: Tensor, remaining: float, tau: float, iterations: int = 100) -> Tensor:
    """log T with sum_j tau log(1 + T p_j / tau) = remaining, (B, 1); -inf for a row of zeros.

    Newton on x = log T, where the sum is convex and increasing: at most one step overshoots, and nothing overflows when one
    patch dominates. Start: T = remaining, from below, since tau log(1 + T p / tau) <= T p.
    """
    log_p = p.log() - math.log(tau)
    x = torch.full_like(p[..., :1], math.log(remaining))
    for _ in range(iterations):
        excess = tau * softplus(x + log_p).sum(dim=-1, keepdim=True) - remaining
        step = excess / (tau * torch.sigmoid(x + log_p).sum(dim=-1, keepdim=True))
        step = step.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)  # not finite in rows of zeros alone
        x = x - step
        if (step.abs() / x.abs().clamp(min=1)).amax() <= 4 * torch.finfo(p.dtype).eps:
            break
    return x.masked_fill((p == 0).all(dim=-1, keepdim=True), -math.inf)


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x) at full precision everywhere (torch's own is linear above 20)."""
    return torch.logaddexp(x, torch.zeros_like(x))


def relaxed_topk(scores: Tensor, n: int, tau: float, exact_steps: int | None) -> Tensor:
    """The relaxed indicator h of the n largest scores, (B, N); rows sum to n, entries are not bounded by 1.

    In float64 whatever the type of the scores: where one score leads, float32 holds neither what is left for the others nor,
    at small tau, the digits that a step multiplies by 1/tau.
    """
    if n == 0 or scores.numel() == 0:
        return torch.zeros_like(scores)
    exact = n if exact_steps is None else min(exact_steps, n)
    p = first_step(scores.double(), tau)
    h = torch.zeros_like(p)
    for _ in range(exact):
        h = h + p
        p = next_step(p, tau)
    if n > exact:
        h = h + tau * softplus(solve_tail(p, n - exact, tau) + p.log() - math.log(tau))
    return h.to(scores.dtype)


def relaxed_topk_adjoint(c: Tensor, scores: Tensor, n: int, tau: float, exact_steps: int | None) -> Tensor:
    """ds = J(h)^T c, (B, N), for upstream c = dL/dh. `sum(ds) = 0` along a row: h does not change with a common shift of s.

    With A_i the gradient with respect to log p_i, p_i normalized, from the last step to the first:

        tail:   A_{m+1} = tau q (c - <q, c> / <q, 1>),  q = (T p/tau) / (1 + T p/tau)
        step:   A_i = a - p_i <a, 1>,  a = c p_i + A_{i+1} (1 - p_i / (tau (1 - p_i)))
        start:  ds = A_1 / tau

    A checkpoint every sqrt(m) steps and recomputation in between keep memory at O(N sqrt(m)).
    """
    if n == 0 or scores.numel() == 0:
        return torch.zeros_like(scores)
    exact = n if exact_steps is None else min(exact_steps, n)
    stride = max(1, math.isqrt(exact))
    c = c.double()
    p = first_step(scores.double(), tau)
    checkpoints = []
    for i in range(exact):
        if i % stride == 0:
            checkpoints.append(p)
        p = next_step(p, tau)

    a = torch.zeros_like(p)
    if n > exact:
        q = torch.sigmoid(solve_tail(p, n - exact, tau) + p.log() - math.log(tau))
        total = q.sum(dim=-1, keepdim=True)
        # From the c of the largest p, which may have all of the mean: A does not change where all c shift.
        shifted = c - c.gather(-1, p.argmax(dim=-1, keepdim=True))
        mean = torch.where(total > 0, (q * shifted).sum(dim=-1, keepdim=True) / total, 0.0)
        a = tau * q * (shifted - mean)

    for start in reversed(range(0, exact, stride)):
        segment = [checkpoints.pop()]
        while len(segment) < min(stride, exact - start):
            segment.append(next_step(segment[-1], tau))
        for p in reversed(segment):
            a = step_back(a, c, p, tau)
    return (a / tau).to(scores.dtype)


class RelaxedTopK(torch.autograd.Function):
    """h = relaxed_topk(s) with the written-out backward pass instead of autograd through n steps."""

    @staticmethod
    def forward(ctx, scores: Tensor, n: int, tau: float, exact_steps: int | None) -> Tensor:
        ctx.save_for_backward(scores)
        ctx.arguments = n, tau, exact_steps
        return relaxed_topk(scores, n, tau, exact_steps)

    @staticmethod
    def backward(ctx, c: Tensor) -> tuple[Tensor, None, None, None]:
        first_derivative_only("pare_kernels.reference.patch_replace")
        (scores,) = ctx.saved_tensors
        return relaxed_topk_adjoint(c, scores, *ctx.arguments), None, None, None


class StraightThroughRows(torch.autograd.Function):
    """tokens * mask for rows whose mask is 1: the value is the token itself, the mask's gradient goes to its relaxation h.

    (B, N, D), (B, N) -> (B, N, D).
    """

    @staticmethod
    def forward(ctx, tokens: Tensor, h: Tensor) -> Tensor:
        ctx.save_for_backward(tokens, h)
        return tokens.clone()

    @staticmethod
    def backward(ctx, y: Tensor) -> tuple[Tensor, Tensor]:
        first_derivative_only("pare_kernels.reference.patch_replace")
        tokens, h = ctx.saved_tensors
        # A row that was not chosen gets y = 0, and its token may be anything (inf * 0 is not 0).
        unused = (y == 0).all(dim=-1)
        return y, (y.to(h.dtype) * tokens.to(h.dtype)).sum(dim=-1).masked_fill(unused, 0.0)


# ---------------------------------------------------------------------------------------------------------------------
# The operator.
# ---------------------------------------------------------------------------------------------------------------------


def patch_replace(
    target: Tensor,
    source: Tensor,
    gate_weight: Tensor,
    gate_bias: Tensor | None = None,
    *,
    k: SupportsIndex,
    seed: SupportsIndex | Tensor | None = None,
    generator: torch.Generator | None = None,
    noise: tuple[Tensor, Tensor] | None = None,
    first_row: SupportsIndex = 0,
    **options: Any,
) -> PatchReplaceResult:
    """What `pare_kernels.patch_replace` computes, same arguments and result (see there), as one differentiable expression."""
    choice = replace_options(**options)
    randomness = seed, generator, noise, first_row
    arguments = check_replace(choice, target, source, gate_weight, gate_bias, k, *randomness)
    s_target, s_source, *_ = choice_scores(arguments)
    target_index, source_index = choose_patches(
        s_target.detach(), s_source.detach(), arguments.k, replace=choice.replace, pairing=choice.pairing
    )

    k, tau, num_target = arguments.k, arguments.tau, target.shape[1]
    if arguments.relax:
        steps = arguments.options.exact_steps
        sign = -1.0 if arguments.highest else 1.0
        target = StraightThroughRows.apply(target, RelaxedTopK.apply(sign * s_target, num_target - k, tau, steps))
        source = StraightThroughRows.apply(source, RelaxedTopK.apply(s_source, k, tau, steps))
    placed = source.gather(1, source_index.unsqueeze(-1).expand(-1, -1, source.shape[-1]))
    mixed = target.scatter(1, target_index.unsqueeze(-1).expand_as(placed), placed)
    return PatchReplaceResult(mixed, replaced_share(k, num_target), target_index, source_index)
