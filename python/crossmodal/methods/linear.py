"""A linear model of the raw (z-scored) values: what a method has to beat before anything else is said of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from crossmodal.methods.base import Method, register

if TYPE_CHECKING:
    from crossmodal.models.linear import Linear


@register
class LinearModel(Method):
    """Logistic regression for classes and labels, ridge regression for values, by scikit-learn.

    It is fitted on training and validation samples together: it chooses no epoch, so these are free to be learned from. The
    settings of training and encoder are not used.
    """

    name = "linear"
    description = "logistic or ridge regression on the raw values (scikit-learn)"
    uses_encoder = False
    unsuited: ClassVar = {"dense": "it has one output per sample, not a field; take fno or nft"}
    seeded = False

    def build(self, task, config) -> Linear:
        from crossmodal.models.linear import Linear

        called = "ridge regression" if task.kind == "regression" else "logistic regression"
        return Linear(task.input_shape, task.num_outputs, f"{called}, raw values")

    def fit(self, run) -> Linear:
        import numpy as np
        import torch

        from crossmodal.models.linear import solve

        task, model = run.task, run.model
        x = np.concatenate([split.x.flatten(1).numpy() for split in (task.train, task.validation)])
        y = np.concatenate([split.y.numpy() for split in (task.train, task.validation)])
        weight, bias = solve(task.kind, x, y, task.num_outputs)
        with torch.no_grad():
            model.linear.weight.copy_(torch.from_numpy(weight))
            model.linear.bias.copy_(torch.from_numpy(bias))
        return model
