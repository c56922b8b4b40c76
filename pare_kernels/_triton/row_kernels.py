"""The kernels of the relaxation, one program per row: h, and J(h)^T c of both modalities or of rows alone.

A row is worked on in registers (SINGLE, see `relaxation`) or swept in memory (`long_rows`). Singles hold most rows of single
scores; a second launch (WIDE) does again, in doubles, those that they do not hold (`beyond_singles`). Of all steps of long rows
these are the rows that `nodes` left (LEFT).
"""

from __future__ import annotations

import triton
import triton.language as tl

from ._launch import kernel
from ._math import accurate, either
from .long_rows import long_adjoint, long_relaxed, spread_of
from .relaxation import counted, first_step, row_adjoint, row_relaxed

# Of single scores, shorter rows are computed in doubles: h of a few patches may hardly depend on the scores, the terms of the
# gradient then cancel. So do the C++ kernels.
SHORTEST_SINGLE = tl.constexpr(32)


@triton.jit
def beyond_singles(scores_ptr, sign, num, narrow, BLOCK: tl.constexpr):
    """Whether a row is too short for singles, or its scores spread over more than `narrow`: then weights, or what a step leaves of
    them, are no singles, and at small tau a step multiplies what singles lose by 1/tau."""
    return (num < SHORTEST_SINGLE) | (spread_of(scores_ptr, sign, num, BLOCK) > narrow)


@triton.jit
def partners_of_row(own_index_ptr, other_index_ptr, partner_ptr, num, k, BLOCK: tl.constexpr):
    """partner[n] = the row of the other modality that n is paired with, -1 for rows without: the index lists turned around."""
    for start in range(0, num, BLOCK):
        patches = start + tl.arange(0, BLOCK)
        tl.store(partner_ptr + patches, tl.full([BLOCK], -1, tl.int32), mask=patches < num)
    tl.debug_barrier()
    for start in range(0, k, BLOCK):
        pairs = start + tl.arange(0, BLOCK)
        own = tl.load(own_index_ptr + pairs, mask=pairs < k, other=0)
        other = tl.load(other_index_ptr + pairs, mask=pairs < k, other=0)
        tl.store(partner_ptr + own, other.to(tl.int32), mask=pairs < k)
    tl.debug_barrier()


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


@triton.jit
def upstream(dots_ptr, partner_ptr, patches, inside, is_target, GIVEN: tl.constexpr):
    """c = the row dot of a slot on target patches that stayed, of the slot they went to on source patches that moved, else 0."""
    if GIVEN:
        return tl.load(dots_ptr + patches, mask=inside, other=0)
    else:
        partner = tl.load(partner_ptr + patches, mask=inside, other=-1)
        used = inside & tl.where(is_target, partner < 0, partner >= 0)
        return tl.load(dots_ptr + tl.where(is_target, patches, partner), mask=used, other=0)


@triton.jit
def row_of_program(program, batch, num_target, num_source, GIVEN: tl.constexpr):
    """(whether it is a target's, the row, its length): the target's rows come first. With GIVEN there are the source's alone."""
    is_target = False if GIVEN else program < batch
    row = either(is_target, program, program - batch).to(tl.int64)
    return is_target, row, either(is_target, num_target, num_source)


@kernel
def partners_kernel(
    target_index_ptr,  # int64 (B, k), read
    source_index_ptr,  # int64 (B, k), read
    partner_target_ptr,  # int32 (B, Nt), written
    partner_source_ptr,  # int32 (B, Ns), written
    batch,
    num_target,
    num_source,
    k,
    BLOCK: tl.constexpr,
):
    """`partners_of_row` for every row of both modalities, where no relaxation is asked for."""
    is_target, row, num = row_of_program(tl.program_id(0), batch, num_target, num_source, False)
    partners_of_program(
        is_target, row, num, target_index_ptr, source_index_ptr, partner_target_ptr, partner_source_ptr, k, BLOCK
    )


@kernel
def adjoint_kernel(
    dots_ptr,  # (B, Nt), read: the row dots; with GIVEN (B, Ns), c itself
    noisy_target_ptr,  # (B, Nt), read
    noisy_source_ptr,  # (B, Ns), read
    target_index_ptr,  # int64 (B, k), read
    source_index_ptr,  # int64 (B, k), read
    partner_target_ptr,  # int32 (B, Nt), written
    partner_source_ptr,  # int32 (B, Ns), written
    dscores_target_ptr,  # (B, Nt), written
    dscores_source_ptr,  # (B, Ns), written
    saved_ptr,  # (programs, slots, 4 row_units), to work in, of the type to compute in
    left_ptr,  # int32 (programs,), read with LEFT
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
    narrow,
    row_units,
    slots,
    segment,
    GIVEN: tl.constexpr,
    LEFT: tl.constexpr,
    SINGLE: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """dscores = J(h)^T c of both modalities, and the partners of every row; with GIVEN of the source's rows, and no partners."""
    program = tl.program_id(0)
    acc: tl.constexpr = saved_ptr.dtype.element_ty
    tau = accurate(tau, tau_low, acc)
    is_target, row, num = row_of_program(program, batch, num_target, num_source, GIVEN)
    scores_ptr = either(is_target, noisy_target_ptr, noisy_source_ptr) + row * num
    dscores_ptr = either(is_target, dscores_target_ptr, dscores_source_ptr) + row * num
    dots_ptr += row * (num_source if GIVEN else num_target)
    steps = either(is_target, steps_target, steps_source)
    remaining = either(is_target, num_target - k, k) - steps
    sign = tl.where(is_target & (highest != 0), -1.0, 1.0).to(dots_ptr.dtype.element_ty)
    row_stride = row_units.to(tl.int64) * 4
    saved_ptr += program * (slots * row_stride)
    chosen = tl.load(left_ptr + program) != 0 if LEFT else True
    if WIDE:
        chosen = beyond_singles(scores_ptr, sign, num, narrow, BLOCK) & chosen
    if chosen:
        if SINGLE:
            patches = tl.arange(0, BLOCK)
            inside = patches < num
            # One row's latency is the kernel's time: what is loaded is needed only after the arithmetic that follows it.
            scores = tl.load(scores_ptr + patches, mask=inside, other=0)
        partner_ptr = partner_source_ptr
        if not GIVEN:
            partner_ptr = partners_of_program(
                is_target, row, num, target_index_ptr, source_index_ptr, partner_target_ptr, partner_source_ptr, k, BLOCK
            )  # fmt: skip
        if SINGLE:
            c = upstream(dots_ptr, partner_ptr, patches, inside, is_target, GIVEN)
            p, largest, rest = first_step(counted(sign * scores, inside), 1 / tau)
            ds = row_adjoint(
                c, p, largest, rest, steps, remaining, tau, 1 / tau, series_limit, saved_ptr, row_stride, segment, patches, num,
                acc,
            )  # fmt: skip
            tl.store(dscores_ptr + patches, sign * ds, mask=inside)
        else:
            for start in range(0, num, BLOCK):
                patches = start + tl.arange(0, BLOCK)
                c = upstream(dots_ptr, partner_ptr, patches, patches < num, is_target, GIVEN)
                tl.store(saved_ptr + 2 * row_stride + patches, sign * c, mask=patches < num)
            tl.debug_barrier()
            long_adjoint(
                scores_ptr, dscores_ptr, saved_ptr, sign, num, steps, remaining, tau, series_limit, row_stride, segment, BLOCK
            )  # fmt: skip


@kernel
def relaxed_kernel(
    noisy_ptr,  # (B, N), read
    relaxed_ptr,  # (B, N), written
    state_ptr,  # (B, N), for the sweeps to work in, of the type to compute in
    left_ptr,  # int32 (B,), read with LEFT
    num,
    steps,
    remaining,
    tau,
    tau_low,
    series_limit,
    narrow,
    LEFT: tl.constexpr,
    SINGLE: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The relaxed indicator h."""
    row = tl.program_id(0).to(tl.int64)
    acc: tl.constexpr = state_ptr.dtype.element_ty
    tau = accurate(tau, tau_low, acc)
    noisy_ptr += row * num
    relaxed_ptr += row * num
    state_ptr += row * num
    chosen = tl.load(left_ptr + row) != 0 if LEFT else True
    if WIDE:
        chosen = beyond_singles(noisy_ptr, 1, num, narrow, BLOCK) & chosen
    if chosen:
        if SINGLE:
            patches = tl.arange(0, BLOCK)
            inside = patches < num
            scores = tl.load(noisy_ptr + patches, mask=inside, other=0)
            p, largest, rest = first_step(counted(scores, inside), 1 / tau)
            h = row_relaxed(p, largest, rest, steps, remaining, tau, series_limit, patches, num, acc)
            tl.store(relaxed_ptr + patches, h, mask=inside)
        else:
            long_relaxed(noisy_ptr, relaxed_ptr, state_ptr, num, steps, remaining, tau, series_limit, BLOCK)
