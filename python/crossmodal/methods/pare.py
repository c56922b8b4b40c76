"""PaRe: patch replacement (Cai et al., ICML 2024).

With target tokens z, source tokens z_s and k replaced patches, fewer as training goes on:

    z~, lam = patch_replace(z, z_s, gate, k)                   lam = k / N
    loss    = L(f(z), y) + mix_weight * ((1 - lam) * L(f(z~), y) + lam * CE(f_s(z~), y_s))

Target tokens are embedded once, and z and z~ go through the encoder in one pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from crossmodal.errors import UserError
from crossmodal.methods._mixing import MixingMethod, MixingOptions
from crossmodal.methods.base import register
from crossmodal.values import NotNegative, Whole

if TYPE_CHECKING:
    from crossmodal.methods._patch_replacement import PatchReplacement
    from crossmodal.models.finetuned import FineTuned


@dataclass
class Options(MixingOptions):
    """Which patches are replaced, and by which.

    Args:
        selection: noisy gate scores, plain gate scores, or noise alone.
        gumbel_epochs: with `gumbel`, epochs of noisy selection before plain top-k (null: 5 for 1-D inputs, 10 for 2-D).
        tau: temperature of the relaxation behind the gate's gradient.
        noise_scale: factor on the Gumbel noise.
        noise_end: factor to which it goes in a straight line over the Gumbel epochs (null: it stays).
        noise_on: whether noise is added to the gate's scores, which lie between 0 and 1, or to the logits that these are the
            sigmoid of, which grow as the gate learns.
        exact_steps: steps of the relaxation taken one by one, the rest in closed form (null: all of them).
        straight_through: whether the gate learns from its choices (null: in the Gumbel epochs only; true: in those of plain top-k
            as well).
        replace: whether the target patches with the lowest or the highest scores give way.
        saliency: what scores target patches: the gate, or how much the target loss hangs on each, by its gradient, without noise
            (one more pass through the encoder); source patches are the gate's in any case.
        pairing: how source patches meet free slots.
    """

    selection: Literal["gumbel", "topk", "random"] = "gumbel"
    gumbel_epochs: Whole | None = None
    tau: float = 0.9
    noise_scale: float = 1.0
    noise_end: NotNegative | None = None
    noise_on: Literal["scores", "logits"] = "scores"
    exact_steps: int | None = 8
    straight_through: bool | None = None
    replace: Literal["lowest", "highest"] = "lowest"
    saliency: Literal["gate", "gradient"] = "gate"
    pairing: Literal["position", "score"] = "position"

    section = "pare"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, without in (("noise_end", None), ("noise_on", "scores")):
            if getattr(self, key) != without and self.selection != "gumbel":
                raise UserError(
                    f"{self.section}.{key}: there is noise on scores with selection gumbel alone, not with {self.selection}"
                )

    def _check(self) -> None:
        from pare_kernels._checks import ReplaceOptions

        ReplaceOptions(
            tau=self.tau,
            noise_scale=self.noise_scale,
            selection=self.selection,
            replace=self.replace,
            pairing=self.pairing,
            exact_steps=self.exact_steps,
            straight_through=self.straight_through,
        )


@register
class PaRe(MixingMethod):
    """The relaxation behind the gate's gradient is the paper's with `exact_steps` null, else close to it in closed form.

    Beyond the paper are `noise_on`, `noise_end`, `straight_through`, `saliency`, `partners`, `labels`, `end_patience` and
    `control`, all off unless they are set.
    """

    name = "pare"
    description = "patch replacement: source patches, fewer each epoch, mixed into the target's"
    Options = Options
    pictures = ("distances.png", "gate.png", "mixing.png", "schedule.png")

    def mixing(self, task, model: FineTuned, source, config) -> PatchReplacement:
        from crossmodal.methods._patch_replacement import PatchReplacement

        if config.shard and config.options.saliency == "gradient":
            raise UserError("pare.saliency: gradient is not for a model in shards (--shard true); take gate")
        return PatchReplacement(task, model, source, config.options)
