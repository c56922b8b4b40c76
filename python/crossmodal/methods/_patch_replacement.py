"""What PaRe minimises; the formula is in `pare`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from crossmodal import seeds, sources
from crossmodal.data.dataset import Batch
from crossmodal.errors import UserError
from crossmodal.methods.pare import Options
from crossmodal.models.finetuned import FineTuned
from crossmodal.models.heads import PooledHead
from crossmodal.scoring import losses
from crossmodal.training.objective import Objective, Position
from pare_kernels import PatchGate, PatchReplaceResult, patch_replace

PICTURED = 4  # Training samples whose replaced patches are kept for the picture.


class PatchReplacement(Objective):
    """The loss of clean and mixed samples together; see the head of `pare`.

    Attributes:
        gate: :class:`pare_kernels.PatchGate` on tokens of width D.
        source_head: linear map on mean-pooled features to the source's classes.
        notes: slots that source patches took, by epoch (from 1) and training sample, for the picture.
    """

    parts = ("target", "mixed_target", "mixed_source")

    def __init__(self, task, model: FineTuned, source: sources.Source, options: Options) -> None:
        super().__init__(task)
        self.options, self.source = options, source
        self.companions, self.description = {"source": source}, source.description
        self.source_head = PooledHead(model.encoder.feature_width, len(source.class_names))
        self.gate = PatchGate(model.encoder.width)
        self.tokens = model.encoder.num_tokens
        self.patches = min(self.tokens, model.embed_source(source.inputs[:1]).shape[1])  # what can be replaced at most
        self.schedule = options.k_over_time()
        # As the method's authors have it where nothing is set.
        default = 5 if task.ndim == 1 else 10
        self.gumbel_epochs = default if options.gumbel_epochs is None else options.gumbel_epochs
        for key in ("start", "end"):
            value = getattr(options, key)
            if isinstance(value, int) and value > self.patches:
                raise UserError(
                    f"pare.{key}: {value} patches are more than the {self.patches} there are; a float is a fraction"
                )

    def losses(self, model: FineTuned, batch: Batch, position: Position) -> dict[str, Tensor]:
        source, tokens = batch.extras["source"], model.embed(batch.x)
        mixed = self.replace(tokens, model.embed_source(source.x).to(tokens.dtype), position)
        features = model.body(torch.cat([tokens, mixed.mixed]))
        clean, blend = model.predict_from(features).chunk(2)
        clean_loss, blend_loss = self.task_loss(clean, batch), self.task_loss(blend, batch)
        source_loss = losses.cross_entropy(self.source_head(features.chunk(2)[1]), source.y)
        loss = clean_loss + self.options.weight * ((1 - mixed.lam) * blend_loss + mixed.lam * source_loss)
        # Keeps the gate in the graph when its choice has no gradient (plain top-k, k = 0): data-parallel training
        # waits for the gradient of every parameter.
        loss = loss + 0.0 * sum(p.sum() for p in self.gate.parameters())
        if position.epoch in self._pictured(position.epochs):
            self._note(position.epoch, batch, mixed.target_index)
        parts = {"target": clean_loss, "mixed_target": blend_loss, "mixed_source": source_loss}
        return {"loss": loss} | {name: part.detach() for name, part in parts.items()}

    def replace(self, tokens: Tensor, source_tokens: Tensor, position: Position) -> PatchReplaceResult:
        """Patch replacement for tokens (B, N, D) and source tokens (B, M, D); each row's noise is the same however a batch is
        divided among processes."""
        options = self.options
        return patch_replace(
            tokens,
            source_tokens,
            self.gate.weight,
            self.gate.bias,
            k=self.k(position.epoch, position.epochs),
            tau=options.tau,
            noise_scale=options.noise_scale,
            selection=self._selection(position.epoch),
            replace=options.replace,
            pairing=options.pairing,
            exact_steps=options.exact_steps,
            straight_through=options.straight_through,
            seed=seeds.derive(position.seed, "mix", position.epoch, position.batch),
            first_row=position.first,
        )

    def k(self, epoch: int, epochs: int) -> int:
        """Patches replaced in an epoch; the same for all its steps."""
        return self.schedule(epoch / epochs, self.patches)

    def record(self, position: Position) -> dict[str, Any]:
        k = self.k(position.epoch, position.epochs)
        return {"k": k, "lam": k / self.tokens, "selection": self._selection(position.epoch)}

    def facts(self) -> dict[str, Any]:
        source = self.source
        return {
            "source": {
                "name": source.name,
                "samples": len(source),
                "classes": len(source.class_names),
                "sha256": source.fingerprint,
            },
            "gumbel_epochs": self.gumbel_epochs,
            "replaced": self.notes,
        }

    def fingerprints(self) -> dict[str, str]:
        return {f"source {self.source.name}": self.source.fingerprint}

    def _selection(self, epoch: int) -> str:
        chosen = self.options.selection
        return "topk" if chosen == "gumbel" and epoch >= self.gumbel_epochs else chosen

    def _pictured(self, epochs: int) -> set[int]:
        """Early, midway and late: the first, the middle and the last epoch with anything replaced."""
        mixing = [epoch for epoch in range(epochs) if self.k(epoch, epochs)]
        return {mixing[0], mixing[len(mixing) // 2], mixing[-1]} if mixing else set()

    def _note(self, epoch: int, batch: Batch, slots: Tensor) -> None:
        for row, chosen in zip(batch.index.tolist(), slots, strict=True):
            if row < PICTURED:
                self.notes.setdefault(str(epoch + 1), {})[str(row)] = chosen.tolist()
