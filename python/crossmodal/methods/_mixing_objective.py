"""What methods minimise that mix target tokens z with source tokens z_s, the source having the share lam of the mixture z~:

    loss = L(f(z), y) + mix_weight * ((1 - lam) * L(f(z~), y) + lam * CE(f_s(z~), y_s))

f and f_s share the encoder and have a head each. Of a source with masks f_s is a map of logits, and in the place of CE is the
binary cross entropy of the pixels that count. With joint labels (an option of the paper's code) both heads are rows of one
softmax over the classes of target and source, and all three losses are its cross entropy.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from crossmodal import seeds, sources
from crossmodal.data.dataset import Batch
from crossmodal.errors import UserError
from crossmodal.methods._mixing import MixingOptions
from crossmodal.methods._partners import PARTNERS
from crossmodal.models.finetuned import FineTuned
from crossmodal.models.heads import DenseHead, PooledHead
from crossmodal.scoring import losses, metrics
from crossmodal.sources.masks import IGNORED
from crossmodal.training.objective import Objective, Position
from crossmodal.training.selection import EpochSelection

STATISTICS = 256  # Source samples from which the mean and deviation of Gaussian tokens are.
PICTURED = 4  # Training samples whose replaced patches are kept for the picture.


class Mixed(NamedTuple):
    """tokens: (B, N, D). lam: the source's share in them. slots: int64 (B, k), the target patches that gave way, where whole
    ones do."""

    tokens: Tensor
    lam: float
    slots: Tensor | None = None


class Mixing(Objective):
    """The loss of clean and mixed samples together; a subclass says how they are mixed.

    Attributes:
        source_head: linear map on pooled features to the source's classes, or on each to the masks of its patch.
        tokens: N. patches: how many of them can be the source's at most.
        notes: `replaced`, slots that source patches took, by `epoch/sample` (from 1) for the picture; `validation`, metric and loss
            by epoch, and `ended`, the epoch after which k fell to its end, with `end_patience`.
    """

    parts = ("target", "mixed_target", "mixed_source")

    def __init__(self, task, model: FineTuned, source: sources.Source, options: MixingOptions) -> None:
        super().__init__(task)
        self.description = source.description
        if options.control is not None:
            self.description += f" CONTROL: {options.control.replace('_', ' ')}."
        if options.control == "shuffled_labels":
            order = torch.from_numpy(np.random.default_rng(0).permutation(len(source)))
            source = dataclasses.replace(source, labels=source.labels[order])
        if options.control == "gaussian_tokens":
            with torch.no_grad():
                tokens = model.embed_source(source.inputs[:STATISTICS]).flatten(0, 1)
            self.register_buffer("token_mean", tokens.mean(0))
            self.register_buffer("token_deviation", tokens.std(0))
        self.options, self.source = options, source
        encoder = model.encoder
        if source.has_masks:
            shape = tuple(source.labels.shape[1:])
            geometry = {"grid": encoder.feature_grid, "stride": encoder.feature_stride, "canvas_size": shape[1:]}
            self.source_head = DenseHead(encoder.feature_width, shape, **geometry)
        else:
            self.source_head = PooledHead(encoder.feature_width, len(source.class_names))
        self.tokens = encoder.num_tokens
        self.patches = self.most(model)
        self.schedule = options.k_over_time()
        self.metric = metrics.get(task.metric)
        for key in ("start", "end"):
            value = getattr(options, key)
            if isinstance(value, int) and value > self.patches:
                raise UserError(
                    f"{options.section}.{key}: {value} patches are more than the {self.patches} there are; a float is a fraction"
                )
        for key, needs_classes in (("labels", "joint"), ("partners", "class")):
            if source.has_masks and getattr(options, key) == needs_classes:
                raise UserError(
                    f"{options.section}.{key}: {needs_classes} needs one class per source sample, but those of {source.name} have "
                    "masks"
                )
        if task.loss != "cross_entropy" and options.labels == "joint":
            raise UserError(
                f"{options.section}.labels: joint is one softmax over classes of target and source, but the loss of {task.title} "
                f"is {task.loss}; take separate"
            )
        if task.kind != "classification" and options.partners == "class":
            raise UserError(
                f"{options.section}.partners: class needs one class per sample, but {task.title} is {task.kind}"
            )
        if options.partners == "random":
            self.companions = {"source": source}
        else:
            self.partners = PARTNERS[options.partners](task, model, source)

    def most(self, model: FineTuned) -> int:
        """How many of a sample's tokens can be the source's.

        Raises:
            UserError: source samples have more or fewer tokens, and mixing is place by place.
        """
        there = self.source_tokens(model)
        if there != self.tokens:
            raise UserError(
                f"source.name: samples of {self.source.name} have {there} tokens, but {self.options.section} mixes them with as "
                f"many as the target's, {self.tokens}; take another source, or pare"
            )
        return self.tokens

    def source_tokens(self, model: FineTuned) -> int:
        """M."""
        return model.embed_source(self.source.inputs[:1]).shape[1]

    def mix(self, model: FineTuned, batch: Batch, tokens: Tensor, source_tokens: Tensor, position: Position) -> Mixed:
        """Mixed tokens of target tokens (B, N, D) and source tokens (B, M, D); what is drawn for a row is the same however a batch
        is divided among processes."""
        raise NotImplementedError

    def losses(self, model: FineTuned, batch: Batch, position: Position) -> dict[str, Tensor]:
        tokens = model.embed(batch.x)
        source = batch.extras["source"] if self.companions else self._partners(tokens, batch, position)
        source_tokens = model.embed_source(source.x).to(tokens.dtype)
        if self.options.control == "gaussian_tokens":
            noise = draws(position, "tokens", source_tokens.shape, "standard_normal").to(tokens)
            source_tokens = self.token_mean + self.token_deviation * noise
        mixed = self.mix(model, batch, tokens, source_tokens, position)
        features = model.body(torch.cat([tokens, mixed.tokens]))
        clean, blend = model.predict_from(features).chunk(2)
        if self.options.labels == "joint":
            clean_source, blend_source = self.source_head(features).chunk(2)
            clean, blend = torch.cat([clean, clean_source], 1), torch.cat([blend, blend_source], 1)
            source_loss = losses.cross_entropy(blend, blend.shape[1] - blend_source.shape[1] + source.y)
        else:
            source_loss = self.source_loss(features.chunk(2)[1], blend, source.y)
        clean_loss, blend_loss = self.task_loss(clean, batch), self.task_loss(blend, batch)
        loss = clean_loss + self.options.mix_weight * ((1 - mixed.lam) * blend_loss + mixed.lam * source_loss)
        self.note(position, batch, tokens, source_tokens, mixed)
        return self.reached(loss) | {
            "target": clean_loss.detach(),
            "mixed_target": blend_loss.detach(),
            "mixed_source": source_loss.detach(),
        }

    def source_loss(self, features: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of mixed samples for the source's labels, per sample (B,).

        Args:
            features: (B, N', F).
            outputs: the target head's, (B, ...).
            labels: int64 (B,), or masks uint8 (B, 1, H, W).
        """
        found = self.source_head(features)
        return losses.cross_entropy(found, labels) if labels.ndim == 1 else mask_loss(found, labels)

    def reached(self, loss: Tensor) -> dict[str, Tensor]:
        """The loss with every parameter of the objective in its graph: data-parallel training waits for the gradient of each, and a
        gate has none by plain top-k or with k = 0."""
        return {"loss": loss + 0.0 * sum(parameter.sum() for parameter in self.parameters())}

    def k(self, epoch: int, epochs: int) -> int:
        """Patches' worth of source in an epoch; the same for all its steps."""
        ended = self.notes.get("ended")
        return self.schedule(1.0 if ended and epoch >= ended["epoch"] else epoch / epochs, self.patches)

    def observe(self, record: dict[str, Any]) -> None:
        if self.options.end_patience is None or "ended" in self.notes:
            return
        seen = self.notes.setdefault("validation", {})
        seen[str(record["epoch"])] = [record["validation"], record["validation_loss"]]
        selection = EpochSelection("metric", self.metric)
        for epoch in sorted(seen, key=int):
            selection.consider(int(epoch), *seen[epoch], torch.empty(0))
        if record["epoch"] - selection.best["epoch"] >= self.options.end_patience:
            self.notes["ended"] = {"epoch": record["epoch"]}

    def record(self, position: Position) -> dict[str, Any]:
        k = self.k(position.epoch, position.epochs)
        return {"k": k, "lam": k / self.tokens}

    def facts(self) -> dict[str, Any]:
        facts = {"source": self.source.facts(), "replaced": self.replaced()}
        if "ended" in self.notes:
            facts["k_ended_after_epoch"] = self.notes["ended"]["epoch"]
        return facts if self.options.partners == "random" else facts | self.partners.facts()

    def fingerprints(self) -> dict[str, str]:
        return {f"source {self.source.name}": self.source.fingerprint}

    def replaced(self) -> dict[str, dict[str, list[int]]]:
        """Slots by epoch (from 1) and training sample."""
        found: dict[str, dict[str, list[int]]] = {}
        for key, slots in self.notes.get("replaced", {}).items():
            epoch, sample = key.split("/")
            found.setdefault(epoch, {})[sample] = slots
        return found

    def _partners(self, tokens: Tensor, batch: Batch, position: Position) -> Batch:
        rows = self.partners.choose(tokens.detach(), batch, draws(position, "partners", (len(batch),)))
        return self.source.read(rows.cpu()).to(tokens.device)

    def _pictured(self, epochs: int) -> set[int]:
        """Early, midway and late: the first, the middle and the last epoch with anything mixed."""
        mixing = [epoch for epoch in range(epochs) if self.k(epoch, epochs)]
        return {mixing[0], mixing[len(mixing) // 2], mixing[-1]} if mixing else set()

    def note(self, position: Position, batch: Batch, tokens: Tensor, source_tokens: Tensor, mixed: Mixed) -> None:
        """Notes of a step what pictures show."""
        if mixed.slots is not None and position.epoch in self._pictured(position.epochs):
            self._note("replaced", position, batch.index, mixed.slots.tolist())

    def _note(self, what: str, position: Position, index: Tensor, values: list[Any]) -> None:
        """Notes values of training samples, where these are among the first."""
        for row, value in zip(index.tolist(), values, strict=True):
            if row < PICTURED:
                self.notes.setdefault(what, {})[f"{position.epoch + 1}/{row}"] = value


def mask_loss(outputs: Tensor, masks: Tensor) -> Tensor:
    """Binary cross entropy of logits with masks of 0, 1 and IGNORED, mean over the pixels that count; both (B, 1, H, W)."""
    return losses.bce_with_logits(outputs, masks.clamp_max(1), masks != IGNORED)


def draws(position: Position, what: str, shape: tuple[int, ...], kind: str = "random") -> Tensor:
    """Numbers for the rows of a process's batch, float32 of that shape: uniform from 0 to 1, or of the `kind` that numpy's
    generators have."""
    generator = np.random.default_rng(seeds.derive(position.seed, what, position.epoch, position.batch))
    drawn = getattr(generator, kind)((position.first + shape[0], *shape[1:]))
    return torch.from_numpy(drawn[position.first :]).float()
