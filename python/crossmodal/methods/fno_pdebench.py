"""The Fourier neural operator as PDEBench trains it (Takamoto et al., NeurIPS 2022): its networks, optimizer and schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from crossmodal.methods._unrolled import Unrolling
from crossmodal.methods.base import register
from crossmodal.methods.fno import FourierNeuralOperator

if TYPE_CHECKING:
    from crossmodal.models.fno import FNO

LAYERS = 4
MODES_AND_WIDTH = {"usual": (12, 20), "wide": (16, 64)}


@dataclass
class Options(Unrolling):
    """The network, and how it learns a roll-out: from whole trajectories, all of whose frames are scored.

    Args:
        network: `usual`: 12 modes, 20 channels; `wide`: 16 modes, 64 channels (null: `wide` for diffusion-sorption, else
            `usual`).
    """

    learn: Literal["steps", "rollout"] = "rollout"
    network: Literal["usual", "wide"] | None = None


@register
class PDEBenchFNO(FourierNeuralOperator):
    """Four layers, one cell of zeros on either side of the hidden fields, mean squared error summed over the frames (beside which
    weights decay), Adam, a learning rate that is halved after each fifth of 500 epochs. Of ten frames `usual` has 43,137
    parameters for one field in one dimension and 926,686 for two fields in two, `wide` 550,145 in one dimension.

    PDEBench has batches of 100 samples for Navier-Stokes and of 5 in two dimensions (`--batch_size`). It chooses the epoch by the
    test samples, which is not done here.
    """

    name = "fno_pdebench"
    description = "Fourier neural operator with PDEBench's networks, optimizer, schedule and 500 epochs"
    Options = Options
    summed = True
    defaults: ClassVar = {
        "epochs": 500,
        "steps": None,
        "batch_size": 50,
        "loss": "mse",
        "optimizer.name": "adam",
        "optimizer.new_lr": 1e-3,
        "optimizer.betas": (0.9, 0.999),
        "optimizer.weight_decay": 1e-4,
        "optimizer.clip": 0.0,
        "lr_schedule.kind": "step",
        "lr_schedule.warmup": 0.0,
        "lr_schedule.milestones": (0.2, 0.4, 0.6, 0.8),
        "lr_schedule.gamma": 0.5,
    }

    def build(self, task, config) -> FNO:
        from crossmodal.models.fno import FNO

        sorption = task.equation is not None and task.equation.name == "diffusion_sorption"
        modes, width = MODES_AND_WIDTH[config.options.network or ("wide" if sorption else "usual")]
        return FNO(task.input_shape, task.num_outputs, modes, width, LAYERS, padding=1)
