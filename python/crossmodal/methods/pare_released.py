"""PaRe as its authors' public code runs it, which differs from the paper: after the Gumbel epochs its meaning flips.

    first 5 epochs (2-D: 10)   noisy scores; the k target patches with the lowest give way; paired by position
    then                       plain scores, no gradient to the gate; the k with the HIGHEST give way; the best source patch takes
                               the place of the lowest of them, and so on

The last batch of an epoch, where it is smaller than the others, is not mixed. Where the code crashes or depends on chance this
method goes its own way:

- Replacing is out of place. In place, as there, 1-D training fails in its sixth epoch: autograd needs what was overwritten.
- With k = 0 nothing is replaced; there, the last epoch of such a schedule is an error.
- Dense tasks have a head of its own for the source, for its classes or its masks; there, masks of the source are compared with the
  target's map. So they are here where the target is masks, too; another target has other units.
- The epoch is chosen by validation samples (`select: last` takes the last one, as there); learning rate, accumulation of gradients,
  clipping and metrics are this program's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossmodal.methods import pare
from crossmodal.methods._mixing import MixingMethod
from crossmodal.methods.base import register
from crossmodal.values import NotNegative, Whole

if TYPE_CHECKING:
    from crossmodal.methods._released_replacement import ReleasedReplacement
    from crossmodal.models.finetuned import FineTuned

# (start, end, mix_weight) of the public settings. Images have 3136 patches; of dense tasks, those of the one that runs as it is.
PUBLIC = {"1d": (1.0, 0.0, 0.1), "2d": (2000 / 3136, 500 / 3136, 1.0), "dense": (500 / 3136, 0.0, 0.3)}


@dataclass
class Options:
    """What the public code has in its settings; the rest it has fixed.

    Args:
        start: k at the first epoch; an int counts patches, a float is a fraction of them (null: as published, all for 1-D inputs,
            0.64 for images, 0.16 for dense targets).
        end: k towards the last epoch (null: as published, 0, for images 0.16).
        gumbel_epochs: epochs before the flip (null: 5 for 1-D inputs, 10 for 2-D).
        mix_weight: factor on the whole loss of the mixed samples (null: as published, 0.1 for 1-D inputs, 1 for images, 0.3 for
            dense targets).
    """

    start: int | float | None = None
    end: int | float | None = None
    gumbel_epochs: Whole | None = None
    mix_weight: NotNegative | None = None

    def __post_init__(self) -> None:
        self.filled("1d")

    def filled(self, kind: str) -> pare.Options:
        """As options of `pare`, with what is published for a kind of task, `1d`, `2d` or `dense`.

        Raises:
            UserError: one is out of its range.
        """
        start, end, weight = (
            published if given is None else given
            for given, published in zip((self.start, self.end, self.mix_weight), PUBLIC[kind], strict=True)
        )
        return _Filled(start=start, end=end, gumbel_epochs=self.gumbel_epochs, mix_weight=weight, exact_steps=None)


class _Filled(pare.Options):
    section = "pare_released"


@register
class PaReReleased(MixingMethod):
    """The baseline that the paper's code, not its text, is."""

    name = "pare_released"
    description = (
        "patch replacement as the authors' public code has it, which later replaces the highest-scored patches"
    )
    Options = Options
    pictures = pare.PaRe.pictures

    def mixing(self, task, model: FineTuned, source, config) -> ReleasedReplacement:
        from crossmodal.methods._released_replacement import ReleasedReplacement

        options = config.options.filled("dense" if task.kind == "dense" else f"{task.ndim}d")
        return ReleasedReplacement(task, model, source, options, len(task.train) // config.batch_size)
