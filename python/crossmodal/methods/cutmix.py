"""CutMix (Yun et al., ICCV 2019) in the place of patch replacement: a block of neighbouring tokens comes from the source.

The block is a stretch of k tokens of a sequence; on a grid, a rectangle of its proportions, as near to k as whole sides allow. It
lies anywhere, for each sample anew, and takes source tokens of the same places. lam is the share that it covers; the schedule of k
is PaRe's, and so is the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossmodal.methods._mixing import MixingMethod, MixingOptions
from crossmodal.methods.base import register

if TYPE_CHECKING:
    from crossmodal.methods._token_mixing import TokenCutMix
    from crossmodal.models.finetuned import FineTuned


@dataclass
class Options(MixingOptions):
    """Those of all methods that mix."""

    section = "cutmix"


@register
class CutMix(MixingMethod):
    """In Table 4 of the PaRe paper."""

    name = "cutmix"
    description = "CutMix of target and source tokens, with patch replacement's schedule and loss"
    Options = Options
    pictures = ("mixing.png", "schedule.png")

    def mixing(self, task, model: FineTuned, source, config) -> TokenCutMix:
        from crossmodal.methods._token_mixing import TokenCutMix

        return TokenCutMix(task, model, source, config.options)
