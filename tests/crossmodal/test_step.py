from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from crossmodal import encoders, losses
from crossmodal.config import MixingConfig
from crossmodal.model import CrossModalModel
from crossmodal.step import Batch, MixPlan, TrainingStep

B, TOKENS = 5, 8


@pytest.fixture
def model(tiny_bert):
    encoder = encoders.load(tiny_bert, layers=1)
    encoder.attach((2, 16), 2)
    return CrossModalModel(encoder, "classification", 3, source_classes=4)


@pytest.fixture
def batch():
    x, y = torch.randn(B, 2, 16), torch.tensor([0, 1, 2, 0, 1])
    source = torch.randint(5, 60, (B, TOKENS)), torch.tensor([0, 1, 2, 3, 0])
    return Batch(x, y, torch.arange(B), torch.ones(B), *source)


def training_step(model, **mixing) -> TrainingStep:
    return TrainingStep(model, losses.get("cross_entropy"), lambda y: y, MixingConfig(**mixing)).train()


@pytest.mark.parametrize("k", [0, 3, TOKENS])
def test_loss_is_the_paper_formula(model, batch, k):
    step = training_step(model, weight=0.3)
    plan = MixPlan(k, "gumbel", 11, (0, B))
    parts = step(batch, plan)
    tokens, source = model.embed(batch.x), model.embed_source(batch.source_inputs)
    mixed = step.replace(tokens, source, plan)
    clean, blend = model.body(tokens), model.body(mixed.mixed)
    ce, lam = torch.nn.functional.cross_entropy, k / TOKENS
    expected = ce(model.head(clean), batch.y, reduction="none") + 0.3 * (
        (1 - lam) * ce(model.head(blend), batch.y, reduction="none")
        + lam * ce(model.source_head(blend), batch.source_labels, reduction="none")
    )
    torch.testing.assert_close(parts["loss"], expected)
    assert parts["replaced"].shape == (B, k)
    assert not parts["target"].requires_grad


@pytest.mark.parametrize(
    ("selection", "k", "learns"), [("gumbel", 3, True), ("topk", 3, False), ("random", 3, False), ("gumbel", 0, True)]
)
def test_gate_is_in_the_graph_on_every_step(model, batch, selection, k, learns):
    training_step(model)(batch, MixPlan(k, selection, 0, (0, B)))["loss"].sum().backward()
    for parameter in model.gate.parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.abs().sum() > 0) == learns


def test_straight_through_lets_the_gate_learn_from_plain_topk(model, batch):
    training_step(model, straight_through=True)(batch, MixPlan(3, "topk", 0, (0, B)))["loss"].sum().backward()
    assert model.gate.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("selection", ["gumbel", "topk", "random"])
@pytest.mark.parametrize("cut", [0, 2, 4])
def test_rows_choose_the_same_patches_however_the_batch_is_divided(model, batch, selection, cut):
    step = training_step(model)
    whole = step(batch, MixPlan(4, selection, 2**62 + 5, (0, B)))
    for first, last in ((0, cut), (cut, B)):
        part = Batch(*(tensor[first:last] for tensor in batch))
        if first < last:
            found = step(part, MixPlan(4, selection, 2**62 + 5, (first, B)))
            assert torch.equal(found["replaced"], whole["replaced"][first:last])
            torch.testing.assert_close(found["loss"], whole["loss"][first:last])


def test_clean_path(model, batch):
    step = training_step(model)
    parts = step(batch, None)
    assert set(parts) == {"loss", "target"}
    step.eval()
    with torch.no_grad():
        torch.testing.assert_close(step(batch), model(batch.x))


def test_physical_losses_see_decoded_values(model, batch):
    loss = replace(losses.get("mse"), physical=True)
    step = TrainingStep(model, loss, lambda y: 2 * y + 1, None).train()
    y = torch.randn(B, 3)
    parts = step(batch._replace(y=y), None)
    torch.testing.assert_close(parts["loss"], 4 * losses.mse(model(batch.x), y))
