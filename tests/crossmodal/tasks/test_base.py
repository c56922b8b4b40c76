import dataclasses
import tracemalloc
from unittest import mock

import numpy as np
import pytest
import torch

from crossmodal import tasks
from crossmodal.data import numeric
from crossmodal.errors import UserError
from crossmodal.kinds import KINDS
from crossmodal.scoring import losses, metrics
from crossmodal.settings import SplitConfig
from crossmodal.tasks import base

RNG = np.random.default_rng(0)


def raw(kind="classification", n_train=20, n_test=6, **changes) -> tasks.RawTask:
    targets = {
        "classification": lambda n: np.arange(n) % 2,
        "multilabel": lambda n: RNG.integers(0, 2, (n, 3)),
        "regression": lambda n: RNG.normal(5, 3, (n, 2)),
        "dense": lambda n: RNG.normal(5, 3, (n, 2, 7)),
    }[kind]
    arrays = {
        "x_train": RNG.normal(4, 2, (n_train, 2, 7)),
        "y_train": targets(n_train),
        "x_test": RNG.normal(4, 2, (n_test, 2, 7)),
        "y_test": targets(n_test),
    }
    names = ("a", "b") if kind == "classification" else ()
    return tasks.RawTask(**({"kind": kind, "class_names": names} | arrays | changes))


@pytest.fixture
def register():
    """Registers a task "toy" for one test, in the place of a former one."""

    def add(task: tasks.RawTask):
        base.REGISTRY.pop("toy", None)
        tasks.register("toy", "a toy")(lambda options: task)

    with mock.patch.dict(base.REGISTRY):
        yield add


def test_every_task_has_a_line_of_its_own():
    found = tasks.available()
    expected = {"italy_power_demand", "gunpoint", "basic_motions", "japanese_vowels", "arrow_head", "osu_leaf"}
    assert expected | {"digits", "breast_cancer", "arrays"} <= set(found)
    assert all(summary and "\n" not in summary for summary in found.values())
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("kind", KINDS)
def test_the_road_from_arrays_to_a_task(register, kind):
    register(raw(kind))
    task = tasks.load("toy")
    assert task.kind == kind
    assert (task.loss, task.metrics) == base.DEFAULTS[kind]
    assert (len(task.train), len(task.validation), len(task.test)) == (16, 4, 6)
    assert (task.input_shape, task.ndim) == ((2, 7), 1)
    torch.testing.assert_close(task.train.x.mean((0, 2)), torch.zeros(2), atol=1e-6, rtol=0)
    assert kind not in ("regression", "dense") or abs(task.train.y.mean()) < 1e-6
    for text in ("toy: ", "16 train, 4 validation, 6 test", f"loss: {task.loss}; metrics: {', '.join(task.metrics)}."):
        assert text in task.description


def test_validation_and_test_do_not_touch_the_statistics(register):
    task = raw(n_train=40)
    register(task)
    before = tasks.load("toy")
    held_out = sorted(set(range(40)) - {int(i) for i in _positions(task.x_train, before)})
    task.x_train[held_out] += 1000
    task.x_test[:] += 1000
    after = tasks.load("toy")
    assert torch.equal(before.train.x, after.train.x)
    assert torch.equal(before.normalizer.x_mean, after.normalizer.x_mean)
    assert (after.validation.x > 100).all()


def _positions(x, task):
    """Rows of ``x`` that are in the train split."""
    everything = task.normalizer.apply_x(torch.from_numpy(x))
    return [(everything == row).all(dim=(1, 2)).nonzero().item() for row in task.train.x]


def test_own_loss_metric_and_scaling(register):
    register(raw("dense", loss="relative_l2", metrics=("mae",), normalize_x="none", normalize_y="none"))
    task = tasks.load("toy")
    assert (task.loss, task.metric) == ("relative_l2", "mae")
    assert task.normalizer.y_mean is None
    assert task.train.x.mean() > 3
    assert "left as they are." in task.description


def test_targets_of_zeros_are_spoken_of_where_errors_are_relative(register):
    data = raw("dense")
    data.y_test[[1, 4]] = 0
    register(data)
    assert "2 of 6 test targets are zero: relative_l2 takes" in tasks.load("toy").description
    register(dataclasses.replace(data, loss="relative_l2", origin="a file"))
    with pytest.raises(ValueError, match="a file: loss relative_l2: 2 of 6 test targets are zero"):
        tasks.load("toy")
    data.y_test[:] = 0
    register(data)
    with pytest.raises(ValueError, match="metric relative_l2: all test targets are zero; take --metric rmse or mae"):
        tasks.load("toy")


def test_loss_and_metric_are_chosen_among_those_of_the_kind(register):
    register(raw("regression"))
    task = tasks.load("toy", loss="relative_l2", metrics=["r2"])
    assert (task.loss, task.metric) == ("relative_l2", "r2")
    assert "loss: relative_l2; metrics: r2." in task.description
    for options, message in (
        (
            {"metrics": ["auroc"]},
            "metric: auroc is made for classification, multilabel, mask, but the target is regression; "
            "expected one of mse, rmse, mae, relative_l2, r2",
        ),
        (
            {"loss": "cross_entropy"},
            "loss: cross_entropy is made for .*; expected one of mse, log_cosh, rmse, relative_l2",
        ),
        ({"metrics": ["rsme"]}, "metric: unknown name 'rsme', did you mean 'rmse'"),
    ):
        with pytest.raises(ValueError, match=message):
            tasks.load("toy", **options)


def test_every_loss_and_metric_can_be_had(register):
    for kind in KINDS:
        register(raw(kind, normalize_y="none") if kind != "dense" else raw(kind, **_masks()))
        for name, metric in metrics.METRICS.items():
            if kind in metric.kinds and name != "mae_8":  # which is of square maps
                task = tasks.load("toy", metrics=[name])
                outputs = torch.eye(2)[task.test.y] if kind == "classification" else task.test.y * 2 - 1
                assert np.isfinite(metric(outputs, task.test.y)), (kind, name)
        for name, loss in losses.LOSSES.items():
            if kind in loss.kinds:
                assert tasks.load("toy", loss=name).loss == name


def _masks() -> dict[str, np.ndarray]:
    return {f"y_{part}": np.eye(7)[np.arange(n) % 7][:, None] for part, n in (("train", 20), ("test", 6))}


def test_masks_are_not_scaled_where_outputs_are_their_logits(register):
    data = raw("dense", **_masks())
    register(data)
    task = tasks.load("toy", loss="bce_with_logits")
    assert task.train.y.unique().tolist() == [0, 1]
    assert torch.equal(task.normalizer.decode(torch.zeros(1, 1, 7)), torch.full((1, 1, 7), 0.5))
    assert torch.equal(task.normalizer.inverse_y(task.test.y), task.test.y)
    data.y_test[3, 0, 2] = 1.5
    with pytest.raises(ValueError, match=r"bce_with_logits needs targets from 0 to 1, but a test target holds 1\.5"):
        tasks.load("toy", loss="bce_with_logits")


def test_masks_have_metrics_of_their_own(register):
    data = raw("dense", **_masks())
    register(data)
    task = tasks.load("toy")
    assert "All targets are 0 or 1: if they are masks, --loss bce_with_logits is made for them." in task.description
    assert task.metric == "relative_l2"
    task = tasks.load("toy", loss="bce_with_logits")
    assert task.metric == "auroc"
    assert "masks" not in task.description
    assert tasks.load("toy", loss="bce_with_logits", metrics=["iou"]).metric == "iou"
    with pytest.raises(
        ValueError, match=r"iou is made for mask, but the target is dense \(a mask with --loss bce_with"
    ):
        tasks.load("toy", metrics=["iou"])
    data.y_test[:] = 0
    assert (
        "the test part cannot be scored by auroc: all its channels"
        in tasks.load("toy", loss="bce_with_logits").description
    )


@pytest.mark.parametrize("dtype", ["u1", "f4", "f8"])
def test_loading_takes_the_data_and_one_normalised_copy(tmp_path, monkeypatch, dtype):
    """And pieces that do not grow with the data; at the peak the test part is not normalised yet."""
    monkeypatch.setattr(numeric, "CHUNK_VALUES", 2**14)
    x = RNG.integers(0, 200, (1000, 4, 32, 32)).astype(dtype)
    parts = {"x_train": x[:800], "y_train": x[:800, :1], "x_test": x[800:], "y_test": x[800:, :1]}
    np.savez(tmp_path / "large.npz", **parts)
    stored, copy = sum(part.nbytes for part in parts.values()), 4 * sum(part.size for part in parts.values())
    del x, parts
    tasks.load("arrays", data=tmp_path / "large.npz")  # what is imported on first use does not count
    tracemalloc.start()
    task = tasks.load("arrays", data=tmp_path / "large.npz")
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert task.kind == "dense"
    assert copy <= kept < copy + 2**20
    assert peak < stored + 0.8 * copy + 2**20


def test_the_layout_in_memory_does_not_matter(register):
    data = raw("dense")
    register(data)
    one = tasks.load("toy")
    register(dataclasses.replace(data, x_train=np.asfortranarray(data.x_train), y_test=data.y_test.astype(">f8")))
    other = tasks.load("toy")
    assert one.fingerprint == other.fingerprint
    assert torch.equal(one.train.x, other.train.x)
    assert torch.equal(one.test.y, other.test.y)


@pytest.mark.parametrize("change", [{"class_names": ("b", "a")}, {"normalize_x": "none"}, {"y_train": None}])
def test_the_hash_tells_data_apart_that_mean_something_else(register, change):
    data = raw("classification", class_names=("a", "b"))
    register(data)
    one = tasks.load("toy")
    register(dataclasses.replace(data, **{name: value or data.y_train[::-1] for name, value in change.items()}))
    assert tasks.load("toy").fingerprint != one.fingerprint


def test_seeds_choose_the_validation_split(register):
    register(raw(n_train=60))
    first, again, other = (tasks.load("toy", split=SplitConfig(seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first.validation.x, again.validation.x)
    assert not torch.equal(first.validation.x, other.validation.x)
    assert torch.equal(first.test.y, other.test.y)


def test_validation_fraction_is_stratified(register):
    register(raw(n_train=100, y_train=np.repeat([0, 1], [90, 10])))
    task = tasks.load("toy", split=SplitConfig(validation_fraction=0.3))
    assert torch.bincount(task.validation.y).tolist() == [27, 3]


@pytest.mark.parametrize("seed", range(5))
def test_rare_labels_can_be_validated(register, seed):
    labels = np.zeros((20, 3))
    labels[[3, 11], 0] = labels[[5, 6], 1] = labels[::2, 2] = 1
    register(raw("multilabel", y_train=labels, y_test=labels[:6]))
    task = tasks.load("toy", split=SplitConfig(seed=seed))
    assert task.train.y.any(0).all()
    assert task.validation.y.any(0).all()
    assert "validation: a stratified random share" in task.description
    assert "warning: the validation" not in task.description


def test_what_the_metric_cannot_score_is_said(register):
    labels = np.zeros((20, 2))
    labels[0, 0] = 1
    labels[::2, 1] = 1
    register(raw("multilabel", y_train=labels, y_test=labels[1:2].repeat(6, 0)))
    found = tasks.load("toy").description
    assert "warning: the validation auroc leaves out the labels [0], which occur always or never there." in found
    assert "warning: the test part cannot be scored by auroc: all its labels occur always or never." in found
    assert "warning: the" not in tasks.load("toy", metrics=["macro_f1"]).description
    register(raw("regression", n_train=5))
    assert "warning: the validation part cannot be scored by r2" in tasks.load("toy", metrics=["r2"]).description
    register(raw(n_train=20, y_train=np.r_[np.arange(19) % 2, 2], y_test=np.arange(6) % 2, class_names=("a", "b", "c")))
    assert "validation auroc leaves out the classes ['c']" in tasks.load("toy", metrics=["auroc"]).description


@pytest.mark.parametrize(
    ("y_test", "metric", "message"),
    [
        (
            [0, 0, 0, 1, 1, 1],
            "auroc_per_group",
            "the test part cannot be scored by auroc_per_group: all its classes occur al",
        ),
        (
            [0, 1, 0, 1, 1, 1],
            "auroc_per_group",
            "the test auroc_per_group leaves out 1 of 2 groups, which have no auroc: b.",
        ),
        ([0, 1, 0, 1, 0, 1], "auroc_per_group", None),
        ([0, 0, 0, 1, 1, 1], "auroc_of_groups", None),
        ([0, 0, 0, 0, 0, 0], "auroc_of_groups", "the test part cannot be scored by auroc_of_groups"),
    ],
)
def test_what_metrics_of_groups_cannot_score_is_said(register, y_test, metric, message):
    groups = {"group_train": np.repeat(list("stuvw"), 4), "group_test": np.repeat(["a", "b"], 3)}
    register(raw(y_test=np.array(y_test), **groups))
    said = tasks.load("toy", metrics=[metric]).description
    assert (f"warning: {message}" in said) if message else "warning: the test" not in said


def test_every_class_keeps_a_training_sample(register):
    register(raw(n_train=4, y_train=np.array([0, 0, 0, 1])))
    task = tasks.load("toy", split=SplitConfig(validation_fraction=0.9))
    assert sorted(task.train.y.tolist()) == [0, 1]
    assert task.validation.y.tolist() == [0, 0]


def test_train_size(register):
    register(raw(n_train=60))
    task = tasks.load("toy", split=SplitConfig(train_size=10))
    assert (len(task.train), len(task.validation)) == (8, 2)
    assert torch.bincount(task.train.y).tolist() == [4, 4]
    assert len(tasks.load("toy", split=SplitConfig(train_size=60)).train) == 48


def test_train_size_leaves_a_given_validation_split_alone(register):
    data = raw("regression")
    register(dataclasses.replace(data, x_val=data.x_test, y_val=data.y_test))
    task = tasks.load("toy", split=SplitConfig(train_size=5))
    assert (len(task.train), len(task.validation)) == (5, 6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "gunpiont"}, UserError, "unknown name 'gunpiont', did you mean 'gunpoint'"),
        ({"name": "arrays"}, UserError, "data: task 'arrays' reads your own data"),
        ({"data": "x.npz"}, UserError, "data: task 'digits' has its own"),
        ({"kind": "dense"}, UserError, "kind: task 'digits' has its own"),
        ({"name": "arrays", "data": "x.npz", "kind": "images"}, UserError, "kind: expected one of .*, got 'images'"),
        ({"data_dir": "/no/such/folder"}, UserError, "data_dir: no such folder: /no/such/folder"),
        ({"split": SplitConfig(train_size=9)}, UserError, r"split.train_size: expected 10 to 1198 \(.*\), got 9"),
        ({"split": SplitConfig(train_size=1199)}, UserError, "split.train_size: expected 10 to 1198"),
        ({"split": SplitConfig(train_size=10)}, UserError, "10 training samples leave none for validation"),
    ],
)
def test_options_that_cannot_be(options, error, message):
    with pytest.raises(error, match=message):
        tasks.load(**({"name": "digits"} | options))


def test_names_are_taken_once(register):
    register(raw())
    with pytest.raises(ValueError, match="task 'toy' is registered already"):
        tasks.register("toy", "another")(lambda options: None)
