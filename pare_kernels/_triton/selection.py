"""The kernel that chooses: Gumbel noise, the threshold of the n best, ascending index lists, pairing. One program per row."""

from __future__ import annotations

import triton
import triton.language as tl

from ._launch import kernel
from ._math import accurate, either, gumbel, order_key, philox_bits

NO_NOISE, GIVEN, PHILOX = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
DIGIT_BITS, DIGITS = tl.constexpr(2), tl.constexpr(4)  # of the radix sort; four 16-bit counters fit into one int64


@triton.jit
def make_noisy(
    gate_ptr,
    noise_ptr,
    seed,
    row,
    patches,
    inside,
    scale,
    stream,
    HAS_GATE: tl.constexpr,
    NOISE: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """s = gate + scale * noise, or either of them alone."""
    noisy = tl.zeros(patches.shape, DTYPE)
    if NOISE == GIVEN:
        noisy = tl.load(noise_ptr + patches, mask=inside, other=0.0)
    if NOISE == PHILOX:
        noisy = gumbel(philox_bits(seed, patches, row, stream), DTYPE)
    if HAS_GATE:
        gate = tl.load(gate_ptr + patches, mask=inside, other=0.0)
        noisy = gate + scale * noisy if NOISE != NO_NOISE else gate
    return noisy


@triton.jit
def count_from(keys, noisy_ptr, num, negate, threshold, SINGLE: tl.constexpr, BLOCK: tl.constexpr):
    """How many keys of a row are >= threshold. A row that does not fit into one block is read again."""
    if SINGLE:
        return tl.sum((keys >= threshold).to(tl.int32), 0)
    else:
        total = tl.zeros([BLOCK], tl.int32)
        for start in range(0, num, BLOCK):
            patches = start + tl.arange(0, BLOCK)
            scores = tl.load(noisy_ptr + patches, mask=patches < num, other=float("nan"))
            total += ((patches < num) & (order_key(tl.where(negate, -scores, scores)) >= threshold)).to(tl.int32)
        return tl.sum(total, 0)


@triton.jit
def choose_row(
    gate_ptr,  # (rows, num), read with HAS_GATE
    noise_ptr,  # (rows, num), read with NOISE == GIVEN
    seed,
    noisy_ptr,  # (rows, num), written
    index_ptr,  # int64 (rows, listed), written
    mask_ptr,  # (rows, num), written with HAS_MASK
    row,
    num,
    best,
    listed,
    stream,
    scale,
    negate,
    complement,
    first_row,
    HAS_GATE: tl.constexpr,
    NOISE: tl.constexpr,
    HAS_MASK: tl.constexpr,
    SINGLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Noisy scores of one row, and the ascending list of its `best` largest, or of all others (`complement`).

    The threshold is found by bisection on integers that order like the scores. Equal scores: the lower index ranks higher.
    """
    acc: tl.constexpr = noisy_ptr.dtype.element_ty
    gate_ptr += row * num
    noise_ptr += row * num
    noisy_ptr += row * num
    mask_ptr += row * num
    index_ptr += row * listed

    low = order_key(tl.full([], float("inf"), acc))
    high = order_key(tl.full([], float("nan"), acc))
    keys = order_key(tl.full([BLOCK], float("nan"), acc))
    for start in range(0, num, BLOCK):
        patches = start + tl.arange(0, BLOCK)
        inside = patches < num
        scores = make_noisy(
            gate_ptr, noise_ptr, seed, first_row + row, patches, inside, scale, stream, HAS_GATE, NOISE, acc
        )
        tl.store(noisy_ptr + patches, scores, mask=inside)
        found = order_key(tl.where(inside, tl.where(negate, -scores, scores), float("nan")))
        low = tl.minimum(low, tl.min(tl.where(inside, found, low), 0))
        high = tl.maximum(high, tl.max(found, 0))
        if SINGLE:
            keys = found
    tl.debug_barrier()

    # The largest threshold that at least `best` keys reach; it is found early when exactly that many do.
    while low < high:
        middle = (low | high) - ((low ^ high) >> 1)
        count = count_from(keys, noisy_ptr, num, negate, middle, SINGLE, BLOCK)
        low = tl.where(count >= best, middle, low)
        high = tl.where(count >= best, tl.where(count == best, middle, high), middle - 1)
    threshold = low
    above = count_from(keys, noisy_ptr, num, negate, threshold + 1, SINGLE, BLOCK)
    needed = best - above  # of the keys that equal the threshold, the first ones

    above_before = best * 0
    equal_before = best * 0
    for start in range(0, num, BLOCK):
        patches = start + tl.arange(0, BLOCK)
        inside = patches < num
        found = keys
        if not SINGLE:
            scores = tl.load(noisy_ptr + patches, mask=inside, other=float("nan"))
            found = order_key(tl.where(negate, -scores, scores))
        is_above, is_equal = inside & (found > threshold), inside & (found == threshold)
        # Two 16-bit counters in one scan.
        both = is_above.to(tl.int32) + (is_equal.to(tl.int32) << 16)
        scan = tl.cumsum(both, 0)
        equal = equal_before + (scan >> 16)
        best_so_far = above_before + (scan & 0xFFFF) + tl.minimum(equal, needed)
        is_best = is_above | (is_equal & (equal <= needed))
        position = tl.where(complement, patches - best_so_far, best_so_far - 1)
        in_list = tl.where(complement, is_best == 0, is_best)
        tl.store(index_ptr + position, patches.to(tl.int64), mask=inside & in_list)
        if HAS_MASK:
            tl.store(mask_ptr + patches, is_best.to(acc), mask=inside)
        totals = tl.sum(both, 0)
        above_before += totals & 0xFFFF
        equal_before += totals >> 16


@triton.jit
def sort_in_registers(noisy_ptr, index_ptr, order_ptr, length, BLOCK: tl.constexpr):
    """`sort_list` for single scores and lists that fit into one block: key and position in one number."""
    places = tl.arange(0, BLOCK)
    inside = places < length
    patches = tl.load(index_ptr + places, mask=inside, other=0)
    key = order_key(tl.load(noisy_ptr + patches, mask=inside, other=0.0))
    both = ((-1 - key).to(tl.int64) << 32) | places
    both = tl.where(inside, both, 0x7FFFFFFFFFFFFFFF)
    # Bitonic: runs of 2, 4, 8 ... entries, in turn ascending and descending, as far as the list goes.
    run = length * 0 + 2
    while run < 2 * length:
        step = run // 2
        while step > 0:
            other = tl.gather(both, places ^ step, 0)
            keep_lower = ((places & step) == 0) == ((places & run) == 0)
            both = tl.where((both < other) == keep_lower, both, other)
            step = step // 2
        run *= 2
    tl.store(order_ptr + places, (both & 0x7FFFFFFF).to(tl.int32), mask=inside)
    tl.debug_barrier()


@triton.jit
def sort_list(noisy_ptr, index_ptr, order_ptr, spare_ptr, length, BLOCK: tl.constexpr):
    """order = positions in an index list from the best noisy score to the worst, equal scores in list order.

    A stable radix sort, from the lowest digit up, between two buffers; an even number of passes ends in the first.
    """
    wide: tl.constexpr = noisy_ptr.dtype.element_ty == tl.float64
    passes: tl.constexpr = 32 if wide else 16
    for start in range(0, length, BLOCK):
        places = start + tl.arange(0, BLOCK)
        tl.store(order_ptr + places, places, mask=places < length)
    for digit in range(passes):
        tl.debug_barrier()
        from_ptr, to_ptr = order_ptr, spare_ptr
        if digit % 2 == 1:
            from_ptr, to_ptr = spare_ptr, order_ptr
        base1, base2, base3 = length * 0, length * 0, length * 0
        # The first sweep counts digits, the second one puts every entry behind the smaller digits and its equals before it.
        for sweep in range(2):
            seen0, seen1, seen2, seen3 = length * 0, base1, base2, base3
            for start in range(0, length, BLOCK):
                places = start + tl.arange(0, BLOCK)
                inside = places < length
                entries = tl.load(from_ptr + places, mask=inside, other=0)
                patches = tl.load(index_ptr + entries, mask=inside, other=0)
                key = order_key(tl.load(noisy_ptr + patches, mask=inside, other=0.0))
                # Descending scores are ascending inverted keys; the sign bit already inverted makes them unsigned.
                value = (key >> (digit * DIGIT_BITS)) & (DIGITS - 1)
                value = tl.where(digit == passes - 1, value ^ (DIGITS // 2), value)
                value = (DIGITS - 1) - value
                one = tl.where(inside, tl.full([BLOCK], 1, tl.int64) << (16 * value).to(tl.int64), 0)
                scan = tl.cumsum(one, 0) - one
                rank = ((scan >> (16 * value).to(tl.int64)) & 0xFFFF).to(tl.int32)
                seen = tl.where(value == 0, seen0, tl.where(value == 1, seen1, tl.where(value == 2, seen2, seen3)))
                tl.store(to_ptr + seen + rank, entries, mask=inside & (sweep == 1))
                totals = tl.sum(one, 0)
                seen0 += (totals & 0xFFFF).to(tl.int32)
                seen1 += ((totals >> 16) & 0xFFFF).to(tl.int32)
                seen2 += ((totals >> 32) & 0xFFFF).to(tl.int32)
                seen3 += ((totals >> 48) & 0xFFFF).to(tl.int32)
            base1 = seen0
            base2 = seen0 + seen1
            base3 = seen0 + seen1 + seen2
    tl.debug_barrier()


@triton.jit
def choose_row_of(
    is_target, row, gate_target_ptr, gate_source_ptr, noise_target_ptr, noise_source_ptr, seed, noisy_target_ptr,
    noisy_source_ptr, target_index_ptr, source_index_ptr, mask_ptr, num_target, num_source, k, scale, stream_source, highest,
    first_row, HAS_GATE: tl.constexpr, NOISE: tl.constexpr, HAS_MASK: tl.constexpr, SINGLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`choose_row` of one modality: the num_target - k best of the target stay, the k best of the source come."""
    choose_row(
        either(is_target, gate_target_ptr, gate_source_ptr),
        either(is_target, noise_target_ptr, noise_source_ptr),
        seed,
        either(is_target, noisy_target_ptr, noisy_source_ptr),
        either(is_target, target_index_ptr, source_index_ptr),
        mask_ptr,
        row,
        either(is_target, num_target, num_source),
        either(is_target, num_target - k, k),
        k,
        either(is_target, stream_source * 0, stream_source),
        scale,
        (highest != 0) & is_target,
        is_target,
        first_row,
        HAS_GATE,
        NOISE,
        HAS_MASK,
        SINGLE,
        BLOCK,
    )


@kernel
def select_kernel(
    gate_target_ptr,  # (B, Nt), read; as are the next three
    gate_source_ptr,  # (B, Ns)
    noise_target_ptr,  # (B, Nt)
    noise_source_ptr,  # (B, Ns)
    seed_ptr,  # int64, one number
    noisy_target_ptr,  # (B, Nt), written
    noisy_source_ptr,  # (B, Ns), written
    target_index_ptr,  # int64 (B, k), written
    source_index_ptr,  # int64 (B, k), written
    mask_ptr,  # (B, Nt), written with HAS_MASK
    orders_ptr,  # int32 (B, 4, k), for BY_SCORE to work in
    batch,
    num_target,
    num_source,
    k,
    scale,
    scale_low,
    stream_source,
    highest,
    first_row,
    HAS_GATE: tl.constexpr,
    NOISE: tl.constexpr,
    HAS_MASK: tl.constexpr,
    BY_SCORE: tl.constexpr,
    SINGLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Noisy scores and index lists: of the target the k slots that are free, of the source the k patches that come.

    A program does one row of one modality, the target's rows first; pairing by score needs both, so there it does both.
    """
    program = tl.program_id(0)
    acc: tl.constexpr = noisy_target_ptr.dtype.element_ty
    scale = accurate(scale, scale_low, acc)
    seed = tl.load(seed_ptr) if NOISE == PHILOX else 0
    is_target = program < batch
    if BY_SCORE:
        row = program.to(tl.int64)
        for modality in range(2):
            is_target = modality == 0
            choose_row_of(
                is_target, row, gate_target_ptr, gate_source_ptr, noise_target_ptr, noise_source_ptr, seed, noisy_target_ptr,
                noisy_source_ptr, target_index_ptr, source_index_ptr, mask_ptr, num_target, num_source, k, scale,
                stream_source, highest, first_row, HAS_GATE, NOISE, HAS_MASK, SINGLE, BLOCK,
            )  # fmt: skip
            tl.debug_barrier()
            noisy_ptr = either(is_target, noisy_target_ptr, noisy_source_ptr)
            index_ptr = either(is_target, target_index_ptr, source_index_ptr)
            num = either(is_target, num_target, num_source)
            order_ptr = orders_ptr + (row * 4 + 2 * modality) * k
            if SINGLE and acc == tl.float32:
                sort_in_registers(noisy_ptr + row * num, index_ptr + row * k, order_ptr, k, BLOCK)
            else:
                sort_list(noisy_ptr + row * num, index_ptr + row * k, order_ptr, order_ptr + k, k, BLOCK // 2)
        # The slot of rank r from the top takes the patch of rank r from the bottom.
        order_ptr = orders_ptr + row * 4 * k
        source_index_ptr += row * k
        for start in range(0, k, BLOCK):
            ranks = start + tl.arange(0, BLOCK)
            inside = ranks < k
            place = tl.load(order_ptr + ranks, mask=inside, other=0)
            entry = tl.load(order_ptr + 2 * k + (k - 1 - ranks), mask=inside, other=0)
            patch = tl.load(source_index_ptr + entry, mask=inside, other=0)
            tl.store(order_ptr + k + place, patch.to(tl.int32), mask=inside)
        tl.debug_barrier()
        for start in range(0, k, BLOCK):
            places = start + tl.arange(0, BLOCK)
            patch = tl.load(order_ptr + k + places, mask=places < k, other=0)
            tl.store(source_index_ptr + places, patch.to(tl.int64), mask=places < k)
    else:
        choose_row_of(
            is_target, either(is_target, program, program - batch).to(tl.int64), gate_target_ptr, gate_source_ptr,
            noise_target_ptr, noise_source_ptr, seed, noisy_target_ptr, noisy_source_ptr, target_index_ptr, source_index_ptr,
            mask_ptr, num_target, num_source, k, scale, stream_source, highest, first_row, HAS_GATE, NOISE, HAS_MASK, SINGLE, BLOCK,
        )  # fmt: skip
