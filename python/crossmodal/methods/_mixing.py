"""What methods have in common that mix target and source tokens: their options, and how their objective is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from crossmodal.errors import UserError
from crossmodal.methods.finetuning import FineTuningMethod, load_source
from crossmodal.values import Count, NotNegative

if TYPE_CHECKING:
    from crossmodal.methods._mixing_objective import Mixing
    from crossmodal.models.finetuned import FineTuned
    from pare_kernels import ReplaceSchedule


@dataclass
class MixingOptions:
    """How much is mixed, with what, and what the mixed samples weigh.

    Args:
        schedule: shape of k over the epochs; k of the N target patches is the source's share, lam = k / N.
        start: k at the first epoch; an int counts patches, a float is a fraction of them.
        end: k towards the last epoch.
        steps: stretches of constant k, for `piecewise`.
        end_patience: epochs without a better validation result after which k falls to `end` for the rest of the run (null: k
            follows the schedule alone).
        partners: the source sample that each target sample is mixed with: any, one of the nearest by mean token, or one of the
            source class whose mean token is nearest to that of the target class (each class has one of its own, as far as they go).
        labels: `separate` heads for target and source classes, or one softmax over all of them, `joint` (classification).
        mix_weight: factor on the whole loss of the mixed samples.
        control: takes from the source what it could teach, to see whether that matters: its labels are shuffled among its samples,
            or its tokens are Gaussian noise, of the mean and deviation that each dimension has over real ones (null: neither).
    """

    schedule: Literal["constant", "linear", "exponential", "piecewise"] = "linear"
    start: int | float = 1.0
    end: int | float = 0.0
    steps: int = 4
    end_patience: Count | None = None
    partners: Literal["random", "nearest", "class"] = "random"
    labels: Literal["separate", "joint"] = "separate"
    mix_weight: NotNegative = 1.0
    control: Literal["shuffled_labels", "gaussian_tokens"] | None = None

    section = ""  # as the keys begin in files and on the command line

    def __post_init__(self) -> None:
        if self.end_patience is not None and self.schedule == "constant":
            raise UserError(
                f"{self.section}.end_patience: a constant k has no end to fall to; leave it out, or take another schedule"
            )
        from pare_kernels._checks import check_word  # imports torch: help need not wait for it
        from pare_kernels.schedule import KINDS

        try:
            check_word("schedule", self.schedule, KINDS)
            self.k_over_time()
            self._check()
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.section}.{error}") from None

    def _check(self) -> None:
        """Raises TypeError or ValueError, beginning with the name of an option."""

    def k_over_time(self) -> ReplaceSchedule:
        """k by progress, from 0 to 1."""
        from pare_kernels import ReplaceSchedule

        return ReplaceSchedule(self.schedule, self.start, self.end, self.steps)


class MixingMethod(FineTuningMethod):
    """Fine-tuning on target samples and on ones that are mixed with samples of the pretraining modality."""

    pictures = ("distances.png", "schedule.png")

    def needs_validation(self, task, config) -> bool:
        return getattr(config.options, "end_patience", None) is not None

    def objective(self, task, model: FineTuned, config) -> Mixing:
        return self.mixing(task, model, load_source(model, config), config)

    def mixing(self, task, model: FineTuned, source, config) -> Mixing:
        """The objective, with its source."""
        raise NotImplementedError

    def draw(self, run) -> dict:
        from crossmodal.drawing import of_training
        from crossmodal.methods import _alignment_pictures as distances
        from crossmodal.methods import _mixing_pictures as pictures
        from crossmodal.training.sharding import in_force

        head = of_training(run)
        drawn = {"schedule.png": pictures.schedule(run.history, head)}
        replaced, scores = run.objective.replaced(), run.objective.notes.get("gate")
        if replaced:
            embedder = run.model.encoder.attached
            first, *others = embedder.canvas_size
            canvas = (embedder.images * first, *others)
            sheet = None if embedder.imaging is None else embedder.sheet
            drawn["mixing.png"] = pictures.mixing(run.task, replaced, embedder.patch_size, canvas, head, sheet)
        if scores:
            drawn["gate.png"] = pictures.gate(scores, head)
        if not in_force(run.accelerator):  # shards of a model compute on all processes, and a picture is drawn on one
            drawn["distances.png"] = distances.between(*distances.mixed_distances(run), head)
        return drawn
