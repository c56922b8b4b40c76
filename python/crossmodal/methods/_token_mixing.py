"""Mixup and CutMix as ways of mixing; the formulas are in `mixup` and `cutmix`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from crossmodal import sources
from crossmodal.data.dataset import Batch
from crossmodal.methods._mixing import MixingOptions
from crossmodal.methods._mixing_objective import Mixed, Mixing, draws
from crossmodal.methods._partners import pick
from crossmodal.models.finetuned import FineTuned
from crossmodal.training.objective import Position


class TokenMixup(Mixing):
    """All tokens blended, each with the one in the same place."""

    def mix(self, model: FineTuned, batch: Batch, tokens: Tensor, source_tokens: Tensor, position: Position) -> Mixed:
        lam = self.record(position)["lam"]
        return Mixed(torch.lerp(tokens, source_tokens, lam), lam)


class TokenCutMix(Mixing):
    """A block of tokens from the source, at a place drawn for each sample.

    Attributes:
        grid: tokens per axis, row-major.
    """

    def __init__(self, task, model: FineTuned, source: sources.Source, options: MixingOptions) -> None:
        super().__init__(task, model, source, options)
        self.grid = model.encoder.token_grid

    def mix(self, model: FineTuned, batch: Batch, tokens: Tensor, source_tokens: Tensor, position: Position) -> Mixed:
        inside = torch.ones(len(batch), *self.grid, dtype=torch.bool)
        for axis, (size, side) in enumerate(zip(self.grid, self.block(position), strict=True)):
            first = pick(draws(position, f"cut {axis}", len(batch)), size - side + 1).unsqueeze(1)
            place = torch.arange(size)
            covered = (place >= first) & (place < first + side)
            inside &= covered.view(len(batch), *(size if other == axis else 1 for other in range(len(self.grid))))
        inside = inside.flatten(1).to(tokens.device)
        slots = inside.nonzero()[:, 1].view(len(batch), -1)
        return Mixed(torch.where(inside.unsqueeze(2), source_tokens, tokens), slots.shape[1] / self.tokens, slots)

    def block(self, position: Position) -> tuple[int, ...]:
        """Tokens per axis of the block whose area is nearest to k: sides in the grid's proportions, the last one as k has it."""
        k = self.k(position.epoch, position.epochs)
        if len(self.grid) == 1 or k == 0:
            return (k, *self.grid[1:])
        rows = round(self.grid[0] * (k / self.tokens) ** 0.5) or 1
        return rows, min(max(round(k / rows), 1), self.grid[1])

    def record(self, position: Position) -> dict[str, Any]:
        covered = math.prod(self.block(position))
        return {"k": covered, "lam": covered / self.tokens}
