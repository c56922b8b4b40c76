"""A Fourier neural operator (Li et al., ICLR 2021), trained from scratch: the network for fields that a pretrained encoder is
measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from crossmodal.kinds import POINT_KINDS
from crossmodal.methods._unrolled import UnrolledMethod, Unrolling
from crossmodal.methods.base import register
from crossmodal.values import Count

if TYPE_CHECKING:
    from crossmodal.models.fno import FNO

_NO_FIELD = "its output is a field on the grid of the input; take nft, or linear"


@dataclass
class Options(Unrolling):
    """The network, and how it learns a roll-out.

    Args:
        modes: Fourier modes kept along each axis (all of them where the grid has no more).
        width: channels of the hidden fields.
        layers: Fourier layers.
    """

    modes: Count = 12
    width: Count = 20
    layers: Count = 4


@register
class FourierNeuralOperator(UnrolledMethod):
    """All its weights are new: `optimizer.new_lr` is their learning rate. The settings of the encoder are not used."""

    name = "fno"
    description = "Fourier neural operator, from scratch (neuraloperator)"
    uses_encoder = False
    Options = Options
    unsuited: ClassVar = dict.fromkeys(POINT_KINDS, _NO_FIELD)

    def build(self, task, config) -> FNO:
        from crossmodal.models.fno import FNO

        options = config.options
        return FNO(task.input_shape, task.num_outputs, options.modes, options.width, options.layers)
