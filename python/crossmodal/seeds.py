"""Random streams. Each use of randomness in a run has its own, named, so that adding one never shifts another."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
from torch import Tensor


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream that `names` describe, e.g. `derive(0, "order", epoch)`."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@lru_cache(maxsize=8)  # The order of a companion data set is asked for at every batch.
def permutation(n: int, seed: int, *names: str | int) -> Tensor:
    """A random order of range(n) from that stream, int64 (n,); shared, not to be changed."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(derive(seed, *names)))
