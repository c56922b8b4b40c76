"""One function per kernel: block sizes and outputs; the docstring says what bytes the launch has to move.

Byte counts take every array once per use, as if nothing stayed in a cache. In the formulas T and S stand for the bytes of the
target and the source tokens, k for the bytes of k token rows per sample, `row` for one score (4 bytes, 8 for float64) per
patch. With Nt = Ns, T = S, the whole operator moves 4 T forward and 7 T backward (5 T and the second reading of 2 T that
the row dots need before the rest can begin), and a few per cent for scores and indices.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .._checks import ALL_EXACT, ReplaceOptions
from . import long_rows, nodes, row_kernels, selection, tokens
from ._launch import alignment, launch, split_number

MOST_SAVED_STEPS = 32  # of the relaxation; of more, the first of each segment is kept, the others are made again
ROW_LIMIT = {torch.float32: 4096, torch.float64: 2048}  # longest row that stays in registers
LONG_BLOCK = 2048  # longer rows are read in blocks of this size, and swept in blocks of half of it
NODES_FROM = (
    512,
    64,
)  # longer rows of more exact steps are carried by nodes; shorter ones fit into the lanes of a warp or two
WORK_ROWS, SHORTEST_SINGLE = long_rows.WORK_ROWS.value, row_kernels.SHORTEST_SINGLE.value
SUM_TILE = 2048  # elements per tile where products are summed as well: eight per thread in float32
GRADIENT_PROGRAMS = 2048  # of the pass that sums dweight: enough to fill a device, few enough partial sums


def _cdiv(number: int, size: int) -> int:
    """Rounded up. `triton.cdiv` is for kernels as well and wraps what it is given: a microsecond or two, several times a launch."""
    return -(-number // size)


def _block(size: int, limit: int) -> int:
    return min(max(16, 1 << (size - 1).bit_length()), limit)


@functools.lru_cache
def _row_block(length: int, dtype: torch.dtype) -> tuple[int, bool]:
    """Block size for rows of a length, and whether a row fits into one."""
    single = length <= ROW_LIMIT[dtype]
    return (_block(length, ROW_LIMIT[dtype]) if single else LONG_BLOCK), single


def _row_options(block: int, dtype: torch.dtype) -> dict[str, int]:
    """Eight patches per thread, four of float64 and of long rows: no kernel spills."""
    patches = 4 if dtype == torch.float64 or block == LONG_BLOCK else 8
    return {"BLOCK": block, "num_warps": min(max(block // (32 * patches), 1), 32)}


def _sweep_options(dtype: torch.dtype) -> dict[str, int]:
    """Of rows swept in memory, by the type they are computed in: two patches per thread, four in float64; no kernel spills."""
    return {"BLOCK": LONG_BLOCK // 2, "num_warps": 8 if dtype == torch.float64 else 16}


@functools.lru_cache
def _tile(features: int, rows: int, elements: int, most: int = 32) -> tuple[int, int]:
    """(rows, columns) of the tiles of about so many elements, and at most so many rows, that a program of eight warps moves."""
    columns = _block(features, 256)
    return min(_block(rows, most), max(elements // columns, 4)), columns


def _two_loads(like: Tensor) -> int:
    """Elements of a tile for which each of 256 threads makes two wide loads."""
    return 8192 // like.element_size()


def _as_one_sample(tensor: Tensor) -> tuple[int, int, tuple[int, int, int]]:
    """(samples, patches, strides) of (B, N, D): those of (1, B N, D) where the strides allow, so that short rows share blocks."""
    batch, num, _ = tensor.shape
    sample, row, column = tensor.stride()
    return (1, batch * num, (0, row, column)) if sample == num * row else (batch, num, (sample, row, column))


def _launch_tokens(kernel, programs: int, *arguments, strides, align: int, tile: tuple[int, int], **constants) -> None:
    """Of a kernel of `tokens`, whose last numbers are the strides of two buffers (B, N, D), the first two of each in units of
    `align` elements; eight warps a (rows, columns) tile."""
    steps = [step for sample, row, column in strides for step in (sample // align, row // align, column)]
    rows, columns = tile
    constants |= {"ALIGN": align, "BLOCK_ROWS": rows, "BLOCK_COLUMNS": columns}
    launch(kernel, programs, *arguments, *steps, device=arguments[0].device, num_warps=8, **constants)


def gate_scores(both: Sequence[Tensor], weight: Tensor, bias: Tensor | None, scores: Sequence[Tensor]) -> None:
    """Fills in the (B, N) scores of one or both modalities, one launch. Bytes: read T + S + weight, write 2 rows."""
    features = both[0].shape[2]
    samples, nums, strides = zip(*map(_as_one_sample, both), strict=True)
    block_rows, block_columns = _tile(features, max(nums), 2 * _two_loads(both[0]), most=64)
    programs = [batch * _cdiv(num, block_rows) for batch, num in zip(samples, nums, strict=True)]
    align = alignment(*both)
    _launch_tokens(
        tokens.gate_scores_kernel,
        sum(programs),
        both[0],
        both[-1],
        weight.contiguous(),
        weight if bias is None else bias,
        scores[0],
        scores[-1],
        programs[0],
        nums[0],
        nums[-1],
        features // align,
        HAS_BIAS=bias is not None,
        strides=(strides[0], strides[-1]),
        align=align,
        tile=(block_rows, block_columns),
    )


def select(
    noisy: Sequence[Tensor],
    gates: Sequence[Tensor] | None,
    noise: tuple[Tensor, Tensor] | None,
    seed: Tensor | None,
    k: int,
    options: ReplaceOptions,
    first_row: int = 0,
) -> tuple[Tensor, Tensor]:
    """Fills in the (B, N) noisy scores of both modalities and returns their index lists, one launch.

    Bytes: read gate and noise (2 rows each, where given), write noisy (2 rows) and 2 index lists of 8 bytes; rows that do
    not fit into one block are read again per bisection step, and pairing by score sorts the lists, both out of the cache.
    """
    batch, nums = noisy[0].shape[0], [rows.shape[1] for rows in noisy]
    by_score = options.pairing == "score"
    index = [rows.new_empty((batch, k), dtype=torch.int64) for rows in noisy]
    orders = noisy[0].new_empty((batch, 4, k), dtype=torch.int32) if by_score else index[0]  # which is not read
    _launch_select(
        noisy,
        index,
        gates,
        noise,
        seed,
        nums,
        k,
        options.noise_scale,
        1,
        options.replace == "highest",
        by_score,
        first_row,
        mask=None,
        orders=orders,
        batch=batch,
    )
    return index[0], index[1]


def select_rows(
    scores: Tensor, noise: Tensor | None, seed: Tensor | None, stream: int, k: int, scale: float, first_row: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """(noisy, mask, indices) of the k best of each row of (B, N) scores, one launch.

    Bytes: read scores and noise, write noisy and mask (a row each) and an index list of 8 bytes.
    """
    noisy, mask = torch.empty_like(scores), torch.empty_like(scores)
    indices = scores.new_empty((scores.shape[0], k), dtype=torch.int64)
    pair = (noise, noise) if noise is not None else None
    # The only modality stands in for the source: the target's programs are none.
    _launch_select(
        [noisy, noisy],
        [indices, indices],
        (scores, scores),
        pair,
        seed,
        (scores.shape[1],) * 2,
        k,
        scale,
        stream,
        highest=False,
        by_score=False,
        first_row=first_row,
        mask=mask,
        orders=indices,
        batch=0,
    )
    return noisy, mask, indices


def _launch_select(
    noisy, index, gates, noise, seed, nums, k, scale, stream, highest, by_score, first_row, *, mask, orders, batch
):
    rows = noisy[0].shape[0]
    one = mask is not None
    length = max(nums[1:] if one else nums)
    block, single = _row_block(length, noisy[0].dtype)
    how = selection.PHILOX if seed is not None else selection.GIVEN if noise is not None else selection.NO_NOISE
    launch(
        selection.select_kernel,
        rows if one or by_score else 2 * rows,
        *(gates or noisy),
        *(noise or noisy),
        index[0] if seed is None else seed,
        *noisy,
        *index,
        noisy[0] if mask is None else mask,
        orders,
        batch,
        *nums,
        k,
        *split_number(scale),
        stream,
        int(highest),
        first_row,
        HAS_GATE=gates is not None,
        NOISE=how.value,
        HAS_MASK=mask is not None,
        BY_SCORE=by_score,
        SINGLE=single,
        device=noisy[0].device,
        **_row_options(block, noisy[0].dtype),
    )


def replace(target: Tensor, source: Tensor, target_index: Tensor, source_index: Tensor) -> Tensor:
    """The mixed tokens, one launch. Bytes: read T - k of the target, k of the source and the index lists, write T."""
    mixed = torch.empty(target.shape, dtype=target.dtype, device=target.device)
    batch, num_target, features = target.shape
    block_rows, block_columns = _tile(features, num_target, _two_loads(target))
    align = alignment(target, source)
    _launch_tokens(
        tokens.replace_kernel,
        batch * _cdiv(num_target, block_rows),
        target,
        source,
        mixed,
        target_index,
        source_index,
        num_target,
        features // align,
        target_index.shape[1],
        strides=(target.stride(), source.stride()),
        align=align,
        tile=(block_rows, block_columns),
    )
    return mixed


def swap(target: Tensor, source: Tensor, target_index: Tensor, source_index: Tensor) -> None:
    """Exchanges the chosen rows of the two buffers, one launch. Bytes: read and write k rows of each, read the index lists."""
    (batch, k), features = target_index.shape, target.shape[2]
    # The tile follows N and not k, which falls as training goes on: another k must not compile again.
    block_rows, block_columns = _tile(features, target.shape[1], _two_loads(target))
    align = alignment(target, source)
    _launch_tokens(
        tokens.swap_kernel,
        batch * _cdiv(k, block_rows),
        target,
        source,
        target_index,
        source_index,
        features // align,
        k,
        strides=(target.stride(), source.stride()),
        align=align,
        tile=(block_rows, block_columns),
    )


def dots(grad: Tensor, target: Tensor, source: Tensor, index: tuple[Tensor, Tensor], dtype: torch.dtype, swapped: bool):
    """<grad, mixed> of every slot, one launch. Bytes: read T of gradient, T of tokens and the index lists, write a row."""
    batch, num_target, features = target.shape
    result = torch.empty((batch, num_target), dtype=dtype, device=target.device)
    block_rows, block_columns = _tile(features, num_target, _two_loads(target))
    align = alignment(grad, target, source)
    _launch_tokens(
        tokens.dots_kernel,
        batch * _cdiv(num_target, block_rows),
        grad,
        target,
        source,
        result,
        *index,
        num_target,
        features // align,
        index[0].shape[1],
        SWAPPED=swapped,
        strides=(target.stride(), source.stride()),
        align=align,
        tile=(block_rows, block_columns),
    )
    return result


class Steps(NamedTuple):
    """How the steps of the relaxation are split: `exact` of `total` one by one, kept in segments of `segment`."""

    exact: int
    remaining: int
    segment: int
    saved: int  # steps that are in memory at a time


@functools.lru_cache
def plan_steps(total: int, exact_steps: int, most_saved: int = MOST_SAVED_STEPS) -> Steps:
    exact = total if exact_steps == ALL_EXACT else min(exact_steps, total)
    segment = max(exact, 1) if exact <= most_saved else math.isqrt(exact - 1) + 1
    return Steps(exact, total - exact, segment, segment + max(-(-exact // segment) - 1, 0))


@functools.lru_cache
def series_limit(tau: float, dtype: torch.dtype) -> float:
    """The largest p where the third-degree series of (1 - p)^(1/tau) is exact to rounding.

    A step's relative error c4 p^4 comes back in the about 1/p steps that a patch of this size lives, hence p^3.
    """
    a = 1 / tau
    c4 = abs(a * (a - 1) * (a - 2) * (a - 3)) / 24
    precision = 1e-7 if dtype == torch.float32 else 1e-16
    limit = 1 / 32 if dtype == torch.float32 else 1e-5
    return min((precision / c4) ** (1 / 3) if c4 > 0 else limit, limit)


def widest_single(tau: float) -> float:
    """How far the scores of a row may spread for singles to hold its weights, and at tau < 1 what a step leaves of the best patch,
    about e^(-spread / tau^2)."""
    return 60 * tau * min(1.0, tau)


@functools.lru_cache
def _row_launches(num: int, dtype: torch.dtype) -> list[tuple[torch.dtype, dict[str, int]]]:
    """The launches over rows of a length: the type that each computes in, and its options.

    Of single scores the rows that singles do not hold come last, in doubles (`row_kernels.beyond_singles`).
    """
    block, single = _row_block(num, dtype)
    launches = []
    if dtype == torch.float64 or num >= SHORTEST_SINGLE:
        options = _row_options(block, dtype) if single else _sweep_options(dtype)
        launches.append((dtype, {"SINGLE": single, "WIDE": False, **options}))
    if dtype == torch.float32:
        launches.append((torch.float64, {"SINGLE": False, "WIDE": True, **_sweep_options(torch.float64)}))
    return launches


def _by_nodes(
    upstream: Tensor,
    noisy: Sequence[Tensor],
    index: Sequence[Tensor],
    partners: Sequence[Tensor],
    result: Sequence[Tensor],
    k: int,
    tau: float,
    steps: tuple[int, int],
    highest: bool,
    *,
    given: bool,
    back: bool,
) -> Tensor | None:
    """h, or J(h)^T c, of rows of single scores without a tail, three launches. Returns int32 (programs,): 1 for rows that it left;
    None where it serves none.

    Bytes: read a row of scores and the lists, write one; write and read 128 doubles a step, and 8 times as many at its start."""
    nums, device = [rows.shape[1] for rows in noisy], noisy[1].device
    if noisy[1].dtype != torch.float32 or max(nums) <= NODES_FROM[0] or max(steps) <= NODES_FROM[1]:
        return None
    batch = 0 if given else noisy[0].shape[0]
    programs = batch + noisy[1].shape[0]
    work = torch.empty(programs * nodes.WORK.value, dtype=torch.float64, device=device)
    saved = torch.empty(programs * max(steps) * nodes.SLOTS.value if back else 0, dtype=torch.float64, device=device)
    left = torch.empty(programs, dtype=torch.int32, device=device)
    form = {"GIVEN": given, "BACK": back, "device": device}
    block, _ = _row_block(max(nums), torch.float32)
    launch(
        nodes.compress_kernel, programs, upstream, *noisy, *index, *partners, work, left, batch, *nums, k, int(highest),
        *split_number(tau), **form, BLOCK=min(block, LONG_BLOCK), num_warps=16,
    )  # fmt: skip
    launch(
        nodes.flow_kernel, programs, work, saved, left, batch, *steps, max(steps), *split_number(tau),
        series_limit(tau, torch.float32), **form, num_warps=1,
    )  # fmt: skip
    launch(
        nodes.spread_kernel, programs, upstream, *noisy, *partners, *result, work, left, batch, *nums, int(highest),
        *split_number(tau), **form, BLOCK=1024, num_warps=8,
    )  # fmt: skip
    return left


def adjoint(
    row_dots: Tensor,
    noisy: tuple[Tensor, Tensor],
    index: tuple[Tensor, Tensor],
    tau: float,
    exact_steps: int,
    highest: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """dscores and partners of both modalities, one launch; in float32 two, of which the second only looks at most rows. With all
    steps of long rows three others come first (`_by_nodes`), and these two only look.

    Bytes: read noisy (2 rows), dots (a row for each modality) and the index lists twice, write and read partners (4 bytes per
    patch), write dscores (2 rows); write and read the m exact steps (2 m rows per modality; 4 m with more than 32 steps).
    """
    partners = [like.new_empty(like.shape, dtype=torch.int32) for like in noisy]
    dscores = [torch.empty_like(like) for like in noisy]
    k = index[0].shape[1]
    _launch_adjoint(row_dots, noisy, index, partners, dscores, k, tau, exact_steps, highest, given=False)
    return dscores, partners


def topk_adjoint(grad: Tensor, noisy: Tensor, k: int, tau: float, exact_steps: int) -> Tensor:
    """J(h)^T grad of (B, N) rows, launches as of `adjoint`. Bytes: read two rows, write one; write and read the exact steps."""
    dscores = torch.empty_like(noisy)
    # The only modality stands in for the source, and for lists that are not read.
    both = noisy, noisy
    _launch_adjoint(grad, both, both, both, (dscores, dscores), k, tau, exact_steps, highest=False, given=True)
    return dscores


def _launch_adjoint(upstream, noisy, index, partners, dscores, k, tau, exact_steps, highest, *, given):
    nums, dtype, device = [part.shape[1] for part in noisy], upstream.dtype, upstream.device
    batch = 0 if given else noisy[0].shape[0]
    programs = batch + noisy[1].shape[0]
    plans = [plan_steps(nums[0] - k, exact_steps), plan_steps(k, exact_steps)]
    largest = plans[1] if given else max(plans)
    left = None
    if exact_steps == ALL_EXACT:
        steps = plans[0].exact * (not given), plans[1].exact
        left = _by_nodes(upstream, noisy, index, partners, dscores, k, tau, steps, highest, given=given, back=True)
    for acc, options in _row_launches(max(nums), dtype):
        # Steps in doubles are kept sparingly: hardly a row needs them.
        plan = plan_steps(largest.exact, ALL_EXACT, most_saved=0) if options["WIDE"] else largest
        slots = plan.saved + (0 if options["SINGLE"] else WORK_ROWS)
        fours = _cdiv(max(nums), 4) + 1  # between saved steps: the row, and three numbers about it
        launch(
            row_kernels.adjoint_kernel,
            programs,
            upstream,
            *noisy,
            *index,
            *partners,
            *dscores,
            torch.empty(programs * slots * 4 * fours, dtype=acc, device=device),
            index[0] if left is None else left,
            batch,
            *nums,
            k,
            *(each.exact for each in plans),
            int(highest),
            *split_number(tau),
            series_limit(tau, acc),
            widest_single(tau),
            fours,
            slots,
            plan.segment,
            GIVEN=given,
            LEFT=left is not None,
            device=device,
            **options,
        )


def partners(index: tuple[Tensor, Tensor], nums: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """partner (B, N) int32 of every patch, -1 without, one launch. Bytes: read the index lists, write 4 per patch."""
    batch, k = index[0].shape
    result = [index[0].new_empty((batch, num), dtype=torch.int32) for num in nums]
    block = _block(max(nums), LONG_BLOCK)
    launch(
        row_kernels.partners_kernel,
        2 * batch,
        *index,
        *result,
        batch,
        *nums,
        k,
        device=index[0].device,
        **_row_options(block, torch.float32),
    )
    return result[0], result[1]


def relaxed(noisy: Tensor, k: int, tau: float, exact_steps: int) -> Tensor:
    """The relaxed indicator h of (B, N) scores, one launch, in float32 two (see `adjoint`). Bytes: read and write a row."""
    batch, num = noisy.shape
    plan = plan_steps(k, exact_steps)
    h, left = torch.empty_like(noisy), None
    if exact_steps == ALL_EXACT:
        both = noisy, noisy  # the only modality stands in for the source, and for what is not read
        left = _by_nodes(noisy, both, both, both, (h, h), k, tau, (0, k), False, given=True, back=False)
    for acc, options in _row_launches(num, noisy.dtype):
        if options["WIDE"]:
            options = options | {"num_warps": 4}  # with more it spills
        launch(
            row_kernels.relaxed_kernel,
            batch,
            noisy,
            h,
            torch.empty(0 if options["SINGLE"] else noisy.shape, dtype=acc, device=noisy.device),
            noisy if left is None else left,
            num,
            plan.exact,
            plan.remaining,
            *split_number(tau),
            series_limit(tau, acc),
            widest_single(tau),
            LEFT=left is not None,
            device=noisy.device,
            **options,
        )
    return h


@functools.lru_cache
def _gradient_programs(
    batch: int, num_target: int, num_source: int, features: int, tile: tuple[int, int], shares: bool
) -> tuple[tuple[int, int], int, int]:
    """Groups of blocks of rows for each modality, blocks of columns, and how many blocks a program takes, which has `shares` of
    dweight to write."""
    rows, columns = tile
    column_blocks = max(_cdiv(features, columns), 1)
    blocks = _cdiv(num_target, rows), _cdiv(num_source, rows)
    per_program = max(1, batch * sum(blocks) * column_blocks // GRADIENT_PROGRAMS) if shares else 1
    of_target, of_source = (batch * _cdiv(count, per_program) for count in blocks)
    return (of_target, of_source), column_blocks, per_program


def gradients(
    mode: int,
    grads: tuple[Tensor, Tensor | None],
    tokens_: tuple[Tensor, Tensor],
    partner: tuple[Tensor, Tensor] | None,
    dscores: tuple[Tensor, Tensor] | None,
    gates: tuple[Tensor, Tensor] | None,
    weight: Tensor,
    need: tuple[bool, bool, bool],
    dtype: torch.dtype,
    one: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """dtarget, dsource and the programs' shares of dweight and dbias, (programs, D + 1 and padding), one launch. `one`: there is
    only the first modality. `grads`: of the target buffer, and of the source buffer, which has one only after an exchange.

    Bytes: read the gradients once (T; T + S where there are two), T + S of tokens for dweight, dscores, gate and partner rows;
    write T + S and the shares (D + 1 numbers for each of about 1000 programs).
    """
    target, source = tokens_
    need_target, need_source, need_weight = need
    (batch, num_target, features), num_source = target.shape, source.shape[1]
    # Not `empty_like`: gradients are contiguous whatever the strides of the tokens.
    dtarget = target.new_empty(target.shape if need_target else 0)
    dsource = source.new_empty(source.shape if need_source else 0)
    rows_target = num_target if need_target or need_weight else 0
    rows_source = num_source if (need_source or need_weight) and not one else 0
    tile = _tile(features, max(num_target, num_source), SUM_TILE)
    groups, column_blocks, per_program = _gradient_programs(
        batch, rows_target, rows_source, features, tile, need_weight
    )
    partial_row = _cdiv(features + 1, 16) * 16
    partial = torch.empty((sum(groups) if need_weight else 1, partial_row), dtype=dtype, device=target.device)

    rows = dscores or (partial, partial)
    source_grad = grads[1] is not None
    align = alignment(target, source)
    _launch_tokens(
        tokens.gradient_kernel,
        sum(groups) * column_blocks,
        grads[0],
        grads[1] if source_grad else grads[0],
        target,
        source,
        *(partner or rows),
        *rows,
        *(gates or rows),
        weight.contiguous(),
        dtarget,
        dsource,
        partial,
        groups[0],
        per_program,
        num_target,
        num_source,
        features // align,
        partial_row,
        MODE=mode,
        SOURCE_GRAD=source_grad,
        HAS_GATE=dscores is not None,
        NEED_TARGET=need_target,
        NEED_SOURCE=need_source,
        NEED_WEIGHT=need_weight,
        strides=(target.stride(), source.stride()),
        align=align,
        tile=tile,
    )
    return dtarget, dsource, partial if need_weight else None


def reduce(partial: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """dweight (the shape of `weight`, D numbers) and dbias (1,) from the programs' shares, one launch. Bytes: read D + 1 numbers of
    each share, write them once."""
    features = weight.numel()
    dweight, dbias = partial.new_empty(weight.shape), partial.new_empty(1)
    block_columns, block_rows = 8, 1024  # three sweeps over the shares of `GRADIENT_PROGRAMS`
    launch(
        tokens.reduce_kernel,
        _cdiv(features + 1, block_columns),
        partial,
        dweight,
        dbias,
        partial.shape[0],
        features,
        partial.shape[1],
        BLOCK_ROWS=block_rows,
        BLOCK_COLUMNS=block_columns,
        device=partial.device,
        num_warps=16,
    )
    return dweight, dbias
