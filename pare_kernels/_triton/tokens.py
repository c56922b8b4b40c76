"""Kernels that move token rows: gate scores, replacement, exchange, row dots, gradients. All of them run at memory speed.

A program takes a block of rows of one sample. Where a kernel has both modalities they take turns, so that a sample's target
and source lie close in time; and the second kernel over the same tokens (replacement after scores, gradients after dots) goes from
the last sample to the first, to meet what the first one left in the cache.

Tokens come with any strides. `ALIGN` (see `_launch.alignment`) is how many elements the number of features and all steps between
rows and samples are multiples of; they are passed in units of it, so that the compiler sees the multiple and makes wide loads.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ._launch import kernel
from ._math import lower_bound, sigmoid

REPLACE, SWAP, GATE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)  # what `gradient_kernel` differentiates


@triton.jit
def wide(stride_sample, stride_row, stride_column):
    """Strides as int64: both branches of a choice between the modalities must agree on their type."""
    return stride_sample.to(tl.int64), stride_row.to(tl.int64), stride_column.to(tl.int64)


@triton.jit
def take_turns(program, programs_target, programs):
    """(whether it is the target's, its number among its modality's): target and source alternate while both have any."""
    both = 2 * tl.minimum(programs_target, programs - programs_target)
    paired = program < both
    is_target = tl.where(paired, program % 2 == 0, 2 * programs_target > programs)
    return is_target, tl.where(paired, program // 2, program - both // 2)


@triton.jit
def row_offsets(sample, rows, stride_sample, stride_row, ALIGN: tl.constexpr):
    """Element offsets of rows of one sample, int64."""
    return (sample.to(tl.int64) * stride_sample + rows.to(tl.int64) * stride_row) * ALIGN


@triton.jit
def tile_offsets(row_starts, columns, stride_column, ALIGN: tl.constexpr):
    """Element offsets of a (rows, columns) tile; aligned rows are contiguous."""
    if ALIGN > 1:
        return row_starts[:, None] + columns[None, :]
    else:
        return row_starts[:, None] + columns[None, :].to(tl.int64) * stride_column


@triton.jit
def partners_of_slots(target_index_ptr, source_index_ptr, sample, rows, first, k, BLOCK_ROWS: tl.constexpr):
    """The source patch that goes into each slot of a block of rows, -1 for slots that keep their own."""
    start = sample.to(tl.int64) * k
    entries = lower_bound(target_index_ptr + start, k, first, 128) + tl.arange(0, BLOCK_ROWS)
    inside = entries < k
    slots = tl.load(target_index_ptr + start + entries, mask=inside, other=-1).to(tl.int32)
    patches = tl.load(source_index_ptr + start + entries, mask=inside, other=-1).to(tl.int32)
    return tl.max(tl.where(rows[:, None] == slots[None, :], patches[None, :], -1), 1)


@kernel
def gate_scores_kernel(
    target_ptr,  # (B, Nt, D), read
    source_ptr,  # (B, Ns, D), read
    weight_ptr,  # (D,), read
    bias_ptr,  # one number, read with HAS_BIAS
    scores_target_ptr,  # (B, Nt), written
    scores_source_ptr,  # (B, Ns), written
    programs_target,
    num_target,
    num_source,
    features,
    target_sample,
    target_row,
    target_column,
    source_sample,
    source_row,
    source_column,
    HAS_BIAS: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """scores = sigmoid(tokens @ weight + bias) for the rows of both modalities."""
    acc: tl.constexpr = scores_target_ptr.dtype.element_ty
    is_target, program = take_turns(tl.program_id(0), programs_target, tl.num_programs(0))
    if is_target:
        tokens_ptr, scores_ptr, num_rows = target_ptr, scores_target_ptr, num_target
        stride_sample, stride_row, stride_column = wide(target_sample, target_row, target_column)
    else:
        tokens_ptr, scores_ptr, num_rows = source_ptr, scores_source_ptr, num_source
        stride_sample, stride_row, stride_column = wide(source_sample, source_row, source_column)
    blocks = tl.cdiv(num_rows, BLOCK_ROWS)
    sample = program // blocks
    rows = (program % blocks) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    inside = rows < num_rows
    starts = row_offsets(sample, rows, stride_sample, stride_row, ALIGN)
    features = features * ALIGN
    total = tl.zeros([BLOCK_ROWS, BLOCK_COLUMNS], acc)
    for column in range(0, features, BLOCK_COLUMNS):
        columns = column + tl.arange(0, BLOCK_COLUMNS)
        weight = tl.load(weight_ptr + columns, mask=columns < features, other=0.0).to(acc)
        tokens = tl.load(
            tokens_ptr + tile_offsets(starts, columns, stride_column, ALIGN),
            mask=inside[:, None] & (columns < features)[None, :],
            other=0.0,
        )
        total += tokens.to(acc) * weight[None, :]
    z = tl.sum(total, 1)
    if HAS_BIAS:
        z += tl.load(bias_ptr).to(acc)
    tl.store(scores_ptr + sample.to(tl.int64) * num_rows + rows, sigmoid(z), mask=inside)


@kernel
def replace_kernel(
    target_ptr,  # (B, Nt, D), read
    source_ptr,  # (B, Ns, D), read
    mixed_ptr,  # (B, Nt, D), written
    target_index_ptr,  # int64 (B, k), read
    source_index_ptr,  # int64 (B, k), read
    num_target,
    features,
    k,
    target_sample,
    target_row,
    target_column,
    source_sample,
    source_row,
    source_column,
    ALIGN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """mixed[b, n] = source[b, patch placed in n] or target[b, n], bit for bit."""
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    blocks = tl.cdiv(num_target, BLOCK_ROWS)
    sample = program // blocks
    first = (program % blocks) * BLOCK_ROWS
    rows = first + tl.arange(0, BLOCK_ROWS)
    partner = partners_of_slots(target_index_ptr, source_index_ptr, sample, rows, first, k, BLOCK_ROWS)
    kept, placed = (rows < num_target) & (partner < 0), partner >= 0
    features = features * ALIGN
    own = row_offsets(sample, rows, target_sample, target_row, ALIGN)
    other = row_offsets(sample, partner, source_sample, source_row, ALIGN)
    out = (sample.to(tl.int64) * num_target + rows) * features
    for column in range(0, features, BLOCK_COLUMNS):
        columns = column + tl.arange(0, BLOCK_COLUMNS)
        used = (columns < features)[None, :]
        stays = tl.load(target_ptr + tile_offsets(own, columns, target_column, ALIGN), mask=kept[:, None] & used)
        comes = tl.load(source_ptr + tile_offsets(other, columns, source_column, ALIGN), mask=placed[:, None] & used)
        tokens = tl.where(placed[:, None], comes, stays)
        tl.store(mixed_ptr + tile_offsets(out, columns, 1, ALIGN), tokens, mask=(rows < num_target)[:, None] & used)


@kernel
def swap_kernel(
    target_ptr,  # (B, Nt, D), read and written
    source_ptr,  # (B, Ns, D), read and written
    target_index_ptr,  # int64 (B, k), read
    source_index_ptr,  # int64 (B, k), read
    features,
    k,
    target_sample,
    target_row,
    target_column,
    source_sample,
    source_row,
    source_column,
    ALIGN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """target[b, target_index[b, j]] <-> source[b, source_index[b, j]]. Every row has one program, so the order does not matter."""
    program = tl.program_id(0)
    blocks = tl.cdiv(k, BLOCK_ROWS)
    sample = program // blocks
    pairs = (program % blocks) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    inside = pairs < k
    entries = sample.to(tl.int64) * k + pairs
    slots = tl.load(target_index_ptr + entries, mask=inside, other=0)
    patches = tl.load(source_index_ptr + entries, mask=inside, other=0)
    features = features * ALIGN
    ours = row_offsets(sample, slots, target_sample, target_row, ALIGN)
    theirs = row_offsets(sample, patches, source_sample, source_row, ALIGN)
    for column in range(0, features, BLOCK_COLUMNS):
        columns = column + tl.arange(0, BLOCK_COLUMNS)
        used = inside[:, None] & (columns < features)[None, :]
        at_target = target_ptr + tile_offsets(ours, columns, target_column, ALIGN)
        at_source = source_ptr + tile_offsets(theirs, columns, source_column, ALIGN)
        leaves = tl.load(at_target, mask=used)
        comes = tl.load(at_source, mask=used)
        tl.store(at_target, comes, mask=used)
        tl.store(at_source, leaves, mask=used)


@kernel
def dots_kernel(
    grad_ptr,  # (B, Nt, D), read
    target_ptr,  # (B, Nt, D), read
    source_ptr,  # (B, Ns, D), read without SWAPPED
    dots_ptr,  # (B, Nt), written
    target_index_ptr,  # int64 (B, k), read
    source_index_ptr,  # int64 (B, k), read
    num_target,
    features,
    k,
    target_sample,
    target_row,
    target_column,
    source_sample,
    source_row,
    source_column,
    SWAPPED: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """dots[b, n] = <grad[b, n], mixed[b, n]>. After an exchange (SWAPPED) the target buffer is `mixed` itself."""
    program = tl.program_id(0)
    acc: tl.constexpr = dots_ptr.dtype.element_ty
    blocks = tl.cdiv(num_target, BLOCK_ROWS)
    sample = program // blocks
    first = (program % blocks) * BLOCK_ROWS
    rows = first + tl.arange(0, BLOCK_ROWS)
    inside = rows < num_target
    kept = inside
    if not SWAPPED:
        partner = partners_of_slots(target_index_ptr, source_index_ptr, sample, rows, first, k, BLOCK_ROWS)
        kept, placed = inside & (partner < 0), partner >= 0
        other = row_offsets(sample, partner, source_sample, source_row, ALIGN)
    features = features * ALIGN
    own = row_offsets(sample, rows, target_sample, target_row, ALIGN)
    out = sample.to(tl.int64) * num_target + rows
    total = tl.zeros([BLOCK_ROWS], acc)
    for column in range(0, features, BLOCK_COLUMNS):
        columns = column + tl.arange(0, BLOCK_COLUMNS)
        used = (columns < features)[None, :]
        grad_at = grad_ptr + tile_offsets(out * features, columns, 1, ALIGN)
        grad = tl.load(grad_at, mask=inside[:, None] & used, other=0.0)
        own_at = target_ptr + tile_offsets(own, columns, target_column, ALIGN)
        tokens = tl.load(own_at, mask=kept[:, None] & used, other=0.0)
        if not SWAPPED:
            other_at = source_ptr + tile_offsets(other, columns, source_column, ALIGN)
            comes = tl.load(other_at, mask=placed[:, None] & used, other=0.0)
            tokens = tl.where(placed[:, None], comes, tokens)
        total += tl.sum(grad.to(acc) * tokens.to(acc), 1)
    tl.store(dots_ptr + out, total, mask=inside)


@kernel
def gradient_kernel(
    grad_target_ptr,  # (B, Nt, D), read
    grad_source_ptr,  # (B, Ns, D), read with SOURCE_GRAD
    target_ptr,  # (B, Nt, D), read
    source_ptr,  # (B, Ns, D), read
    partner_target_ptr,  # int32 (B, Nt), read
    partner_source_ptr,  # int32 (B, Ns), read
    dscores_target_ptr,  # (B, Nt), read with HAS_GATE, as are the next four
    dscores_source_ptr,  # (B, Ns)
    gate_target_ptr,  # (B, Nt)
    gate_source_ptr,  # (B, Ns)
    weight_ptr,  # (D,)
    dtarget_ptr,  # (B, Nt, D), written with NEED_TARGET
    dsource_ptr,  # (B, Ns, D), written with NEED_SOURCE
    partial_ptr,  # (groups of programs, partial_row), written with NEED_WEIGHT
    programs_target,
    blocks_per_program,
    num_target,
    num_source,
    features,
    partial_row,
    target_sample,
    target_row,
    target_column,
    source_sample,
    source_row,
    source_column,
    MODE: tl.constexpr,
    SOURCE_GRAD: tl.constexpr,
    HAS_GATE: tl.constexpr,
    NEED_TARGET: tl.constexpr,
    NEED_SOURCE: tl.constexpr,
    NEED_WEIGHT: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """One pass over the rows of both modalities that writes dtarget and dsource and each program's share of (dweight, dbias).

    A row's gradient is that of where it went, plus dz * weight with dz = dscores * gate * (1 - gate). What a row's partner is
    (`row_kernels.partners_of_row`) decides where it went, and, after an exchange, where it is now.
    """
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    acc: tl.constexpr = partial_ptr.dtype.element_ty
    features = features * ALIGN
    column_blocks = tl.maximum(tl.cdiv(features, BLOCK_COLUMNS), 1)
    group = program // column_blocks
    columns = (program % column_blocks) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    used = (columns < features)[None, :]
    is_target, chunk = take_turns(group, programs_target, tl.num_programs(0) // column_blocks)
    if is_target:
        num_rows, num_other, partner_ptr = num_target, num_source, partner_target_ptr
        dscores_ptr, gate_ptr = dscores_target_ptr, gate_target_ptr
        own_ptr, other_ptr = target_ptr, source_ptr
        own_sample, own_row, own_column = wide(target_sample, target_row, target_column)
        other_sample, other_row, other_column = wide(source_sample, source_row, source_column)
        grad_own_ptr, grad_other_ptr, out_ptr = grad_target_ptr, grad_source_ptr, dtarget_ptr
    else:
        num_rows, num_other, partner_ptr = num_source, num_target, partner_source_ptr
        dscores_ptr, gate_ptr = dscores_source_ptr, gate_source_ptr
        own_ptr, other_ptr = source_ptr, target_ptr
        own_sample, own_row, own_column = wide(source_sample, source_row, source_column)
        other_sample, other_row, other_column = wide(target_sample, target_row, target_column)
        grad_own_ptr, grad_other_ptr, out_ptr = grad_source_ptr, grad_target_ptr, dsource_ptr
    chunks = tl.cdiv(num_rows, BLOCK_ROWS * blocks_per_program)
    sample = (chunk // chunks).to(tl.int64)
    first = (chunk % chunks) * BLOCK_ROWS * blocks_per_program
    if HAS_GATE:
        weight = tl.load(weight_ptr + columns, mask=columns < features, other=0.0).to(acc)
    dweight = tl.zeros([BLOCK_ROWS, BLOCK_COLUMNS], acc)
    dbias = tl.zeros([BLOCK_ROWS], acc)
    for block in range(blocks_per_program):
        rows = first + block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
        inside = rows < num_rows
        at = sample * num_rows + rows
        moved = tl.zeros([BLOCK_ROWS], tl.int1)
        if MODE != GATE:
            partner = tl.load(partner_ptr + at, mask=inside, other=-1)
            moved = partner >= 0
            there = (sample * num_other + partner) * features
        gradient = tl.zeros([BLOCK_ROWS, BLOCK_COLUMNS], acc)
        if MODE != GATE:
            # Rows that stayed: their own buffer's gradient. Moved ones: the gradient of the slot they went to. Where the source
            # buffer has no gradient: only target rows that stayed and source rows that moved.
            stays, leaves = inside & (moved == 0), moved
            if not SOURCE_GRAD:
                stays, leaves = stays & is_target, leaves & (is_target == 0)
            own_grad_at = grad_own_ptr + tile_offsets(at * features, columns, 1, ALIGN)
            other_grad_at = grad_other_ptr + tile_offsets(there, columns, 1, ALIGN)
            grad_stays = tl.load(own_grad_at, mask=stays[:, None] & used, other=0.0)
            grad_leaves = tl.load(other_grad_at, mask=leaves[:, None] & used, other=0.0)
            gradient = tl.where(leaves[:, None], grad_leaves, grad_stays).to(acc)
        if HAS_GATE:
            gate = tl.load(gate_ptr + at, mask=inside, other=0.0)
            dz = tl.load(dscores_ptr + at, mask=inside, other=0.0) * gate * (1 - gate)
            gradient += dz[:, None] * weight[None, :]
        if NEED_WEIGHT:
            here = inside
            if MODE == SWAP:
                here = inside & (moved == 0)
            own_at = row_offsets(sample, rows, own_sample, own_row, ALIGN)
            own_tile = own_ptr + tile_offsets(own_at, columns, own_column, ALIGN)
            tokens = tl.load(own_tile, mask=here[:, None] & used, other=0.0)
            if MODE == SWAP:
                other_at = row_offsets(sample, partner, other_sample, other_row, ALIGN)
                other_tile = other_ptr + tile_offsets(other_at, columns, other_column, ALIGN)
                elsewhere = tl.load(other_tile, mask=moved[:, None] & used, other=0.0)
                tokens = tl.where(moved[:, None], elsewhere, tokens)
            dweight += dz[:, None] * tokens.to(acc)
            dbias += dz
        if NEED_TARGET or NEED_SOURCE:
            write = inside & ((is_target & NEED_TARGET) | ((is_target == 0) & NEED_SOURCE))
            out_at = out_ptr + tile_offsets(at * features, columns, 1, ALIGN)
            tl.store(out_at, gradient.to(out_ptr.dtype.element_ty), mask=write[:, None] & used)
    if NEED_WEIGHT:
        share = partial_ptr + group.to(tl.int64) * partial_row
        tl.store(share + columns, tl.sum(dweight, 0), mask=columns < features)
        tl.store(share + features, tl.sum(dbias, 0), mask=program % column_blocks == 0)


@kernel
def reduce_kernel(
    partial_ptr,  # (num_partials, partial_row), read
    dweight_ptr,  # (D,), written
    dbias_ptr,  # one number, written
    num_partials,
    features,
    partial_row,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """dweight and dbias (the column after the last) as sums over the programs' shares, in float64 and in a fixed order."""
    columns = tl.program_id(0) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    total = tl.zeros([BLOCK_ROWS, BLOCK_COLUMNS], tl.float64)
    for first in range(0, num_partials, BLOCK_ROWS):
        rows = first + tl.arange(0, BLOCK_ROWS)
        at = rows.to(tl.int64)[:, None] * partial_row + columns[None, :]
        used = (rows < num_partials)[:, None] & (columns <= features)[None, :]
        total += tl.load(partial_ptr + at, mask=used, other=0.0).to(tl.float64)
    sums = tl.sum(total, 0).to(dweight_ptr.dtype.element_ty)
    tl.store(dweight_ptr + columns, sums, mask=columns < features)
    tl.store(dbias_ptr + columns * 0, sums, mask=columns == features)
