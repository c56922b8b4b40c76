"""Pictures of a run: what stands in them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from crossmodal import drawing
from crossmodal.report import pictures as plots
from crossmodal.scoring import metrics

RESULTS = {
    "task": "toy",
    "title": "toy",
    "method": "nft",
    "loss": "cross_entropy",
    "protocol": "default",
    "metric": "accuracy",
    "validation": 0.5,
    "best_epoch": None,
    "test": 0.75,
    "test_interval": [0.6, 0.9],
    "test_interval_over": "groups",
    "test_groups": {},
    "target_names": [],
    "samples": {"validation": 7, "test": 40},
}
HEAD = plots.heading(RESULTS)


def of_groups(count: int) -> dict:
    return {f"p{one}": {"samples": one + 1, "accuracy": (one * 7 % count) / count} for one in range(count)}


@pytest.mark.parametrize(
    ("changes", "drawn", "told"),
    [
        ({}, None, "toy, nft: test split, n = 40\naccuracy 0.75 (95 % interval over groups: 0.6 to 0.9)"),
        (
            {"test_groups": of_groups(3), "test_interval": None},
            20,
            "toy, nft: test split, n = 40 in 3 groups, 20 of them shown\naccuracy 0.75 (no interval over groups)",
        ),
        (
            {"test": float("nan"), "test_interval": None},
            40,
            "toy, nft: test split, n = 40\naccuracy undefined (no interval",
        ),
        (
            {"metric": "rmse", "target_names": ["force [N]"]},
            40,
            "\nrmse 0.75 N (95 % interval over groups: 0.6 to 0.9)",
        ),
        ({"metric": "r2", "target_names": ["force [N]"]}, 40, "\nr2 0.75 (95 %"),
    ],
)
def test_a_picture_says_what_it_is_of(changes, drawn, told):
    assert told in plots.heading(RESULTS | changes, drawn)


def test_confusion_has_shares_counts_and_recalls():
    """Class c has no sample; d was never found."""
    outputs = torch.eye(4)[torch.tensor([0, 1, 1, 1, 0])]
    numbers = metrics.get("macro_f1").numbers(outputs, torch.tensor([0, 1, 0, 1, 3]))
    matrix, bars = plots.confusion(plots.confused(numbers), ("a", "b", "c", "x" * 60), HEAD).axes
    assert [text.get_text() for text in matrix.texts] == ["0.50\n1", "0.50\n1", "1.00\n2", "1.00\n1"]
    ticks = [text.get_text() for text in matrix.get_yticklabels()]
    assert ticks == ["a (2)", "b (2)", "c (0)", "x" * (drawing.LONGEST_NAME - 1) + "… (1)"]
    assert [bar.get_width() for bar in bars.patches] == [0.5, 1, 0, 0]
    assert [text.get_text() for text in bars.texts] == ["0.50", "1.00", "none", "0.00"]
    assert bars.lines[0].get_xdata()[0] == 0.5


@pytest.mark.parametrize("classes", [2, 100, 250])
def test_confusion_of_few_and_many_classes_is_of_a_size_to_be_read(classes):
    figure = plots.confusion(np.eye(classes, dtype=int), tuple(map(str, range(classes))), HEAD)
    figure.draw_without_rendering()
    assert 5 < figure.get_figwidth() < 14
    size = figure.axes[0].get_yticklabels()[0].get_fontsize()
    assert size >= 4.5
    boxes = [text.get_window_extent() for text in figure.axes[0].get_yticklabels()]
    assert all(one.y0 >= other.y1 - 1 for one, other in itertools.pairwise(boxes))  # one below the other
    assert len(figure.axes) == (2 if classes == 2 else 3)  # a scale where no numbers are written
    assert len(boxes) <= plots.MOST_TICKS


@pytest.mark.parametrize("metric", ["auroc", "macro_f1"])
def test_labels_have_a_bar_each_whose_mean_is_the_figure(metric):
    """Label b is the wrong way round for one of two pairs; no sample has label c, nor is it predicted."""
    targets = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    outputs = torch.tensor([[-1.0, 0.5, -2.0], [2.0, 1.0, -1.0], [-3.0, -0.5, -1.0]])
    (axis,) = plots.labels(outputs, targets, ("a", "b", "c"), metric, HEAD).axes
    bars = [bar.get_width() for bar in axis.patches]
    assert bars == pytest.approx([1.0, 0.5, np.nan], nan_ok=True)
    (grouped,) = plots.labels(outputs, targets, ("a", "b", "c"), f"{metric}_of_groups", HEAD).axes
    assert [bar.get_width() for bar in grouped.patches] == pytest.approx(bars, nan_ok=True)
    assert axis.lines[0].get_xdata()[0] == pytest.approx(metrics.get(metric)(outputs, targets))
    assert [text.get_text() for text in axis.get_yticklabels()] == ["a (1)", "b (2)", "c (0)"]


def test_labels_without_any_value_are_drawn():
    many = plots.MOST_TICKS + 1
    figure = plots.labels(torch.zeros(2, many), torch.zeros(2, many), tuple(map(str, range(many))), "auroc", HEAD)
    assert not figure.axes[0].lines
    figure.draw_without_rendering()


def test_calibration_has_the_bins_of_its_error():
    """Ten bins of two: half of what is said with a probability of 0.6 is right, all of what is said with 0.9."""
    probability = torch.tensor([0.6] * 10 + [0.9] * 10, dtype=torch.float64)
    outputs = torch.stack([probability.log(), (1 - probability).log()], 1)
    targets = torch.tensor([0, 1] * 5 + [0] * 10)
    figure = plots.calibration(outputs, targets, ("a", "b"), HEAD)
    above, below = figure.axes
    assert figure.get_suptitle() == f"{HEAD}\ncalibration error 0.1"
    drawn = above.containers[0].lines[0].get_xydata()
    np.testing.assert_allclose(drawn, [(0.6, 0.5)] * 5 + [(0.9, 1)] * 5)
    assert above.get_title() == "bins of 2 predictions, 95 % intervals"
    assert [text.get_text() for text in below.texts] == ["10", "10"]


@pytest.mark.parametrize(("labels", "lines"), [(3, 3), (20, 1)])
def test_calibration_of_labels_is_that_of_each_or_of_many_together(labels, lines):
    targets = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (30, labels))).float()
    above, below = plots.calibration(4 * targets - 2, targets, tuple(map(str, range(labels))), HEAD).axes
    assert len(above.containers) == lines
    assert sum(int(text.get_text()) for text in below.texts) == 30 * labels


@pytest.mark.parametrize("count", [5, 60, 400])
def test_groups_stand_one_below_the_other_the_worst_first(count):
    figure = plots.groups(RESULTS | {"test_groups": of_groups(count)})
    (axis,) = figure.axes
    figure.draw_without_rendering()
    widths = [bar.get_width() for bar in axis.patches[: min(count, plots.MOST_GROUPS)]]
    assert widths == sorted(widths)
    assert widths[0] == 0
    boxes = [text.get_window_extent() for text in axis.get_yticklabels()]
    assert len(boxes) == min(count, plots.MOST_GROUPS)
    assert all(one.y0 >= other.y1 - 1 for one, other in itertools.pairwise(boxes))
    assert axis.get_yticklabels()[0].get_text() == "p0 (1)"
    assert ("with the worst accuracy" in figure.get_suptitle()) == (count > plots.MOST_GROUPS)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["its 95 % interval", "all: 0.75"]


@pytest.mark.parametrize("epochs", [1, 5])
def test_curves_show_every_loss_and_the_epoch_that_was_kept(epochs):
    """A run of one epoch shows its dots; a second stage goes on where the first ended."""
    losses = {"loss": 2.0, "loss_target": 1.0, "loss_other": float("nan"), "validation_loss": 1.0, "validation": 0.5}
    history = [{"stage": stage, "epoch": n + 1} | losses for stage in ("probe", "train") for n in range(epochs)]
    figure = plots.curves(history, RESULTS | {"best_epoch": epochs})
    left, right = figure.axes
    assert left.lines[0].get_marker() == "."
    assert [line.get_label() for line in left.lines] == ["minimised", "target", "other", "validation"]
    assert right.get_legend().get_texts()[0].get_text() == f"kept: epoch {epochs}"
    assert right.lines[1].get_xdata()[0] == 2 * epochs
    assert figure.get_suptitle() == "toy, nft: validation split, n = 7: accuracy 0.5 in the epoch that was kept"


@pytest.mark.parametrize("offset", [0.0, 1e11])
def test_scatter_has_a_panel_per_value_with_equal_axes(offset):
    targets = torch.tensor([[0.0, 100.0], [1.0, 300.0]], dtype=torch.float64) + offset
    figure = plots.scatter(targets + 1, targets, ("force [N]", "angle"), "rmse", HEAD)
    figure.draw_without_rendering()
    assert np.ptp(figure.axes[0].get_xlim()) == pytest.approx(2.2, abs=1e-3)
    assert (figure.axes[0].lines[0].get_xydata() - offset).tolist() == [[0, 1], [1, 2]]
    assert [axis.get_title() for axis in figure.axes] == ["force [N]: rmse 1 N", "angle: rmse 1"]
    assert figure.axes[0].get_xlabel() == "true force [N]"
    assert all(axis.get_xlim() == axis.get_ylim() for axis in figure.axes)
    assert len(plots.scatter(targets.repeat(1, 5), targets.repeat(1, 5), (), "rmse", HEAD).axes) == 6


def test_a_picture_tells_what_it_is_to_those_who_cannot_see_it(tmp_path):
    """In words within the file; as PDF it has letters that stay letters. Dollars in names are no formulas."""
    with drawing.style():
        figure = plots.groups(
            RESULTS | {"test_groups": {"$\\x$": {"samples": 2, "accuracy": 0.5}, "b": {"samples": 1, "accuracy": 1.0}}}
        )
        drawing.save(figure, tmp_path / "groups.png", "pdf")
    with Image.open(tmp_path / "groups.png") as image:
        assert image.info["Title"].startswith("toy, nft: test split, n = 40 in 2 groups accuracy 0.75 (95 %")
        assert image.info["Description"] == "accuracy of 2 of 2 groups, the worst first."
    assert (tmp_path / "groups.pdf").read_bytes().startswith(b"%PDF")
    assert {path.name for path in tmp_path.iterdir()} == {"groups.png", "groups.pdf"}


def test_what_cannot_be_drawn_is_warned_of_and_costs_no_other_picture(tmp_path):
    def fails():
        raise MemoryError("none left")

    drawn = {"a.png": fails, "b.png": lambda: drawing.panel((2, 2))[0]}
    with pytest.warns(
        UserWarning, match=r"a\.png: could not be made \(MemoryError: none left\); the run is whole without"
    ):
        drawing.sparingly(drawn, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]
    with pytest.raises(ZeroDivisionError):  # a mistake of ours is not hidden
        drawing.sparingly({"c.png": lambda: 1 / 0}, tmp_path)
