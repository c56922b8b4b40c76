"""A linear model of the raw (z-scored) values: what a method has to beat before anything else is said of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from crossmodal.methods.base import Method, register

if TYPE_CHECKING:
    import numpy as np

    from crossmodal.models.linear import Linear

NEVER = 100.0  # minus this is the logit of what is not to be


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

        task, model = run.task, run.model
        x = np.concatenate([split.x.flatten(1).numpy() for split in (task.train, task.validation)])
        y = np.concatenate([split.y.numpy() for split in (task.train, task.validation)])
        weight, bias = solve(task.kind, x, y, task.num_outputs)
        with torch.no_grad():
            model.linear.weight.copy_(torch.from_numpy(weight))
            model.linear.bias.copy_(torch.from_numpy(bias))
        return model


def solve(
    kind: str, x: np.ndarray, y: np.ndarray, outputs: int, strength: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, F) and biases (K,) of a linear map from (n, F) to logits of classes or labels, or to values.

    Args:
        kind: "classification", "multilabel" or "regression".
        y: int (n,), or (n, K).
        outputs: K. A class without samples is never predicted.
        strength: C of logistic regression; ridge regression chooses its own.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.multiclass import OneVsRestClassifier

    if kind == "regression":
        fitted = RidgeCV(alphas=np.logspace(-3, 3, 13)).fit(x, y)
        return fitted.coef_.reshape(outputs, -1), np.reshape(fitted.intercept_, outputs)
    classifier = LogisticRegression(C=strength, max_iter=5000)
    if kind == "multilabel":
        return _per_label(OneVsRestClassifier(classifier).fit(x, y), x.shape[1])
    fitted = classifier.fit(x, y)
    weight, bias = np.zeros((outputs, x.shape[1])), np.full(outputs, -NEVER)
    own, own_bias = fitted.coef_, fitted.intercept_
    if len(own) == 1:  # two classes: one decision value, the difference of their logits
        own, own_bias = np.concatenate([-own, own]) / 2, np.concatenate([-own_bias, own_bias]) / 2
    weight[fitted.classes_], bias[fitted.classes_] = own, own_bias
    return weight, bias


def _per_label(fitted, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of every label; of one that all samples have, or none, scikit-learn gives a constant."""
    import numpy as np

    weight, bias = np.zeros((len(fitted.estimators_), width)), np.zeros(len(fitted.estimators_))
    for label, one in enumerate(fitted.estimators_):
        if hasattr(one, "coef_"):
            weight[label], bias[label] = one.coef_[0], one.intercept_[0]
        else:
            bias[label] = NEVER * (2 * one.predict(np.zeros((1, width)))[0] - 1)
    return weight, bias
