"""What the operators return."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class PatchReplaceResult(NamedTuple):
    """Result of `patch_replace` and `patch_swap_`.

    mixed: (B, Nt, D), the target with k of its patches replaced (for `patch_swap_` the target buffer itself).
    lam: k / Nt, the share of source patches in `mixed`; weighs the source's loss against the target's.
    target_index: int64 (B, k), ascending: the target slots that were replaced.
    source_index: int64 (B, k): the source patch that is now in each of those slots.
    """

    mixed: Tensor
    lam: float
    target_index: Tensor
    source_index: Tensor


class TopKResult(NamedTuple):
    """Result of `gumbel_topk`.

    indices: int64 (..., k), ascending: the chosen items.
    mask: (..., N), 1 on the chosen items and 0 elsewhere; its gradient is that of `relaxed` (straight-through).
    relaxed: (..., N), the relaxed indicator h; rows sum to k.
    """

    indices: Tensor
    mask: Tensor
    relaxed: Tensor
