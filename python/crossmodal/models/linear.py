"""One linear map on the values of a sample, and how linear maps are fitted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor, nn

from crossmodal.models.base import Model

CERTAIN = 100.0  # logit of a label that all training samples have; with a minus, of one that none has


class Linear(Model, name="linear"):
    """Outputs (B, K) of samples (B, *input_shape), flattened.

    Args:
        input_shape: (C, L) or (C, H, W).
        num_outputs: K.
        called: what fitted it, for tables.
    """

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, called: str) -> None:
        super().__init__()
        self.input_shape, self.called = tuple(input_shape), called
        self.linear = nn.Linear(math.prod(input_shape), num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))

    def spec(self) -> dict[str, Any]:
        return {
            "input_shape": list(self.input_shape),
            "num_outputs": self.linear.out_features,
            "called": self.called,
        }

    def facts(self) -> dict[str, Any]:
        return {"called": self.called}


def solve(
    kind: str, x: np.ndarray, y: np.ndarray, outputs: int, strength: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, F) and biases (K,) of a linear map from (n, F) to logits of classes or labels, or to values.

    Args:
        kind: "classification", "multilabel" or "regression".
        x: features, float (n, F).
        y: int (n,), or (n, K).
        outputs: K. A class without samples is never predicted.
        strength: C of logistic regression; ridge regression chooses its own.
    """
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.multiclass import OneVsRestClassifier

    if kind == "regression":
        fitted = RidgeCV(alphas=np.logspace(-3, 3, 13)).fit(x, y)
        return fitted.coef_.reshape(outputs, -1), np.reshape(fitted.intercept_, outputs)
    classifier = LogisticRegression(C=strength, max_iter=5000)
    weight, bias = np.zeros((outputs, x.shape[1])), np.full(outputs, -CERTAIN)
    if kind == "multilabel":
        for label, one in enumerate(OneVsRestClassifier(classifier).fit(x, y).estimators_):
            if hasattr(one, "coef_"):
                weight[label], bias[label] = one.coef_[0], one.intercept_[0]
            else:  # of a label that all samples have, or none
                bias[label] = CERTAIN * (2 * one.predict(x[:1])[0] - 1)
        return weight, bias
    fitted = classifier.fit(x, y)
    own, own_bias = fitted.coef_, fitted.intercept_
    if len(own) == 1:  # two classes: one decision value, the difference of their logits
        own, own_bias = np.concatenate([-own, own]) / 2, np.concatenate([-own_bias, own_bias]) / 2
    weight[fitted.classes_], bias[fitted.classes_] = own, own_bias
    return weight, bias
