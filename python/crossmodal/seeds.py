"""Random streams. Each use of randomness in a run has its own, named, so that adding one never shifts another."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream that `names` describe, e.g. `derive(0, "order", epoch)`."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@lru_cache(maxsize=8)  # A source's order is asked for at every batch.
def permutation(n: int, seed: int, *names: str | int) -> tuple[int, ...]:
    """A random order of range(n) from that stream."""
    generator = torch.Generator().manual_seed(derive(seed, *names))
    return tuple(torch.randperm(n, generator=generator).tolist())
