"""Methods that leave something of the encoder as it is, or start it differently."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import crossmodal
from crossmodal import methods, parsing, run
from crossmodal.errors import UserError
from crossmodal.methods.fpt import freeze_all_but_norms
from crossmodal.methods.linear_probe import STRENGTHS
from crossmodal.models.linear import solve
from crossmodal.training.folder import RunFolder
from crossmodal.training.probe import features
from tests.crossmodal import runs


def built(folder, encoder: str, method: str, ndim: int = 1, **changes):
    """(task, model) of a run before training."""
    if ndim == 2:
        changes["model"] = {}
    config = parsing.from_dict(runs.settings(folder, encoder, ndim=ndim, method=method, **changes))
    task, model, _ = run.build(config)
    return task, model


@pytest.mark.parametrize(
    ("encoder", "norms"),
    # Layers have two each; ViT has one at its end, Swin too, and one where its grid is halved.
    [("tiny_bert", 6), ("tiny_vit", 7), ("tiny_swin", 2 * 4 + 2)],
)
def test_fpt_trains_norms_by_their_type_and_what_is_around_the_encoder(tmp_path, request, encoder, norms, capsys):
    path = request.getfixturevalue(encoder)
    _, model = built(
        tmp_path, path, "fpt", 1 if "bert" in encoder else 2, **({"model__layers": 3} if "bert" in encoder else {})
    )
    inside = {name for name, p in model.encoder.model.named_parameters() if p.requires_grad}
    of_norms = {
        f"{name}.{part}"
        for name, module in model.encoder.model.named_modules()
        if isinstance(module, nn.LayerNorm)
        for part in ("weight", "bias")
    }
    assert inside == of_norms
    assert len(of_norms) == 2 * norms
    outside = [
        (n, p) for n, p in model.named_parameters() if not n.startswith(("encoder.model.", "encoder.source_embedder."))
    ]
    assert {"head.linear.weight", "encoder.embedder.projection.weight"} <= {name for name, _ in outside}
    assert all(p.requires_grad for _, p in outside)


@pytest.mark.parametrize("encoder", ["tiny_bert", "tiny_vit", "tiny_swin"])
@pytest.mark.parametrize("method", ["nft", "lp_ft"])
def test_queries_and_keys_can_stay_as_they_are(tmp_path, request, encoder, method):
    """Also where a method freezes more for a while: two projections of each attention are as before, all else has learned."""
    ndim = 1 if encoder == "tiny_bert" else 2
    values = runs.settings(tmp_path, request.getfixturevalue(encoder), ndim=ndim, method=method, epochs=1)
    values["model"] = {"freeze": "queries_keys", "layers": 1} if ndim == 1 else {"freeze": "queries_keys"}
    values |= {"lp_ft": {"probe_epochs": 1}} if method == "lp_ft" else {}
    config = parsing.from_dict(values)
    before = {name: p.clone() for name, p in run.build(config)[1].encoder.model.named_parameters()}
    run.train(config)
    after = dict(crossmodal.load(tmp_path / "run").model.encoder.model.named_parameters())
    kept = {name for name in before if torch.equal(before[name], after[name])}
    assert kept == {
        name for name in before if any(part in name for part in (".query.", ".key.", ".q_proj.", ".k_proj."))
    }
    attentions = {"tiny_bert": 1, "tiny_vit": 3, "tiny_swin": 4}[encoder]
    assert len(kept) == 2 * 2 * attentions


def test_fpt_says_how_many_norms_it_trains_and_moves_nothing_else(tmp_path, tiny_bert, capsys):
    before = built(tmp_path, tiny_bert, "fpt")[1].state_dict()
    run.train(parsing.from_dict(runs.settings(tmp_path, tiny_bert, method="fpt")))
    assert "fpt: 2 LayerNorms are trained, 64 of the encoder's " in capsys.readouterr().out
    after = crossmodal.load(tmp_path / "run").model.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert all("LayerNorm" in name or "embedder" in name or "head" in name for name in moved)
    assert any("output.LayerNorm" in name for name in moved)


@pytest.mark.parametrize(
    ("network", "said"), [(nn.Linear(2, 2), "no LayerNorm: nothing"), (nn.LayerNorm(2), "LayerNorms alone: nothing")]
)
def test_fpt_that_freezes_or_trains_nothing_is_an_error(network, said):
    with pytest.raises(UserError, match=f"^method: fpt trains the LayerNorms .* but toy .*{said}"):
        freeze_all_but_norms(network, "toy")


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_a_probe_is_fitted_by_scikit_learn_to_standardised_features(tmp_path, tiny_bert, kind, capsys):
    values = runs.settings(tmp_path, tiny_bert, kind, method="linear_probe")
    before = built(tmp_path, tiny_bert, "linear_probe")[1].encoder.state_dict()
    results = run.train(parsing.from_dict(values))
    assert (results["best_epoch"], results["epochs"], results["steps"]) == (None, 0, 0)
    assert results["trainable_parameters"] == 2 * 17
    model = crossmodal.load(tmp_path / "run").model
    assert all(torch.equal(value, before[name]) for name, value in model.encoder.state_dict().items())
    if kind != "classification":
        return
    task = run.load_task(parsing.from_dict(values))
    (x, y), (held, held_y), (test, _) = (
        features(model, split, 7) for split in (task.train, task.validation, task.test)
    )
    mean, std = x.mean(0), x.std(0)
    fitted = {C: LogisticRegression(C=C, max_iter=5000).fit((x - mean) / std, y) for C in STRENGTHS}
    loss = {
        C: -one.predict_log_proba((held - mean) / std)[range(len(held)), held_y].mean() for C, one in fitted.items()
    }
    best = fitted[min(loss, key=loss.get)]
    assert results["validation_loss"] == pytest.approx(min(loss.values()), rel=1e-4)
    with torch.no_grad():
        outputs = model(task.test.x).softmax(1)
    assert np.allclose(outputs, best.predict_proba((test - mean) / std), atol=1e-4)


def test_a_probe_of_any_layer_and_of_what_no_sample_is(tmp_path, tiny_bert):
    _, model = built(tmp_path, tiny_bert, "linear_probe", model__layers=1, linear_probe={"layer": 2})
    assert len(model.encoder.layers()) == 2
    for layer, said in (
        (0, r"^linear_probe\.layer: expected int > 0 or null"),
        (9, r"layers: expected 1 to 3, got 9"),
    ):
        with pytest.raises(UserError, match=said):
            built(tmp_path, tiny_bert, "linear_probe", linear_probe={"layer": layer})
    x = np.random.default_rng(0).normal(size=(12, 3))
    weight, bias = solve("classification", x, np.arange(12) % 2 * 2, 4)  # classes 0 and 2 of four
    assert set((x @ weight.T + bias).argmax(1)) <= {0, 2}


def test_a_dense_probe_trains_the_head_alone(tmp_path, tiny_bert):
    values = runs.settings(tmp_path, tiny_bert, "dense", method="linear_probe")
    results = run.train(parsing.from_dict(values))
    records = RunFolder(tmp_path / "run").read_metrics()
    assert records[-1]["loss"] < records[0]["loss"]
    assert results["trainable_parameters"] == 17 * 2  # two values per patch


@pytest.mark.parametrize("encoder", ["tiny_bert", "tiny_swin"])
def test_what_fine_tuning_starts_from(tmp_path, request, encoder):
    """The same copy under both names; drawn anew, all but the positions, on demand."""
    path, ndim = request.getfixturevalue(encoder), 1 if "bert" in encoder else 2
    models = {
        name: built(
            tmp_path, path, name.partition(" ")[0], ndim, **({"nft": {"embedder": "random"}} if " " in name else {})
        )[1]
        for name in ("nft", "nft_srcinit", "nft random")
    }
    copied, named, drawn = (model.encoder.embedder for model in models.values())
    assert all(torch.equal(value, named.state_dict()[name]) for name, value in copied.state_dict().items())
    source = models["nft"].encoder.source_embedder
    norm = source.LayerNorm if ndim == 1 else source.norm
    assert torch.equal(named.norm.weight, norm.weight)
    assert drawn.norm.weight.eq(1).all()
    assert drawn.norm.bias.eq(0).all()
    assert not torch.equal(drawn.projection.weight, copied.projection.weight)
    if ndim == 1:
        assert torch.equal(drawn.position_embeddings, copied.position_embeddings)
    else:
        assert torch.equal(copied.projection.weight[:, 0], source.patch_embeddings.projection.weight[:, 0])
        assert drawn.projection.weight in set(models["nft random"].parameter_groups().new)
        assert copied.projection.weight in set(models["nft"].parameter_groups().encoder[0])
    assert methods.get("nft_srcinit").Options().__dict__ == {}
