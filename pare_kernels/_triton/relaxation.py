"""The relaxed subset sampler and the product of its transposed Jacobian with a vector, of one row in registers.

What is computed is said in `pare_kernels.reference`; here is how. (Rows that do not fit into registers: `long_rows`.) A step is
one reduction: the weights p (1 - p)^(1/tau) are divided by their sum in the next step. For the largest patch 1 - p is the sum of
the others over the total, which does not cancel when p is near 1, so the reduction carries the pair (largest, sum of the others).
Below `long_series_limit` (0.45 at tau 0.9) a long binomial series of (1 - p)^(1/tau) serves. Once the largest p is below
`series_limit`, where the series is exact to rounding to the third degree, it stays there (p can only grow where another is
larger), and the steps take that.

The backward pass needs every p in reverse order: it keeps one p per segment of `segment` steps and runs each segment again. A
patch with p > `DOMINANT` is dominant; there is at most one. Its adjoint A may be as large as 1 / (1 - p) and is carried as
A (1 - p).
"""

from __future__ import annotations

import triton
import triton.language as tl

from ._math import log1p

STEP_LIMIT = tl.constexpr(100)  # of the tail; it takes about four, more only where one patch dominates a long row
FARTHEST = tl.constexpr(700.0)  # as in `pare_kernels.reference`
DOMINANT = tl.constexpr(0.75)  # above 1/2: at most one patch of a row is, however p is rounded
LONG_DEGREE = tl.constexpr(12)


@triton.jit
def join_largest(largest_a, others_a, largest_b, others_b):
    """(largest, sum of the others) of two sets joined."""
    return tl.maximum(largest_a, largest_b), others_a + others_b + tl.minimum(largest_a, largest_b)


@triton.jit
def join_sums(a, b, other_a, other_b):
    return a + other_a, b + other_b


@triton.jit
def join_three_sums(a, b, c, other_a, other_b, other_c):
    return a + other_a, b + other_b, c + other_c


@triton.jit
def largest_and_others(weights):
    return tl.reduce((weights, tl.zeros_like(weights)), 0, join_largest)


@triton.jit
def shares(largest, others):
    """1 / total, and the normalized (largest, others); zeros for a row of zeros."""
    total = largest + others
    inverse = tl.where(total > 0, 1 / tl.where(total > 0, total, 1), 0)
    return inverse, largest * inverse, others * inverse


@triton.jit
def rest_of(p, largest, rest):
    """1 - p."""
    return tl.where(p == largest, rest, 1 - p)


@triton.jit
def exact_weights(p, largest, rest, inv_tau):
    """p (1 - p)^(1/tau); p itself where a patch is alone."""
    return p * tl.exp(inv_tau * tl.log(rest_of(p, largest, tl.where(rest > 0, rest, 1))))


@triton.jit
def series_weights(p, inv_tau):
    """The same for small p."""
    c2 = -0.5 * inv_tau * (inv_tau - 1)
    c3 = inv_tau * (inv_tau - 1) * (inv_tau - 2) * (1.0 / 6)
    return p - p * (p * (inv_tau + p * (c2 + p * c3)))


@triton.jit
def binomial(inv_tau, N: tl.constexpr):
    """The coefficient of p^N in (1 - p)^(1/tau)."""
    coefficient = inv_tau * 0 + 1
    for n in tl.static_range(N):
        coefficient *= (n - inv_tau) * (1.0 / (n + 1))
    return coefficient


@triton.jit
def long_series_limit(inv_tau):
    """The largest p for `long_series_weights`: what is left out is below float32 rounding, and the terms do not cancel."""
    ratio = 1e-8 / tl.maximum(tl.abs(binomial(inv_tau, LONG_DEGREE + 1)), 1e-30)
    return tl.minimum(tl.exp(tl.log(ratio) * (1.0 / (LONG_DEGREE + 1))), 0.5 / inv_tau)


@triton.jit
def long_series_weights(p, inv_tau):
    """p (1 - p)^(1/tau) by its binomial series: a third of the instructions of a logarithm and an exponential."""
    series = tl.zeros_like(p)
    for n in tl.static_range(LONG_DEGREE + 1):
        series = series * p + binomial(inv_tau, LONG_DEGREE - n)
    return p * series


@triton.jit
def adjoint_step(a, c, p, rest, inv_tau, SWEPT: tl.constexpr):
    """The adjoint of a step before the mean is taken out (`without_mean`): c p + a (1 - p / (tau (1 - p))), for the dominant patch
    times 1 - p. And the sums that `without_mean` needs: of the others, and the dominant patch's own."""
    dominant = p > DOMINANT
    if SWEPT:  # the same twice: each form takes fewer registers in its place
        scale = tl.where(dominant, rest, 1)
        a = scale * (c * p) + a * (scale - inv_tau * p / tl.where(dominant, 1, 1 - p))
    else:
        left = tl.where(dominant, rest, 1 - p)
        a = (left * (c * p + a) - inv_tau * p * a) / tl.where(dominant, 1, left)
    others, own = tl.reduce((tl.where(dominant, 0, a), tl.where(dominant, a, 0)), 0, join_sums)
    return a, others, own


@triton.jit
def without_mean(a, p, rest, others, own):
    """A - p <A, 1>: for the dominant patch A (1 - p) - p <others of A, 1>."""
    total = others + own / tl.where(rest > 0, rest, 1)
    return a - p * tl.where(p > DOMINANT, others, total)


@triton.jit
def tail_without_mean(a, p, largest, others):
    """The same for the adjoint of the tail, which adds up to 0: that of the dominant patch is what balances the others."""
    return tl.where(p > DOMINANT, -others, a - p * tl.where(largest > DOMINANT, 0, others))


@triton.jit
def series_slope(p, inv_tau):
    """1 - p / (tau (1 - p)) for small p."""
    return 1 - inv_tau * p * ((1 + p) * (1 + p * p))


@triton.jit
def softplus_and_sigmoid(z):
    e = tl.exp(-tl.abs(z))
    return tl.maximum(z, 0) + log1p(e), tl.where(z >= 0, 1, e) / (1 + e)


@triton.jit
def log_or_minus_inf(p):
    return tl.where(p > 0, tl.log(tl.where(p > 0, p, 1)), float("-inf"))


@triton.jit
def counted(scores, inside):
    """NaN counts as -inf."""
    return tl.where(inside & (scores == scores), scores, float("-inf"))


@triton.jit
def first_weights(s, top, inv_tau):
    """exp((s - top) / tau); 0 for what lies more than `FARTHEST` tau below the top, as everything does below +inf."""
    below = (s - top) * inv_tau
    weights = tl.where(s == top, 1, tl.exp(below))
    if s.dtype == tl.float64:  # e^-700 is none of the singles
        weights = tl.where(below < -FARTHEST, 0, weights)
    return tl.where(s == float("-inf"), 0, weights)


@triton.jit
def first_step(s, inv_tau):
    """p_1 = softmax(s / tau) and its (largest, rest)."""
    weights = first_weights(s, tl.max(s, 0), inv_tau)
    largest, others = largest_and_others(weights)
    inverse, largest, rest = shares(largest, others)
    return weights * inverse, largest, rest


@triton.jit
def save_step(at_ptr, p, largest, rest, patches, num, row_stride):
    # Whole groups of four, for which there is room: a mask that cuts through a group would prevent wide stores.
    tl.store(at_ptr + patches, p, mask=patches // 4 < tl.cdiv(num, 4))
    tl.store(at_ptr + row_stride - 2, largest)
    tl.store(at_ptr + row_stride - 1, rest)


@triton.jit
def load_step(at_ptr, patches, num, row_stride):
    p = tl.load(at_ptr + patches, mask=patches // 4 < tl.cdiv(num, 4), other=0)
    return p, tl.load(at_ptr + row_stride - 2), tl.load(at_ptr + row_stride - 1)


@triton.jit
def advance(
    p,
    largest,
    rest,
    h,
    steps,
    inv_tau,
    series_limit,
    saved_ptr,
    row_stride,
    patches,
    num,
    SAVE: tl.constexpr,
    SUM: tl.constexpr,
):
    """`steps` steps onwards. SAVE: every p that is left behind goes to memory; SUM: and into h."""
    step = steps * 0
    long_limit = long_series_limit(inv_tau)
    while (step < steps) & (largest > series_limit):
        if SAVE:
            save_step(saved_ptr + step * row_stride, p, largest, rest, patches, num, row_stride)
        if SUM:
            h += p
        # In float64, and where h is summed as well, the coefficients of the long series would take too many registers.
        if SUM or p.dtype == tl.float64 or largest > long_limit:
            weights = exact_weights(p, largest, rest, inv_tau)
        else:
            weights = long_series_weights(p, inv_tau)
        largest, others = largest_and_others(weights)
        inverse, largest, rest = shares(largest, others)
        p = weights * inverse
        step += 1
    if step < steps:
        largest, rest = largest * 0, largest * 0 + 1  # not followed any further: small for good
    while step < steps:
        if SAVE:
            save_step(saved_ptr + step * row_stride, p, largest, rest, patches, num, row_stride)
        if SUM:
            h += p
        weights = series_weights(p, inv_tau)
        total = tl.sum(weights, 0)
        p = weights * tl.where(total > 0, 1 / tl.where(total > 0, total, 1), 0)
        step += 1
    return p, largest, rest, h


@triton.jit
def tail_step(excess, rate, curvature):
    """Halley's step towards the zero of a convex, increasing function: Newton's, corrected by the curvature within a factor of 2.

    Two sweeps fewer than Newton alone, which takes six; where the function is exponential, steps of two and not of one.
    """
    safe = tl.where(rate > 0, rate, 1)
    newton = tl.where(rate > 0, excess / safe, 0)
    return newton / tl.minimum(tl.maximum(1 - 0.5 * newton * (curvature / safe), 0.5), 2.0)


@triton.jit
def solve_tail(p, remaining, tau):
    """z = log(T p / tau) with sum_j tau log(1 + e^z_j) = remaining; -inf where p = 0.

    Solved for x = log T, where the sum is convex and increasing. The error is less than the square of the last step.
    """
    log_p = log_or_minus_inf(p) - tl.log(tau)
    x = tl.log(remaining)
    last: tl.constexpr = 1e-8 if p.dtype == tl.float64 else 2e-4
    step = remaining * 0 + 1
    count = 0
    while (tl.abs(step) > last) & (count < STEP_LIMIT):
        part, q = softplus_and_sigmoid(x + log_p)
        total, rate, curvature = tl.reduce((part, q, q * (1 - q)), 0, join_three_sums)
        step = tail_step(total - remaining / tau, rate, curvature)
        x -= step
        count += 1
    return x + log_p


@triton.jit
def row_adjoint(
    c,
    p,
    largest,
    rest,
    steps,
    remaining,
    tau,
    inv_tau,
    series_limit,
    saved_ptr,
    row_stride,
    segment,
    patches,
    num,
    DTYPE: tl.constexpr,
):
    """ds = J(h)^T c of one row from its first step on: `steps` steps one by one, `remaining` in closed form."""
    segments = tl.cdiv(steps, segment)
    starts_ptr = saved_ptr + segment * row_stride
    for number in range(segments - 1):
        save_step(starts_ptr + number * row_stride, p, largest, rest, patches, num, row_stride)
        p, largest, rest, _ = advance(
            p, largest, rest, p, segment, inv_tau, series_limit, saved_ptr, row_stride, patches, num, False, False
        )
    done = tl.maximum(segments - 1, 0) * segment
    p, largest, rest, _ = advance(
        p, largest, rest, p, steps - done, inv_tau, series_limit, saved_ptr, row_stride, patches, num, True, False
    )

    a = tl.zeros_like(p)
    if remaining > 0:
        _, q = softplus_and_sigmoid(solve_tail(p, remaining.to(DTYPE), tau))
        weighted, total = tl.reduce((q * c, q), 0, join_sums)
        a = tau * q * (c - tl.where(total > 0, weighted / tl.where(total > 0, total, 1), 0))
        a = tail_without_mean(a, p, largest, tl.sum(tl.where(p > DOMINANT, 0, a), 0))

    for back in range(segments):
        number = segments - 1 - back
        length = tl.minimum(steps - number * segment, segment)
        tl.debug_barrier()
        if back > 0:
            p, largest, rest = load_step(starts_ptr + number * row_stride, patches, num, row_stride)
            p, largest, rest, _ = advance(
                p, largest, rest, p, length, inv_tau, series_limit, saved_ptr, row_stride, patches, num, True, False
            )
            tl.debug_barrier()
        p, largest, rest = load_step(saved_ptr + (length - 1) * row_stride, patches, num, row_stride)
        for step_back in range(length):
            # The next one is on its way while this one is worked on.
            ahead_ptr = saved_ptr + tl.maximum(length - 2 - step_back, 0) * row_stride
            next_p, next_largest, next_rest = load_step(ahead_ptr, patches, num, row_stride)
            if largest > series_limit:
                a, others, own = adjoint_step(a, c, p, rest, inv_tau, False)
                a = without_mean(a, p, rest, others, own)
            else:
                a = c * p + a * series_slope(p, inv_tau)
                a -= p * tl.sum(a, 0)
            p, largest, rest = next_p, next_largest, next_rest
    # With log p_1 = s / tau minus a constant, what is left after the last projection is tau ds.
    return a * inv_tau


@triton.jit
def row_relaxed(p, largest, rest, steps, remaining, tau, series_limit, patches, num, DTYPE: tl.constexpr):
    """The relaxed indicator h of one row from its first step on."""
    h = tl.zeros_like(p)
    p, largest, rest, h = advance(p, largest, rest, h, steps, 1 / tau, series_limit, 0, 0, patches, num, False, True)
    if remaining > 0:
        part, _unused = softplus_and_sigmoid(solve_tail(p, remaining.to(DTYPE), tau))
        h += tau * part
    return h
