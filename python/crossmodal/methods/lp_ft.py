"""LP-FT: a linear probe first, then fine-tuning of everything from where the probe ended (Kumar et al., ICLR 2022).

A head with random weights sends large gradients into the pretrained features and distorts them; one that was fitted to the frozen
features does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossmodal.errors import UserError
from crossmodal.methods.base import Method, register
from crossmodal.methods.finetuning import build
from crossmodal.values import Count, Positive

if TYPE_CHECKING:
    from crossmodal.models.finetuned import FineTuned


@dataclass
class Options:
    """The linear probe.

    Args:
        probe_epochs: epochs in which the head alone is trained.
        probe_lr: peak learning rate of the head in these epochs.
    """

    probe_epochs: Count = 30
    probe_lr: Positive = 1e-2


@register
class LinearProbeThenFineTuning(Method):
    """Two stages; the second takes the weights of the probe's best epoch."""

    name = "lp_ft"
    description = "linear probe on the frozen encoder, then full fine-tuning (two stages)"
    Options = Options

    def build(self, task, config) -> FineTuned:
        if config.model.probe:
            raise UserError("model.probe: lp_ft trains a probe of its own; take nft, or leave it out")
        return build(task, config)

    def fit(self, run) -> FineTuned:
        model, options = run.model, run.config.options
        trained = [parameter for parameter in model.encoder.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        run.train(model, run.objective, stage="probe", epochs=options.probe_epochs, new_lr=options.probe_lr)
        for parameter in trained:
            parameter.requires_grad_(True)
        return run.train(model, run.objective, probe=False)
