from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from crossmodal.models.base import ParameterGroups
from crossmodal.settings import OptimizerConfig, ScheduleConfig
from crossmodal.training.optim import Ranger, build_optimizer, learning_rate_factor


def factors(steps: int, **settings) -> list[float]:
    factor = learning_rate_factor(ScheduleConfig(**settings), steps)
    return [factor(step) for step in range(steps + 1)]


def test_warm_up_then_linear():
    found = factors(10, kind="linear", warmup=0.2)
    assert found[:3] == [0.5, 1.0, 1.0]
    assert found[-1] == 0.0
    assert found[2:] == pytest.approx([1 - i / 8 for i in range(9)])


def test_cosine_ends_at_the_floor():
    found = factors(8, kind="cosine", warmup=0.0, floor=0.1)
    assert found[0] == 1.0
    assert found[4] == pytest.approx(0.55)
    assert found[8] == pytest.approx(0.1)
    assert found == sorted(found, reverse=True)


def test_step_and_constant():
    assert factors(4, kind="step", warmup=0.0, milestones=(0.5, 0.75), gamma=0.1) == pytest.approx(
        [1, 1, 0.1, 0.01, 0.01]
    )
    assert factors(3, kind="constant", warmup=0.0) == [1.0] * 4


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.old, self.new = nn.Linear(2, 2), nn.Linear(2, 2)

    def parameter_groups(self):
        chosen = [[p for p in part.parameters() if p.requires_grad] for part in (self.old, self.new)]
        return ParameterGroups([chosen[0][:1], chosen[0][1:]], chosen[1])


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("adamw", torch.optim.AdamW),
        ("adam", torch.optim.Adam),
        ("sgd", torch.optim.SGD),
        ("rmsprop", torch.optim.RMSprop),
        ("ranger", Ranger),
    ],
)
def test_two_learning_rates(name, cls):
    model = TwoParts()
    optimizer = build_optimizer(model, nn.Module(), OptimizerConfig(name=name, lr=0.1, new_lr=0.2, weight_decay=0.3))
    assert type(optimizer) is cls
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]
    assert all(group["weight_decay"] == 0.3 for group in optimizer.param_groups)
    scheduler = LambdaLR(optimizer, learning_rate_factor(ScheduleConfig(kind="linear", warmup=0.0), 2))
    model.old(model.new(torch.ones(1, 2))).sum().backward()
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [0.05, 0.1]


def test_ranger_is_radam_that_goes_half_the_way_back_every_sixth_step():
    torch.manual_seed(0)
    slow, inner = torch.randn(3), None
    model = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(slow)
    optimizer = Ranger(model.parameters(), lr=0.1)
    twin = nn.Linear(3, 1, bias=False)
    twin.load_state_dict(model.state_dict())
    radam = torch.optim.RAdam(twin.parameters(), lr=0.1)
    for step in range(1, 14):
        for one, method in ((model, optimizer), (twin, radam)):
            one.weight.grad = one.weight.detach() + step
            method.step()
        if step % 6 == 0:
            inner = twin.weight.detach().clone()
            with torch.no_grad():
                twin.weight.copy_((slow + inner) / 2)
            slow = twin.weight.detach().clone()
        torch.testing.assert_close(model.weight, twin.weight)
        if step == 7:  # its state goes into a checkpoint and back
            stored = optimizer.state_dict()
            optimizer = Ranger(model.parameters(), lr=0.1)
            optimizer.load_state_dict(stored)


def test_learning_rate_falls_from_layer_to_layer_towards_the_embedding():
    model = TwoParts()
    groups = build_optimizer(model, nn.Module(), OptimizerConfig(lr=0.4, layer_decay=0.5, new_lr=0.1)).param_groups
    assert [(group["lr"], len(group["params"])) for group in groups] == [(0.4, 1), (0.2, 1), (0.1, 2)]
    assert groups[0]["params"][0] is model.old.bias  # of the upper one of the two layers


def test_frozen_parts_are_left_out():
    model = TwoParts()
    model.old.requires_grad_(False)
    assert len(build_optimizer(model, nn.Module(), OptimizerConfig()).param_groups) == 1
    model.new.requires_grad_(False)
    with pytest.raises(ValueError, match="every parameter is frozen"):
        build_optimizer(model, nn.Module(), OptimizerConfig())


def test_parameters_of_the_objective_are_new():
    model, objective = TwoParts(), nn.Linear(3, 1)
    groups = build_optimizer(model, objective, OptimizerConfig(lr=0.1, new_lr=0.2)).param_groups
    assert [len(group["params"]) for group in groups] == [2, 4]
    assert groups[1]["params"][2] is objective.weight
