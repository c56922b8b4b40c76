"""All steps of the relaxation of a row at a cost that does not depend on its length, for single scores.

Every patch follows one map, w <- w (1 - w/W)^(1/tau), and sees the others through the sum W alone, so its path is a smooth function
of its start u = s/tau. The `HEAD` best patches are kept as they are; the others are carried by nodes at equal distances in u, with
6-point Lagrange weights c_j = sum_i L_j(u_i) and W = sum_j c_j w_j. The steps are those of one warp on `SLOTS` numbers, in doubles:
the answer of the full recursion to single rounding. Rows for which that does not hold are left to `row_kernels`.

Three launches, each with the number of warps that it needs: `compress_kernel` sums the weights of the nodes (and of upstream, in
BACK), `flow_kernel` steps forth (and back), `spread_kernel` interpolates. BACK: J(h)^T c of both modalities or of rows alone
(GIVEN, as in `row_kernels`); without it h of rows.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ._launch import kernel
from ._math import accurate, either
from .long_rows import join_extents, load_scores
from .relaxation import series_weights
from .row_kernels import partners_of_program, row_of_program, upstream

SLOTS, HEAD = tl.constexpr(128), tl.constexpr(16)
CELLS = tl.constexpr(107)  # between the nodes, of which the outermost two or three at either end lie beyond the patches
MOST_SPACING, LEAST_SPACING = tl.constexpr(0.16), tl.constexpr(0.01)  # of nodes, in u
MOST_SPREAD = tl.constexpr(60.0)  # of the scores, in u
MOST_BODY_SHARE = tl.constexpr(
    0.1
)  # p of a patch among the nodes at first: they follow smoothly while none has much of the row,
MOST_BODY_P = tl.constexpr(0.25)  # nor later, when the head is used up
MOST_P = tl.constexpr(1 - 1e-7)  # beyond it 1 - p has too few digits left
ITEMS = tl.constexpr(32)  # patches at a time whose weights are summed
# Of a program's work rows of SLOTS doubles: values at the start and results; the numbers about the row lie behind them.
START, WEIGHT, GAMMA, SUM, LAMBDA, DWEIGHT, PATCHES, NUMBERS = (tl.constexpr(row * 128) for row in range(8))
WORK = tl.constexpr(8 * 128)


@triton.jit
def join_best(score_a, patch_a, score_b, patch_b):
    """The higher score, of equal ones the one of the lower patch."""
    first = (score_a > score_b) | ((score_a == score_b) & (patch_a < patch_b))
    return tl.where(first, score_a, score_b), tl.where(first, patch_a, patch_b)


@triton.jit
def ranks_after(s, patches, score, patch):
    return (s < score) | ((s == score) & (patches > patch))


@triton.jit
def lagrange(x):
    """The 6-point Lagrange polynomials around a cell as one function of the distance from the node, in spacings."""
    a = tl.abs(x)
    common = (1 - a) * (2 - a) * (3 - a)
    near, middle, far = (1 + a) * (2 + a) * (1 / 12), (1 + a) * (4 - a) * (1 / 24), (4 - a) * (5 - a) * (1 / 120)
    return tl.where(a < 3, common * tl.where(a < 1, near, tl.where(a < 2, middle, far)), 0)


@triton.jit
def lagrange_in_cell(y, NODE: tl.constexpr, SLOPE: tl.constexpr):
    """The polynomial of node NODE of the six around a cell, or its slope, at y in [0, 1] from the cell's lower end."""
    a = y + (2 - NODE) if NODE < 3 else (NODE - 2) - y
    common = (1 - a) * (2 - a) * (3 - a)
    if NODE == 2 or NODE == 3:
        factor, slope = (1 + a) * (2 + a) * (1 / 12), (3 + 2 * a) * (1 / 12)
    elif NODE == 1 or NODE == 4:
        factor, slope = (1 + a) * (4 - a) * (1 / 24), (3 - 2 * a) * (1 / 24)
    else:
        factor, slope = (4 - a) * (5 - a) * (1 / 120), (2 * a - 9) * (1 / 120)
    if SLOPE:
        common_slope = -((2 - a) * (3 - a) + (1 - a) * (3 - a) + (1 - a) * (2 - a))
        value = common_slope * factor + common * slope
        return value if NODE < 3 else -value
    else:
        return common * factor


@triton.jit
def place(s, low, to_cells):
    """(cell, how far into it, in cells) of scores, both of which single."""
    position = tl.minimum(tl.maximum((s.to(tl.float64) - low) * to_cells, 0), CELLS)
    cell = tl.minimum(position.to(tl.int32), CELLS - 1)
    return cell, position - cell


@triton.jit
def sign_of(is_target, highest):
    return tl.where(is_target & (highest != 0), -1.0, 1.0)


@kernel
def compress_kernel(
    dots_ptr,  # as of `row_kernels.adjoint_kernel`, read with BACK
    noisy_target_ptr,  # (B, Nt), read
    noisy_source_ptr,  # (B, Ns), read
    target_index_ptr,  # int64 (B, k), read with BACK, not GIVEN
    source_index_ptr,  # int64 (B, k), read with BACK, not GIVEN
    partner_target_ptr,  # int32 (B, Nt), written with BACK, not GIVEN
    partner_source_ptr,  # int32 (B, Ns), written with BACK, not GIVEN
    work_ptr,  # float64 (programs, WORK), written
    left_ptr,  # int32 (programs,), written: 1 for rows that nodes do not serve
    batch,
    num_target,
    num_source,
    k,
    highest,
    tau,
    tau_low,
    GIVEN: tl.constexpr,
    BACK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The slots of a row: where they start, how much they weigh, and their gradients of h."""
    program = tl.program_id(0)
    tau = accurate(tau, tau_low, tl.float64)
    is_target, row, num = row_of_program(program, batch, num_target, num_source, GIVEN)
    scores_ptr = either(is_target, noisy_target_ptr, noisy_source_ptr) + row * num
    dots_ptr += row * (num_source if GIVEN else num_target)
    sign = sign_of(is_target, highest)
    work_ptr += program.to(tl.int64) * WORK
    slots = tl.arange(0, SLOTS)
    partner_ptr = partner_source_ptr
    if BACK and not GIVEN:
        partner_ptr = partners_of_program(
            is_target, row, num, target_index_ptr, source_index_ptr, partner_target_ptr, partner_source_ptr, k, BLOCK
        )

    head_scores, head_patches = tl.full([SLOTS], float("-inf"), tl.float32), tl.zeros([SLOTS], tl.int32)
    score, patch = tl.full([], float("inf"), tl.float32), num * 0 - 1
    for rank in range(HEAD):
        best, at = tl.full([], float("-inf"), tl.float32), num
        for start in range(0, num, BLOCK):
            patches = start + tl.arange(0, BLOCK)
            s = load_scores(scores_ptr, sign, patches, num)
            s = tl.where(ranks_after(s, patches, score, patch), s, float("-inf"))
            block_best, block_at = tl.reduce((s, patches), 0, join_best)
            best, at = join_best(best, at, block_best, block_at)
        score, patch = best, at
        head_scores = tl.where(slots == rank, score, head_scores)
        head_patches = tl.where(slots == rank, patch, head_patches)
    low, high = tl.full([], float("inf"), tl.float32), tl.full([], float("-inf"), tl.float32)
    for start in range(0, num, BLOCK):
        patches = start + tl.arange(0, BLOCK)
        s = load_scores(scores_ptr, sign, patches, num)
        used = ranks_after(s, patches, score, patch) & (s > float("-inf"))
        ends = tl.where(used, s, float("inf")), tl.where(used, s, float("-inf"))
        block_low, block_high = tl.reduce(ends, 0, join_extents)
        low, high = join_extents(low, high, block_low, block_high)

    top = tl.max(head_scores, 0)
    left = 1
    if (low <= high) & (top < float("inf")):
        least = low.to(tl.float64)
        spread, lead = (high.to(tl.float64) - least) / tau, (top.to(tl.float64) - least) / tau
        if (spread <= MOST_SPACING * CELLS) & (lead <= MOST_SPREAD):
            spacing = tl.maximum(spread / CELLS, LEAST_SPACING)
            to_cells = 1 / (tau * spacing)
            nodes = slots - (HEAD + 2)
            # A thread adds up what the patches give to its slots; they are put together once.
            ones, gammas = tl.zeros([ITEMS, SLOTS], tl.float32), tl.zeros([ITEMS, SLOTS], tl.float32)
            for start in range(0, num, ITEMS):
                patches = start + tl.arange(0, ITEMS)
                s = load_scores(scores_ptr, sign, patches, num)
                used = ranks_after(s, patches, score, patch) & (s > float("-inf"))
                cell, inside = place(tl.where(used, s, low), least, to_cells)
                distance = (cell[:, None] - nodes[None, :]).to(tl.float32) + inside.to(tl.float32)[:, None]
                share = tl.where(used[:, None], lagrange(distance), 0)
                ones += share
                if BACK:
                    gammas += share * upstream(dots_ptr, partner_ptr, patches, patches < num, is_target, GIVEN)[:, None]
            weight = tl.where(slots < HEAD, 1.0, tl.sum(ones.to(tl.float64), 0))
            u = tl.where(slots < HEAD, (head_scores.to(tl.float64) - top.to(tl.float64)) / tau, nodes * spacing - lead)
            begin = tl.exp(u)
            tl.store(work_ptr + START + slots, begin)
            tl.store(work_ptr + WEIGHT + slots, weight)
            if BACK:
                of_head = upstream(dots_ptr, partner_ptr, head_patches, slots < HEAD, is_target, GIVEN)
                gamma = tl.where(slots < HEAD, of_head.to(tl.float64), tl.sum(gammas.to(tl.float64), 0))
                tl.store(work_ptr + GAMMA + slots, gamma)
            tl.store(work_ptr + PATCHES + slots, head_patches.to(tl.float64))
            tl.store(work_ptr + NUMBERS, least)
            tl.store(work_ptr + NUMBERS + 1, to_cells)
            tl.store(work_ptr + NUMBERS + 2, score.to(tl.float64))
            tl.store(work_ptr + NUMBERS + 3, patch.to(tl.float64))
            left = (tl.exp(spread - lead) > tl.sum(weight * begin, 0) * MOST_BODY_SHARE).to(tl.int32)
    tl.store(left_ptr + program, left)


@triton.jit
def reciprocal(x):
    """1 / x of a double to 14 digits, by one step of Newton from the single's."""
    guess = (1 / x.to(tl.float32)).to(tl.float64)
    return guess * (2 - x * guess)


@kernel
def flow_kernel(
    work_ptr,  # float64 (programs, WORK), read and written
    saved_ptr,  # float64 (programs, most_steps, SLOTS), to work in with BACK
    left_ptr,  # int32 (programs,), read and written
    batch,
    steps_target,
    steps_source,
    most_steps,
    tau,
    tau_low,
    series_limit,
    GIVEN: tl.constexpr,
    BACK: tl.constexpr,
):
    """The steps on the slots of a row: SUM = their p over all steps. And from GAMMA back, by the steps kept: LAMBDA = the gradient
    of the log of the start, DWEIGHT = that of the weights."""
    program = tl.program_id(0)
    inv_tau = 1 / accurate(tau, tau_low, tl.float64)
    steps = either(False if GIVEN else program < batch, steps_target, steps_source)
    work_ptr += program.to(tl.int64) * WORK
    saved_ptr += program.to(tl.int64) * most_steps * SLOTS
    slots = tl.arange(0, SLOTS)
    if tl.load(left_ptr + program) == 0:
        weight = tl.load(work_ptr + WEIGHT + slots)
        y = tl.load(work_ptr + START + slots)
        p = y * reciprocal(tl.sum(weight * y, 0))
        h = tl.zeros([SLOTS], tl.float64)
        within = tl.where(slots < HEAD, MOST_P, MOST_BODY_P)
        largest, too_large = tl.max(p, 0), tl.max((p > within).to(tl.int32), 0)
        step = steps * 0
        while (step < steps) & (largest > series_limit) & (too_large == 0):
            if BACK:
                tl.store(saved_ptr + step.to(tl.int64) * SLOTS + slots, p)
            h += p
            y = p * tl.exp(inv_tau * tl.log(1 - p))
            p = y * reciprocal(tl.sum(weight * y, 0))
            largest, too_large = tl.max(p, 0), tl.max((p > within).to(tl.int32), 0)
            step += 1
        exact = step
        if (step < steps) & (too_large != 0):
            tl.store(left_ptr + program, 1)
        else:
            while step < steps:
                if BACK:
                    tl.store(saved_ptr + step.to(tl.int64) * SLOTS + slots, p)
                h += p
                y = series_weights(p, inv_tau)
                p = y * reciprocal(tl.sum(weight * y, 0))
                step += 1
            tl.store(work_ptr + SUM + slots, h)
            if BACK:
                tl.debug_barrier()
                gamma = tl.load(work_ptr + GAMMA + slots)
                gradient, dweight = tl.zeros([SLOTS], tl.float64), tl.zeros([SLOTS], tl.float64)
                total, later = tl.sum(gradient, 0), tl.zeros([SLOTS], tl.float64)
                p = tl.load(saved_ptr + tl.maximum(steps - 1, 0).to(tl.int64) * SLOTS + slots)
                for back in range(steps):
                    number = steps - 1 - back
                    # The next one is on its way while this one is worked on.
                    ahead = tl.load(saved_ptr + tl.maximum(number - 1, 0).to(tl.int64) * SLOTS + slots)
                    if number < exact:
                        rest = 1 / (1 - p)
                    else:
                        rest = (1 + p) * (1 + p * p) * (1 + (p * p) * (p * p))
                    part = later * total
                    gradient -= weight * part
                    dweight -= part
                    part = p * (gamma - gradient * (inv_tau * rest))
                    gradient += part
                    total = tl.sum(part, 0)
                    later, p = p, ahead
                tl.store(work_ptr + LAMBDA + slots, gradient - weight * (later * total))
                tl.store(work_ptr + DWEIGHT + slots, dweight - later * total)


@kernel
def spread_kernel(
    dots_ptr,  # as of `row_kernels.adjoint_kernel`, read with BACK
    noisy_target_ptr,  # (B, Nt), read
    noisy_source_ptr,  # (B, Ns), read
    partner_target_ptr,  # int32 (B, Nt), read with BACK, not GIVEN
    partner_source_ptr,  # int32 (B, Ns), read with BACK, not GIVEN
    result_target_ptr,  # (B, Nt), written
    result_source_ptr,  # (B, Ns), written
    work_ptr,  # float64 (programs, WORK), read
    left_ptr,  # int32 (programs,), read
    batch,
    num_target,
    num_source,
    highest,
    tau,
    tau_low,
    GIVEN: tl.constexpr,
    BACK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """h of every patch, or its ds = (c h'(u) + (d weight)'(u)) / tau, from the nodes around it; of the head from its slots."""
    program = tl.program_id(0)
    tau = accurate(tau, tau_low, tl.float64)
    is_target, row, num = row_of_program(program, batch, num_target, num_source, GIVEN)
    scores_ptr = either(is_target, noisy_target_ptr, noisy_source_ptr) + row * num
    result_ptr = either(is_target, result_target_ptr, result_source_ptr) + row * num
    partner_ptr = either(is_target, partner_target_ptr, partner_source_ptr) + row * num
    dots_ptr += row * (num_source if GIVEN else num_target)
    sign = sign_of(is_target, highest)
    work_ptr += program.to(tl.int64) * WORK
    if tl.load(left_ptr + program) == 0:
        low, to_cells = tl.load(work_ptr + NUMBERS), tl.load(work_ptr + NUMBERS + 1)
        score = tl.load(work_ptr + NUMBERS + 2).to(tl.float32)
        patch = tl.load(work_ptr + NUMBERS + 3).to(tl.int32)
        for start in range(0, num, BLOCK):
            patches = start + tl.arange(0, BLOCK)
            s = load_scores(scores_ptr, sign, patches, num)
            after = (patches < num) & ranks_after(s, patches, score, patch)
            used = after & (s > float("-inf"))
            cell, inside = place(tl.where(used, s, low.to(tl.float32)), low, to_cells)
            of_sum, of_weight = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
            for node in tl.static_range(6):
                factor = lagrange_in_cell(inside, node, BACK)
                at_ptr = work_ptr + HEAD + node + cell
                of_sum += factor * tl.load(at_ptr + SUM)
                if BACK:
                    of_weight += factor * tl.load(at_ptr + DWEIGHT)
            if BACK:
                c = upstream(dots_ptr, partner_ptr, patches, used, is_target, GIVEN)
                of_sum = sign * to_cells * (c * of_sum + of_weight)
            tl.store(result_ptr + patches, tl.where(used, of_sum, 0).to(tl.float32), mask=after)
        slots = tl.arange(0, HEAD)
        patches = tl.load(work_ptr + PATCHES + slots).to(tl.int32)
        if BACK:
            value = sign * tl.load(work_ptr + LAMBDA + slots) / tau
        else:
            value = tl.load(work_ptr + SUM + slots)
        tl.store(result_ptr + patches, value.to(tl.float32))
