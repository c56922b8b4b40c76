"""ROCKET: random convolutional kernels and ridge regression (Dempster et al., DMKD 2020).

No network is trained, and still it is among the most accurate methods on small sets of series: what a pretrained encoder has to be
measured against there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from crossmodal.methods.base import Method, register
from crossmodal.values import Count

if TYPE_CHECKING:
    from torch import Tensor

    from crossmodal.models.rocket import Rocket

ALPHAS = tuple(10.0 ** (-3 + 2 * step / 3) for step in range(10))  # 0.001 to 1000, the paper's
MOST_FEATURES = 2**28  # values; 2 GiB in float64
STANDARDISED = 4096  # samples from whose features mean and deviation are taken, where not all can be kept


@dataclass
class Options:
    """The kernels.

    Args:
        kernels: how many; each gives two features.
    """

    kernels: Count = 10_000


@register
class RandomKernels(Method):
    """Ridge regression on the features, for classes and labels on targets of -1 and 1; a linear map that is trained by small
    batches, where the features of all samples are too many to be kept.

    It is fitted on training and validation samples together: it chooses no epoch, and its regularisation by leaving out one
    sample after the other. On the same left-out samples a factor is chosen that makes probabilities of the outputs. The
    settings of training are used where there are more than 2^28 features in all (13,400 samples of 10,000 kernels): there the
    task's loss is minimised, and validation chooses the epoch.
    """

    name = "rocket"
    description = "10,000 random convolutional kernels and ridge regression (series)"
    uses_encoder = False
    slides = True
    learns_validation = True
    Options = Options
    defaults: ClassVar = {
        "epochs": 20,
        "steps": None,
        "batch_size": 256,
        "accumulate": 1,
        "optimizer.name": "adam",
        "optimizer.new_lr": 1e-4,
        "optimizer.weight_decay": 0.0,
        "optimizer.clip": 0.0,
        "lr_schedule.kind": "constant",
        "lr_schedule.warmup": 0.0,
    }
    unsuited: ClassVar = {
        "dense": "it has one output per sample, not a field; take nft or tuned_cnn",
        "2d": "its kernels slide along a series; take knn, linear or tuned_cnn",
    }

    def build(self, task, config) -> Rocket:
        from crossmodal.models.rocket import Rocket

        return Rocket(task.input_shape, task.num_outputs, config.options.kernels)

    def fit(self, run) -> Rocket:
        import torch

        task, model = run.task, run.model.to(run.accelerator.device).eval()
        everything = (len(task.train) + len(task.validation)) * len(model.mean) <= MOST_FEATURES
        features, targets = [], []
        for split in filter(len, (task.train, task.validation) if everything else (task.train,)):
            taken = torch.arange(0, len(split), 1 if everything else -(-len(split) // STANDARDISED))
            for rows in taken.split(run.config.loader.eval_batch_size):
                batch = split.read(rows)
                with torch.no_grad():
                    features.append(model.features(batch.x.to(run.accelerator.device)).cpu())
                targets.append(batch.y)
        x, y = torch.cat(features).double(), torch.cat(targets)
        model.mean.copy_(x.mean(0))
        model.std.copy_(x.std(0, correction=0))
        model.std[model.std < 1e-6] = 1.0
        if not everything:
            torch.nn.init.zeros_(model.linear.weight)
            torch.nn.init.zeros_(model.linear.bias)
            return run.train(model, run.objective)
        x = (x - x.mean(0)) / model.std.double().cpu()
        wanted = torch.nn.functional.one_hot(y, task.num_outputs) if task.kind == "classification" else y
        wanted = wanted.double() if task.kind == "regression" else 2.0 * wanted.double() - 1
        weight, bias, left_out = ridge(x, wanted)
        factor = 1.0 if task.kind == "regression" else _factor(task.kind, left_out, y)
        with torch.no_grad():
            model.linear.weight.copy_(factor * weight)
            model.linear.bias.copy_(factor * bias)
        return model


def ridge(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ridge regression with the regularisation, of ALPHAS, that predicts best what is left out.

    With the singular value decomposition x = U S V' of centred features, the fitted values are H y, H = U S^2 / (S^2 + alpha) U' +
    1/n, and a sample that was left out is missed by (y - H y) / (1 - diag H).

    Args:
        x: float64 (n, F), each column of mean zero.
        y: float64 (n, K).

    Returns:
        Weights (K, F), biases (K,), and what is predicted of each sample without it (n, K).
    """
    import torch

    left, values, right = torch.linalg.svd(x, full_matrices=False)
    mean = y.mean(0)
    inner, best = left.T @ (y - mean), None
    for alpha in ALPHAS:
        kept = values**2 / (values**2 + alpha)
        errors = (y - mean - left @ (kept[:, None] * inner)) / (1 - 1 / len(y) - left**2 @ kept)[:, None]
        if best is None or errors.square().mean() < best[0]:
            best = errors.square().mean(), alpha, errors
    _, alpha, errors = best
    return ((values / (values**2 + alpha))[:, None] * inner).T @ right, mean, y - errors


def _factor(kind: str, outputs: Tensor, y: Tensor) -> float:
    """By which outputs (n, outputs) about -1 and 1 make the best probabilities, of 1 to 32."""
    import torch
    import torch.nn.functional as F

    loss = F.cross_entropy if kind == "classification" else F.binary_cross_entropy_with_logits
    factors = torch.logspace(0, 5, 21, base=2.0, dtype=torch.float64).tolist()
    y = y if kind == "classification" else y.double()
    return min(factors, key=lambda factor: loss(factor * outputs, y).item())
