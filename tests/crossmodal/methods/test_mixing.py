"""What all methods that mix have in common, and Mixup and CutMix."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest
import torch

import crossmodal
from crossmodal import parsing, run
from crossmodal.data.dataset import ArrayDataset, Batch
from crossmodal.errors import Interrupted, UserError
from crossmodal.methods import mixup, pare, pare_released
from crossmodal.methods._mixing_objective import Mixing, draws
from crossmodal.methods._partners import NEIGHBOURS, ByClass, source_means
from crossmodal.methods._patch_replacement import PatchReplacement
from crossmodal.methods._released_replacement import ReleasedReplacement
from crossmodal.methods._token_mixing import TokenCutMix, TokenMixup
from crossmodal.methods.cutmix import Options
from crossmodal.models import encoders
from crossmodal.models.finetuned import FineTuned
from crossmodal.models.heads import UpsamplingHead
from crossmodal.sources.base import Source
from crossmodal.training.folder import RunFolder
from crossmodal.training.objective import Position
from tests.crossmodal import runs
from tests.crossmodal.runs import toy_task, write_voc

B, TOKENS = 5, 8
NOISY, LATE = Position(0, 10, seed=11), Position(7, 10, seed=11)
ce = torch.nn.functional.cross_entropy


@pytest.mark.parametrize("k", [0, 3, TOKENS])
@pytest.mark.parametrize("method", ["mixup", "cutmix"])
def test_a_step_by_hand(model, batch, mixing, method, k):
    objective = mixing(method, mix_weight=0.3, schedule="constant", start=k)
    found = objective.losses(model, batch, NOISY)
    source, lam = batch.extras["source"], k / TOKENS
    z, z_s = model.embed(batch.x), model.embed_source(source.x)
    if method == "mixup":
        mixed = (1 - lam) * z + lam * z_s
    else:
        first = [int(u * (TOKENS - k + 1)) for u in draws(NOISY, "cut 0", (B,))]
        mixed = z.clone()
        for row, start in enumerate(first):
            mixed[row, start : start + k] = z_s[row, start : start + k]
    clean, blend = model.body(z), model.body(mixed)
    expected = ce(model.head(clean), batch.y, reduction="none") + 0.3 * (
        (1 - lam) * ce(model.head(blend), batch.y, reduction="none")
        + lam * ce(objective.source_head(blend), source.y, reduction="none")
    )
    torch.testing.assert_close(found["loss"], expected)
    found["loss"].sum().backward()
    assert all(p.grad is not None for p in objective.parameters())
    assert objective.record(NOISY) == {"k": k, "lam": lam}


def test_the_rectangle_of_a_grid(tiny_vit):
    """4 x 4 patches: sides as whole numbers allow, lam as they cover, every place met, source tokens of the same places."""
    encoder = encoders.load(tiny_vit, layers=1)
    encoder.attach((1, 16, 16))
    model = FineTuned(encoder, "classification", 3)
    images = torch.randn(4, 3, 16, 16)
    source = Source("toy", "image", images, torch.arange(4), tuple("abcd"), "hash", "")
    blocks = []
    for k in (0, 1, 4, 7, 11, 16):
        objective = TokenCutMix(toy_task(), model, source, Options(schedule="constant", start=k))
        blocks.append(objective.block(NOISY))
        area = blocks[-1][0] * blocks[-1][1]
        assert objective.record(NOISY) == {"k": area, "lam": area / 16}
        rows = torch.arange(200) % 4
        z, z_s = torch.zeros(200, 16, 16), torch.ones(200, 16, 16)
        mixed = objective.mix(model, Batch(rows, rows, rows, rows), z, z_s, NOISY)
        inside = mixed.tokens[:, :, 0].bool().view(200, 4, 4)
        assert (inside.sum((1, 2)) == area).all()
        assert torch.equal(inside.flatten(1).nonzero()[:, 1].view(200, area), mixed.slots)
        height, width = blocks[-1]
        if area:
            assert set(inside.any(2).sum(1).tolist()) == {height}
            assert set(inside.any(1).sum(1).tolist()) == {width}
            assert len(inside.unique(dim=0)) == (5 - height) * (5 - width)
    assert blocks == [(0, 4), (1, 1), (2, 2), (3, 2), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("method", "options", "position"),
    [
        ("pare", {}, NOISY),
        ("pare", {}, LATE),
        ("pare", {"selection": "random"}, NOISY),
        ("pare", {"noise_on": "logits", "partners": "nearest"}, NOISY),
        ("pare", {"saliency": "gradient", "partners": "class", "labels": "joint"}, LATE),
        ("mixup", {}, NOISY),
        ("cutmix", {}, NOISY),
    ],
)
def test_rows_are_mixed_the_same_however_the_batch_is_divided(model, batch, mixing, rows_of, method, options, position):
    objective = mixing(method, schedule="constant", start=4, **options)
    whole = objective.losses(model, batch, position)["loss"]
    for cut in (0, 2, 4):
        for first, last in ((0, cut), (cut, B)):
            if first < last:
                part = rows_of(batch, first, last)
                found = objective.losses(model, part, replace(position, first=first))["loss"]
                torch.testing.assert_close(found, whole[first:last])


@pytest.mark.parametrize("method", ["mixup", "cutmix"])
def test_series_as_images_are_mixed_image_by_image(tiny_vit, method):
    """Two channels are two images of 4 x 4 patches; the source's one stands for either."""
    encoder = encoders.load(tiny_vit, layers=1)
    encoder.attach((2, 40))
    model = FineTuned(encoder, "classification", 3)
    source = Source("toy", "image", torch.randn(4, 3, 16, 16), torch.arange(4), tuple("abcd"), "hash", "")
    objective, of = {"mixup": (TokenMixup, mixup.Options), "cutmix": (TokenCutMix, Options)}[method]
    objective = objective(toy_task(), model, source, of(schedule="constant", start=0.25))
    assert objective.record(NOISY) == {"k": 8, "lam": 0.25}
    index = torch.arange(4)
    batch = Batch(torch.randn(4, 2, 40), index % 3, index, torch.ones(4), {"source": source.read(index)})
    z, z_s = model.embed(batch.x), model.embed_source(source.inputs)
    mixed = objective.mix(model, batch, z, z_s, NOISY)
    share = ((mixed.tokens - z) / (z_s - z)).mean(2).unflatten(1, (2, 4, 4))
    torch.testing.assert_close(share[:, 0], share[:, 1])
    torch.testing.assert_close(share.mean((1, 2, 3)), torch.full((4,), 0.25))
    objective.losses(model, batch, NOISY)["loss"].sum().backward()


def test_joint_labels_are_one_softmax(model, batch, mixing):
    """Of one head with a row for each class of the target, then each of the source."""
    objective = mixing("mixup", labels="joint", mix_weight=0.5, schedule="constant", start=2)
    head = torch.nn.Linear(16, 7)
    with torch.no_grad():
        head.weight.copy_(torch.cat([model.head.linear.weight, objective.source_head.linear.weight]))
        head.bias.copy_(torch.cat([model.head.linear.bias, objective.source_head.linear.bias]))
    z, z_s = model.embed(batch.x), model.embed_source(batch.extras["source"].x)
    clean, blend = (head(model.body(tokens).mean(1)) for tokens in (z, 0.75 * z + 0.25 * z_s))
    one_hot = torch.nn.functional.one_hot
    soft = 0.75 * one_hot(batch.y, 7) + 0.25 * one_hot(3 + batch.extras["source"].y, 7)
    expected = ce(clean, batch.y, reduction="none") + 0.5 * ce(blend, soft, reduction="none")
    torch.testing.assert_close(objective.losses(model, batch, NOISY)["loss"], expected)


def test_shuffled_labels_are_those_of_other_samples(model, source, mixing):
    objective = mixing("mixup", control="shuffled_labels")
    shuffled = objective.companions["source"]
    assert torch.equal(shuffled.inputs, source.inputs)
    assert not torch.equal(shuffled.labels, source.labels)
    assert torch.equal(shuffled.labels.sort().values, source.labels.sort().values)
    assert "shuffled labels" in objective.description


@pytest.mark.parametrize("method", ["pare", "mixup"])
def test_gaussian_tokens_say_nothing_of_the_source(model, source, batch, mixing, rows_of, method):
    """They have the mean and deviation of real tokens by dimension, and a row's are its own, in whichever process it is."""
    objective = mixing(method, control="gaussian_tokens", schedule="constant", start=3)
    seen = []
    mix = objective.mix
    objective.mix = lambda model, batch, tokens, source, position: (
        seen.append(source.detach()) or mix(model, batch, tokens, source, position)
    )
    whole = objective.losses(model, batch, NOISY)["loss"]
    part = objective.losses(model, rows_of(batch, 2, B), replace(NOISY, first=2))["loss"]
    torch.testing.assert_close(part, whole[2:])
    torch.testing.assert_close(seen[1], seen[0][2:])
    other = replace(source, inputs=source.inputs.flip(1), labels=source.labels)
    batch.extras["source"] = other.read(torch.arange(B))
    torch.testing.assert_close(objective.losses(model, batch, NOISY)["loss"], whole)
    real = model.embed_source(source.inputs).detach().flatten(0, 1)
    drawn = torch.cat(
        [objective.losses(model, batch, replace(NOISY, batch=i)) and seen[-1] for i in range(200)]
    ).flatten(0, 1)
    error = real.std(0) / len(drawn) ** 0.5
    assert ((drawn.mean(0) - real.mean(0)).abs() < 5 * error).all()
    torch.testing.assert_close(drawn.std(0), real.std(0), rtol=0.05, atol=0)


def test_nearest_partners_are_drawn_among_the_nearest(model, source, mixing):
    """A target that is a source sample's own tokens is nearest to it."""
    inputs = torch.randint(5, 60, (40, TOKENS))
    objective = mixing(partners="nearest")
    objective.partners.means = means = source_means(model, replace(source, inputs=inputs))
    tokens = model.embed_source(inputs[:20])
    first = objective.partners.choose(tokens, None, torch.zeros(20))
    assert first.tolist() == list(range(20))
    drawn = torch.stack(
        [objective.partners.choose(tokens, None, torch.full((20,), u)) for u in torch.linspace(0, 1, 40)]
    )
    distance = (tokens.mean(1)[:, None] - means).norm(dim=2)
    for row in range(20):
        assert set(drawn[:, row].tolist()) == set(distance[row].topk(NEIGHBOURS, largest=False).indices.tolist())
    assert objective.companions == {}


def test_partners_by_class_come_from_the_class_that_stands_in(model):
    """Target samples are source samples in other clothes: their classes find one another. Five classes share three."""
    kinds = [torch.tensor([8, 8, 8]), torch.tensor([20, 20, 20]), torch.tensor([55, 55, 55])]
    inputs = torch.stack([kinds[row % 3].repeat(3)[:TOKENS] for row in range(12)])
    source = Source("toy", "text", inputs, torch.arange(12) % 3, ("a", "b", "c"), "hash", "")
    y = torch.arange(10) % 5
    stand_in = torch.tensor([2, 0, 1, 0, 2])
    task = toy_task(classes=5, train=ArrayDataset(stand_in[y], y), class_names=tuple("vwxyz"), output_shape=(5,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "embed", lambda x: model.embed_source(inputs[x]))
        partners = ByClass(task, model, source)
    assert partners.facts() == {"source_classes": dict(zip("vwxyz", "cabac", strict=True))}
    labels = [source.labels[partners.choose(None, Batch(y, y, y, y), torch.full((10,), u))] for u in (0.0, 0.6, 1.0)]
    assert all(torch.equal(found, stand_in[y]) for found in labels)


def told(objective, values: list[float], losses: list[float] | None = None) -> list[int]:
    """k of each epoch, told the validation metric of the epoch after it."""
    found = []
    for epoch, value in enumerate(values):
        found.append(objective.k(epoch, len(values)))
        objective.observe({"epoch": epoch + 1, "validation": value, "validation_loss": (losses or [1.0] * 99)[epoch]})
    return found


def test_k_ends_when_validation_says_so(mixing):
    values = [0.5, 0.6, 0.6, 0.5, 0.9, 0.9, 0.9, 0.9]
    falling = [8, 7, 6, 5, 4, 3, 2, 1]
    assert told(mixing("mixup"), values) == falling
    assert told(mixing("mixup", end_patience=2), values) == falling
    stopped = mixing("mixup", end_patience=1, end=1)
    assert told(stopped, values) == [8, 7, 6, 5, 1, 1, 1, 1]
    assert stopped.facts()["k_ended_after_epoch"] == 4
    resumed = mixing("mixup", end_patience=1, end=1)
    resumed.notes = stopped.notes
    assert resumed.k(3, 8) == 5
    assert resumed.k(4, 8) == 1
    assert told(mixing("mixup", end_patience=2), [0.5] * 4, [1.0, 2.0, 3.0, 0.5]) == [8, 6, 4, 0]  # by loss in a tie


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"end_patience": 0}, "pare.end_patience: expected int > 0 or null, got 0"),
        ({"end_patience": 2, "schedule": "constant"}, "pare.end_patience: a constant k has no end"),
        ({"mix_weight": -1.0}, "pare.mix_weight: expected float >= 0"),
        ({"noise_end": -1.0}, "pare.noise_end: expected float >= 0 or null"),
        ({"noise_end": 0.0, "selection": "topk"}, "pare.noise_end: there is noise on scores with .* not with topk"),
        (
            {"noise_on": "logits", "selection": "random"},
            "pare.noise_on: there is noise on scores with .* not with random",
        ),
        ({"start": 1.5}, "pare.start as a float is a share"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(UserError, match=f"^{message}"):
        parsing.from_dict({"pare": options})


def test_options_that_do_not_fit_the_task_are_refused(tmp_path, tiny_bert):
    for options, message in (
        ({"labels": "joint"}, r"mixup\.labels: joint is one softmax .* loss of regression1\.npz is mse; take separate"),
        (
            {"partners": "class"},
            r"mixup\.partners: class needs one class per sample, but regression1\.npz is regression",
        ),
        ({"start": 9}, r"mixup\.start: 9 patches are more than the 8 there are; a float is a fraction"),
    ):
        values = runs.settings(tmp_path, tiny_bert, "regression", method="mixup", mixup=options)
        with pytest.raises(UserError, match=message):
            run.train(parsing.from_dict(values))
    values = runs.settings(tmp_path, tiny_bert, pare__saliency="gradient", shard=True)
    with pytest.raises(UserError, match=r"pare\.saliency: gradient is not for a model in shards"):
        run.build(parsing.from_dict(values))


@pytest.mark.parametrize("word", ["pare.weight", "mixing.weight"])
def test_a_former_name_is_answered_with_the_new_one(word):
    with pytest.raises(UserError, match=rf"^{word}: this setting is now called pare\.mix_weight$"):
        parsing.from_dict({word: 0.5})


VARIANT = {
    "noise_on": "logits",
    "noise_end": 0.5,
    "straight_through": True,
    "saliency": "gradient",
    "partners": "nearest",
    "labels": "joint",
    "end_patience": 1,
}


def test_every_variant_at_once_resumes_to_the_same_bits(tmp_path, tiny_bert, monkeypatch):
    """Interrupted in the epoch after k has ended early: what validation said is in the checkpoint."""
    told = Mixing.observe
    monkeypatch.setattr(Mixing, "observe", lambda self, record: told(self, record | {"validation": -record["epoch"]}))
    values = runs.settings(tmp_path, tiny_bert, epochs=5, pare=VARIANT | {"gumbel_epochs": 3}, batch_size=16)
    values["pictures"] = "png"
    straight = run.train(parsing.from_dict(values | {"output_dir": str(tmp_path / "straight")}))
    ended = straight["k_ended_after_epoch"]
    assert ended == 2
    with monkeypatch.context() as patch:
        runs.stop_at(patch, 2 * ended, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            run.train(parsing.from_dict(values))
    resumed = run.train(parsing.from_dict(values | {"resume": True}))
    one, other = (RunFolder(tmp_path / name) for name in ("run", "straight"))
    assert (one.model / "model.safetensors").read_bytes() == (other.model / "model.safetensors").read_bytes()
    assert resumed["replaced"] == straight["replaced"]
    ks = [[record["k"] for record in folder.read_metrics()] for folder in (one, other)]
    assert ks[0] == ks[1] == [8, 6, 0, 0, 0]
    assert (one.path / "gate.png").read_bytes() == (other.path / "gate.png").read_bytes()


class TestReleased:
    """The public code's two phases."""

    @pytest.fixture
    def released(self, model, source):
        def make(whole: int = 1, kind: str = "1d", **options) -> ReleasedReplacement:
            filled = pare_released.Options(**options).filled(kind)
            return ReleasedReplacement(toy_task(), model, source, filled, whole)

        return make

    def test_its_meaning_flips_after_the_gumbel_epochs(self, model, batch, released):
        objective = released()
        assert [objective.k(epoch, 8) for epoch in range(8)] == [8, 7, 6, 5, 4, 3, 2, 1]
        tokens = model.embed(batch.x), model.embed_source(batch.extras["source"].x)
        scores, source_scores = objective.gate(tokens[0]), objective.gate(tokens[1])
        early, late = objective.choice(Position(4, 8)), objective.choice(Position(5, 8))
        assert [early[key] for key in ("selection", "replace", "pairing", "noise_scale", "tau", "exact_steps")] == [
            *("gumbel", "lowest", "position", 1.0, 0.9, None)
        ]
        assert [late[key] for key in ("selection", "replace", "pairing")] == ["topk", "highest", "score"]
        found = objective.replace(*tokens, Position(5, 8))
        best_first = source_scores.topk(3).indices
        slots = scores.topk(3).indices.flip(1)  # of the three highest, from the lowest
        expected = tokens[0].clone()
        for row in range(B):
            expected[row, slots[row]] = tokens[1][row, best_first[row]]
        assert torch.equal(found.mixed, expected)
        for epoch, learns in ((4, True), (5, False)):
            objective.zero_grad()
            objective.losses(model, batch, Position(epoch, 8))["loss"].sum().backward()
            assert bool(objective.gate.weight.grad.abs().sum() > 0) == learns

    def test_what_was_published_stands_where_nothing_is_set(self, released):
        for kind, weight, ks in (("1d", 0.1, [8, 4]), ("2d", 1.0, [5, 3]), ("dense", 0.3, [1, 0])):
            objective = released(kind=kind)
            assert objective.options.mix_weight == weight
            assert [objective.k(epoch, 2) for epoch in range(2)] == ks
        assert released(mix_weight=0.7, start=4, end=2, gumbel_epochs=3).k(5, 10) == 3
        with pytest.raises(UserError, match=r"^pare_released\.start as a float is a share"):
            pare_released.Options(start=1.5)

    def test_the_smaller_batch_at_the_end_of_an_epoch_is_not_mixed(self, model, batch, released):
        objective = released(whole=2)
        mixed, alone = (objective.losses(model, batch, Position(0, 8, number)) for number in (1, 2))
        plain = ce(model(batch.x), batch.y, reduction="none")
        torch.testing.assert_close(alone["loss"], plain)
        assert alone["mixed_source"].eq(0).all()
        assert (mixed["loss"] > plain).all()
        alone["loss"].sum().backward()
        assert all(p.grad is not None for p in objective.parameters())


# ----- sources of other forms -----------------------------------------------------------------------------------------------


@pytest.fixture
def masks(tiny_swin):
    """A model of masks 1 x 8 x 8, with images that have masks as its source, and a batch."""
    encoder = encoders.load(tiny_swin)
    encoder.attach((1, 8, 8))
    model = FineTuned(encoder, "dense", 1, (1, 8, 8))
    marks = torch.tensor([0, 1, 255], dtype=torch.uint8)[torch.randint(3, (4, 1, 16, 16))]
    source = Source("toy", "image", torch.randn(4, 3, 16, 16), marks, ("background", "foreground"), "hash", "")
    index = torch.arange(4)
    extras = {"source": source.read(index)}
    batch = Batch(torch.randn(4, 1, 8, 8), torch.rand(4, 1, 8, 8).round(), index, torch.ones(4), extras)
    return (
        toy_task("dense", 1, loss="bce_with_logits", input_shape=(1, 8, 8), output_shape=(1, 8, 8)),
        model,
        source,
        batch,
    )


def bce(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Pixel by pixel, of those that count."""
    rows = []
    for row, marks in zip(logits, target, strict=True):
        p = row.sigmoid()[marks != 255]
        t = marks[marks != 255].float()
        rows.append(-(t * p.log() + (1 - t) * (1 - p).log()).mean())
    return torch.stack(rows)


def test_masks_of_the_source_are_learned_by_a_map_of_their_own(masks):
    task, model, source, batch = masks
    objective = TokenMixup(task, model, source, mixup.Options(schedule="constant", start=0.25, mix_weight=0.3))
    found = objective.losses(model, batch, NOISY)
    z, z_s = model.embed(batch.x), model.embed_source(source.inputs)
    clean, blend = model.body(z), model.body(0.75 * z + 0.25 * z_s)
    mixed = 0.75 * bce(model.head(blend), batch.y) + 0.25 * bce(objective.source_head(blend), source.labels)
    torch.testing.assert_close(found["loss"], bce(model.head(clean), batch.y) + 0.3 * mixed)
    found["loss"].sum().backward()
    assert all(p.grad is not None for p in objective.parameters())
    nothing = torch.full_like(source.labels, 255)
    assert torch.equal(objective.source_loss(blend, blend, nothing), torch.zeros(4))


def test_the_public_code_compares_masks_with_the_target_s_own_map(masks):
    task, model, source, batch = masks
    options = pare_released.Options(start=16, end=16).filled("dense")
    objective = ReleasedReplacement(task, model, source, options, whole=2)
    assert not any(name.startswith("source_head") for name, _ in objective.named_parameters())
    found = objective.losses(model, batch, NOISY)
    mixed = objective.replace(model.embed(batch.x), model.embed_source(source.inputs), NOISY)
    out = model.head(model.body(mixed.mixed))
    near = source.labels[:, :, 1::2, 1::2]  # 16 x 16 to 8 x 8
    torch.testing.assert_close(found["mixed_source"], bce(out, near))
    other = ReleasedReplacement(replace(task, loss="mse"), model, source, options, whole=2)
    assert other.source_head is not None  # fields in units of their own


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"labels": "joint"}, r"^mixup\.labels: joint needs one class per source sample, but those of toy have masks"),
        ({"partners": "class"}, r"^mixup\.partners: class needs one class per source sample"),
    ],
)
def test_what_needs_classes_takes_no_masks(masks, options, match):
    task, model, source, _ = masks
    with pytest.raises(UserError, match=match):
        TokenMixup(task, model, source, mixup.Options(**options))


def test_features_of_fewer_tokens_than_the_target_s(model, batch, source, mixing):
    """Five of eight places at most; what mixes place by place says that it cannot."""
    features = replace(source, inputs=torch.randn(B, 5, 16))
    batch = replace(batch, extras={"source": features.read(torch.arange(B))})
    objective = PatchReplacement(toy_task(), model, features, pare.Options(start=5, end=0))
    assert [objective.k(epoch, 5) for epoch in range(5)] == [5, 4, 3, 2, 1]
    found = objective.losses(model, batch, Position(0, 5, seed=1))
    assert objective.record(Position(0, 5))["lam"] == 5 / TOKENS
    found["loss"].sum().backward()
    mixed = objective.mix(model, batch, model.embed(batch.x), features.inputs, Position(0, 5, seed=1))
    for row in range(B):
        assert torch.equal(mixed.tokens[row, mixed.slots[row]], features.inputs[row])
    with pytest.raises(UserError, match=r"^pare\.start: 6 patches are more than the 5 there are"):
        PatchReplacement(toy_task(), model, features, pare.Options(start=6, end=0))
    with pytest.raises(UserError, match=r"^source\.name: samples of toy have 5 tokens, but mixup .* target's, 8"):
        TokenMixup(toy_task(), model, features, mixup.Options())


@pytest.mark.parametrize("method", ["pare", "orca"])
def test_a_run_with_masks_and_a_learned_dense_head(tmp_path, tiny_swin, method):
    """Its pictures too; ORCA, which aligns classes, refuses them."""
    folder = write_voc(tmp_path / "VOC2012")
    changes = {"method": method, "source": {"name": str(folder)}, "epochs": 2, "model": {"dense_head": "upsampling"}}
    changes["pictures"] = "png"
    config = parsing.from_dict(runs.settings(tmp_path, tiny_swin, "dense", 2, **changes))
    if method == "orca":
        with pytest.raises(UserError, match=r"^source\.name: orca aligns classes, and samples of .* have masks"):
            run.train(config)
        return
    found = run.train(config)
    assert found["source"] == {"name": str(folder), "samples": 4, "classes": 2, "sha256": found["source"]["sha256"]}
    assert (tmp_path / "run/distances.png").exists()
    model = crossmodal.load(tmp_path / "run").model
    assert isinstance(model.head, UpsamplingHead)


def test_a_dense_head_is_for_dense_targets(tmp_path, tiny_bert):
    values = runs.settings(tmp_path, tiny_bert, model__dense_head="upsampling")
    with pytest.raises(
        UserError, match=r"^model\.dense_head: for dense targets; classification1\.npz is classification"
    ):
        run.build(parsing.from_dict(values))
