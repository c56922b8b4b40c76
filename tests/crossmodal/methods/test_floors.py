"""Methods that look at nothing, or at what is known, and linear maps of fields."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import crossmodal
from crossmodal import methods, parsing, run, tasks
from crossmodal.data.dataset import ArrayDataset
from crossmodal.errors import UserError
from crossmodal.models.linear import LinearField, solve_field
from tests.crossmodal import runs


def trained(folder, method: str, kind: str, ndim: int = 1):
    """Data, and what the method predicts for the test samples."""
    settings = runs.settings(folder, "none", kind, ndim, method=method)
    run.train(parsing.from_dict(settings))
    with np.load(settings["data"]) as data:
        data = dict(data)
    return data, crossmodal.load(settings["output_dir"]).predict(data["x_test"])


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression", "dense"])
def test_the_mean_is_that_of_all_that_may_be_learned_from(tmp_path, kind):
    data, found = trained(tmp_path, "mean", kind)
    y = data["y_train"]
    expected = np.stack([y == 0, y == 1], 1).mean(0) if kind == "classification" else y.mean(0)
    predicted = found.predictions if found.probabilities is None else found.probabilities
    np.testing.assert_allclose(predicted, np.broadcast_to(expected, predicted.shape), rtol=1e-5, atol=1e-6)


def test_the_mean_of_fields_is_of_the_values_that_count(tmp_path):
    """Where none does, of all that do."""
    y = np.arange(12.0).reshape(3, 1, 4)
    mask = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]], bool)[:, None]
    parts = {
        f"{part}": ArrayDataset(torch.zeros(3, 1, 4), torch.from_numpy(y), extras={"mask": torch.from_numpy(mask)})
        for part in ("train", "validation")
    }
    task = SimpleNamespace(
        kind="dense", output_shape=(1, 4), steps=0, normalizer=SimpleNamespace(logits=False), **parts
    )
    config = SimpleNamespace(loader=SimpleNamespace(eval_batch_size=2))
    method = methods.get("mean")
    found = method.fit(SimpleNamespace(task=task, config=config, model=method.build(task, config)))
    assert found.output[0].tolist() == pytest.approx([4, 3, 2, y[mask].mean()])


@pytest.mark.parametrize("ndim", [1, 2])
def test_what_is_copied_is_the_last_frame_in_its_own_units(tmp_path, ndim):
    data, found = trained(tmp_path, "copy", "dense", ndim)
    np.testing.assert_allclose(found.predictions, data["x_test"][:, -1:], atol=1e-5)


def test_of_a_roll_out_every_frame_is_the_last_known_one(tmp_path):
    given = ["--task", "navier_stokes_1d", "--protocol", "rollout", "--method", "copy", "--output_dir", str(tmp_path)]
    run.train(parsing.parse(given))
    task = tasks.load("navier_stokes_1d", protocol="rollout")
    known = task.test.read(torch.arange(2)).x.double() * task.normalizer.x_std + task.normalizer.x_mean
    found = crossmodal.load(tmp_path).predict(known.float()).predictions.unflatten(1, (-1, 3))
    torch.testing.assert_close(found, known[:, None, -3:].expand_as(found), rtol=1e-4, atol=1e-4)


def test_what_is_no_later_frame_is_not_copied(tmp_path):
    given = ["--task", "darcy", "--method", "copy", "--output_dir", str(tmp_path)]
    with pytest.raises(UserError, match=r"copy cannot do darcy: samples hold a, targets u; take mean"):
        run.train(parsing.parse(given))


@pytest.mark.parametrize("grid", [(9,), (4, 6)], ids=str)
def test_a_linear_field_is_the_convolution_and_the_constant_that_made_the_data(grid):
    torch.manual_seed(0)
    axes = tuple(range(-len(grid), 0))
    x, kernel, constant = torch.randn(40, 2, *grid), torch.randn(3, 2, *grid), torch.randn(3, *grid)
    mapped = torch.einsum("oc...,bc...->bo...", torch.fft.rfftn(kernel, dim=axes), torch.fft.rfftn(x, dim=axes))
    y = torch.fft.irfftn(mapped, s=grid, dim=axes) + constant
    split = ArrayDataset(x, y)
    model = LinearField((2, *grid), 3)
    ((weight, found),) = solve_field(split, 16, [1e-12])
    model.load_state_dict({"weight": weight.float(), "constant": found.float()})
    torch.testing.assert_close(model(x), y, rtol=1e-3, atol=1e-3)
    ((weight, found),) = solve_field(split, 16, [1e9])
    torch.testing.assert_close(found.float(), y.mean(0), rtol=1e-3, atol=1e-3)
    assert weight.abs().max() < 1e-6
    ((weight, found),) = solve_field(ArrayDataset(torch.zeros(40, 2, *grid), y), 16, [1.0])  # nothing to learn from
    torch.testing.assert_close(found.float(), y.mean(0), rtol=1e-3, atol=1e-3)
    assert weight.abs().max() == 0


def test_a_shift_is_linear(tmp_path):
    """Advection, single: one shift for all samples, up to what 16 points do not tell."""
    results = run.train(parsing.parse(["--task", "advection", "--method", "linear", "--output_dir", str(tmp_path)]))
    assert results["called"] == "linear convolution"
    assert results["test"] < 0.5


def test_masks_are_not_linear(tmp_path):
    settings = runs.settings(tmp_path, "none", "dense", method="linear", loss="bce_with_logits")
    with np.load(settings["data"]) as data:
        changed = {key: values if key[0] == "x" else (values > 1).astype(np.float32) for key, values in data.items()}
    np.savez(settings["data"], **changed)
    with pytest.raises(UserError, match="values, not masks"):
        run.train(parsing.from_dict(settings))


def test_products_of_many_channels_of_large_fields_are_refused():
    """57 channels of 512 x 512, as PSICOV has them: what would be killed for its memory says so before it begins."""
    few, many = (runs.toy_task("dense", input_shape=(channels, 512, 512)) for channels in (3, 57))
    linear = methods.get("linear")
    assert linear.refuses(few) is None
    assert linear.refuses(many) == "131584 Fourier modes of 57 channels would take 25 GiB; take tuned_cnn or nft"


def test_the_mean_of_masks_is_a_share(tmp_path):
    settings = runs.settings(tmp_path, "none", "dense", method="mean", loss="bce_with_logits", metric="iou")
    with np.load(settings["data"]) as data:
        changed = {key: values if key[0] == "x" else (values > 1).astype(np.float32) for key, values in data.items()}
    np.savez(settings["data"], **changed)
    run.train(parsing.from_dict(settings))
    found = crossmodal.load(tmp_path / "run").predict(changed["x_test"]).predictions
    np.testing.assert_allclose(found[0], changed["y_train"].mean(0), atol=2e-6)
