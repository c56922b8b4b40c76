"""Ways of fine-tuning, as settings of one training step.

The step, with target tokens z, source tokens z_s and k replaced patches (PaRe, Cai et al., ICML 2024):

    z~, lam = patch_replace(z, z_s, gate, k)                   lam = k / N
    loss    = L(f(z), y) + weight * ((1 - lam) * L(f(z~), y) + lam * CE(f_s(z~), y_s))

Target tokens are embedded once, and z and z~ go through the encoder in one pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from crossmodal import losses
from pare_kernels import PatchReplaceResult, patch_replace
from pare_kernels.reference import SOURCE_STREAM, TARGET_STREAM, gumbel_noise

__all__ = ["METHODS", "Batch", "Method", "MixPlan", "TrainingStep"]


@dataclass(frozen=True)
class Method:
    """A way of fine-tuning.

    Attributes:
        description: one line.
        pretrained: whether the encoder starts from its pretrained weights.
        mixes: whether source patches are mixed in.
    """

    description: str
    pretrained: bool = True
    mixes: bool = False


METHODS: dict[str, Method] = {
    "pare": Method("patch replacement: source patches, fewer each epoch, mixed into the target's", mixes=True),
    "nft": Method("naive fine-tuning: pretrained encoder, target samples alone"),
    "scratch": Method("the same network without its pretrained weights", pretrained=False),
}


class Batch(NamedTuple):
    """Samples of one process.

    x: (B, C, L) or (B, C, H, W) float32. y: targets, batch first. index: int64 (B,), rows of the split.
    weight: float32 (B,), 0 for a stand-in that must not count, else 1.
    source_inputs, source_labels: as many source samples, or None without mixing.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    weight: Tensor
    source_inputs: Tensor | None = None
    source_labels: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`."""
        return Batch(*(None if part is None else part.to(device, non_blocking=True) for part in self))


class MixPlan(NamedTuple):
    """What one step replaces: k patches, chosen by `selection`, with noise from `seed`.

    rows: (first, total): this process holds the rows from `first` on of a batch of `total`; each row's noise is the
    same however the batch is divided.
    """

    k: int
    selection: str
    seed: int
    rows: tuple[int, int]


class TrainingStep(nn.Module):
    """Losses of a batch in training mode, outputs of the clean path in evaluation mode.

    Args:
        model: `CrossModalModel`, or anything with its parts: embed, embed_source, body, predict_from, gate, source_head.
        loss: the task's loss.
        decode: normalised targets to the data's own units, for losses computed there.
        mixing: `MixingConfig`, or None for the clean path alone.
    """

    def __init__(self, model: nn.Module, loss: losses.Loss, decode: Callable[[Tensor], Tensor], mixing=None) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.decode = decode
        self.mixing = mixing

    def forward(self, batch: Batch, plan: MixPlan | None = None) -> dict[str, Tensor] | Tensor:
        """Outputs (B, ...) float32 in evaluation mode; in training mode per-sample losses (B,):

        `loss`, what is minimised, and its detached parts `target`, `mixed_target`, `mixed_source` (before weights); with
        mixing also `replaced`, int64 (B, k): the target slots that source patches took.
        """
        if not self.training:
            return self.model(batch.x).float()
        tokens = self.model.embed(batch.x)
        if plan is None:
            loss = self._task_loss(self.model.predict_from(self.model.body(tokens)), batch.y)
            return {"loss": loss, "target": loss.detach()}

        source_tokens = self.model.embed_source(batch.source_inputs).to(tokens.dtype)
        mixed = self.replace(tokens, source_tokens, plan)
        features = self.model.body(torch.cat([tokens, mixed.mixed]))
        clean, blend = self.model.predict_from(features).chunk(2)
        clean_loss, blend_loss = self._task_loss(clean, batch.y), self._task_loss(blend, batch.y)
        source_logits = self.model.source_head(features.chunk(2)[1])
        source_loss = losses.cross_entropy(source_logits, batch.source_labels)
        loss = clean_loss + self.mixing.weight * ((1 - mixed.lam) * blend_loss + mixed.lam * source_loss)
        # Keeps the gate in the graph when its choice has no gradient (plain top-k, k = 0): data-parallel training
        # waits for the gradient of every parameter.
        loss = loss + 0.0 * sum(p.sum() for p in self.model.gate.parameters())
        parts = {"target": clean_loss, "mixed_target": blend_loss, "mixed_source": source_loss}
        return {"loss": loss, "replaced": mixed.target_index} | {name: part.detach() for name, part in parts.items()}

    def replace(self, tokens: Tensor, source_tokens: Tensor, plan: MixPlan) -> PatchReplaceResult:
        """Patch replacement as `plan` says: `PatchReplaceResult` for tokens (B, N, D) and source tokens (B, M, D)."""
        mixing, gate = self.mixing, self.model.gate
        return patch_replace(
            tokens,
            source_tokens,
            gate.weight,
            gate.bias,
            k=plan.k,
            tau=mixing.tau,
            noise_scale=mixing.noise_scale,
            selection=plan.selection,
            replace=mixing.replace,
            pairing=mixing.pairing,
            exact_steps=mixing.exact_steps,
            straight_through=mixing.straight_through,
            **_randomness(plan, tokens, source_tokens),
        )

    def _task_loss(self, output: Tensor, target: Tensor) -> Tensor:
        if self.loss.physical:
            output, target = self.decode(output.float()), self.decode(target)
        return self.loss.per_sample(output, target)


def _randomness(plan: MixPlan, tokens: Tensor, source_tokens: Tensor) -> dict:
    """The seed where this process holds a batch from its first row, else that seed's noise for the rows it holds."""
    if plan.selection == "topk":
        return {}
    first, total = plan.rows
    if first == 0:
        return {"seed": plan.seed}
    seed, here = torch.tensor(plan.seed, device=tokens.device), slice(first, first + len(tokens))
    return {
        "noise": tuple(
            gumbel_noise(seed, total, part.shape[1], stream, torch.float32)[here]
            for part, stream in ((tokens, TARGET_STREAM), (source_tokens, SOURCE_STREAM))
        )
    }
