"""`relaxation` for rows that do not fit into registers: the same steps, each a sweep over blocks of the row in memory.

A state is a row of weights in memory, not normalized, with three numbers: 1 / total, and the normalized (largest, others). The
sweeps compute in the type of the memory they work in, whatever the type of the scores: in doubles they take the rows of single
scores that singles do not hold (`row_kernels.beyond_singles`).
"""

from __future__ import annotations

import triton
import triton.language as tl

from .relaxation import (
    DOMINANT,
    STEP_LIMIT,
    adjoint_step,
    counted,
    exact_weights,
    first_weights,
    join_largest,
    join_sums,
    join_three_sums,
    largest_and_others,
    log_or_minus_inf,
    series_weights,
    shares,
    softplus_and_sigmoid,
    tail_step,
    without_mean,
)

WORK_ROWS = tl.constexpr(3)  # of a program, before its saved steps: the state, a of the backward pass, and c


@triton.jit
def load_scores(scores_ptr, sign, patches, num):
    return counted(sign * tl.load(scores_ptr + patches, mask=patches < num, other=0), patches < num)


@triton.jit
def join_extents(low_a, high_a, low_b, high_b):
    return tl.minimum(low_a, low_b), tl.maximum(high_a, high_b)


@triton.jit
def spread_of(scores_ptr, sign, num, BLOCK: tl.constexpr):
    """How far below the highest score the lowest above -inf lies."""
    high = tl.full([], float("-inf"), scores_ptr.dtype.element_ty)
    low = -high
    for start in range(0, num, BLOCK):
        s = load_scores(scores_ptr, sign, start + tl.arange(0, BLOCK), num)
        block_low, block_high = tl.reduce((tl.where(s == float("-inf"), float("inf"), s), s), 0, join_extents)
        low, high = join_extents(low, high, block_low, block_high)
    return tl.where(high > low, high - low, 0)


@triton.jit
def first_state(scores_ptr, state_ptr, sign, num, inv_tau, BLOCK: tl.constexpr):
    """The weights exp((s - max) / tau)."""
    acc: tl.constexpr = state_ptr.dtype.element_ty
    top = tl.full([], float("-inf"), scores_ptr.dtype.element_ty)
    for start in range(0, num, BLOCK):
        top = tl.maximum(top, tl.max(load_scores(scores_ptr, sign, start + tl.arange(0, BLOCK), num), 0))
    largest = tl.zeros([], acc)
    others = largest
    for start in range(0, num, BLOCK):
        patches = start + tl.arange(0, BLOCK)
        weights = first_weights(load_scores(scores_ptr, sign, patches, num).to(acc), top.to(acc), inv_tau)
        tl.store(state_ptr + patches, weights, mask=patches < num)
        block_largest, block_others = largest_and_others(weights)
        largest, others = join_largest(largest, others, block_largest, block_others)
    tl.debug_barrier()
    return shares(largest, others)


@triton.jit
def sweep_step(
    from_ptr, to_ptr, h_ptr, inverse, largest, rest, num, inv_tau, series_limit, SUM: tl.constexpr, BLOCK: tl.constexpr
):
    """One step from one row of weights to another; h += p with SUM."""
    new_largest, new_others = largest * 0, largest * 0
    for start in range(0, num, BLOCK):
        patches = start + tl.arange(0, BLOCK)
        p = tl.load(from_ptr + patches, mask=patches < num, other=0) * inverse
        if SUM:
            h = tl.load(h_ptr + patches, mask=patches < num, other=0)
            tl.store(h_ptr + patches, h + p, mask=patches < num)
        if largest > series_limit:
            weights = exact_weights(p, largest, rest, inv_tau)
        else:
            weights = series_weights(p, inv_tau)
        tl.store(to_ptr + patches, weights, mask=patches < num)
        block_largest, block_others = largest_and_others(weights)
        new_largest, new_others = join_largest(new_largest, new_others, block_largest, block_others)
    tl.debug_barrier()
    return shares(new_largest, new_others)


@triton.jit
def copy_state(from_ptr, to_ptr, inverse, largest, rest, num, row_stride, BLOCK: tl.constexpr):
    for start in range(0, num, BLOCK):
        patches = start + tl.arange(0, BLOCK)
        tl.store(to_ptr + patches, tl.load(from_ptr + patches, mask=patches < num), mask=patches < num)
    save_numbers(to_ptr, inverse, largest, rest, row_stride)


@triton.jit
def save_numbers(at_ptr, inverse, largest, rest, row_stride):
    tl.store(at_ptr + row_stride - 3, inverse)
    tl.store(at_ptr + row_stride - 2, largest)
    tl.store(at_ptr + row_stride - 1, rest)
    tl.debug_barrier()


@triton.jit
def load_numbers(at_ptr, row_stride):
    return tl.load(at_ptr + row_stride - 3), tl.load(at_ptr + row_stride - 2), tl.load(at_ptr + row_stride - 1)


@triton.jit
def save_steps(
    state_ptr, saved_ptr, inverse, largest, rest, steps, num, inv_tau, series_limit, row_stride, BLOCK: tl.constexpr
):
    """`steps` steps onwards from the state, with every row that is left behind in `saved`, step by step."""
    if steps > 0:
        copy_state(state_ptr, saved_ptr, inverse, largest, rest, num, row_stride, BLOCK)
    for step in range(steps):
        at_ptr = saved_ptr + step * row_stride
        to_ptr = at_ptr + row_stride
        if step == steps - 1:
            to_ptr = state_ptr
        inverse, largest, rest = sweep_step(
            at_ptr, to_ptr, state_ptr, inverse, largest, rest, num, inv_tau, series_limit, False, BLOCK
        )
        if step < steps - 1:
            save_numbers(to_ptr, inverse, largest, rest, row_stride)
    return inverse, largest, rest


@triton.jit
def solve_long_tail(state_ptr, inverse, num, remaining, tau, BLOCK: tl.constexpr):
    """log(T / tau) of `relaxation.solve_tail`."""
    x = tl.log(remaining)
    last: tl.constexpr = 1e-8 if state_ptr.dtype.element_ty == tl.float64 else 2e-4
    step = remaining * 0 + 1
    count = 0
    while (tl.abs(step) > last) & (count < STEP_LIMIT):
        total, rate, curvature = remaining * 0, remaining * 0, remaining * 0
        for start in range(0, num, BLOCK):
            patches = start + tl.arange(0, BLOCK)
            p = tl.load(state_ptr + patches, mask=patches < num, other=0) * inverse
            part, q = softplus_and_sigmoid(x - tl.log(tau) + log_or_minus_inf(p))
            sums = tl.reduce((part, q, q * (1 - q)), 0, join_three_sums)
            total += sums[0]
            rate += sums[1]
            curvature += sums[2]
        step = tail_step(total - remaining / tau, rate, curvature)
        x -= step
        count += 1
    return x - tl.log(tau)


@triton.jit
def long_adjoint(
    scores_ptr,
    dscores_ptr,
    work_ptr,
    sign,
    num,
    steps,
    remaining,
    tau,
    series_limit,
    row_stride,
    segment,
    BLOCK: tl.constexpr,
):
    """ds = J(h)^T c, as `relaxation.row_adjoint`; of the scores times sign. The third work row is c, times sign."""
    acc: tl.constexpr = work_ptr.dtype.element_ty
    state_ptr, a_ptr, c_ptr = work_ptr, work_ptr + row_stride, work_ptr + 2 * row_stride
    saved_ptr = work_ptr + WORK_ROWS * row_stride
    inv_tau = 1 / tau
    inverse, largest, rest = first_state(scores_ptr, state_ptr, sign, num, inv_tau, BLOCK)
    segments = tl.cdiv(steps, segment)
    for number in range(segments - 1):
        start_ptr = saved_ptr + (segment + number) * row_stride
        copy_state(state_ptr, start_ptr, inverse, largest, rest, num, row_stride, BLOCK)
        for _step in range(segment):
            inverse, largest, rest = sweep_step(
                state_ptr, state_ptr, state_ptr, inverse, largest, rest, num, inv_tau, series_limit, False, BLOCK
            )
    done = tl.maximum(segments - 1, 0) * segment
    inverse, largest, rest = save_steps(
        state_ptr, saved_ptr, inverse, largest, rest, steps - done, num, inv_tau, series_limit, row_stride, BLOCK
    )

    if remaining > 0:
        shift = solve_long_tail(state_ptr, inverse, num, remaining.to(acc), tau, BLOCK)
        weighted, total = tl.zeros([], acc), tl.zeros([], acc)
        for start in range(0, num, BLOCK):
            patches = start + tl.arange(0, BLOCK)
            p = tl.load(state_ptr + patches, mask=patches < num, other=0) * inverse
            _unused, q = softplus_and_sigmoid(shift + log_or_minus_inf(p))
            c = tl.load(c_ptr + patches, mask=patches < num, other=0)
            block_weighted, block_total = tl.reduce((q * c, q), 0, join_sums)
            weighted += block_weighted
            total += block_total
        mean = tl.where(total > 0, weighted / tl.where(total > 0, total, 1), 0)
        others, dominant = tl.zeros([], acc), num * 0 - 1
        for start in range(0, num, BLOCK):
            patches = start + tl.arange(0, BLOCK)
            p = tl.load(state_ptr + patches, mask=patches < num, other=0) * inverse
            _unused, q = softplus_and_sigmoid(shift + log_or_minus_inf(p))
            a = tau * q * (tl.load(c_ptr + patches, mask=patches < num, other=0) - mean)
            tl.store(a_ptr + patches, a, mask=patches < num)
            others += tl.sum(tl.where(p > DOMINANT, 0, a), 0)
            dominant = tl.maximum(dominant, tl.max(tl.where(p > DOMINANT, patches, -1), 0))
        tl.debug_barrier()
        # It adds up to 0: that of the dominant patch is what balances the others.
        tl.store(a_ptr + dominant, -others, mask=dominant >= 0)
    else:
        for start in range(0, num, BLOCK):
            patches = start + tl.arange(0, BLOCK)
            tl.store(a_ptr + patches, tl.zeros([BLOCK], acc), mask=patches < num)
    tl.debug_barrier()

    for back in range(segments):
        number = segments - 1 - back
        length = tl.minimum(steps - number * segment, segment)
        if back > 0:
            start_ptr = saved_ptr + (segment + number) * row_stride
            inverse, largest, rest = load_numbers(start_ptr, row_stride)
            copy_state(start_ptr, state_ptr, inverse, largest, rest, num, row_stride, BLOCK)
            save_steps(
                state_ptr, saved_ptr, inverse, largest, rest, length, num, inv_tau, series_limit, row_stride, BLOCK
            )
        for step_back in range(length):
            at_ptr = saved_ptr + (length - 1 - step_back) * row_stride
            inverse, largest, rest = load_numbers(at_ptr, row_stride)
            others, own = tl.zeros([], acc), tl.zeros([], acc)
            for start in range(0, num, BLOCK):
                patches = start + tl.arange(0, BLOCK)
                inside = patches < num
                p = tl.load(at_ptr + patches, mask=inside, other=0) * inverse
                a = tl.load(a_ptr + patches, mask=inside, other=0)
                c = tl.load(c_ptr + patches, mask=inside, other=0)
                a, block_others, block_own = adjoint_step(a, c, p, rest, inv_tau, True)
                tl.store(a_ptr + patches, a, mask=inside)
                others += block_others
                own += block_own
            tl.debug_barrier()
            for start in range(0, num, BLOCK):
                patches = start + tl.arange(0, BLOCK)
                p = tl.load(at_ptr + patches, mask=patches < num, other=0) * inverse
                a = tl.load(a_ptr + patches, mask=patches < num, other=0)
                tl.store(a_ptr + patches, without_mean(a, p, rest, others, own), mask=patches < num)
            tl.debug_barrier()
    for start in range(0, num, BLOCK):
        patches = start + tl.arange(0, BLOCK)
        a = tl.load(a_ptr + patches, mask=patches < num, other=0)
        tl.store(dscores_ptr + patches, inv_tau * a, mask=patches < num)


@triton.jit
def long_relaxed(scores_ptr, relaxed_ptr, state_ptr, num, steps, remaining, tau, series_limit, BLOCK: tl.constexpr):
    """h of one row, with a row to work in."""
    acc: tl.constexpr = state_ptr.dtype.element_ty
    inv_tau = 1 / tau
    inverse, largest, rest = first_state(scores_ptr, state_ptr, 1, num, inv_tau, BLOCK)
    for start in range(0, num, BLOCK):
        patches = start + tl.arange(0, BLOCK)
        tl.store(relaxed_ptr + patches, tl.zeros([BLOCK], acc), mask=patches < num)
    tl.debug_barrier()
    for _step in range(steps):
        inverse, largest, rest = sweep_step(
            state_ptr, state_ptr, relaxed_ptr, inverse, largest, rest, num, inv_tau, series_limit, True, BLOCK
        )
    if remaining > 0:
        shift = solve_long_tail(state_ptr, inverse, num, remaining.to(acc), tau, BLOCK)
        for start in range(0, num, BLOCK):
            patches = start + tl.arange(0, BLOCK)
            p = tl.load(state_ptr + patches, mask=patches < num, other=0) * inverse
            part, _unused = softplus_and_sigmoid(shift + log_or_minus_inf(p))
            h = tl.load(relaxed_ptr + patches, mask=patches < num, other=0)
            tl.store(relaxed_ptr + patches, h + tau * part, mask=patches < num)
