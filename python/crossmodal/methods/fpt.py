"""FPT, the frozen pretrained transformer (Lu et al., AAAI 2022): attention and feed-forward layers stay as they are.

Trained are all LayerNorms, found by their type, the embedder with its positions, class tokens, and the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from crossmodal.errors import UserError
from crossmodal.methods.base import Method, register
from crossmodal.methods.finetuning import build

if TYPE_CHECKING:
    from torch import nn

    from crossmodal.models.finetuned import FineTuned


@register
class FrozenPretrainedTransformer(Method):
    """The number of LayerNorms is printed, and the trained parameters are counted in results.json."""

    name = "fpt"
    description = "frozen pretrained transformer: LayerNorms, embedder and head are trained"
    # The frozen weights cannot be unlearned, so there is no reason for the low rates of image encoders.
    defaults: ClassVar = {"optimizer.lr": 1e-4, "optimizer.layer_decay": 1.0}

    def build(self, task, config) -> FineTuned:
        model = build(task, config)
        freeze_all_but_norms(model.encoder.model, config.encoder)
        return model

    def fit(self, run) -> FineTuned:
        norms = layer_norms(run.model.encoder.model)
        trained = sum(parameter.numel() for norm in norms for parameter in norm.parameters())
        of = sum(parameter.numel() for parameter in run.model.encoder.model.parameters())
        run.accelerator.print(
            f"fpt: {len(norms)} LayerNorms are trained, {trained:,} of the encoder's {of:,} parameters"
        )
        return super().fit(run)


def layer_norms(network: nn.Module) -> list[nn.Module]:
    """Those with parameters, in their order."""
    from torch import nn

    return [one for one in network.modules() if isinstance(one, nn.LayerNorm) and one.elementwise_affine]


def freeze_all_but_norms(network: nn.Module, name: str) -> None:
    """Leaves the parameters of LayerNorms trainable, and no others.

    Raises:
        UserError: nothing would be frozen, or nothing be trained.
    """
    network.requires_grad_(False)
    for norm in layer_norms(network):
        norm.requires_grad_(True)
    trained = {parameter.requires_grad for parameter in network.parameters()}
    if trained != {True, False}:
        what = (
            "has no LayerNorm: nothing of it would be trained"
            if True not in trained
            else "is LayerNorms alone: nothing of it would be frozen"
        )
        raise UserError(f"method: fpt trains the LayerNorms of an encoder and freezes the rest, but {name} {what}")
