"""Patch replacement with the two phases of the public code; see `pare_released`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from crossmodal import sources
from crossmodal.data.dataset import Batch
from crossmodal.methods._mixing_objective import mask_loss
from crossmodal.methods._patch_replacement import PatchReplacement
from crossmodal.methods.pare import Options
from crossmodal.models.finetuned import FineTuned
from crossmodal.training.objective import Position


class ReleasedReplacement(PatchReplacement):
    """`whole`: batches of full size in an epoch; the one after them is not mixed."""

    def __init__(self, task, model: FineTuned, source: sources.Source, options: Options, whole: int) -> None:
        super().__init__(task, model, source, options)
        self.whole = whole
        # Of a target that is masks itself, the target's map is compared with those of the source, and there is no other head.
        self.one_map = source.has_masks and task.kind == "dense" and task.loss == "bce_with_logits"
        if self.one_map:
            self.source_head = None

    def losses(self, model: FineTuned, batch: Batch, position: Position) -> dict[str, Tensor]:
        if position.batch < self.whole:
            return super().losses(model, batch, position)
        loss = self.task_loss(model(batch.x), batch)
        nothing = torch.zeros_like(loss)
        return self.reached(loss) | {"target": loss.detach(), "mixed_target": nothing, "mixed_source": nothing}

    def source_loss(self, features: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        if not self.one_map:
            return super().source_loss(features, outputs, labels)
        masks = interpolate(labels, outputs.shape[2:], mode="nearest-exact")
        return (
            mask_loss(outputs.flatten(0, 1).unsqueeze(1), masks.repeat_interleave(outputs.shape[1], 0))
            .view(outputs.shape[:2])
            .mean(1)
        )

    def facts(self) -> dict[str, Any]:
        options = self.options
        return super().facts() | {"start": options.start, "end": options.end, "mix_weight": options.mix_weight}

    def choice(self, position: Position) -> dict[str, Any]:
        flipped = {"replace": "highest", "pairing": "score"} if self._selection(position.epoch) == "topk" else {}
        return super().choice(position) | flipped
