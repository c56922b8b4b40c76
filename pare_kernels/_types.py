"""What the operators return."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def replaced_share(k: int, num_target: int) -> float:
    """lam = k / Nt, 0 where there are no patches."""
    return k / num_target if num_target else 0.0


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


class ChoiceScores(NamedTuple):
    """The scores behind a choice, each (B, N) in the accumulation type: what its gradient needs.

    Operators pass them on as one flat tensor, since each tensor that an operator takes or returns costs a tiny call dearly:
    these four one after the other, without gates (the scores before noise) where tokens are not scored.
    """

    noisy_target: Tensor
    noisy_source: Tensor
    gate_target: Tensor | None = None
    gate_source: Tensor | None = None

    @staticmethod
    def numel(batch: int, num_target: int, num_source: int, gated: bool) -> int:
        return batch * (num_target + num_source) * (2 if gated else 1)

    @classmethod
    def split(cls, flat: Tensor, target: Tensor, source: Tensor) -> ChoiceScores:
        """Views of a flat tensor, for tokens (B, Nt, D) and (B, Ns, D)."""
        (batch, num_target, _), num_source = target.shape, source.shape[1]
        begin, step = flat.storage_offset(), flat.stride(0)
        of_target, of_source = batch * num_target * step, batch * num_source * step
        both = of_target + of_source
        target_rows, source_rows = (num_target * step, step), (num_source * step, step)
        noisy_target = flat.as_strided((batch, num_target), target_rows, begin)
        noisy_source = flat.as_strided((batch, num_source), source_rows, begin + of_target)
        if flat.numel() * step < 2 * both:
            return cls(noisy_target, noisy_source)
        gate_target = flat.as_strided((batch, num_target), target_rows, begin + both)
        gate_source = flat.as_strided((batch, num_source), source_rows, begin + both + of_target)
        return cls(noisy_target, noisy_source, gate_target, gate_source)

    def flat(self) -> Tensor:
        return torch.cat([part.flatten() for part in self if part is not None])


class TopKResult(NamedTuple):
    """Result of `gumbel_topk`.

    indices: int64 (..., k), ascending: the chosen patches.
    mask: (..., N), 1 on the chosen patches and 0 elsewhere; its gradient is that of `relaxed` (straight-through).
    relaxed: (..., N), the relaxed indicator h; rows sum to k, those of nothing but -inf and NaN to 0. A score that lies more than
        700 tau below the largest of its row counts as -inf, so scores of +inf share their row, and one that is alone has all k.
    """

    indices: Tensor
    mask: Tensor
    relaxed: Tensor
