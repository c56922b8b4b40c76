"""A linear model of the raw (z-scored) values: what a method has to beat before anything else is said of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from crossmodal.methods.base import Method, register

if TYPE_CHECKING:
    from crossmodal.models.linear import Linear, LinearField

MOST_BYTES = 2**34
STRENGTHS = tuple(10.0**power for power in range(-8, 1))  # of the ridge of fields


@register
class LinearModel(Method):
    """Logistic regression for classes and labels, ridge regression for values, by scikit-learn; for fields a convolution as wide as
    the grid and a constant field, by ridge regression of Fourier modes.

    It is fitted on training and validation samples together: it chooses no epoch, so these are free to be learned from. Only of
    fields is the strength of the ridge chosen on validation. The settings of training and encoder are not used.
    """

    name = "linear"
    description = "logistic or ridge regression on the raw values (scikit-learn); of fields a linear convolution"
    uses_encoder = False
    learns_validation = True
    seeded = False

    def refuses(self, task) -> str | None:
        if task.kind != "dense":
            return None
        if task.normalizer.logits:
            return "its fields are values, not masks; take tuned_cnn or nft"
        channels, *grid = task.input_shape
        modes = math.prod(grid[:-1]) * (grid[-1] // 2 + 1)
        needed = 4 * 16 * modes * channels**2  # bytes: complex128, and copies while it solves
        if needed > MOST_BYTES:
            return f"{modes} Fourier modes of {channels} channels would take {needed / 2**30:.0f} GiB; take tuned_cnn or nft"
        return None

    def needs_validation(self, task, config) -> bool:
        return task.kind == "dense"

    def build(self, task, config) -> Linear | LinearField:
        from crossmodal.models.linear import Linear, LinearField

        if task.kind == "dense":
            return LinearField(task.input_shape, task.num_outputs)
        called = "ridge regression" if task.kind == "regression" else "logistic regression"
        return Linear(task.input_shape, task.num_outputs, f"{called}, raw values")

    def fit(self, run) -> Linear | LinearField:
        import numpy as np
        import torch

        from crossmodal.models.linear import solve

        task, model = run.task, run.model
        if task.kind == "dense":
            return _fit_field(run)
        x = np.concatenate([split.x.flatten(1).numpy() for split in (task.train, task.validation)])
        y = np.concatenate([split.y.numpy() for split in (task.train, task.validation)])
        weight, bias = solve(task.kind, x, y, task.num_outputs)
        with torch.no_grad():
            model.linear.weight.copy_(torch.from_numpy(weight))
            model.linear.bias.copy_(torch.from_numpy(bias))
        return model


def _fit_field(run) -> LinearField:
    import torch

    from crossmodal.models.linear import solve_field
    from crossmodal.scoring import metrics

    metric, best, kept = metrics.get(run.task.metric), math.nan, None
    for weight, constant in solve_field(run.task.train, run.config.loader.eval_batch_size, STRENGTHS):
        with torch.no_grad():
            run.model.weight.copy_(weight)
            run.model.constant.copy_(constant)
        found = run.evaluate(run.task.validation).metric
        if math.isnan(best) or metric.better(found, best):
            best, kept = found, run.model.state_dict()
            kept = {name: values.clone() for name, values in kept.items()}
    run.model.load_state_dict(kept)
    return run.model
