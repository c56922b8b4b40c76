"""Optimizer and learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from crossmodal.errors import UserError
from crossmodal.models.base import Model
from crossmodal.settings import OptimizerConfig, ScheduleConfig


def build_optimizer(model: Model, objective: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer, with a learning rate for each layer of the encoder and one for what is new; frozen ones are left out.

    Args:
        model: its `parameter_groups` says which is which.
        objective: its parameters are new.
        config: name and numbers.

    Raises:
        UserError: every parameter is frozen.
    """
    encoder, new = model.parameter_groups()
    by_rate: dict[float, list[nn.Parameter]] = {}
    for below, layer in enumerate(reversed(encoder)):  # from the last layer down to the embedding
        by_rate.setdefault(config.lr * config.layer_decay**below, []).extend(layer)
    groups = [{"params": layers, "lr": rate} for rate, layers in by_rate.items()]
    new = [*new, *(parameter for parameter in objective.parameters() if parameter.requires_grad)]
    groups.append({"params": new, "lr": config.new_lr})
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise UserError("nothing to train: every parameter is frozen")
    common = {"weight_decay": config.weight_decay}
    if config.name == "rmsprop":
        return torch.optim.RMSprop(groups, alpha=config.betas[1], **common)
    if config.name == "ranger":
        return Ranger(groups, betas=config.betas, **common)
    common["fused"] = config.fused
    if config.name == "sgd":
        nesterov = config.nesterov and config.momentum > 0
        return torch.optim.SGD(groups, momentum=config.momentum, nesterov=nesterov, **common)
    cls = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return cls(groups, betas=config.betas, **common)


class Ranger(torch.optim.RAdam):
    """RAdam (Liu et al., ICLR 2020) with Lookahead (Zhang et al., NeurIPS 2019): after every sixth step the weights are put
    half the way from where they were put last (at first: where they began) to where they are."""

    EVERY, WAY = 6, 0.5

    @torch.no_grad()
    def step(self, closure=None):
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        for parameter in parameters:
            state = self.state[parameter]
            if not state:  # as RAdam does, which sees an empty state as its sign to begin
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
                state["slow"] = parameter.detach().clone()
        loss = super().step(closure)
        for parameter in parameters:
            state = self.state[parameter]
            if state["step"] % self.EVERY == 0:
                state["slow"].lerp_(parameter, self.WAY)
                parameter.copy_(state["slow"])
        return loss


def learning_rate_factor(config: ScheduleConfig, steps: int) -> Callable[[int], float]:
    """Factor on the peak learning rate for optimizer step 0, 1, ... of `steps`.

    The first of w = warmup * steps warm-up steps takes 1 / w of the peak, the last one all of it, so no step is wasted at 0.
    """
    warm = math.ceil(config.warmup * steps)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        progress = min((step - warm) / max(1, steps - warm), 1.0)
        if config.kind == "linear":
            return 1.0 + (config.floor - 1.0) * progress
        if config.kind == "cosine":
            return config.floor + (1.0 - config.floor) * 0.5 * (1.0 + math.cos(math.pi * progress))
        if config.kind == "step":
            return config.gamma ** sum(step >= milestone * steps for milestone in config.milestones)
        return 1.0

    return factor
