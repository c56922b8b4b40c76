"""Source initialisation without mixing: the embedder starts as a copy of the pretrained one, as in PaRe, and that is all.

The control between two others: what it has over `nft` with `nft.embedder: random` is the initialisation; what `pare` has over it is
the mixing. It is `nft` with `nft.embedder: copied`, under a name that says so in a table.
"""

from __future__ import annotations

from crossmodal.methods.base import register
from crossmodal.methods.finetuning import FineTuningMethod


@register
class SourceInitialisation(FineTuningMethod):
    """Without options, so that it cannot be anything else."""

    name = "nft_srcinit"
    description = "naive fine-tuning from a copy of the pretrained embedder (PaRe without its mixing)"
