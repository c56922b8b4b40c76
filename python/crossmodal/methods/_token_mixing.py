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
    """A block of tokens from the source, at a place drawn for each sample, in every image of a sample that has several.

    Attributes:
        grid: tokens per axis of a sample, or of one of its images; row-major.
        images: how many there are.
    """

    def __init__(self, task, model: FineTuned, source: sources.Source, options: MixingOptions) -> None:
        super().__init__(task, model, source, options)
        self.grid, self.images = model.encoder.token_grid, model.encoder.attached.images

    def mix(self, model: FineTuned, batch: Batch, tokens: Tensor, source_tokens: Tensor, position: Position) -> Mixed:
        inside = torch.ones(len(batch), *self.grid, dtype=torch.bool)
        for axis, (size, side) in enumerate(zip(self.grid, self.block(position), strict=True)):
            first = pick(draws(position, f"cut {axis}", (len(batch),)), size - side + 1).unsqueeze(1)
            place = torch.arange(size)
            covered = (place >= first) & (place < first + side)
            inside &= covered.view(len(batch), *(size if other == axis else 1 for other in range(len(self.grid))))
        inside = inside.flatten(1).repeat(1, self.images).to(tokens.device)
        slots = inside.nonzero()[:, 1].view(len(batch), -1)
        mixed = torch.where(inside.unsqueeze(2), source_tokens, tokens)
        return Mixed(mixed, slots.shape[1] / self.tokens, slots)

    def block(self, position: Position) -> tuple[int, ...]:
        """Tokens per axis of the block whose area is nearest to an image's part of k: sides in the grid's proportions, the last one
        as k has it."""
        k = self.k(position.epoch, position.epochs)
        part = k / self.images
        if len(self.grid) == 1 or k == 0:
            return (round(part), *self.grid[1:])
        rows = round(self.grid[0] * (k / self.tokens) ** 0.5) or 1
        return rows, min(max(round(part / rows), 1), self.grid[1])

    def record(self, position: Position) -> dict[str, Any]:
        covered = self.images * math.prod(self.block(position))
        return {"k": covered, "lam": covered / self.tokens}
