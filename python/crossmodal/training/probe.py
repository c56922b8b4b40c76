"""Linear probes of frozen features, found exactly: what a head starts as, and what tells how many layers are worth keeping.

A head with random weights sends large gradients into the pretrained features and distorts them before it knows anything (Kumar et
al., ICLR 2022). And the last layers of an encoder are the most at home in what it was pretrained on.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from crossmodal.data.dataset import Dataset
from crossmodal.errors import UserError
from crossmodal.models.finetuned import FineTuned
from crossmodal.models.linear import solve
from crossmodal.scoring import losses

STRENGTH = 0.1  # C of logistic regression on standardised features


def start_head(model: FineTuned, train: Dataset, batch_size: int) -> None:
    """Fits the head of a model for classes, labels or values to the features that its encoder has now.

    Features are standardised for the fit.
    """
    x, y = features(model, train, batch_size)
    mean, std = x.mean(0), np.maximum(x.std(0), 1e-6)
    weight, bias = solve(model.task_kind, (x - mean) / std, y, model.num_outputs, STRENGTH)
    set_head(model, weight, bias, mean, std)
    model.fitted = True


@torch.no_grad()
def set_head(model: FineTuned, weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, std: np.ndarray) -> None:
    """Makes the head what was fitted to (features - mean) / std: a weight (num_outputs, F) and a bias (num_outputs)."""
    model.head.linear.weight.copy_(torch.from_numpy(weight / std))
    model.head.linear.bias.copy_(torch.from_numpy(bias - (weight / std) @ mean))


def best_depth(model: FineTuned, task, batch_size: int) -> int:
    """After how many of its layers a probe of a model has the least validation loss. The model is left with a single layer.

    Raises:
        UserError: its layers are no single stack.
    """
    layers = model.encoder.layers()
    stacks = [part for part in model.encoder.modules() if isinstance(part, nn.ModuleList) and list(part) == layers]
    if not stacks:
        raise UserError(f"model.layers: not an option of {model.encoder.config.model_type}, its stages differ in width")
    (stack,) = stacks
    loss, found = losses.get(task.loss), {}
    for depth in range(len(layers), 0, -1):
        del stack[depth:]
        start_head(model, task.train, batch_size)
        x, y = features(model, task.validation, batch_size)
        with torch.no_grad():
            outputs = model.head.linear(torch.from_numpy(x).to(model.head.linear.weight))
        found[depth] = loss.per_sample(outputs.cpu(), torch.from_numpy(y), None).mean().item()
    return min(found, key=found.__getitem__)


@torch.no_grad()
def features(model: FineTuned, split: Dataset, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """What the head's linear map is given for the samples of a split, float64 (n, F), and their targets."""
    given: list[Tensor] = []
    targets: list[Tensor] = []
    device, training = model.head.linear.weight.device, model.training
    hook = model.head.linear.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].double().cpu()))
    model.eval()
    for rows in torch.arange(len(split)).split(batch_size):
        batch = split.read(rows)
        model(batch.x.to(device))
        targets.append(batch.y)
    hook.remove()
    model.train(training)
    return torch.cat(given).numpy(), torch.cat(targets).numpy()
