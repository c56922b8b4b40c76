"""Patch replacement as a way of mixing; the formula is in `pare`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from crossmodal import seeds, sources
from crossmodal.data.dataset import Batch
from crossmodal.methods._mixing_objective import PICTURED, Mixed, Mixing
from crossmodal.methods.pare import Options
from crossmodal.models.finetuned import FineTuned
from crossmodal.training.objective import Position
from pare_kernels import PatchGate, PatchReplaceResult, gumbel_topk, patch_replace, reference

QUANTILES = (0.1, 0.5, 0.9)  # of a sample's gate scores, for the picture


class PatchReplacement(Mixing):
    """Source patches take the places of target patches, as a gate has it.

    Attributes:
        gate: :class:`pare_kernels.PatchGate` on tokens of width D.
        notes: also `gate`, quantiles of the scores of a sample's target and source patches, by `epoch/sample`.
    """

    def __init__(self, task, model: FineTuned, source: sources.Source, options: Options) -> None:
        super().__init__(task, model, source, options)
        self.gate = PatchGate(model.encoder.width)
        # As the method's authors have it where nothing is set.
        default = 5 if task.ndim == 1 else 10
        self.gumbel_epochs = default if options.gumbel_epochs is None else options.gumbel_epochs

    def most(self, model: FineTuned) -> int:
        return min(self.tokens, self.source_tokens(model))

    def mix(self, model: FineTuned, batch: Batch, tokens: Tensor, source_tokens: Tensor, position: Position) -> Mixed:
        worth = self._worth(model, batch, tokens) if self.options.saliency == "gradient" else None
        found = self.replace(tokens, source_tokens, position, worth)
        return Mixed(found.mixed, found.lam, found.target_index)

    def replace(
        self, tokens: Tensor, source_tokens: Tensor, position: Position, worth: Tensor | None = None
    ) -> PatchReplaceResult:
        """Patch replacement for tokens (B, N, D) and source tokens (B, M, D); each row's noise is the same however a batch is
        divided among processes. `worth` (B, N): what decides about target patches in place of the gate."""
        options = {
            "k": self.k(position.epoch, position.epochs),
            "seed": seeds.derive(position.seed, "mix", position.epoch, position.batch),
            "first_row": position.first,
            **self.choice(position),
        }
        if worth is None and self.options.noise_on == "scores":
            return patch_replace(tokens, source_tokens, self.gate.weight, self.gate.bias, **options)
        target_scores = self._scores(tokens) if worth is None else worth
        options["noise_on_target"] = worth is None
        return replace_by_scores(tokens, source_tokens, target_scores, self._scores(source_tokens), **options)

    def choice(self, position: Position) -> dict[str, Any]:
        """Options of `patch_replace` in an epoch."""
        options, selection = self.options, self._selection(position.epoch)
        return {
            "tau": options.tau,
            "noise_scale": self._noise_scale(position) if selection == "gumbel" else options.noise_scale,
            "selection": selection,
            "replace": options.replace,
            "pairing": options.pairing,
            "exact_steps": options.exact_steps,
            "straight_through": options.straight_through,
        }

    def record(self, position: Position) -> dict[str, Any]:
        return super().record(position) | {"selection": self._selection(position.epoch)}

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"gumbel_epochs": self.gumbel_epochs}

    def _selection(self, epoch: int) -> str:
        chosen = self.options.selection
        return "topk" if chosen == "gumbel" and epoch >= self.gumbel_epochs else chosen

    def _noise_scale(self, position: Position) -> float:
        first, last = self.options.noise_scale, self.options.noise_end
        if last is None:
            return first
        return first + (last - first) * position.epoch / min(self.gumbel_epochs, position.epochs)

    def _scores(self, tokens: Tensor) -> Tensor:
        """Scores (B, N) to which noise is added: those of the gate, or its logits."""
        if self.options.noise_on == "scores":
            return self.gate(tokens)
        with torch.autocast(tokens.device.type, enabled=False):
            return (tokens.float() @ self.gate.weight.T.float() + self.gate.bias.float()).squeeze(2)

    @torch.no_grad()
    def note(self, position: Position, batch: Batch, tokens: Tensor, source_tokens: Tensor, mixed: Mixed) -> None:
        super().note(position, batch, tokens, source_tokens, mixed)
        rows = (batch.index < PICTURED).nonzero().squeeze(1)
        if len(rows):
            levels = torch.tensor(QUANTILES, device=rows.device)
            both = [self.gate(part[rows]).float().quantile(levels, dim=1).T for part in (tokens, source_tokens)]
            self._note("gate", position, batch.index[rows], torch.stack(both, 1).tolist())

    def _worth(self, model: FineTuned, batch: Batch, tokens: Tensor) -> Tensor:
        """How much the target loss hangs on each patch, (B, N): |<dL/dz, z>|, to first order its change if the patch were zero.

        One more pass through the encoder, forward and back.
        """
        with torch.enable_grad():
            leaf = tokens.detach().requires_grad_()
            loss = self.task_loss(model.predict_from(model.body(leaf)), batch)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        return (gradient.float() * leaf.detach().float()).sum(2).abs()


def replace_by_scores(
    target: Tensor,
    source: Tensor,
    target_scores: Tensor,
    source_scores: Tensor,
    *,
    k: int,
    seed: int,
    first_row: int,
    tau: float,
    noise_scale: float,
    selection: str,
    replace: str,
    pairing: str,
    exact_steps: int | None,
    straight_through: bool | None,
    noise_on_target: bool = True,
) -> PatchReplaceResult:
    """`pare_kernels.patch_replace` for scores of any origin; with scores of the gate it is the same, in several steps.

    Args:
        target, source: (B, N, D), (B, M, D).
        target_scores, source_scores: (B, N), (B, M); the gradient of the choice reaches them.
        noise_on_target: whether there is noise on target scores too.
        k, seed, ...: as of `patch_replace`.
    """
    noisy = []
    for stream, scores, has_noise in (
        (reference.TARGET_STREAM, target_scores, noise_on_target),
        (reference.SOURCE_STREAM, source_scores, True),
    ):
        if has_noise and selection != "topk":
            key = torch.tensor(seed, device=scores.device)
            noise = reference.gumbel_noise(key, *scores.shape, stream, scores.dtype, first_row)
            scores = noise if selection == "random" else scores + noise_scale * noise
        noisy.append(scores)
    slots, patches = reference.choose_patches(noisy[0].detach(), noisy[1].detach(), k, replace=replace, pairing=pairing)
    rows = patches.unsqueeze(2).expand(-1, -1, source.shape[2])
    mixed = target.scatter(1, slots.unsqueeze(2).expand_as(rows), source.gather(1, rows))
    if selection == "gumbel" if straight_through is None else straight_through:
        # Masks are one where a row stays or comes, so that the product changes no value and brings the gradient to the scores.
        relaxed = {"noise_scale": 0.0, "seed": 0, "tau": tau, "exact_steps": exact_steps}
        kept = gumbel_topk(-noisy[0] if replace == "highest" else noisy[0], target.shape[1] - k, **relaxed).mask
        taken = gumbel_topk(noisy[1], k, **relaxed).mask
        mixed = mixed * kept.scatter(1, slots, taken.gather(1, patches)).unsqueeze(2).to(mixed.dtype)
    return PatchReplaceResult(mixed, k / target.shape[1], slots, patches)
