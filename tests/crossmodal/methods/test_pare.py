from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from crossmodal.data.dataset import ArrayDataset, Batch
from crossmodal.errors import UserError
from crossmodal.methods import _pare_pictures as pictures
from crossmodal.methods._patch_replacement import PatchReplacement
from crossmodal.methods.pare import Options
from crossmodal.models import encoders
from crossmodal.models.finetuned import FineTuned
from crossmodal.sources.base import Source
from crossmodal.training.objective import Objective, Position, Step
from tests.crossmodal.runs import toy_task

B, TOKENS = 5, 8
NOISY, LATE = Position(0, 10, seed=11), Position(7, 10, seed=11)  # k = 8 and, with plain top-k, 2


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.fixture
def model(tiny_bert):
    encoder = encoders.load(tiny_bert, layers=1)
    encoder.attach((2, 16), 2)
    return FineTuned(encoder, "classification", 3)


@pytest.fixture
def source():
    inputs, labels = torch.randint(5, 60, (B, TOKENS)), torch.tensor([0, 1, 2, 3, 0])
    return Source("toy", "text", inputs, labels, ("a", "b", "c", "d"), "hash", "")


@pytest.fixture
def batch(source):
    x, y = torch.randn(B, 2, 16), torch.tensor([0, 1, 2, 0, 1])
    return Batch(x, y, torch.arange(B), torch.ones(B), {"source": source.read(torch.arange(B))})


@pytest.fixture
def mixing(model, source):
    def make(**options) -> PatchReplacement:
        return PatchReplacement(toy_task(), model, source, Options(**options))

    return make


@pytest.mark.parametrize("start", [0, 3, TOKENS])
def test_loss_is_the_paper_formula(model, batch, mixing, start):
    objective = mixing(weight=0.3, schedule="constant", start=start)
    found = objective.losses(model, batch, NOISY)
    tokens, source = model.embed(batch.x), batch.extras["source"]
    mixed = objective.replace(tokens, model.embed_source(source.x), NOISY)
    clean, blend = model.body(tokens), model.body(mixed.mixed)
    ce, lam = torch.nn.functional.cross_entropy, start / TOKENS
    expected = ce(model.head(clean), batch.y, reduction="none") + 0.3 * (
        (1 - lam) * ce(model.head(blend), batch.y, reduction="none")
        + lam * ce(objective.source_head(blend), source.y, reduction="none")
    )
    torch.testing.assert_close(found["loss"], expected)
    assert set(found) == {"loss", *objective.parts}
    assert not found["target"].requires_grad


@pytest.mark.parametrize(
    ("options", "position", "learns"),
    [
        ({}, NOISY, True),
        ({}, LATE, False),
        ({"selection": "random"}, NOISY, False),
        ({"straight_through": True}, LATE, True),
    ],
)
def test_gate_is_in_the_graph_on_every_step(model, batch, mixing, options, position, learns):
    objective = mixing(schedule="constant", start=3, **options)
    objective.losses(model, batch, position)["loss"].sum().backward()
    for parameter in objective.gate.parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.abs().sum() > 0) == learns


@pytest.mark.parametrize(("selection", "position"), [("gumbel", NOISY), ("gumbel", LATE), ("random", NOISY)])
@pytest.mark.parametrize("cut", [0, 2, 4])
def test_rows_choose_the_same_patches_however_the_batch_is_divided(model, batch, mixing, selection, position, cut):
    objective = mixing(selection=selection, schedule="constant", start=4)
    whole = objective.losses(model, batch, position)["loss"]
    for first, last in ((0, cut), (cut, B)):
        if first < last:
            here = slice(first, last)
            source = batch.extras["source"]
            part = Batch(*(t[here] for t in (batch.x, batch.y, batch.index, batch.weight)))
            part.extras["source"] = Batch(*(t[here] for t in (source.x, source.y, source.index, source.weight)))
            found = objective.losses(model, part, replace(position, first=first))["loss"]
            torch.testing.assert_close(found, whole[here])


@pytest.mark.parametrize("fixture", ["tiny_bert", "tiny_roberta", "tiny_swin", "tiny_vit"])
def test_a_step_reaches_every_trainable_parameter(request, fixture):
    shape = (2, 16) if "bert" in fixture else (2, 13, 17)
    encoder = encoders.load(request.getfixturevalue(fixture))
    encoder.attach(shape)
    model = FineTuned(encoder, "classification", 3)
    inputs = torch.randint(5, 90, (4, 10)) if encoder.modality == "text" else torch.randn(4, 3, *encoder.image_size)
    source = Source("toy", encoder.modality, inputs, torch.arange(4), tuple("abcd"), "hash", "")
    objective = PatchReplacement(toy_task(), model, source, Options(schedule="constant", start=0.5))
    rows = torch.arange(4)
    batch = Batch(torch.randn(4, *shape), rows % 3, rows, torch.ones(4), {"source": source.read(rows)})
    objective.losses(model, batch, Position(0, 2))["loss"].sum().backward()
    trained = [*model.named_parameters(), *objective.named_parameters()]
    assert [name for name, p in trained if p.requires_grad and p.grad is None] == []
    assert all(p.grad is None for p in encoder.source_embedder.parameters())


def test_k_selection_and_pictured_epochs_over_a_run(model, batch, mixing):
    objective = mixing(gumbel_epochs=2)
    said = [objective.record(Position(epoch, 4)) for epoch in range(4)]
    assert [one["k"] for one in said] == [8, 6, 4, 2]
    assert [one["lam"] for one in said] == [1.0, 0.75, 0.5, 0.25]
    assert [one["selection"] for one in said] == ["gumbel", "gumbel", "topk", "topk"]
    for epoch in range(4):
        objective.losses(model, batch, Position(epoch, 4))
    assert {epoch: sorted(rows) for epoch, rows in objective.notes.items()} == {e: list("0123") for e in "134"}
    assert [len(objective.notes[epoch]["2"]) for epoch in "134"] == [8, 4, 2]


def test_more_patches_than_there_are_are_refused(mixing):
    with pytest.raises(UserError, match=r"pare\.start: 9 patches are more than the 8 there are; a float is a fraction"):
        mixing(start=9)


def test_plain_objective_trains_and_predicts_the_clean_path(model, batch):
    step = Step(model, Objective(toy_task())).train()
    assert set(step(batch, NOISY)) == {"loss"}
    step.eval()
    with torch.no_grad():
        torch.testing.assert_close(step(batch), model(batch.x))


def split(*shape: int) -> ArrayDataset:
    return ArrayDataset(torch.randn(*shape), torch.zeros(shape[0]))


@pytest.mark.parametrize("epochs", [1, 5])
def test_schedule_shows_k_and_lam(epochs):
    """lam = k / N; k = 0 in the last epoch of five."""
    history = [
        {"epoch": n + 1, "k": 4 - n, "lam": (4 - n) / 4, "selection": "topk" if n else "gumbel"} for n in range(epochs)
    ]
    figure = pictures.schedule(history)
    figure.canvas.draw()  # the second axis follows
    (axis,) = figure.axes
    (lam,) = axis.child_axes
    assert np.allclose(np.array(axis.get_ylim()) / 4, lam.get_ylim())
    assert axis.patches[0].get_data().values.tolist() == [4, 3, 2, 1, 0][:epochs]


def test_mixing_shades_the_replaced_samples_of_a_series():
    figure = pictures.mixing(split(3, 1, 10), {"1": {"2": [0, 3]}, "8": {"2": []}}, (2,), (10,))
    early, late = figure.axes
    assert early.get_title() == "sample 2, epoch 1: 2 replaced"
    assert late.get_title() == "sample 2, epoch 8: 0 replaced"
    spans = sorted(
        patch.get_extents().transformed(early.transData.inverted()).intervalx.tolist() for patch in early.patches
    )
    assert spans == [pytest.approx([-0.5, 1.5]), pytest.approx([5.5, 7.5])]
    assert not late.patches


def test_mixing_covers_the_replaced_patches_of_an_image():
    """5 x 4 pixels in patches of 2 x 2: three rows of two, the last row cut."""
    figure = pictures.mixing(split(1, 3, 5, 4), {"1": {"0": [1, 4]}}, (2, 2), (5, 4))
    (axis,) = figure.axes
    cover = axis.images[1]
    assert (np.asarray(cover.get_alpha()) > 0).tolist() == [[False, True], [False, False], [True, False]]
    assert cover.get_extent() == [-0.5, 3.5, 5.5, -0.5]
    assert (axis.get_xlim(), axis.get_ylim()) == ((-0.5, 3.5), (4.5, -0.5))


@pytest.mark.parametrize("size", [(5, 4), (32, 24)])
def test_mixing_follows_the_canvas_to_which_images_are_resized(size):
    """A canvas of 16 x 16 in patches of 4 x 4: its grid lies over the whole image, be that smaller or larger."""
    figure = pictures.mixing(split(1, 3, *size), {"1": {"0": [0, 15]}}, (4, 4), (16, 16))
    (axis,) = figure.axes
    cover = axis.images[1]
    assert np.flatnonzero(np.asarray(cover.get_alpha())).tolist() == [0, 15]
    assert cover.get_alpha().shape == (4, 4)
    assert cover.get_extent() == pytest.approx([-0.5, size[1] - 0.5, size[0] - 0.5, -0.5])
