"""The kernels of the relaxation, one program per row.

Rows up to `ROW_LIMIT` are computed in registers (`short_rows`), longer ones in sweeps over memory (`long_rows`). In float32 a row
whose scores spread over more than `widest` is swept in float64: its weights, or what a step leaves of them, are not singles, and
what singles lose is multiplied by 1/tau in every step.
"""

from __future__ import annotations

import triton
import triton.language as tl

from pare_kernels._triton._launch import kernel
from pare_kernels._triton._math import accurate, either
from pare_kernels._triton.long_rows import long_adjoint, long_extent, long_relaxed
from pare_kernels._triton.short_rows import (
    advance,
    counted,
    extent,
    first_step,
    row_adjoint,
    softplus_and_sigmoid,
    solve_tail,
)

WIDE_BLOCK = tl.constexpr(1024)  # of a sweep in float64, which must not need more registers than the rest


@triton.jit
def partners_of_row(own_index_ptr, other_index_ptr, partner_ptr, num, k, BLOCK: tl.constexpr):
    """partner[n] = the row of the other modality that n is paired with, -1 for rows without: the index lists turned around."""
    for start in range(0, num, BLOCK):
        items = start + tl.arange(0, BLOCK)
        tl.store(partner_ptr + items, tl.full([BLOCK], -1, tl.int32), mask=items < num)
    tl.debug_barrier()
    for start in range(0, k, BLOCK):
        pairs = start + tl.arange(0, BLOCK)
        own = tl.load(own_index_ptr + pairs, mask=pairs < k, other=0)
        other = tl.load(other_index_ptr + pairs, mask=pairs < k, other=0)
        tl.store(partner_ptr + own, other.to(tl.int32), mask=pairs < k)
    tl.debug_barrier()


@triton.jit
def upstream(dots_ptr, partner, items, inside, is_target):
    """c = the row dot of a slot on target patches that stayed, of the slot they went to on source patches that moved, else 0."""
    used = inside & tl.where(is_target, partner < 0, partner >= 0)
    return tl.load(dots_ptr + tl.where(is_target, items, partner), mask=used, other=0)


@triton.jit
def row_of_program(program, batch, num_target, num_source):
    """(whether it is a target's, the row, its length): the target's rows come first."""
    is_target = program < batch
    row = either(is_target, program, program - batch).to(tl.int64)
    return is_target, row, either(is_target, num_target, num_source)


@triton.jit
def partners_of_program(
    is_target,
    row,
    num,
    target_index_ptr,
    source_index_ptr,
    partner_target_ptr,
    partner_source_ptr,
    k,
    BLOCK: tl.constexpr,
):
    """`partners_of_row` for the row of a program; returns where they are."""
    own_ptr = either(is_target, target_index_ptr, source_index_ptr)
    other_ptr = either(is_target, source_index_ptr, target_index_ptr)
    partner_ptr = either(is_target, partner_target_ptr, partner_source_ptr) + row * num
    partners_of_row(own_ptr + row * k, other_ptr + row * k, partner_ptr, num, k, BLOCK)
    return partner_ptr


@kernel
def partners_kernel(
    target_index_ptr,
    source_index_ptr,
    partner_target_ptr,
    partner_source_ptr,
    batch,
    num_target,
    num_source,
    k,
    BLOCK: tl.constexpr,
):
    """`partners_of_row` for every row of both modalities, where no relaxation is asked for."""
    is_target, row, num = row_of_program(tl.program_id(0), batch, num_target, num_source)
    partners_of_program(
        is_target, row, num, target_index_ptr, source_index_ptr, partner_target_ptr, partner_source_ptr, k, BLOCK
    )


@triton.jit
def is_wide(low, top, widest, acc: tl.constexpr):
    if acc == tl.float32:
        wide = top - low > widest
    else:
        wide = top != top
    return wide


@triton.jit
def adjoint_of_row(
    scores,
    c,
    scores_ptr,
    c_ptr,
    dscores_ptr,
    saved_ptr,
    wide_ptr,
    sign,
    num,
    steps,
    remaining,
    tau,
    tau_low,
    series_limit,
    widest,
    row_units,
    slots,
    segment,
    wide_segment,
    SINGLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """ds = sign J(h)^T c of the scores times sign. A row in one block gives its scores and c as values, a longer one its c in
    memory, which may be that of ds. `wide_ptr` is the memory of `saved_ptr`, as doubles."""
    acc: tl.constexpr = scores_ptr.dtype.element_ty
    block: tl.constexpr = BLOCK if BLOCK < WIDE_BLOCK else WIDE_BLOCK
    row_stride = row_units.to(tl.int64) * 4
    work_units = tl.program_id(0) * (slots * row_units.to(tl.int64) * 2)
    items = tl.arange(0, BLOCK)
    inside = items < num
    if SINGLE:
        s = counted(sign * scores, inside)
        low, top = extent(s)
    else:
        low, top = long_extent(scores_ptr, sign, num, BLOCK)
    wide = is_wide(low, top, widest, acc)
    if acc == tl.float32:
        if wide:
            if SINGLE:
                c_ptr = dscores_ptr
                tl.store(c_ptr + items, c, mask=inside)
                tl.debug_barrier()
            long_adjoint(
                scores_ptr, c_ptr, dscores_ptr, wide_ptr + work_units, sign, num, steps, remaining,
                accurate(tau, tau_low, tl.float64), 0.0, row_stride, wide_segment, block,
            )  # fmt: skip
    if wide == 0:
        tau = accurate(tau, tau_low, acc)
        saved_ptr += work_units * 2
        if SINGLE:
            p, largest, rest = first_step(s, top, 1 / tau)
            ds = row_adjoint(
                c, p, largest, rest, steps, remaining, tau, 1 / tau, series_limit, saved_ptr, row_stride, segment, items, num,
                acc,
            )  # fmt: skip
            tl.store(dscores_ptr + items, sign * ds, mask=inside)
        else:
            long_adjoint(
                scores_ptr, c_ptr, dscores_ptr, saved_ptr, sign, num, steps, remaining, tau, series_limit, row_stride,
                segment, BLOCK,
            )  # fmt: skip


@kernel
def adjoint_kernel(
    dots_ptr,
    noisy_target_ptr,
    noisy_source_ptr,
    target_index_ptr,
    source_index_ptr,
    partner_target_ptr,
    partner_source_ptr,
    dscores_target_ptr,
    dscores_source_ptr,
    saved_ptr,
    wide_ptr,
    batch,
    num_target,
    num_source,
    k,
    steps_target,
    steps_source,
    highest,
    tau,
    tau_low,
    series_limit,
    widest,
    row_units,
    slots,
    segment,
    wide_segment,
    SINGLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """dscores of both modalities from the row dots, and the partners of every row."""
    is_target, row, num = row_of_program(tl.program_id(0), batch, num_target, num_source)
    noisy_ptr = either(is_target, noisy_target_ptr, noisy_source_ptr) + row * num
    dscores_ptr = either(is_target, dscores_target_ptr, dscores_source_ptr) + row * num
    steps = either(is_target, steps_target, steps_source)
    total = either(is_target, num_target - k, k)
    items = tl.arange(0, BLOCK)
    inside = items < num
    # One row's latency is the kernel's time: what is loaded is needed only after the arithmetic that follows it.
    scores = tl.load(noisy_ptr + items, mask=inside, other=0)
    partner_ptr = partners_of_program(
        is_target, row, num, target_index_ptr, source_index_ptr, partner_target_ptr, partner_source_ptr, k, BLOCK
    )
    dots_ptr += row * num_target
    c = scores
    if SINGLE:
        c = upstream(dots_ptr, tl.load(partner_ptr + items, mask=inside, other=-1), items, inside, is_target)
    else:
        for start in range(0, num, BLOCK):
            at = start + tl.arange(0, BLOCK)
            partner = tl.load(partner_ptr + at, mask=at < num, other=-1)
            tl.store(dscores_ptr + at, upstream(dots_ptr, partner, at, at < num, is_target), mask=at < num)
        tl.debug_barrier()
    sign = tl.where(is_target & (highest != 0), -1.0, 1.0).to(dots_ptr.dtype.element_ty)
    adjoint_of_row(
        scores, c, noisy_ptr, dscores_ptr, dscores_ptr, saved_ptr, wide_ptr, sign, num, steps, total - steps, tau, tau_low,
        series_limit, widest, row_units, slots, segment, wide_segment, SINGLE, BLOCK,
    )  # fmt: skip


@kernel
def topk_adjoint_kernel(
    grad_ptr,
    noisy_ptr,
    dscores_ptr,
    saved_ptr,
    wide_ptr,
    num,
    steps,
    remaining,
    tau,
    tau_low,
    series_limit,
    widest,
    row_units,
    slots,
    segment,
    wide_segment,
    SINGLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """dscores = J(h)^T grad."""
    start = tl.program_id(0).to(tl.int64) * num
    grad_ptr += start
    noisy_ptr += start
    items = tl.arange(0, BLOCK)
    c = tl.load(grad_ptr + items, mask=items < num, other=0)
    scores = tl.load(noisy_ptr + items, mask=items < num, other=0)
    adjoint_of_row(
        scores, c, noisy_ptr, grad_ptr, dscores_ptr + start, saved_ptr, wide_ptr, tl.full([], 1, grad_ptr.dtype.element_ty),
        num, steps, remaining, tau, tau_low, series_limit, widest, row_units, slots, segment, wide_segment, SINGLE, BLOCK,
    )  # fmt: skip


@kernel
def relaxed_kernel(
    noisy_ptr,
    relaxed_ptr,
    state_ptr,
    wide_ptr,
    num,
    steps,
    remaining,
    tau,
    tau_low,
    series_limit,
    widest,
    SINGLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The relaxed indicator h. Sweeps need a row of memory each, a double per item: `wide_ptr`, and as singles `state_ptr`."""
    start = tl.program_id(0).to(tl.int64) * num
    acc: tl.constexpr = noisy_ptr.dtype.element_ty
    block: tl.constexpr = BLOCK if BLOCK < WIDE_BLOCK else WIDE_BLOCK
    noisy_ptr += start
    relaxed_ptr += start
    items = tl.arange(0, BLOCK)
    inside = items < num
    if SINGLE:
        s = counted(tl.load(noisy_ptr + items, mask=inside, other=0), inside)
        low, top = extent(s)
    else:
        low, top = long_extent(noisy_ptr, 1, num, BLOCK)
    wide = is_wide(low, top, widest, acc)
    if acc == tl.float32:
        if wide:
            long_relaxed(
                noisy_ptr, relaxed_ptr, wide_ptr + start, num, steps, remaining, accurate(tau, tau_low, tl.float64), 0.0, block
            )
    if wide == 0:
        tau = accurate(tau, tau_low, acc)
        if SINGLE:
            p, largest, rest = first_step(s, top, 1 / tau)
            h = tl.zeros_like(p)
            p, largest, rest, h = advance(
                p, largest, rest, h, steps, 1 / tau, series_limit, relaxed_ptr, 0, items, num, False, True
            )
            if remaining > 0:
                part, _ = softplus_and_sigmoid(solve_tail(p, remaining.to(acc), tau))
                h += tau * part
            tl.store(relaxed_ptr + items, h, mask=inside)
        else:
            long_relaxed(noisy_ptr, relaxed_ptr, state_ptr + start, num, steps, remaining, tau, series_limit, BLOCK)
