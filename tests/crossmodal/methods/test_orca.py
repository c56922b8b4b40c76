from __future__ import annotations

import json

import pytest
import torch

from crossmodal import parsing, run
from crossmodal.alignment import DISTANCES, Labelled
from crossmodal.data.dataset import ArrayDataset
from crossmodal.methods import _alignment_pictures as pictures
from crossmodal.methods._alignment import Alignment
from crossmodal.methods.orca import Options
from crossmodal.models import encoders
from crossmodal.models.finetuned import FineTuned
from crossmodal.sources.base import Source
from crossmodal.training.folder import RunFolder
from crossmodal.training.objective import Position
from crossmodal.training.trainer import Trainer
from tests.crossmodal import runs


@pytest.mark.parametrize("alignment", DISTANCES)
def test_the_distance_falls_and_is_in_the_results(tmp_path, tiny_bert, capsys, alignment):
    options = {"alignment": alignment, "epochs": 15, "lr": 2e-2}
    values = runs.settings(tmp_path, tiny_bert, method="orca", epochs=1) | {"orca": options}
    results = run.train(parsing.from_dict(values))
    found = results["alignment"]
    assert found["distance"] == alignment
    assert found["after"] < 0.9 * found["before"]
    records = RunFolder(tmp_path / "run").read_metrics()
    aligned = [record for record in records if record["stage"] == "alignment"]
    assert len(aligned) == 15
    assert aligned[0]["loss"] == pytest.approx(found["before"], rel=1e-5)  # all samples are one batch
    assert aligned[-1]["loss"] < aligned[0]["loss"]
    assert not any("validation" in record for record in aligned)
    assert "validation" in records[-1]
    assert (
        f"{alignment}: {found['before']:.4g} before the alignment, {found['after']:.4g} after"
        in capsys.readouterr().out
    )
    assert results["source"]["samples"] == 12
    assert results["steps"] == 15 + 3


def test_the_embedder_alone_learns_in_the_first_stage_and_all_in_the_second(tmp_path, tiny_vit, monkeypatch):
    """Class tokens, layers and head wait; parts that are copied learn at the stage's rate."""
    seen = {}
    fit = Trainer.fit

    def spy(self):
        before = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        rates = {group["lr"] for group in self.optimizer.param_groups} | {
            group["initial_lr"] for group in self.optimizer.param_groups
        }
        fit(self)
        changed = {name for name, p in self.model.named_parameters() if not torch.equal(p, before[name])}
        seen[self.stage] = changed, rates, self.plan.batch_size, self.config.accumulate

    monkeypatch.setattr(Trainer, "fit", spy)
    from crossmodal import sources

    inputs = torch.randn(6, 3, 16, 16, generator=torch.manual_seed(0))
    images = Source("toy", "image", inputs, torch.arange(6) % 2, ("a", "b"), "hash", "")
    monkeypatch.setattr(sources, "load", lambda *args, **kwargs: images)
    values = runs.settings(
        tmp_path, tiny_vit, ndim=2, method="orca", epochs=1, optimizer__layer_decay=0.5, accumulate=2
    )
    values |= {"orca": {"epochs": 2, "lr": 0.02, "samples": 15}, "model": {"image_size": 16}}
    run.train(parsing.from_dict(values))
    changed, rates, batch_size, accumulate = seen["alignment"]
    assert changed == {
        f"encoder.embedder.{name}" for name in ("projection.weight", "projection.bias", "position_embeddings")
    }
    assert max(rates) == 0.02
    assert (batch_size, accumulate) == (11, 1)  # 21 samples in two batches
    changed, _, batch_size, accumulate = seen["train"]
    assert {"encoder.prefix", "head.linear.weight", "encoder.embedder.projection.weight"} < changed
    assert any(name.startswith("encoder.model.") for name in changed)
    assert (batch_size, accumulate) == (8, 2)


def model_and_alignment(tiny_bert, **options):
    encoder = encoders.load(tiny_bert, layers=1)
    encoder.attach((2, 16), 2)
    x = torch.randn(9, 2, 16, generator=torch.manual_seed(0))
    train = ArrayDataset(x, torch.arange(9) % 3)
    inputs, labels = torch.randint(5, 60, (8, 8), generator=torch.manual_seed(1)), torch.arange(8) % 4
    source = Source("toy", "text", inputs, labels, ("a", "b", "c", "d"), "hash", "")
    task = runs.toy_task(train=train)
    model = FineTuned(encoder, "classification", 3)
    return model, Alignment(task, source, Options(**options), seed=0), train.read(torch.arange(9)), source


@pytest.mark.parametrize("alignment", DISTANCES)
def test_the_loss_is_the_sum_over_classes_of_mean_tokens(tiny_bert, alignment):
    model, objective, batch, source = model_and_alignment(tiny_bert, alignment=alignment)
    found = objective.losses(model, batch, Position(0, 1))["loss"]
    assert found.shape == (9,)
    features = Labelled(model.embed_source(source.inputs).mean(1), source.labels)
    tokens = model.embed(batch.x).mean(1)
    target = Labelled(tokens, batch.y, apart=True)
    expected = DISTANCES[alignment](features, target).mean()  # classes of three each
    torch.testing.assert_close(found, expected.float().expand(9))
    found[0].backward()
    gradients = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert gradients
    assert all(name.startswith("encoder.embedder.") for name in gradients)


def test_measuring_takes_no_more_samples_than_are_set_and_always_the_same(tiny_bert):
    model, objective, _, _ = model_and_alignment(tiny_bert, samples=5)
    train = ArrayDataset(torch.randn(40, 2, 16), torch.arange(40) % 3)
    read = []
    plain = train.read
    train.read = lambda rows, seed=None: (read.append(rows), plain(rows, seed))[1]
    assert objective.measure(model, train) == objective.measure(model, train) > 0
    assert [len(rows) for rows in read] == [5, 5]
    assert torch.equal(*read)
    assert objective._source(model).points.shape == (5, 16)


def test_the_course_of_an_alignment_is_drawn_without_the_stage_after_it():
    history = [{"stage": "alignment", "epoch": n, "loss": 3.0 - n} for n in (1, 2)]
    (axis,) = pictures.course([*history, {"stage": "train", "epoch": 1, "loss": 9.0}], "otdd", "toy").axes
    assert axis.lines[0].get_xydata().tolist() == [[1, 2], [2, 1]]


def test_mixed_samples_go_from_source_to_target_as_k_falls(tmp_path, tiny_bert, monkeypatch):
    """With all patches replaced they are the source's samples, without any the target's: distance zero."""
    found = []
    plain = pictures.mixed_distances
    monkeypatch.setattr(pictures, "mixed_distances", lambda *args: found.append(plain(*args)) or found[0])
    values = runs.settings(tmp_path, tiny_bert, epochs=5, pare__end=0, pare__schedule="piecewise", pare__steps=3)
    values["pictures"] = "png"
    run.train(parsing.from_dict(values))
    levels, whole = found[0]
    assert [level["k"] for level in levels] == [8, 4, 0]
    assert levels[0]["source"] == pytest.approx(0, abs=1e-5)
    assert levels[-1]["target"] == pytest.approx(0, abs=1e-5)
    assert levels[0]["target"] == pytest.approx(whole, rel=1e-4)
    assert levels[-1]["source"] == pytest.approx(whole, rel=1e-4)
    assert 0 < levels[1]["source"] < whole
    assert 0 < levels[1]["target"] < whole
    (axis,) = pictures.between(levels, whole, "toy").axes
    assert axis.xaxis_inverted()
    assert "distances.png" in json.loads((tmp_path / "run" / "results.json").read_text())["pictures"]
