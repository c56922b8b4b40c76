from __future__ import annotations

import numpy as np
import pytest
import torch

from crossmodal import seeds
from crossmodal.data.dataset import ArrayDataset, Batch
from crossmodal.data.normalizer import Normalizer
from crossmodal.errors import UserError
from crossmodal.methods import _mixing_pictures as pictures
from crossmodal.methods._patch_replacement import PatchReplacement, replace_by_scores
from crossmodal.methods.pare import Options
from crossmodal.models import encoders
from crossmodal.models.finetuned import FineTuned
from crossmodal.sources.base import Source
from crossmodal.tasks.base import About
from crossmodal.training.objective import Objective, Position, Step
from tests.crossmodal.runs import toy_task

TOKENS = 8
NOISY, LATE = Position(0, 10, seed=11), Position(7, 10, seed=11)  # k = 8 and, with plain top-k, 2


@pytest.mark.parametrize("start", [0, 3, TOKENS])
def test_loss_is_the_paper_formula(model, batch, mixing, start):
    objective = mixing(mix_weight=0.3, schedule="constant", start=start)
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
    replaced = objective.facts()["replaced"]
    assert {epoch: sorted(rows) for epoch, rows in replaced.items()} == {e: list("0123") for e in "134"}
    assert [len(replaced[epoch]["2"]) for epoch in "134"] == [8, 4, 2]


def test_more_patches_than_there_are_are_refused(mixing):
    with pytest.raises(UserError, match=r"pare\.start: 9 patches are more than the 8 there are; a float is a fraction"):
        mixing(start=9)


def test_plain_objective_trains_and_predicts_the_clean_path(model, batch):
    step = Step(model, Objective(toy_task())).train()
    assert set(step(batch, NOISY)) == {"loss"}
    step.eval()
    with torch.no_grad():
        torch.testing.assert_close(step(batch), model(batch.x))


@pytest.mark.parametrize("position", [NOISY, LATE])
@pytest.mark.parametrize(
    "options",
    [
        {"pairing": "score"},
        {"replace": "highest", "noise_scale": 0.3},
        {"selection": "random"},
        {"straight_through": True, "exact_steps": None},
        {"straight_through": False, "replace": "highest", "pairing": "score"},
    ],
)
def test_replacing_by_scores_is_the_operator_where_the_scores_are_the_gate_s(model, batch, mixing, options, position):
    """To the bit in what is chosen and mixed; the gradients of tokens and gate are the operator's too."""
    objective = mixing(schedule="constant", start=3, **options)
    target, source = model.embed(batch.x), model.embed_source(batch.extras["source"].x)
    cotangent, found = torch.randn_like(target), []
    for whole in (True, False):
        z, z_s = (part.detach().clone().requires_grad_() for part in (target, source))
        if whole:
            result = objective.replace(z, z_s, position)
        else:
            given = {"k": 3, "seed": seeds.derive(11, "mix", position.epoch, 0), "first_row": 0}
            scores = objective.gate(z), objective.gate(z_s)
            result = replace_by_scores(z, z_s, *scores, **given, **objective.choice(position))
        leaves = [z, z_s, objective.gate.weight, objective.gate.bias]
        found.append((result, torch.autograd.grad(result.mixed, leaves, cotangent, allow_unused=True)))
    (one, gradients), (other, again) = found
    assert one.lam == other.lam
    for part in (0, 2, 3):
        assert torch.equal(one[part], other[part])
    for mine, own in zip(again, gradients, strict=True):
        if mine is None or own is None:  # of a gate that is not asked, or has no say
            assert not any(grad is not None and grad.any() for grad in (mine, own))
        else:
            torch.testing.assert_close(mine, own)


@pytest.mark.parametrize("noise_on", ["scores", "logits"])
def test_noise_on_logits_fades_as_the_gate_grows_sure(model, batch, mixing, noise_on):
    """Scores never differ by more than one, logits by anything."""
    noisy = mixing(schedule="constant", start=3, noise_on=noise_on)
    with torch.no_grad():
        noisy.gate.weight.mul_(1e4)
    tokens = model.embed(batch.x), model.embed_source(batch.extras["source"].x)
    logits = tokens[0] @ noisy.gate.weight[0] + noisy.gate.bias
    lowest = logits.topk(3, largest=False).indices.sort(1).values
    assert torch.equal(noisy.replace(*tokens, NOISY).target_index, lowest) == (noise_on == "logits")
    noisy.losses(model, batch, NOISY)["loss"].sum().backward()
    assert noisy.gate.weight.grad.isfinite().all()


def test_noise_goes_to_its_end_over_the_gumbel_epochs(mixing):
    objective = mixing(gumbel_epochs=4, noise_scale=1.0, noise_end=0.2)
    said = [objective.choice(Position(epoch, 8)) for epoch in range(6)]
    assert [one["noise_scale"] for one in said[:4]] == pytest.approx([1.0, 0.8, 0.6, 0.4])
    assert [one["selection"] for one in said] == ["gumbel"] * 4 + ["topk"] * 2
    assert mixing(gumbel_epochs=40, noise_end=0.0).choice(Position(4, 8))["noise_scale"] == 0.5  # of fewer epochs


def test_by_gradient_the_patches_on_which_the_loss_hangs_stay(model, batch, mixing):
    objective = mixing(schedule="constant", start=3, saliency="gradient")
    tokens = model.embed(batch.x).detach().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model.predict_from(model.body(tokens)), batch.y, reduction="sum")
    loss.backward()
    worth = (tokens.grad * tokens).sum(2).abs()
    parameters = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    for position in (NOISY, LATE):
        objective.notes = {}
        objective.losses(model, batch, position)
        mixed = objective.mix(model, batch, tokens, model.embed_source(batch.extras["source"].x), position)
        assert torch.equal(mixed.slots, worth.topk(3, largest=False).indices.sort(1).values)
    assert all(torch.equal(model.get_parameter(name).grad, grad) for name, grad in parameters.items())


def series(count: int, channels: int, *size: int, **changes):
    """A task of random samples, whose values are 3 times the normalised ones, and 7 more."""
    train = ArrayDataset(torch.randn(count, channels, *size), torch.zeros(count))
    scale = torch.full((channels, *[1] * len(size)), 1.0, dtype=torch.float64)
    shape = (channels, *size)
    return toy_task(train=train, input_shape=shape, normalizer=Normalizer(shape, 7 * scale, 3 * scale), **changes)


@pytest.mark.parametrize("epochs", [1, 5])
def test_schedule_shows_k_and_lam(epochs):
    """lam = k / N; k = 0 in the last epoch of five."""
    history = [
        {"epoch": n + 1, "k": 4 - n, "lam": (4 - n) / 4, "selection": "topk" if n else "gumbel"} for n in range(epochs)
    ]
    figure = pictures.schedule(history, "toy")
    figure.canvas.draw()  # the second axis follows
    (axis,) = figure.axes
    (lam,) = axis.child_axes
    assert np.allclose(np.array(axis.get_ylim()) / 4, lam.get_ylim())
    assert axis.patches[0].get_data().values.tolist() == [4, 3, 2, 1, 0][:epochs]


def test_mixing_shades_the_replaced_samples_of_a_series():
    task = series(3, 1, 10)
    figure = pictures.mixing(task, {"1": {"2": [0, 3]}, "8": {"2": []}}, (2,), (10,), "toy")
    early, late = figure.axes
    assert early.get_title() == "sample 2, epoch 1: 2 replaced"
    assert late.get_title() == "sample 2, epoch 8: 0 replaced"
    assert spans(early) == [pytest.approx([-0.5, 1.5]), pytest.approx([5.5, 7.5])]
    assert spans(late) == []


def spans(axis) -> list[list[float]]:
    return [[path.vertices[:, 0].min(), path.vertices[:, 0].max()] for path in axis.collections[0].get_paths()]


def test_mixing_has_a_row_for_each_channel_in_its_own_unit():
    """Two channels of 10 values, five in a second; what is drawn are the values before normalisation."""
    about = About(features=("left", "right"), units=("mV", ""), rate=5.0)
    task = series(20, 2, 10, about=about)
    replaced = {"1": {str(row): [1] for row in range(20)}, "2": {}}
    figure = pictures.mixing(task, replaced, (2,), (10,), "toy")
    assert len(figure.axes) == pictures.MOST_ROWS * 2
    first, _, second = figure.axes[:3]
    assert (first.get_ylabel(), second.get_ylabel(), figure.axes[-1].get_xlabel()) == ("left [mV]", "right", "time [s]")
    np.testing.assert_allclose(second.lines[0].get_xdata(), np.arange(10) / 5)
    np.testing.assert_allclose(second.lines[0].get_ydata(), 3 * task.train.x[0, 1].double() + 7)
    assert spans(second) == [pytest.approx([0.3, 0.7])]
    assert figure.get_suptitle().startswith("toy, 6 of them shown")


def test_mixing_covers_the_replaced_patches_of_an_image():
    """5 x 4 pixels in patches of 2 x 2: three rows of two, the last row cut."""
    figure = pictures.mixing(series(1, 3, 5, 4), {"1": {"0": [1, 4]}}, (2, 2), (5, 4), "toy")
    (axis,) = figure.axes
    cover = axis.images[1]
    assert (np.asarray(cover.get_alpha()) > 0).tolist() == [[False, True], [False, False], [True, False]]
    assert cover.get_extent() == [-0.5, 3.5, 5.5, -0.5]
    assert (axis.get_xlim(), axis.get_ylim()) == ((-0.5, 3.5), (4.5, -0.5))


@pytest.mark.parametrize("size", [(5, 4), (32, 24)])
def test_mixing_follows_the_canvas_to_which_images_are_resized(size):
    """A canvas of 16 x 16 in patches of 4 x 4: its grid lies over the whole image, be that smaller or larger."""
    figure = pictures.mixing(series(1, 3, *size), {"1": {"0": [0, 15]}}, (4, 4), (16, 16), "toy")
    (axis,) = figure.axes
    cover = axis.images[1]
    assert np.flatnonzero(np.asarray(cover.get_alpha())).tolist() == [0, 15]
    assert cover.get_alpha().shape == (4, 4)
    assert cover.get_extent() == pytest.approx([-0.5, size[1] - 0.5, size[0] - 0.5, -0.5])


def test_gate_scores_are_drawn_by_epoch():
    """The mean over samples of each one's quantiles."""
    scores = {f"{epoch}/{row}": [[0.1, 0.2 + row / 10, 0.9], [0.3, 0.5, 0.7]] for epoch in (1, 2, 10) for row in (0, 2)}
    (axis,) = pictures.gate(scores, "toy").axes
    target, source = axis.lines
    assert target.get_xdata().tolist() == [1, 2, 10]
    assert target.get_ydata() == pytest.approx([0.3] * 3)
    assert source.get_ydata() == pytest.approx([0.5] * 3)
