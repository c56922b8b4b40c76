"""Device functions that several kernels share."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def accurate(high, low, DTYPE: tl.constexpr):
    """A number that came as two singles (see `split_number`)."""
    return tl.full([], 0.0, DTYPE) + high + low


@triton.jit
def sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def log1p(x):
    """log(1 + x) for x in [-0.5, 1], to about one unit in the last place: the rounding of 1 + x is put back."""
    w = 1 + x
    return tl.log(w) + (x - (w - 1))


@triton.jit
def order_key(x):
    """Integers that order like the scores, int32 (int64 for float64): -0.0 equals 0.0, NaN lies below -inf."""
    x = tl.where(x == 0, 0.0, x)
    if x.dtype == tl.float64:
        bits = x.to(tl.int64, bitcast=True)
        key = bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF)
        lowest = -0x8000000000000000
    else:
        bits = x.to(tl.int32, bitcast=True)
        key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
        lowest = -0x80000000
    return tl.where(x != x, lowest, key)


@triton.jit
def philox_bits(seed, patch, row, stream):
    """The 24 random bits of patches (int32) of one row (int64): Philox-4x32-10, as `reference.philox_bits`."""
    zero = tl.zeros_like(patch).to(tl.uint32)
    low, high = (row & 0xFFFFFFFF).to(tl.uint32), (row >> 32).to(tl.uint32)
    word, _, _, _ = tl.philox(seed, patch.to(tl.uint32), zero + low, zero + high, zero + stream.to(tl.uint32))
    return (word >> 8).to(tl.int32)


@triton.jit
def gumbel(bits, DTYPE: tl.constexpr):
    """G = -log(-log(u)), u = (bits + 1/2) 2^-24."""
    if tl.float64 == DTYPE:
        log_u = tl.log((bits.to(tl.float64) + 0.5) * 5.9604644775390625e-08)
    else:
        # bits + 1/2 does not fit into 24 bits from 2^23 on; its distance to 2^24 does.
        upper = bits >= 0x800000
        t = (tl.where(upper, 0xFFFFFF - bits, bits).to(tl.float32) + 0.5) * 5.9604644775390625e-08
        # One logarithm for both halves: log(t), or log1p(-t).
        w = tl.where(upper, 1 - t, t)
        log_u = tl.log(w) + tl.where(upper, -t - (w - 1), 0.0)
    return -tl.log(-log_u)


@triton.jit
def lower_bound(list_ptr, length, value, WAYS: tl.constexpr):
    """How many entries of an ascending list lie below `value`: two or three loads of WAYS entries find it."""
    low = length * 0
    span = length
    while span > 0:
        step = (span + WAYS - 1) // WAYS
        at = low + tl.arange(0, WAYS) * step
        inside = at < low + span
        entries = tl.load(list_ptr + at, mask=inside, other=0)
        below = tl.sum((inside & (entries < value)).to(tl.int32), 0)
        end = tl.minimum(low + below * step, low + span)
        low = tl.where(below > 0, low + (below - 1) * step + 1, low)
        span = tl.where(below > 0, end - low, 0)
    return low


@triton.jit
def either(is_target, of_target, of_source):
    """`of_target` for a program of the target, else `of_source`: numbers or pointers."""
    chosen = of_source
    if is_target:
        chosen = of_target
    return chosen
