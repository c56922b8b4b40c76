from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from crossmodal.report import pictures as plots
from crossmodal.scoring import metrics


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_confusion_counts():
    outputs = torch.eye(3)[torch.tensor([0, 1, 1, 2])]
    figure = plots.confusion(outputs, torch.tensor([0, 1, 0, 2]), ("a", "b", "c"))
    written = [text.get_text() for text in figure.axes[0].texts]
    assert written == ["1", "1", "0", "0", "1", "0", "0", "0", "1"]


@pytest.mark.parametrize("metric", ["auroc", "macro_f1"])
def test_labels_have_a_bar_each_whose_mean_is_the_figure(metric):
    """Label b is the wrong way round for one of two pairs; no sample has label c, nor is it predicted."""
    targets = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    outputs = torch.tensor([[-1.0, 0.5, -2.0], [2.0, 1.0, -1.0], [-3.0, -0.5, -1.0]])
    (axis,) = plots.labels(outputs, targets, ("a", "b", "c"), metric).axes
    bars = [bar.get_width() for bar in axis.patches]
    assert bars == pytest.approx([1.0, 0.5, np.nan], nan_ok=True)
    (grouped,) = plots.labels(outputs, targets, ("a", "b", "c"), f"{metric}_of_groups").axes
    assert [bar.get_width() for bar in grouped.patches] == pytest.approx(bars, nan_ok=True)
    assert axis.lines[0].get_xdata()[0] == pytest.approx(metrics.get(metric)(outputs, targets))
    assert [text.get_text() for text in axis.get_yticklabels()] == ["a (1)", "b (2)", "c (0)"]


def test_labels_without_any_value_or_name_are_drawn(tmp_path):
    many = plots.MOST_CLASSES_NAMED + 1
    figure = plots.labels(torch.zeros(2, many), torch.zeros(2, many), (), "auroc")
    assert not figure.axes[0].lines
    plots.save(figure, tmp_path / "a.png")


def test_comparison_draws_every_run_and_a_line_for_what_has_no_seeds(tmp_path):
    methods = {
        "pare": {"label": "pare", "seeded": True, "mean": 2.0, "errors": [1.0, 3.0]},
        "nft": {"label": "nft", "seeded": True, "mean": None, "errors": [2.5, None]},
        "linear": {"label": "logistic regression", "seeded": False, "mean": 1.5, "errors": [1.5]},
    }
    figure = plots.comparison({"toy": {"methods": methods, "label": "error %"}})
    (axis,) = figure.axes
    drawn = [np.asarray(line.get_ydata()).tolist() for line in axis.lines]
    assert drawn[0] == [1.0, 3.0]
    assert drawn[1] == pytest.approx([2.5, np.nan], nan_ok=True)
    assert drawn[2] == [1.5, 1.5]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["pare", "nft"]
    plots.save(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("epochs", [1, 5])
def test_curves_show_every_loss_and_the_epoch_that_was_kept(epochs, tmp_path):
    """A run of one epoch shows its dots; a second stage goes on where the first ended."""
    losses = {"loss": 2.0, "loss_target": 1.0, "loss_other": float("nan"), "validation_loss": 1.0, "validation": 0.5}
    history = [{"stage": stage, "epoch": n + 1} | losses for stage in ("probe", "train") for n in range(epochs)]
    figure = plots.curves(history, "accuracy", {"epoch": epochs})
    left, right = figure.axes
    assert left.lines[0].get_marker() == "."
    assert [line.get_label() for line in left.lines] == ["minimised", "target", "other", "validation"]
    assert right.get_legend().get_texts()[0].get_text() == f"kept: epoch {epochs}"
    assert right.lines[1].get_xdata()[0] == 2 * epochs
    plots.save(figure, tmp_path / "a.png")


@pytest.mark.parametrize("offset", [0.0, 1e11])
def test_scatter_has_a_panel_per_value_with_equal_axes(offset):
    targets = torch.tensor([[0.0, 100.0], [1.0, 300.0]], dtype=torch.float64) + offset
    figure = plots.scatter(targets + 1, targets)
    figure.draw_without_rendering()
    assert np.ptp(figure.axes[0].get_xlim()) == pytest.approx(2.2, abs=1e-3)
    assert (figure.axes[0].lines[0].get_xydata() - offset).tolist() == [[0, 1], [1, 2]]
    assert [axis.get_title() for axis in figure.axes] == ["value 0", "value 1"]
    assert all(axis.get_xlim() == axis.get_ylim() for axis in figure.axes)
    assert len(plots.scatter(targets.repeat(1, 5), targets.repeat(1, 5)).axes) == 6


def test_long_class_names_are_cut():
    figure = plots.confusion(torch.eye(2), torch.tensor([0, 1]), ("x" * 60, "y"))
    assert len(figure.axes[0].get_xticklabels()[0].get_text()) == plots.LONGEST_NAME
