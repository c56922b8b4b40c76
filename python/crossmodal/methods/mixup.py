"""Mixup (Zhang et al., ICLR 2018) in the place of patch replacement: z~ = (1 - lam) z + lam z_s, token by token.

Not two samples of a batch are mixed but a target and a source sample, by PaRe's loss; and lam is not drawn but is k / N of PaRe's
schedule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossmodal.methods._mixing import MixingMethod, MixingOptions
from crossmodal.methods.base import register

if TYPE_CHECKING:
    from crossmodal.methods._token_mixing import TokenMixup
    from crossmodal.models.finetuned import FineTuned


@dataclass
class Options(MixingOptions):
    """Those of all methods that mix."""

    section = "mixup"


@register
class Mixup(MixingMethod):
    """In Table 4 of the PaRe paper."""

    name = "mixup"
    description = "Mixup of target and source tokens, with patch replacement's schedule and loss"
    Options = Options

    def mixing(self, task, model: FineTuned, source, config) -> TokenMixup:
        from crossmodal.methods._token_mixing import TokenMixup

        return TokenMixup(task, model, source, config.options)
