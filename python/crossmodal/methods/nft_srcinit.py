"""Source initialisation without mixing: the embedder starts as a copy of the pretrained one, as in PaRe, and that is all.

The control between two others: what it has over `nft` with `nft.embedder: random` is the initialisation; what `pare` has over it is
the mixing. It is `nft` with `nft.embedder: copied`, under a name that says so in a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossmodal.methods.base import Method, register
from crossmodal.methods.finetuning import build

if TYPE_CHECKING:
    from crossmodal.models.finetuned import FineTuned


@register
class SourceInitialisation(Method):
    """Without options, so that it cannot be anything else."""

    name = "nft_srcinit"
    description = "naive fine-tuning from a copy of the pretrained embedder (PaRe without its mixing)"

    def build(self, task, config) -> FineTuned:
        return build(task, config)
