"""A linear model of the raw (z-scored) values: what a method has to beat before anything else is said of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from crossmodal.methods.base import Method, register

if TYPE_CHECKING:
    import numpy as np

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
        from sklearn.linear_model import LogisticRegression, RidgeCV
        from sklearn.multiclass import OneVsRestClassifier

        task, model = run.task, run.model
        x = np.concatenate([split.x.flatten(1).numpy() for split in (task.train, task.validation)])
        y = np.concatenate([split.y.numpy() for split in (task.train, task.validation)])
        if task.kind == "regression":
            fitted = RidgeCV(alphas=np.logspace(-3, 3, 13)).fit(x, y)
            weight, bias = fitted.coef_, fitted.intercept_
        elif task.kind == "classification":
            fitted = LogisticRegression(max_iter=5000).fit(x, y)
            weight, bias = fitted.coef_, fitted.intercept_
            if len(weight) == 1:  # two classes: one decision value, of the second
                weight, bias = np.concatenate([-weight, weight]), np.concatenate([-bias, bias])
        else:
            fitted = OneVsRestClassifier(LogisticRegression(max_iter=5000)).fit(x, y)
            weight, bias = _per_label(fitted, x.shape[1])
        with torch.no_grad():
            model.linear.weight.copy_(torch.from_numpy(np.reshape(weight, model.linear.weight.shape)))
            model.linear.bias.copy_(torch.from_numpy(np.reshape(bias, model.linear.bias.shape)))
        return model


def _per_label(fitted, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of every label; of one that all samples have, or none, scikit-learn gives a constant."""
    import numpy as np

    weight, bias = np.zeros((len(fitted.estimators_), width)), np.zeros(len(fitted.estimators_))
    for label, one in enumerate(fitted.estimators_):
        if hasattr(one, "coef_"):
            weight[label], bias[label] = one.coef_[0], one.intercept_[0]
        else:
            bias[label] = 100.0 * (2 * one.predict(np.zeros((1, width)))[0] - 1)
    return weight, bias
