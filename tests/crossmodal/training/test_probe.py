from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from crossmodal import parsing, run
from crossmodal.errors import UserError
from crossmodal.models import base
from tests.crossmodal import runs


@pytest.mark.parametrize(
    ("kind", "method", "encoder"),
    [
        ("classification", "nft", "tiny_bert"),
        ("multilabel", "pare", "tiny_bert"),
        ("regression", "scratch", "tiny_bert"),
        ("classification", "nft", "tiny_vit"),
    ],
)
def test_training_starts_from_the_linear_model_of_the_features(tmp_path, request, kind, method, encoder):
    """Nothing is learned after it here, so that it is what predicts."""
    image = encoder == "tiny_vit"
    settings = runs.settings(tmp_path, request.getfixturevalue(encoder), kind, 2 if image else 1, method=method)
    # Nothing of an image encoder is new: its embedder is copied, its head fitted.
    settings["optimizer"], settings["model"]["probe"] = {"lr": 0.0, "new_lr": 1.0 if image else 0.0}, True
    if image:
        settings["model"] |= {"class_token": True, "patch_size": None}
    config = parsing.from_dict(settings | {"epochs": 1})
    task, model, _ = run.build(config)
    with torch.no_grad():
        x, test = (model.eval().body(model.embed(part.x)).mean(1).double() for part in (task.train, task.test))
    fitted = {
        "classification": LogisticRegression(C=0.1, max_iter=5000),
        "multilabel": OneVsRestClassifier(LogisticRegression(C=0.1, max_iter=5000)),
        "regression": RidgeCV(alphas=np.logspace(-3, 3, 13)),
    }[kind]
    linear = make_pipeline(StandardScaler(), fitted).fit(x, task.train.y)
    run.train(config)
    with torch.no_grad():
        outputs = base.load(tmp_path / "run" / "model")(task.test.x).double()
    if kind == "regression":
        expected = linear.predict(test)
    else:
        expected = linear.predict_proba(test)
        outputs = outputs.sigmoid() if kind == "multilabel" else outputs.softmax(1)
    torch.testing.assert_close(outputs, torch.from_numpy(expected), atol=1e-3, rtol=1e-3)


def test_so_many_layers_are_kept_as_have_the_best_probe(tmp_path, tiny_bert):
    """Of three; and the run is that of a run told this number."""
    settings = runs.settings(tmp_path, tiny_bert, method="nft", epochs=1)
    found = {}
    for depth in (1, 2, 3):
        settings["model"] = {"patch_size": 2, "layers": depth, "probe": True}
        still = settings | {"optimizer": {"lr": 0.0, "new_lr": 0.0}, "output_dir": str(tmp_path / f"{depth}")}
        found[depth] = run.train(parsing.from_dict(still))["validation_loss"]
    best = min(found, key=found.get)
    run.train(parsing.from_dict(settings | {"model": settings["model"] | {"layers": best}}))
    auto = settings | {"model": settings["model"] | {"layers": "auto"}, "output_dir": str(tmp_path / "auto")}
    results = run.train(parsing.from_dict(auto))
    assert results["layers"] == best
    files = [tmp_path / name / "model" / "model.safetensors" for name in ("run", "auto")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("encoder", "method", "probe", "starts"),
    [
        ("tiny_vit", "pare", None, True),
        ("tiny_vit", "nft", False, False),
        ("tiny_vit", "lp_ft", None, False),  # it has one of its own
        ("tiny_vit", "scratch", None, False),
        ("tiny_bert", "nft", None, False),
    ],
)
def test_heads_of_pretrained_image_encoders_start_so_where_nothing_is_said(
    tmp_path, request, capsys, encoder, method, probe, starts
):
    settings = runs.settings(tmp_path, request.getfixturevalue(encoder), ndim=2, method=method, epochs=1)
    settings["model"] = {"probe": probe, "layers": 1}
    settings["source"] = {"name": None, "limit": 2}
    run.train(parsing.from_dict(settings))
    assert ("head: starts as a linear model" in capsys.readouterr().out) == starts


def test_stages_that_differ_in_width_cannot_be_cut(tmp_path, tiny_swin):
    settings = runs.settings(tmp_path, tiny_swin, ndim=2, method="nft", model={"layers": "auto"})
    with pytest.raises(UserError, match=r"model.layers: not an option of swin, its stages differ in width"):
        run.build(parsing.from_dict(settings))
