"""A linear probe: the pretrained encoder is frozen, a linear head is fitted to its features.

The head is not trained by gradient steps but found exactly, by scikit-learn: features are computed once, and a convex problem
needs neither learning rate nor epochs. They are standardised first, which is folded into the head's weights afterwards. The
regularisation of logistic regression is chosen by the loss of the validation samples; ridge regression chooses its own, leaving
out one training sample after the other. Dense heads are trained by gradient steps: their outputs are cropped and resized, and the
problem has no such form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossmodal.methods.base import Method, register
from crossmodal.methods.finetuning import build
from crossmodal.values import Count

if TYPE_CHECKING:
    from crossmodal.models.finetuned import FineTuned

STRENGTHS = tuple(10.0**power for power in range(-5, 3))  # C of logistic regression


@dataclass
class Options:
    """The features.

    Args:
        layer: the transformer layer, from 1, after which they are taken, through the encoder's last LayerNorm; on small sets a
            middle one is often the best (null: the last that `model.layers` keeps).
    """

    layer: Count | None = None


@register
class LinearProbe(Method):
    """Features are pooled as in fine-tuning; samples are not augmented, but for dense targets."""

    name = "linear_probe"
    description = "frozen encoder, linear head (scikit-learn) on the features of any layer"
    Options = Options

    def needs_validation(self, task, config) -> bool:
        return task.kind != "dense"

    def build(self, task, config) -> FineTuned:
        layer = config.options.layer
        model = build(task, config if layer is None else config.changed(model={"layers": layer}))
        model.encoder.requires_grad_(False)
        return model

    def fit(self, run) -> FineTuned:
        if run.task.kind == "dense":
            return run.train(run.model, run.objective)
        import numpy as np
        import torch

        from crossmodal.models.linear import solve
        from crossmodal.scoring import losses
        from crossmodal.training.probe import features, set_head

        task, model = run.task, run.model.to(run.accelerator.device).eval()
        size = run.config.loader.eval_batch_size
        x, y = features(model, task.train, size)
        mean, std = x.mean(0), np.maximum(x.std(0), 1e-6)
        held_x, held_y = features(model, task.validation, size)
        x, held_x = (x - mean) / std, (held_x - mean) / std
        loss, found = losses.get(task.loss), {}
        for strength in STRENGTHS if task.kind != "regression" else (None,):
            weight, bias = solve(task.kind, x, y, task.num_outputs, strength)
            outputs = torch.from_numpy(held_x @ weight.T + bias)
            # Values are fitted by least squares whatever the loss: there is nothing to choose.
            value = 0.0 if strength is None else loss.per_sample(outputs, torch.from_numpy(held_y), None).mean().item()
            found[strength] = value, weight, bias
        strength = min(found, key=lambda one: found[one][0])
        _, weight, bias = found[strength]
        set_head(model, weight, bias, mean, std)
        if strength is not None:
            run.accelerator.print(
                f"linear probe: C = {strength:g} of {STRENGTHS[0]:g} to {STRENGTHS[-1]:g}, by validation loss"
            )
        validation = run.evaluate(task.validation)
        run.best = {"epoch": None, "metric": validation.metric, "loss": validation.loss}
        return model
