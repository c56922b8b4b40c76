"""Ways of fine-tuning; what they do in a step is in `step`."""

from __future__ import annotations

from dataclasses import dataclass


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
