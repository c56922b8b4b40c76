"""Whole runs: each kind of target, both dimensions, every method; what they leave, repeat and predict."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import DistributedType
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import crossmodal
from crossmodal import compare, evaluate, parsing, predict, run
from crossmodal.errors import UserError
from crossmodal.report import pictures
from crossmodal.settings import Config
from crossmodal.training import sharding
from crossmodal.training.folder import RunFolder
from tests.crossmodal import runs
from tests.crossmodal.runs import numbers


def train(folder, encoder, *arguments, **changes):
    return run.train(parsing.from_dict(runs.settings(folder, encoder, *arguments, **changes)))


@pytest.mark.parametrize("ndim", [1, 2])
@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression", "dense"])
def test_loss_falls_for_each_kind_of_target(tmp_path, tiny_bert, kind, ndim):
    results = train(tmp_path, tiny_bert, kind, ndim, epochs=8, pictures="png")
    history = numbers(tmp_path / "run")
    assert history[-1]["loss_target"] < 0.9 * history[0]["loss_target"]
    folder = RunFolder(tmp_path / "run")
    own = {
        "classification": {"confusion.png", "calibration.png"},
        "multilabel": {"labels.png", "calibration.png"},
        "regression": {"scatter.png"},
        "dense": {"examples.png"},
    }
    expected = {
        "curves.png",
        "distances.png",
        "gate.png",
        "mixing.png",
        "schedule.png",
        "config.yaml",
        "data.json",
        "metrics.jsonl",
        "results.json",
        "report.html",
        "test.npz",
        "normalizer.safetensors",
        "model",
    }
    assert {path.name for path in folder.path.iterdir()} == expected | own[kind]
    again = evaluate.evaluate(folder.path)
    assert again["value"] == again["stored"] == results["test"]
    assert evaluate.evaluate(folder.path, "validation")["value"] == results["validation"]


@pytest.mark.parametrize("encoder", ["tiny_vit", "tiny_swin"])
@pytest.mark.parametrize("kind", ["classification", "dense"])
def test_images_smaller_than_the_canvas_of_an_image_encoder(tmp_path, request, encoder, kind):
    """From the samples through a pretrained image encoder, mixed with images of its source, to the pictures at the end."""
    settings = runs.settings(tmp_path, request.getfixturevalue(encoder), kind, 2, epochs=2, pictures="png")
    settings["source"], settings["model"] = {"name": None, "limit": 2}, {}
    results = run.train(parsing.from_dict(settings))
    assert results["source"]["name"] == "photographs"
    assert results["canvas_size"] != results["input_shape"][1:]
    assert (tmp_path / "run" / "mixing.png").is_file()
    again = evaluate.evaluate(tmp_path / "run")
    assert again["value"] == again["stored"] == results["test"]


@pytest.mark.parametrize(
    ("encoder", "method", "kind", "model"),
    [
        ("tiny_vit", "pare", "classification", {}),
        ("tiny_swin", "pare", "dense", {"channels": "colours"}),
        ("tiny_vit", "nft", "dense", {"layers": 2}),
        ("tiny_vit", "lp_ft", "regression", {"series": "spectrogram"}),
        ("tiny_vit", "scratch", "multilabel", {"image_size": 8}),
    ],
)
def test_series_through_an_image_encoder(tmp_path, request, encoder, method, kind, model):
    """Drawn as images by a step of the model: what is saved predicts from series."""
    settings = runs.settings(tmp_path, request.getfixturevalue(encoder), kind, 1, epochs=2, method=method)
    settings["pictures"] = "png"
    settings["source"], settings["model"] = {"name": None, "limit": 2}, model
    results = run.train(parsing.from_dict(settings))
    assert (tmp_path / "run" / "mixing.png").is_file() == (method == "pare")
    again = evaluate.evaluate(tmp_path / "run")
    assert again["value"] == again["stored"] == results["test"]
    with np.load(settings["data"]) as data:
        assert crossmodal.load(tmp_path / "run").predict(data["x_test"]).predictions.shape == data["y_test"].shape


def test_a_picture_that_cannot_be_drawn_costs_no_run(tmp_path, tiny_bert, monkeypatch):
    def fail(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(pictures, "draw_run", fail)
    with pytest.raises(ZeroDivisionError):
        train(tmp_path, tiny_bert, epochs=1, pictures="png")
    assert RunFolder(tmp_path / "run").finished
    assert evaluate.evaluate(tmp_path / "run")["value"] == RunFolder(tmp_path / "run").read_results()["test"]


@pytest.mark.parametrize(
    ("kind", "loss", "metric"),
    [
        ("classification", None, "balanced_accuracy"),
        ("multilabel", None, "mean_average_precision"),
        ("regression", "relative_l2", "r2"),
        ("dense", "bce_with_logits", "mae"),
        ("dense", "bce_with_logits", "iou"),
    ],
)
def test_loss_and_metric_of_choice(tmp_path, tiny_bert, kind, loss, metric):
    settings = runs.settings(tmp_path, tiny_bert, kind, loss=loss, metric=metric, method="nft")
    if kind == "dense":
        data = dict(np.load(settings["data"]))
        data |= {name: (data[name] > 1).astype(float) for name in ("y_train", "y_test")}
        np.savez(settings["data"], **data)
    results = run.train(parsing.from_dict(settings))
    assert (results["loss"], results["metric"]) == (loss or results["loss"], metric)
    again = evaluate.evaluate(tmp_path / "run")
    assert again["value"] == again["stored"] == results["test"]
    if kind == "dense":
        predictions = crossmodal.load(tmp_path / "run").predict(data["x_test"]).predictions
        assert 0 < predictions.min() < predictions.max() < 1
        by_hand = {
            "mae": lambda found, truth: np.abs(found - truth).mean(),
            "iou": lambda found, truth: ((found > 0.5) & (truth > 0.5)).sum() / ((found > 0.5) | (truth > 0.5)).sum(),
        }
        assert by_hand[metric](predictions.numpy(), data["y_test"]) == pytest.approx(results["test"], rel=1e-5)


def test_an_evaluation_takes_the_kind_from_the_results(tmp_path, tiny_bert):
    """Whatever would be inferred today: floats of zeros and ones in columns, learned from as values."""
    settings = runs.settings(tmp_path, tiny_bert, "multilabel", method="nft") | {"kind": "regression"}
    results = run.train(parsing.from_dict(settings))
    path = RunFolder(tmp_path / "run").config
    path.write_text(path.read_text().replace("kind: regression", "kind: null"))
    assert parsing.from_dict(RunFolder(tmp_path / "run").read_config()).kind is None
    assert evaluate.evaluate(tmp_path / "run")["value"] == results["test"]


@pytest.mark.parametrize("method", ["pare", "nft", "scratch"])
def test_every_method_fills_its_record(tmp_path, tiny_bert, method, capsys):
    results = train(tmp_path, tiny_bert, method=method)
    printed = capsys.readouterr().out
    assert "classification: set by --kind." in printed
    assert ("12 texts in 2 classes (fruit, vessel)" in printed) == (method == "pare")
    stored = json.loads((tmp_path / "run" / "results.json").read_text())
    assert stored == json.loads(json.dumps(results))
    keys = "task method encoder seed metric higher_is_better validation test best_epoch epochs seconds parameters"
    for key in (keys + " trainable_parameters versions").split():
        assert stored[key] is not None, key
    assert ("source" in stored) == (method == "pare")
    history = numbers(tmp_path / "run")
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert (
        stored["best_epoch"]
        == max(history, key=lambda r: (r["validation"], -r["validation_loss"], r["epoch"]))["epoch"]
    )
    if method == "pare":
        assert len(stored["source"]["sha256"]) == 64
        assert stored["tokens"] == 8
        # int(N - N * epoch / epochs), constant within an epoch
        assert [record["k"] for record in history] == [8, 5, 2]
        assert [record["lam"] for record in history] == [1.0, 0.625, 0.25]
        assert [record["selection"] for record in history] == ["gumbel", "topk", "topk"]
        assert list(stored["replaced"]) == ["1", "2", "3"]
        slots = stored["replaced"]["2"]["0"]
        assert slots == sorted(set(slots))
        assert len(slots) == 5


def test_a_seed_repeats_and_another_does_not(tmp_path, tiny_bert):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tmp_path / name, tiny_bert, seed=seed, epochs=2, model__dropout=0.1)
    assert numbers(tmp_path / "a" / "run") == numbers(tmp_path / "b" / "run") != numbers(tmp_path / "c" / "run")
    weights = [(tmp_path / name / "run" / "model" / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]


def test_accumulation_equals_the_large_batch(tmp_path, tiny_bert):
    """21 training samples in batches of 4, two per step: the last step has 5 samples in a full and a short batch."""
    whole = train(tmp_path / "whole", tiny_bert, method="nft", batch_size=8, epochs=2)
    parts = train(tmp_path / "parts", tiny_bert, method="nft", batch_size=4, accumulate=2, epochs=2)
    assert whole["steps"] == parts["steps"]
    for one, other in zip(numbers(tmp_path / "whole" / "run"), numbers(tmp_path / "parts" / "run"), strict=True):
        for key in ("loss", "gradient_norm", "validation_loss"):
            assert one[key] == pytest.approx(other[key], rel=1e-4), key


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"model__activation_checkpointing": True}])
def test_variants_of_the_arithmetic_stay_near(tmp_path, tiny_bert, change):
    """bfloat16 stays within its own rounding, 2^-8 of one number, halved for a mean over samples; what is computed again is
    the same. And what they stored is repeated exactly, in the precision of the run."""
    train(tmp_path / "plain", tiny_bert, "regression", epochs=2)
    runs.fresh_accelerator()
    train(tmp_path / "variant", tiny_bert, "regression", epochs=2, **change)
    for one, other in zip(numbers(tmp_path / "plain" / "run"), numbers(tmp_path / "variant" / "run"), strict=True):
        if "precision" not in change:
            assert one == other
            continue
        for key in ("loss", "validation_loss"):
            assert one[key] != other[key], "float32 after all"
            assert one[key] == pytest.approx(other[key], rel=2**-9), key  # at most 1.1e-3 over two kinds and four seeds
    again = evaluate.evaluate(tmp_path / "variant" / "run")
    assert again["value"] == again["stored"]


@pytest.mark.parametrize(
    ("kind", "loss", "metric", "offset"),
    [("regression", "mse", "rmse", 0.0), ("regression", "mse", "r2", 3e9), ("dense", "relative_l2", "rmse", 6e8)],
)
def test_predictor(tmp_path, tiny_bert, kind, loss, metric, offset):
    """Also of values a billion deviations away from zero; the figure is that of what `predict.py` writes."""
    settings = runs.settings(tmp_path, tiny_bert, kind, loss=loss, metric=metric)
    with np.load(settings["data"]) as data:
        data = {name: data[name].astype(np.float64) + offset * name.startswith("y") for name in data}
    np.savez(settings["data"], **data)
    results = run.train(parsing.from_dict(settings))
    np.save(tmp_path / "in.npy", data["x_test"])
    predict.main(
        [settings["output_dir"], str(tmp_path / "in.npy"), "-o", str(tmp_path / "out.npy"), "--batch_size", "3"]
    )
    predictions = np.load(tmp_path / "out.npy")
    error, spread = predictions - data["y_test"], data["y_test"] - data["y_test"].mean(0)
    by_hand = {
        "rmse": np.square(error).mean() ** 0.5,
        "r2": (1 - np.square(error).sum(0) / np.square(spread).sum(0)).mean(),
    }
    assert results["test"] == pytest.approx(by_hand[metric], rel=1e-5)
    assert len(np.unique(predictions)) == predictions.size
    low, high = results["test_interval"]
    assert low < results["test"] < high
    again = evaluate.evaluate(settings["output_dir"])
    assert (again["value"], again["interval"]) == (results["test"], results["test_interval"])


def test_existing_folder_is_not_overwritten(tmp_path, tiny_bert):
    values = runs.settings(tmp_path, tiny_bert, epochs=1, method="nft")
    first = run.train(parsing.from_dict(values))
    with pytest.raises(UserError, match=r"holds a finished run; add --overwrite"):
        run.train(parsing.from_dict(values))
    assert run.train(parsing.from_dict(values | {"resume": True}))["test"] == first["test"]
    for mistake in ({"epochs": 2}, {"method": "pare"}):
        with pytest.raises(UserError, match=r"resume: the run in .*run has other settings: "):
            run.train(parsing.from_dict(values | {"resume": True} | mistake))
    assert run.train(parsing.from_dict(values | {"overwrite": True, "epochs": 2}))["epochs"] == 2
    for mistake in ({"model": {"patch_size": 99}}, {"data": "nowhere.npz"}):
        with pytest.raises((ValueError, OSError)):
            run.train(parsing.from_dict(values | {"overwrite": True} | mistake))
    assert evaluate.evaluate(values["output_dir"])["samples"] == 10
    with np.load(values["data"]) as data:
        np.savez(values["data"], **dict(data) | {"x_test": data["x_test"] + 1})
    with pytest.raises(ValueError, match=r"classification1.npz: the data have changed since the run"):
        evaluate.evaluate(values["output_dir"])
    with pytest.raises(UserError, match=r"has changed since: data of arrays \(sha256 .*; add --overwrite"):
        run.train(parsing.from_dict(values | {"resume": True, "epochs": 2}))


def test_a_run_whose_epochs_were_counted_gets_no_fewer(tmp_path, tiny_bert, monkeypatch):
    values = runs.settings(tmp_path, tiny_bert, epochs=None, method="nft")
    with monkeypatch.context() as patch:
        patch.setattr(run, "_train", lambda run: None)  # stopped before its first step
        run.train(parsing.from_dict(values))
        with pytest.raises(
            UserError, match=r"resume: epochs was \d+, as none were set, and is now 1; expected no fewer"
        ):
            run.train(parsing.from_dict(values | {"resume": True, "epochs": 1}))
        run.train(parsing.from_dict(values | {"resume": True, "epochs": 1000}))
        run.train(parsing.from_dict(values | {"overwrite": True, "steps": 11}))  # 3 steps an epoch
        with pytest.raises(UserError, match=r"resume: epochs was 5, .* and is now 3"):
            run.train(parsing.from_dict(values | {"resume": True, "epochs": 3}))
        run.train(parsing.from_dict(values | {"resume": True, "epochs": 5}))


def test_a_run_is_evaluated_from_any_directory(tmp_path, tiny_bert, monkeypatch):
    """Relative paths count from where training ran; in a project that was moved, from here."""
    project, elsewhere, moved = (tmp_path / name for name in ("project", "elsewhere", "moved"))
    values = runs.settings(project, tiny_bert, epochs=1, method="nft", output_dir="run", data_dir="data")
    elsewhere.mkdir()
    monkeypatch.chdir(project)
    results = run.train(parsing.from_dict(values | {"data": "data/classification1.npz"}))
    monkeypatch.chdir(elsewhere)
    assert evaluate.evaluate(project / "run")["value"] == results["test"]

    project.rename(moved)
    with pytest.raises(UserError, match=str(project)):
        evaluate.evaluate(moved / "run")
    monkeypatch.chdir(moved)
    assert evaluate.evaluate("run")["value"] == results["test"]


def test_tensorboard_gets_the_numbers(tmp_path, tiny_bert):
    run.train(parsing.from_dict(runs.settings(tmp_path, tiny_bert, epochs=2, method="nft", track="tensorboard")))
    events = EventAccumulator(str(tmp_path / "run" / "trackers" / "crossmodal")).Reload()
    records = RunFolder(tmp_path / "run").read_metrics()
    logged = [event.value for event in events.Scalars("loss")]
    assert logged == pytest.approx([record["loss"] for record in records], rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "aray"}, r"task: unknown name 'aray', did you mean 'arrays'\?"),
        ({"track": "tensorbord"}, r"track: unknown name 'tensorbord', did you mean 'tensorboard'\?"),
        ({"track": "tensorboard,mlflow"}, r"track: the package of 'mlflow' is not installed \(pip install mlflow\)"),
        ({"precision": "fp16"}, "precision: fp16 needs a GPU"),
        ({"loss": "cros_entropy"}, r"loss: unknown name 'cros_entropy', did you mean 'cross_entropy'\?"),
        ({"loss": ""}, r"loss: unknown name '' \(available: cross_entropy, focal\)"),
        ({"metric": "F1"}, r"metric: unknown name 'F1' \(available: accuracy, .*macro_f1"),
        ({"metric": "acuracy"}, r"metric: unknown name 'acuracy', did you mean 'accuracy'\?"),
        ({"pare__start": 9}, "pare.start: 9 patches are more than the 8 there are"),
        ({"source__name": "digits"}, "source.name: 'digits' is of modality image, but the encoder takes text"),
        ({"model__patch_size": 99}, r"model.patch_size: expected 1 to \(16,\) per axis, got \(99,\)"),
        ({"model__layers": 4}, "model.layers: expected 1 to 3, got 4"),
        ({"model__class_token": True}, "model.class_token: '.*' is a bert model, which has no such token"),
        ({"model__probe": True, "method": "lp_ft"}, "model.probe: lp_ft trains a probe of its own"),
        ({"model__layers": "auto", "kind": "dense"}, "model.layers auto: not for dense targets, which dense1.npz has"),
        ({"model__probe": True, "kind": "dense"}, "model.probe: not for dense targets, which dense1.npz has"),
        ({"split__train_size": 99}, "split.train_size: expected 2 to 26"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_impossible_settings_stop_before_training(tmp_path, tiny_bert, changes, message):
    with pytest.raises(ValueError, match=message):
        train(tmp_path, tiny_bert, **changes)
    assert not (tmp_path / "run").exists()


def test_scratch_starts_from_other_weights(tmp_path, tiny_bert):
    """`scratch` draws new weights: the two start from different encoders."""
    pretrained = train(tmp_path / "a", tiny_bert, method="nft", epochs=1, optimizer__lr=0.0, optimizer__new_lr=0.0)
    scratch = train(tmp_path / "b", tiny_bert, method="scratch", epochs=1, optimizer__lr=0.0, optimizer__new_lr=0.0)
    assert pretrained["parameters"] == scratch["parameters"]
    assert pretrained["test_loss"] != scratch["test_loss"]


@pytest.mark.parametrize("name", sharding.WORLD_SIZES)
def test_processes_that_do_not_join(monkeypatch, name):
    monkeypatch.setenv(name, "2")
    machine = SimpleNamespace(device=torch.device("cpu"), distributed_type=DistributedType.MULTI_CPU, num_processes=2)
    run.check_machine(Config(), machine)
    machine.num_processes = 1
    with pytest.raises(UserError, match=r"device: 2 processes were started, but they do not join .* --device cpu"):
        run.check_machine(Config(), machine)
    with pytest.raises(UserError, match="a comparison starts processes of its own"):
        compare.main([])


def test_devices_and_ways_of_spreading_a_model():
    machine = SimpleNamespace(device=torch.device("cpu"), distributed_type=DistributedType.NO, num_processes=1)
    with pytest.raises(UserError, match="precision: fp16 needs a GPU"):
        run.check_machine(Config(precision="fp16"), machine)
    machine.device = torch.device("cuda")
    for kind in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.FSDP):
        machine.distributed_type = kind
        run.check_machine(Config(precision="fp16"), machine)
    machine.distributed_type = DistributedType.DEEPSPEED
    with pytest.raises(UserError, match=r"DEEPSPEED: runs are data-parallel; .* --shard true"):
        run.check_machine(Config(), machine)


def test_few_test_samples_are_the_same_for_every_run(tmp_path, tiny_bert):
    """Drawn by the seed of the split; no more than there are."""
    values = runs.settings(tmp_path, tiny_bert, method="linear", split={"test_limit": 4})
    found = run.load_task(parsing.from_dict(values))
    whole = run.load_task(parsing.from_dict(values | {"split": {"test_limit": 99}}))
    assert (len(found.test), len(whole.test)) == (4, 10)
    rows = [(whole.test.x == one).flatten(1).all(1).nonzero().item() for one in found.test.x]
    assert rows == sorted(set(rows)) != [0, 1, 2, 3]
    assert found.test.y.equal(whole.test.y[rows])
    assert found.fingerprint == whole.fingerprint
    assert "test: only 4 of 10 samples (seed 0)." in found.description
    results = run.train(parsing.from_dict(values))
    assert evaluate.evaluate(tmp_path / "run")["value"] == results["test"]
