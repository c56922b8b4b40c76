"""PDEBench's U-Net (Takamoto et al., NeurIPS 2022), trained from scratch: convolutions that a pretrained encoder is measured
against on fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from crossmodal.errors import UserError
from crossmodal.kinds import POINT_KINDS
from crossmodal.methods._unrolled import UnrolledMethod, Unrolling
from crossmodal.methods.base import register
from crossmodal.values import Count

if TYPE_CHECKING:
    from crossmodal.models.unet import UNet


@dataclass
class Options(Unrolling):
    """The network, and how it learns a roll-out. PDEBench's way is `learn rollout`, `unroll 20`; single steps, of which there are
    many times more, were found to be better in the same time.

    Args:
        width: channels of the first of five levels.
        norm: `batch` norm is PDEBench's; `group` norm does not look at the other samples of a batch, as several processes need.
    """

    width: Count = 32
    norm: Literal["batch", "group"] = "batch"


@register
class UNetFromScratch(UnrolledMethod):
    """All its weights are new: `optimizer.new_lr` is their learning rate. The settings of the encoder are not used."""

    name = "unet"
    description = "PDEBench's U-Net, from scratch (fields)"
    uses_encoder = False
    Options = Options
    unsuited: ClassVar = dict.fromkeys(POINT_KINDS, "its output is a field on the grid of the input; take linear")

    def build(self, task, config) -> UNet:
        from crossmodal.models.unet import GROUPS, UNet
        from crossmodal.training import sharding

        options = config.options
        if options.norm == "batch" and sharding.started() > 1:
            raise UserError("unet.norm: batch norm sees the samples of its own process only; with several take `group`")
        if options.norm == "group" and options.width % GROUPS:
            raise UserError(f"unet.width: expected a multiple of {GROUPS} for group norm, got {options.width}")
        return UNet(task.input_shape, task.num_outputs, options.width, options.norm)
