"""Perceiver IO (Jaegle et al., ICLR 2022), trained from scratch: one network for any input and any kind of target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from crossmodal.methods.base import Method, register

if TYPE_CHECKING:
    from crossmodal.models.perceiver import PerceiverIO

# In NAS-Bench-360; all others have 128.
BATCH_SIZES = {"cosmic": 8, "ecg": 256, "satellite": 4096}


@dataclass
class Options:
    """The network.

    Args:
        variant: `paper` looks at the input once, and places of a field are queries; `nb360` is that of NAS-Bench-360, which
            looks three times, and takes all values of a field from one query.
    """

    variant: Literal["paper", "nb360"] = "paper"


@register
class PerceiverFromScratch(Method):
    """With NAS-Bench-360's optimizer, batches and 200 epochs. `optimizer.new_lr` is the learning rate."""

    name = "perceiver_io"
    description = "Perceiver IO from scratch, for any input and target (transformers' model, or NAS-Bench-360's)"
    uses_encoder = False
    Options = Options
    defaults: ClassVar = {
        "epochs": 200,
        "steps": None,
        "batch_size": 128,
        "accumulate": 1,
        "optimizer.name": "adamw",
        "optimizer.new_lr": 1e-3,
        "optimizer.betas": (0.9, 0.999),
        "optimizer.weight_decay": 0.01,
        "optimizer.clip": 0.0,
        "lr_schedule.kind": "constant",
        "lr_schedule.warmup": 0.0,
    }

    def suited(self, told: dict[str, Any]) -> dict[str, Any]:
        return self.defaults | {"batch_size": BATCH_SIZES.get(told.get("task", ""), self.defaults["batch_size"])}

    def build(self, task, config) -> PerceiverIO:
        from crossmodal.models.perceiver import PerceiverIO

        return PerceiverIO(task.input_shape, task.num_outputs, task.kind == "dense", config.options.variant)
