"""What searches of architectures minimise: weights learn from a half of the training samples, the architecture from the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from crossmodal import seeds
from crossmodal.data.dataset import Batch
from crossmodal.methods._windows import Windows
from crossmodal.models.cells import CellSearch
from crossmodal.models.layered import LayeredSearch
from crossmodal.training.objective import Position

RATE = 0.1  # of the exponentiated gradient
KEPT, TARGET = 0.99, 0.4  # of the baseline at each step; the share of connections that is aimed at


class Bilevel(Windows):
    """Base class: `halved` tasks, whose other half comes as `batch.extras["architecture"]`.

    Args:
        task: with all its training samples.
        seed: of the division.
    """

    parts = ("weights",)
    predicts = False

    def __init__(self, task, seed: int) -> None:
        super().__init__(task)
        order = seeds.permutation(len(task.train), seed, "halves")
        first, second = (rows.sort().values.numpy() for rows in order.tensor_split(2))
        self.halved = replace(task, train=task.train.subset(first))
        self.companions = {"architecture": task.train.subset(second)}


class CellSearching(Bilevel):
    """PC-DARTS by GAEA (Li et al., ICLR 2021), first order: a step along the exponentiated gradient keeps each weighting on its
    simplex, w <- w exp(-rate g) / sum. Weights and weightings take their steps at once, by the values before them.

    Args:
        task, seed: see `Bilevel`.
    """

    def losses(self, model: CellSearch, batch: Batch, position: Position) -> dict[str, Tensor]:
        other = self.learned_from(batch.extras["architecture"], position)
        batch = self.learned_from(batch, position)
        architecture = model.architecture
        fixed = {name: one.detach() for name, one in architecture.items()}
        rest = {name: one.detach() for name, one in model.named_parameters() if name not in architecture}
        weights = self.task_loss(functional_call(model, fixed, (batch.x,)), batch)
        found = self.task_loss(functional_call(model, rest, (other.x,)), other)
        return {"loss": weights + found, "weights": weights.detach()}

    @torch.no_grad()
    def before_step(self, model: CellSearch) -> None:
        for one in model.architecture.values():
            change = -RATE * one.grad
            one *= (change - change.amax(1, keepdim=True)).exp()
            one /= one.sum(1, keepdim=True)


class ControllerSearching(Bilevel):
    """Shared weights learn by the architecture that the controller draws at each step, and it by REINFORCE: its reward is minus the
    loss of that architecture on the other half, less a decaying mean. The share of connections is drawn towards 0.4 by its
    Kullback-Leibler divergence, as in AMBER, whose reward is the area under the ROC curve.

    Args:
        task, seed: see `Bilevel`.
    """

    parts = ("weights", "reward")

    def losses(self, model: LayeredSearch, batch: Batch, position: Position) -> dict[str, Tensor]:
        model.architecture, logarithm, connections = model.controller()
        other = self.learned_from(batch.extras["architecture"], position)
        batch = self.learned_from(batch, position)
        weights = self.task_loss(model(batch.x), batch)
        with torch.no_grad():
            rewards = -self.task_loss(model(other.x), other)
            reward = rewards.mean()
            model.baseline.copy_(torch.where(model.baseline.isnan(), reward, torch.lerp(reward, model.baseline, KEPT)))
        target = torch.full_like(connections, TARGET)
        shares = torch.stack([connections, -connections]), torch.stack([target, 1 - target]).log()
        divergence = (shares[0].sigmoid() * (F.logsigmoid(shares[0]) - shares[1])).sum()
        controller = divergence - (reward - model.baseline) * logarithm
        return {"loss": weights + controller, "weights": weights.detach(), "reward": rewards}

    def before_step(self, model: LayeredSearch) -> None:
        for one in (
            model.parameters()
        ):  # operations that were not drawn: so that the optimizer knows all of them from the first step on
            if one.grad is None:
                one.grad = torch.zeros_like(one)

    @torch.no_grad()
    def draw(self, model: LayeredSearch, seed: int) -> None:
        """Lets the controller draw the architecture that the model now has."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.architecture = model.controller()[0]


class Halving(Windows):
    """The task's loss; a trial of optuna's is told of each epoch, and says when it is given up.

    Args:
        task: see `Objective`.
        trial: `optuna.Trial`.
    """

    def __init__(self, task, trial: Any) -> None:
        super().__init__(task)
        self.trial, self.told, self.pruned = trial, 0, False

    def ends(self, history: list[dict[str, Any]]) -> bool:
        for record in history[self.told :]:
            self.trial.report(record["validation"], record["epoch"])
            self.pruned = self.trial.should_prune()
            self.told += 1
        return self.pruned
