from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from crossmodal.data.dataset import Batch
from crossmodal.data.normalizer import Normalizer
from crossmodal.errors import UserError
from crossmodal.kinds import KINDS
from crossmodal.scoring import losses, metrics

OF_ANY_SHAPE = [name for name in metrics.METRICS if name != "mae_8"]  # which is of square maps


def test_accuracy_and_f1_by_hand():
    outputs = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0], [1.0, 0.0, 0.0]])
    targets = torch.tensor([0, 1, 1, 2])
    assert metrics.get("accuracy")(outputs, targets) == 0.5
    # class 0: precision 1/2, recall 1; class 1: 1, 1/2; class 2: 0, 0; a class that nobody names does not count
    assert metrics.get("macro_f1")(outputs, targets) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert metrics.get("macro_f1")(torch.nn.functional.pad(outputs, (0, 1)), targets) == pytest.approx(4 / 9)
    assert metrics.get("balanced_accuracy")(outputs, targets) == pytest.approx((1 + 0.5 + 0) / 3)


def test_ranking_metrics_on_labels():
    outputs = torch.tensor([[2.0, -1.0, 5.0], [1.0, 1.0, 4.0], [-1.0, 0.0, 3.0]])
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    # The third label always occurs: no curve can be drawn, so it does not count.
    assert metrics.get("auroc")(outputs, targets) == 1.0
    assert metrics.get("mean_average_precision")(outputs, targets) == 1.0
    assert metrics.get("auroc")(-outputs, targets) == 0.0
    assert math.isnan(metrics.get("auroc")(outputs[:, 2:], targets[:, 2:]))


def test_auroc_of_classes_is_one_against_the_rest():
    from sklearn.metrics import roc_auc_score

    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(50, 3, generator=generator), torch.randint(0, 3, (50,), generator=generator)
    expected = roc_auc_score(targets, outputs.double().softmax(1), multi_class="ovr")
    assert metrics.get("auroc")(outputs, targets) == pytest.approx(expected)


def test_f1_of_labels_is_that_of_scikit_learn_and_of_one_label_that_of_its_presence():
    from sklearn.metrics import f1_score

    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(40, 3, generator=generator), torch.randint(0, 2, (40, 3), generator=generator)
    macro_f1 = metrics.get("macro_f1")
    assert macro_f1(outputs, targets) == pytest.approx(f1_score(targets, outputs > 0, average="macro"))
    alone = f1_score(targets[:, 0], outputs[:, 0] > 0)
    assert macro_f1(outputs[:, :1], targets[:, :1]) == pytest.approx(alone)


@pytest.mark.parametrize("shape", [(5, 2, 9), (5, 2, 3, 4)])
def test_masks_are_scored_over_all_pixels_of_a_channel(shape):
    """The outputs of masks are probabilities."""
    from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score

    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.rand(shape, generator=generator), torch.rand(shape, generator=generator).round()
    by_hand = {
        "auroc": roc_auc_score,
        "mean_average_precision": average_precision_score,
        "macro_f1": lambda truth, value: f1_score(truth, value > 0.5),
        "iou": lambda truth, value: jaccard_score(truth, value > 0.5),
    }
    for name, score in by_hand.items():
        channels = [score(targets[:, c].flatten(), outputs[:, c].flatten()) for c in range(shape[1])]
        assert metrics.get(name)(outputs, targets) == pytest.approx(np.mean(channels)), name
    # A channel that is empty, and taken for empty, has no union.
    iou = metrics.get("iou")
    targets[:, 1], outputs[:, 1] = 0, 0
    assert iou(outputs, targets) == pytest.approx(by_hand["iou"](targets[:, 0].flatten(), outputs[:, 0].flatten()))
    assert math.isnan(iou(outputs[:, 1:], targets[:, 1:]))


def test_values_by_hand():
    outputs, targets = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[0.0, 8.0], [0.0, 1.0]])
    assert metrics.get("mse")(outputs, targets) == 6.5
    assert metrics.get("rmse")(outputs, targets) == 6.5**0.5
    assert metrics.get("mae")(outputs, targets) == 2.0
    assert metrics.get("relative_l2")(outputs, targets) == pytest.approx((5 / 8 + 1) / 2)
    assert metrics.get("r2")(targets, targets) == 1.0
    assert math.isnan(metrics.get("r2")(targets[:1], targets[:1]))


@pytest.mark.parametrize("shape", [(40, 2), (20, 1, 9), (12, 2, 3, 4)], ids=["values", "dense 1D", "dense 2D"])
@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (2.46e6, 0.03), (-1e9, 1.0), (1e17, 1e8), (1e-3, 1e-12)])
def test_figures_of_values_far_from_zero(shape, offset, scale):
    """By the differences of normalised values, in which there is nothing to cancel."""
    rng = np.random.default_rng(0)
    y = offset + scale * rng.normal(size=shape)
    normalizer = Normalizer.fit(np.zeros((len(y), 1, 2)), y)
    z = normalizer.apply_y(y)
    outputs = (z + 0.3 * torch.from_numpy(rng.normal(size=shape)).float()).requires_grad_()
    error = (outputs.detach().double() - z) * normalizer.y_std
    relative = error.flatten(1).norm(dim=1) / torch.from_numpy(y).flatten(1).norm(dim=1)
    spread = (z.double() * normalizer.y_std).flatten(1)
    left = error.flatten(1).square().sum(0) / (spread - spread.mean(0)).square().sum(0)
    expected = {
        "mse": error.square().mean(),
        "rmse": error.square().mean().sqrt(),
        "mae": error.abs().mean(),
        "relative_l2": relative.mean(),
        "r2": (1 - left).mean(),
    }
    found, targets = normalizer.decode(outputs), normalizer.inverse_y(z)
    for name, value in expected.items():
        assert metrics.get(name)(found, targets) == pytest.approx(value.item(), rel=2e-6), name

    per_sample = losses.get("relative_l2").per_sample(found, targets)
    np.testing.assert_allclose(per_sample.detach(), relative, rtol=0, atol=2e-6 * relative.max().item())
    per_sample.sum().backward()
    slope = (error * normalizer.y_std).flatten(1) * (relative / error.flatten(1).square().sum(1))[:, None]
    np.testing.assert_allclose(outputs.grad.flatten(1), slope, rtol=0, atol=1e-5 * slope.abs().max().item())


def test_relative_l2_of_a_target_of_zeros_is_relative_to_the_typical_norm():
    targets = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    outputs = targets + torch.tensor([[0.0, 1.0], [0.5, 0.0]])
    typical = (25 / 2) ** 0.5
    expected = pytest.approx((1 / 5 + 0.5 / typical) / 2)
    assert metrics.get("relative_l2")(outputs, targets) == expected
    # What normalising to float32 and back leaves of zero.
    assert metrics.get("relative_l2")(outputs, targets + torch.tensor([[0.0], [1e-7]])) == expected
    assert math.isnan(metrics.get("relative_l2")(outputs, torch.zeros(2, 2)))


def test_relative_l2_of_small_targets_is_their_own():
    targets = torch.tensor([[1e3], [0.1]])
    assert metrics.get("relative_l2")(targets + 0.1, targets) == pytest.approx((1e-4 + 1) / 2, rel=1e-3)


@given(st.integers(1, 60), st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_a_split_cut_into_pieces_gives_another_number_but_its_order_does_not(n, seed):
    generator = torch.Generator().manual_seed(seed)
    outputs, targets = torch.randn(n, 4, generator=generator), torch.randint(0, 4, (n,), generator=generator)
    order = torch.randperm(n, generator=generator)
    for name in ("accuracy", "macro_f1"):
        metric = metrics.get(name)
        assert metric(outputs, targets) == pytest.approx(metric(outputs[order], targets[order]))


def test_interval_of_an_accuracy_is_wilson_s():
    """scipy has it as well. At 0 and 1 it has a width too, and samples may be few."""
    from scipy.stats import binomtest

    accuracy = metrics.get("accuracy")
    for right, count in ((0, 1), (1, 1), (7, 10), (10, 10), (0, 40), (1000, 1029)):
        outputs, targets = torch.eye(2)[torch.ones(count, dtype=int)], (torch.arange(count) < right).long()
        expected = binomtest(right, count).proportion_ci(method="wilson")
        low, high = accuracy.interval(accuracy.numbers(outputs, targets))
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert low <= right / count <= high


@pytest.mark.parametrize("name", [name for name in OF_ANY_SHAPE if metrics.get(name).interval_by == "bootstrap"])
def test_interval_of_other_metrics_is_a_seeded_bootstrap(name):
    """Four times the samples make it half as wide; it is the same each time, and draws nothing from torch's generator."""
    metric, generator = metrics.get(name), torch.Generator().manual_seed(0)
    widths = []
    for count in (100, 400):
        outputs = torch.randn(count, 3, generator=generator)
        targets = outputs + 4 * torch.rand(count, 3, generator=generator) - 2
        if "classification" in metric.kinds:
            targets = targets.argmax(1)
        elif name == "iou":  # masks of three channels and one pixel
            outputs, targets = outputs.sigmoid()[..., None], (targets > 0).float()[..., None]
        elif metric.of_fields:  # with wave numbers in all bands
            targets = targets + torch.randn(count, 1, generator=generator)
            outputs, targets = (values[:, None].tile(1, 1, 10) for values in (outputs, targets))
            outputs = outputs * torch.rand(30, generator=generator)
        before = torch.get_rng_state()
        low, high = metric.interval(metric.numbers(outputs, targets))
        assert torch.equal(before, torch.get_rng_state())
        assert low < metric(outputs, targets) < high
        assert (low, high) == metric.interval(metric.numbers(outputs, targets))
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.4)


def test_interval_of_a_mean_is_that_of_its_standard_error():
    errors = torch.randn(400, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, error = errors.abs().mean().item(), errors.abs().std().item() / 20
    found = metrics.get("mae").interval(metrics.get("mae").numbers(errors, torch.zeros(400, 1)))
    assert found == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), rel=0.02)


def test_no_interval_where_a_bootstrap_says_nothing():
    """Few samples, or figures that do not vary; resamples without a value are left out."""
    rmse, auroc = metrics.get("rmse"), metrics.get("auroc")
    assert rmse.interval(rmse.numbers(torch.randn(4, 1), torch.zeros(4, 1))) is None
    assert rmse.interval(rmse.numbers(torch.ones(50, 1), torch.zeros(50, 1))) is None
    one = (torch.arange(12) == 5).float()[:, None]
    assert auroc.interval(auroc.numbers(torch.randn(12, 1), torch.zeros(12, 1))) is None
    largest = metrics.get("max_error")  # no resample has a larger one
    assert largest.interval(largest.numbers(torch.randn(40, 1, 3), torch.zeros(40, 1, 3))) is None
    assert auroc.interval(auroc.numbers(torch.sin(torch.arange(12.0))[:, None], one)) is not None


@pytest.mark.parametrize("name", ["auroc", "mean_average_precision", "r2", "rmse", "nrmse", "max_error"])
def test_outputs_that_are_nan_have_neither_figure_nor_interval(name):
    outputs, targets = torch.randn(40, 1), (torch.arange(40) % 2).float()[:, None]
    if metrics.get(name).of_fields:
        outputs, targets = outputs[..., None], targets[..., None] + 1
    outputs[3] = float("nan")
    assert math.isnan(metrics.get(name)(outputs, targets))
    assert metrics.get(name).interval(metrics.get(name).numbers(outputs, targets)) is None


def test_direction_and_error():
    accuracy, rmse = metrics.get("accuracy"), metrics.get("rmse")
    assert accuracy.better(0.9, 0.8)
    assert rmse.better(0.8, 0.9)
    assert accuracy.as_error(0.75) == ("error %", 25.0)
    assert rmse.as_error(0.75) == ("error", 0.75)


def test_every_kind_has_a_metric_and_every_metric_a_known_kind():
    kinds = {kind for metric in metrics.METRICS.values() for kind in metric.kinds}
    assert kinds == {*KINDS, "mask"}


def test_errors():
    with pytest.raises(ValueError, match=r"unknown name 'acuracy', did you mean 'accuracy'"):
        metrics.get("acuracy")
    assert np.isfinite(metrics.get("macro_f1")(torch.tensor([[1.0, -1.0]]), torch.tensor([[0.0, 0.0]])))


def in_batches(name: str, outputs: torch.Tensor, targets: torch.Tensor, cuts: list[int], **extras) -> float:
    """The figure of samples that are measured a batch at a time."""
    metric, parts = metrics.get(name), []
    for rows in torch.arange(len(targets)).tensor_split(cuts):
        of_rows = {key: values[rows] for key, values in extras.items()}
        batch = Batch(targets[rows], targets[rows], rows, torch.ones(len(rows)), of_rows)
        parts.append(metric.measure(outputs[rows], batch))
    return metric.figure({key: torch.cat([part[key] for part in parts]).numpy() for key in parts[0]})


def toy(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and targets of 23 samples of a kind that the metric is made for."""
    generator, kinds = torch.Generator().manual_seed(1), metrics.METRICS[name].kinds
    if "classification" in kinds:
        return torch.randn(23, 3, generator=generator), torch.randint(0, 3, (23,), generator=generator)
    outputs = torch.rand(23, 2, 5, generator=generator, dtype=torch.float64)
    return outputs, torch.rand(23, 2, 5, generator=generator).round() if "regression" not in kinds else outputs + 1


def by_hand(name: str, error: np.ndarray, target: np.ndarray) -> float:
    """A metric of one field, float64 (points,) or (rows, columns), as its definition says."""
    rms = np.sqrt(np.mean(error**2))
    if name.startswith("fourier"):
        low, high = {"fourier_low": (0, 5), "fourier_mid": (5, 13), "fourier_high": (13, 1000)}[name]
        power = np.abs(np.fft.fftn(error) / error.size) ** 2
        total = 0.0
        for place in np.ndindex(error.shape):
            numbers = [min(k, size - k) for k, size in zip(place, error.shape, strict=True)]
            total += power[place] * (low <= np.hypot(*numbers, *[0] * (2 - len(numbers))) < high)
        return total**0.5
    inner = error[(slice(1, -1),) * error.ndim]
    return {
        "field_rmse": rms,
        "nrmse": rms / np.sqrt(np.mean(target**2)),
        "max_error": np.abs(error).max(),
        "conserved_error": abs(error.sum()) / error.size,
        "boundary_rmse": np.sqrt(((error**2).sum() - (inner**2).sum()) / (error.size - inner.size)),
    }[name]


@pytest.mark.parametrize("grid", [(40,), (33,), (30, 34)])
@pytest.mark.parametrize("name", [name for name, one in metrics.METRICS.items() if one.of_fields])
def test_fields_by_hand(name, grid):
    """Of each channel of each frame, and in total the mean of these (of the largest error, the largest)."""
    rng = np.random.default_rng(0)
    error = rng.standard_normal((4, 6, *grid)) * 10.0 ** np.arange(-2, 4).reshape(6, *[1] * len(grid))
    target = rng.standard_normal(error.shape) + 3
    expected = np.array(
        [[by_hand(name, *pair) for pair in zip(*pairs, strict=True)] for pairs in zip(error, target, strict=True)]
    )
    metric = metrics.get(name)
    numbers = metric.numbers(torch.from_numpy(target + error), torch.from_numpy(target))
    total = np.max if name == "max_error" else np.mean
    assert metric.figure(numbers) == pytest.approx(total(expected), rel=1e-9)
    found = metric.by_field(numbers, channels=2)
    np.testing.assert_allclose(found, total(expected, axis=0).reshape(3, 2), rtol=1e-9)


def test_bands_add_up_to_the_error():
    outputs, targets = torch.randn(5, 2, 31, 32), torch.randn(5, 2, 31, 32)
    bands = [metrics.get(f"fourier_{name}").numbers(outputs, targets)["error"] for name in ("low", "mid", "high")]
    np.testing.assert_allclose(
        sum(band**2 for band in bands), metrics.get("field_rmse").numbers(outputs, targets)["error"] ** 2
    )


def test_nrmse_of_a_field_of_zeros_is_relative_to_what_is_typical_of_its_channel():
    target = torch.tensor([[[100.0, 100.0], [2.0, 2.0], [0.0, 0.0]], [[100.0, 100.0], [0.0, 0.0], [0.0, 0.0]]])
    figure = metrics.get("nrmse")(target + 1, target)  # the third channel is nowhere anything: it is left out
    assert figure == pytest.approx((0.01 + 0.01 + 0.5 + 1 / 2**0.5) / 4)
    assert math.isnan(metrics.get("nrmse")(torch.ones(2, 1, 3), torch.zeros(2, 1, 3)))


@pytest.mark.parametrize("name", OF_ANY_SHAPE)
def test_batches_add_up_to_the_split(name):
    outputs, targets = toy(name)
    whole = metrics.get(name)(outputs, targets)
    for cuts in ([], [1], [7, 8, 20], list(range(1, 23))):
        assert in_batches(name, outputs, targets, cuts) == whole


@pytest.mark.parametrize("name", OF_ANY_SHAPE)
def test_groups_are_scored_one_by_one_or_by_their_mean(name):
    """Against the metric of each group's samples, and of each group's mean prediction."""
    outputs, targets = toy(name)
    group = torch.arange(23) % 4
    targets = torch.stack([targets[one] for one in group])  # all samples of a group have the target of its first
    alone = [metrics.get(name)(outputs[group == one], targets[group == one]) for one in range(4)]
    cuts = [5, 6, 17]
    expected = np.nanmean(alone) if not np.isnan(alone).all() else float("nan")
    assert in_batches(f"{name}_per_group", outputs, targets, cuts, group=group) == pytest.approx(expected, nan_ok=True)
    if "classification" in metrics.METRICS[name].kinds:
        mean = torch.stack([outputs.double().softmax(1)[group == one].mean(0) for one in range(4)]).log()
    else:
        mean = torch.stack([outputs[group == one].mean(0) for one in range(4)])
    expected = metrics.get(name)(mean, targets[:4])
    assert in_batches(f"{name}_of_groups", outputs, targets, cuts, group=group) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    "name", [name for name, one in metrics.METRICS.items() if "mask" in one.kinds and name != "thresholded_auroc"]
)
def test_what_is_masked_does_not_count(name):
    """Whatever stands there: the figure is that of the values that count."""
    outputs, targets = toy(name) if "classification" not in metrics.METRICS[name].kinds else toy("iou")
    mask = torch.arange(5).expand(23, 2, 5) < 3
    wild = torch.where(mask, outputs, torch.full_like(outputs, 0.9))
    expected = metrics.get(name)(outputs[..., :3], targets[..., :3])
    if name == "r2":  # which is a mean over positions: those that never count are met exactly
        expected = (3 * expected + 2) / 5
    assert metrics.get(name)(wild, targets, mask) == pytest.approx(expected)


def test_intervals_of_groups_draw_groups():
    """Ten groups of samples that are all alike: far wider than the interval of as many independent samples."""
    generator = torch.Generator().manual_seed(0)
    error = torch.randn(12, 1, generator=generator).repeat_interleave(20, 0)
    group = torch.arange(12).repeat_interleave(20)
    plain = metrics.get("mae")
    grouped = metrics.get("mae_per_group")
    numbers = plain.numbers(error, torch.zeros(240, 1))
    narrow = plain.interval(numbers)
    wide = grouped.interval(numbers | {"group": group.numpy()})
    assert wide[1] - wide[0] > 2.5 * (narrow[1] - narrow[0])


def test_chunks_are_scored_one_by_one_and_the_last_weighs_as_much():
    from sklearn.metrics import f1_score, roc_auc_score

    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(50, 4, generator=generator), torch.randint(0, 4, (50,), generator=generator)
    parts = [slice(0, 16), slice(16, 32), slice(32, 48), slice(48, 50)]
    right = (outputs.argmax(1) == targets).double()
    assert metrics.get("accuracy_per_16")(outputs, targets) == pytest.approx(
        np.mean([right[part].mean() for part in parts])
    )
    expected = [f1_score(targets[p], outputs[p].argmax(1), average="macro", zero_division=0) for p in parts]
    assert metrics.get("macro_f1_per_16")(outputs, targets) == pytest.approx(np.mean(expected))
    labels = torch.randint(0, 2, (50, 4), generator=generator)
    labels[:16, 2] = 0  # without positives in one chunk, where the mean is over the others
    scores = []
    for part in parts[:3]:
        here = [c for c in range(4) if 0 < labels[part, c].sum() < len(labels[part])]
        scores.append(np.mean([roc_auc_score(labels[part, c], outputs[part, c]) for c in here]))
    assert metrics.get("auroc_per_16")(outputs[:48], labels[:48]) == pytest.approx(np.mean(scores))


@pytest.mark.parametrize("form", ["of_groups", "of_group_logits"])
def test_groups_of_unequal_size_are_scored_by_their_mean(form):
    """Against scikit-learn, over the mean probability or the mean logit of each group, however batches cut the groups."""
    from sklearn.metrics import average_precision_score, f1_score

    generator = torch.Generator().manual_seed(1)
    group = torch.randint(0, 12, (60,), generator=generator)
    outputs = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 2, (12, 3), generator=generator)
    classes = torch.randint(0, 3, (12,), generator=generator)
    present = group.unique()

    def scored(name: str, targets: torch.Tensor) -> float:
        metric = metrics.get(f"{name}_{form}")
        batches = [
            metric.measure(outputs[rows], Batch(targets[rows], targets[rows], rows, rows, {"group": group[rows]}))
            for rows in torch.arange(60).split(7)
        ]
        numbers = {key: torch.cat([one[key] for one in batches]).numpy() for key in batches[0]}
        low, high = metric.interval(numbers)
        assert low <= metric.figure(numbers) <= high
        return metric.figure(numbers)

    probability = outputs.sigmoid() if form == "of_groups" else outputs
    mean = torch.stack([probability[group == one].mean(0) for one in present])
    expected = average_precision_score(labels[present], mean, average="macro")
    assert scored("mean_average_precision", labels[group]) == pytest.approx(expected)
    probability = outputs.softmax(1) if form == "of_groups" else outputs
    mean = torch.stack([probability[group == one].mean(0) for one in present]).argmax(1)
    expected = f1_score(classes[present], mean, average="macro")
    assert scored("macro_f1", classes[group]) == pytest.approx(expected)


def test_groups_vote_by_the_classes_of_their_samples():
    """Two of three samples of the first group are taken for class 1, though the mean of all three says 0; in a tie the first
    class."""
    outputs = torch.tensor([[9.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    targets, group = torch.tensor([1, 1, 1, 2, 2]), torch.tensor([0, 0, 0, 1, 1])
    batch = Batch(targets, targets, torch.arange(5), torch.ones(5), {"group": group})
    for form, expected in (("of_group_votes", 0.5), ("of_groups", 0.0)):
        metric = metrics.get(f"accuracy_{form}")
        numbers = {key: values.numpy() for key, values in metric.measure(outputs, batch).items()}
        assert metric.figure(numbers) == expected
    assert metrics.plain_name("accuracy_of_group_votes") == "accuracy"


def test_challenge_2017_leaves_the_noise_out_of_the_mean_but_not_out_of_the_errors():
    from sklearn.metrics import f1_score

    generator = torch.Generator().manual_seed(2)
    outputs, targets = torch.randn(40, 4, generator=generator), torch.randint(0, 4, (40,), generator=generator)
    expected = f1_score(targets, outputs.argmax(1), average=None)[:3].mean()
    assert metrics.get("challenge2017_f1")(outputs, targets) == pytest.approx(expected)


def test_mae_8_by_hand():
    """Of residues 24 or more apart whose distance is at most 8, with the mean of both triangles; each protein by its own length."""
    side, margin = 40, 5
    targets, mask = torch.full((2, 1, side, side), 20.0), torch.zeros(2, 1, side, side, dtype=torch.bool)
    for row, length in enumerate((30, 26)):
        mask[row, :, margin : margin + length, margin : margin + length] = True
    outputs = targets.clone()

    def pair(row, p, q, true, upper, lower):
        targets[row, 0, margin + p, margin + q] = targets[row, 0, margin + q, margin + p] = true
        outputs[row, 0, margin + p, margin + q], outputs[row, 0, margin + q, margin + p] = upper, lower

    pair(0, 0, 24, 6.0, 7.0, 9.0)  # errs by 2, or (public code) by 3/4 of 9 and 1/4 of 7: 2.5
    pair(0, 1, 29, 8.0, 8.0, 4.0)  # by 2, or 3
    pair(0, 0, 23, 6.0, 100.0, 100.0)  # too near along the chain
    pair(0, 2, 28, 8.5, 100.0, 100.0)  # too far
    pair(1, 0, 25, 4.0, 4.0, 8.0)  # by 2, or 3
    pair(1, 0, 27, 4.0, 100.0, 100.0)  # outside of the protein
    assert metrics.get("mae_8")(outputs, targets, mask) == 2.0
    assert metrics.get("mae_8_cut_30")(outputs, targets, mask) == pytest.approx((2.75 + 3) / 2)
    assert metrics.get("mae_8_cut_25")(outputs, targets, mask) == 2.5  # the other protein has no such pair left
    assert math.isnan(metrics.get("mae_8_cut_24")(outputs, targets, mask))
    assert metrics.plain_name("mae_8_cut_25") == "mae_8"
    with pytest.raises(UserError, match=r"mae_8 is of square maps, got targets of shape \(1, 40, 39\)"):
        metrics.get("mae_8")(outputs[..., 1:], targets[..., 1:])
    with pytest.raises(UserError, match="unknown name 'rmse_cut_25'"):
        metrics.get("rmse_cut_25")


def test_masks_by_threshold_against_scikit_learn():
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.standard_normal((5, 1, 6, 6)))
    targets = torch.from_numpy((rng.random((5, 1, 6, 6)) < 0.3).astype(np.float32))
    mask = torch.from_numpy(rng.random((5, 1, 6, 6)) < 0.8)
    outputs = logits.sigmoid()
    truth, found = (targets * mask).flatten(), (logits > 0).flatten() & mask.flatten()
    assert metrics.get("thresholded_auroc")(outputs, targets, mask) == pytest.approx(sk.roc_auc_score(truth, found))
    rate = metrics.get("false_negative_rate")(outputs, targets, mask)
    assert rate == pytest.approx(1 - sk.recall_score(truth, found))
    assert not metrics.get("false_negative_rate").higher_is_better


@pytest.mark.parametrize("classes", [2, 4])
def test_metrics_for_imbalance_order_and_probabilities_are_scikit_learn_s(classes):
    from sklearn import metrics as sklearn

    rng = np.random.default_rng(classes)
    truth = np.concatenate(
        [np.arange(classes), rng.choice(classes, 60, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2))]
    )
    outputs = torch.from_numpy(rng.standard_normal((len(truth), classes)) + 1.5 * np.eye(classes)[truth])
    probability = outputs.softmax(1).numpy()

    def ours(name):
        return metrics.get(name)(outputs, torch.from_numpy(truth))

    kappa = sklearn.cohen_kappa_score(truth, probability.argmax(1), weights="quadratic")
    assert ours("quadratic_kappa") == pytest.approx(kappa)
    assert ours("balanced_accuracy") == pytest.approx(sklearn.balanced_accuracy_score(truth, probability.argmax(1)))
    each = [sklearn.average_precision_score(truth == one, probability[:, one]) for one in range(classes)]
    assert ours("average_precision") == pytest.approx(each[1] if classes == 2 else np.mean(each))
    squares = np.square(probability - np.eye(classes)[truth]).sum(1).mean()
    assert ours("brier") == pytest.approx(
        sklearn.brier_score_loss(truth, probability[:, 1]) if classes == 2 else squares
    )
    if classes == 2:
        assert ours("auroc") == pytest.approx(sklearn.roc_auc_score(truth, probability[:, 1]))


def test_calibration_error_by_hand(monkeypatch):
    """Two bins of two samples: probabilities 0.6 and 0.7, one of them right; 0.8 and 0.9, both."""
    monkeypatch.setattr(metrics.labels, "BINS", 2)
    probability = torch.tensor([0.9, 0.6, 0.8, 0.7], dtype=torch.float64)
    targets = torch.tensor([1, 1, 1, 0])
    outputs = torch.stack([torch.zeros(4, dtype=torch.float64), probability.logit()], 1)
    expected = (abs(0.65 - 0.5) + abs(0.85 - 1.0)) / 2
    assert metrics.get("calibration_error")(outputs, targets) == pytest.approx(expected)
    assert metrics.get("calibration_error")(probability.logit()[:, None], targets[:, None]) == pytest.approx(expected)
