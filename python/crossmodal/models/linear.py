"""One linear map on the values of a sample, and how linear maps are fitted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossmodal.data.dataset import Dataset
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

    def facts(self) -> dict[str, Any]:
        return {"called": self.called}


class LinearField(Model, name="linear_field"):
    """Normalised fields (B, Cout, *grid) of normalised fields (B, C, *grid): a linear map of the channels for each Fourier mode,
    which is a convolution on a ring as wide as the grid, and a constant field.

    Args:
        input_shape: (C, *grid).
        out_channels: Cout.
    """

    def __init__(self, input_shape: tuple[int, ...], out_channels: int) -> None:
        super().__init__()
        self.input_shape = tuple(input_shape)
        channels, *grid = input_shape
        modes = (*grid[:-1], grid[-1] // 2 + 1)
        self.weight = nn.Parameter(torch.zeros(out_channels, channels, *modes, 2), requires_grad=False)
        self.constant = nn.Parameter(torch.zeros(out_channels, *grid), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            axes = tuple(range(2, x.ndim))
            spectrum = torch.einsum(
                "oc...,bc...->bo...", torch.view_as_complex(self.weight), torch.fft.rfftn(x.float(), dim=axes)
            )
            return torch.fft.irfftn(spectrum, s=x.shape[2:], dim=axes) + self.constant

    def facts(self) -> dict[str, Any]:
        return {"called": "linear convolution"}


def solve_field(split: Dataset, size: int, strengths: Sequence[float]) -> Iterator[tuple[Tensor, Tensor]]:
    """The weight (Cout, C, *modes, 2) and the constant (Cout, *grid) of a :class:`LinearField` by ridge regression, for each
    strength in turn, a share of the inputs' mean power; sums are in float64.

    Args:
        split: fields `(n, C, *grid)` to `(n, Cout, *grid)`.
        size: samples that are read at a time.
    """
    x_sum = y_sum = xx = yx = 0.0
    for rows in torch.arange(len(split)).split(size):
        batch = split.read(rows)
        axes = tuple(range(2, batch.x.ndim))
        x, y = (torch.fft.rfftn(values.double(), dim=axes) for values in (batch.x, batch.y))
        grid, modes = batch.x.shape[2:], x.shape[2:]
        x, y = x.flatten(2), y.flatten(2)
        x_sum, y_sum = x_sum + x.sum(0), y_sum + y.sum(0)
        xx, yx = xx + torch.einsum("bcm,bdm->mcd", x, x.conj()), yx + torch.einsum("bom,bcm->moc", y, x.conj())
    x_mean, y_mean = x_sum / len(split), y_sum / len(split)
    xx = xx - torch.einsum("cm,dm->mcd", x_sum, x_mean.conj())
    yx = yx - torch.einsum("om,cm->moc", y_sum, x_mean.conj())
    power = xx.diagonal(dim1=1, dim2=2).real.mean()
    power = torch.where(power > 0, power, 1.0)  # of inputs that are all alike any ridge leaves the mean
    for strength in strengths:
        ridge = strength * power * torch.eye(xx.shape[1])
        weight = torch.linalg.solve(xx + ridge, yx.mH).mH.resolve_conj()  # xx is its own conjugate transpose
        constant = y_mean - torch.einsum("moc,cm->om", weight, x_mean)
        yield (
            torch.view_as_real(weight.permute(1, 2, 0).unflatten(2, modes)),
            torch.fft.irfftn(constant.unflatten(1, modes), s=grid, dim=tuple(range(1, len(grid) + 1))),
        )


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
