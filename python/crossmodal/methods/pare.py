"""PaRe: patch replacement (Cai et al., ICML 2024).

With target tokens z, source tokens z_s and k replaced patches, fewer as training goes on:

    z~, lam = patch_replace(z, z_s, gate, k)                   lam = k / N
    loss    = L(f(z), y) + weight * ((1 - lam) * L(f(z~), y) + lam * CE(f_s(z~), y_s))

Target tokens are embedded once, and z and z~ go through the encoder in one pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from crossmodal.errors import UserError
from crossmodal.methods.base import Method, register
from crossmodal.methods.finetuning import build
from crossmodal.values import NotNegative, Whole

if TYPE_CHECKING:
    from crossmodal.methods._patch_replacement import PatchReplacement
    from crossmodal.models.finetuned import FineTuned
    from pare_kernels import ReplaceSchedule


@dataclass
class Options:
    """Patch replacement: how many patches, which, and what the mixed samples weigh.

    Args:
        schedule: shape of k over the epochs.
        start: k at the first epoch; an int counts patches, a float is a fraction of them.
        end: k towards the last epoch.
        steps: stretches of constant k, for `piecewise`.
        selection: noisy gate scores, plain gate scores, or noise alone.
        gumbel_epochs: with `gumbel`, epochs of noisy selection before plain top-k (null: 5 for 1-D inputs, 10 for 2-D).
        tau: temperature of the relaxation behind the gate's gradient.
        noise_scale: factor on the Gumbel noise.
        exact_steps: steps of the relaxation taken one by one, the rest in closed form (null: all of them).
        straight_through: whether the choice has a gradient (null: with `gumbel` only).
        replace: whether the target patches with the lowest or the highest scores give way.
        pairing: how source patches meet free slots.
        weight: factor on the whole loss of the mixed samples.
    """

    schedule: Literal["constant", "linear", "exponential", "piecewise"] = "linear"
    start: int | float = 1.0
    end: int | float = 0.0
    steps: int = 4
    selection: Literal["gumbel", "topk", "random"] = "gumbel"
    gumbel_epochs: Whole | None = None
    tau: float = 0.9
    noise_scale: float = 1.0
    exact_steps: int | None = 8
    straight_through: bool | None = None
    replace: Literal["lowest", "highest"] = "lowest"
    pairing: Literal["position", "score"] = "position"
    weight: NotNegative = 1.0

    def __post_init__(self) -> None:
        from pare_kernels._checks import ReplaceOptions, check_word  # imports torch: help need not wait for it
        from pare_kernels.schedule import KINDS

        try:
            check_word("schedule", self.schedule, KINDS)
            self.k_over_time()
            ReplaceOptions(
                tau=self.tau,
                noise_scale=self.noise_scale,
                selection=self.selection,
                replace=self.replace,
                pairing=self.pairing,
                exact_steps=self.exact_steps,
                straight_through=self.straight_through,
            )
        except (TypeError, ValueError) as error:
            raise UserError(f"pare.{error}") from None

    def k_over_time(self) -> ReplaceSchedule:
        """k by progress, from 0 to 1."""
        from pare_kernels import ReplaceSchedule

        return ReplaceSchedule(self.schedule, self.start, self.end, self.steps)


@register
class PaRe(Method):
    """Patch replacement."""

    name = "pare"
    description = "patch replacement: source patches, fewer each epoch, mixed into the target's"
    Options = Options
    pictures = ("mixing.png", "schedule.png")

    def build(self, task, config) -> FineTuned:
        return build(task, config)

    def objective(self, task, model: FineTuned, config) -> PatchReplacement:
        from crossmodal import sources
        from crossmodal.methods._patch_replacement import PatchReplacement

        encoder = model.encoder
        source = sources.load(
            config.source.name,
            encoder=encoder,
            num_tokens=encoder.num_tokens,
            limit=config.source.limit,
            seed=config.split.seed,
        )
        return PatchReplacement(task, model, source, config.options)

    def draw(self, run) -> dict:
        from crossmodal.methods import _pare_pictures as pictures

        drawn = {"schedule.png": pictures.schedule(run.history)}
        if run.objective.notes:
            embedder = run.model.encoder.attached
            first, *others = embedder.canvas_size
            canvas = (embedder.images * first, *others)
            drawn["mixing.png"] = pictures.mixing(
                run.task.train, run.objective.notes, embedder.patch_size, canvas, embedder.sheet
            )
        return drawn
