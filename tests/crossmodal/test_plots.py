from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from crossmodal import metrics, plots


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_mixing_shades_the_replaced_samples_of_a_series():
    figure = plots.mixing(torch.randn(3, 1, 10), {"1": {"2": [0, 3]}, "8": {"2": []}}, [2], [10])
    early, late = figure.axes
    assert early.get_title() == "sample 2, epoch 1: 2 replaced"
    assert late.get_title() == "sample 2, epoch 8: 0 replaced"
    spans = sorted(
        patch.get_extents().transformed(early.transData.inverted()).intervalx.tolist() for patch in early.patches
    )
    assert spans == [pytest.approx([-0.5, 1.5]), pytest.approx([5.5, 7.5])]
    assert not late.patches


def test_mixing_covers_the_replaced_patches_of_an_image():
    """5 x 4 pixels in patches of 2 x 2: three rows of two, the last row cut."""
    figure = plots.mixing(torch.randn(1, 3, 5, 4), {"0": {"0": [1, 4]}}, [2, 2], [5, 4])
    (axis,) = figure.axes
    cover = axis.images[1]
    assert (np.asarray(cover.get_alpha()) > 0).tolist() == [[False, True], [False, False], [True, False]]
    assert cover.get_extent() == [-0.5, 3.5, 5.5, -0.5]
    assert (axis.get_xlim(), axis.get_ylim()) == ((-0.5, 3.5), (4.5, -0.5))


@pytest.mark.parametrize("size", [(5, 4), (32, 24)])
def test_mixing_follows_the_canvas_to_which_images_are_resized(size):
    """A canvas of 16 x 16 in patches of 4 x 4: its grid lies over the whole image, be that smaller or larger."""
    figure = plots.mixing(torch.randn(1, 3, *size), {"0": {"0": [0, 15]}}, [4, 4], [16, 16])
    (axis,) = figure.axes
    cover = axis.images[1]
    assert np.flatnonzero(np.asarray(cover.get_alpha())).tolist() == [0, 15]
    assert cover.get_alpha().shape == (4, 4)
    assert cover.get_extent() == pytest.approx([-0.5, size[1] - 0.5, size[0] - 0.5, -0.5])


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
    assert axis.lines[0].get_xdata()[0] == pytest.approx(metrics.get(metric)(outputs, targets))
    assert [text.get_text() for text in axis.get_yticklabels()] == ["a (1)", "b (2)", "c (0)"]


def test_labels_without_any_value_or_name_are_drawn(tmp_path):
    many = plots.MOST_CLASSES_NAMED + 1
    figure = plots.labels(torch.zeros(2, many), torch.zeros(2, many), (), "auroc")
    assert not figure.axes[0].lines
    plots.save(figure, tmp_path / "a.png")


def test_comparison_draws_every_run_and_the_yardstick(tmp_path):
    methods = {"pare": {"mean": 2.0, "errors": [1.0, 3.0]}, "nft": {"mean": 2.5, "errors": [2.5]}}
    yardstick = {"name": "logistic regression", "error": 1.5}
    figure = plots.comparison({"methods": methods, "yardstick": yardstick, "label": "error %", "task": "toy"})
    dots = [
        line.get_ydata().tolist()
        for line in figure.axes[0].lines
        if len(line.get_xdata()) != 2 or line.get_marker() == "o"
    ]
    assert [1.0, 3.0] in dots
    assert [2.5] in dots
    plots.save(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def history(epochs: int) -> list[dict]:
    losses = {"loss": 2.0, "target": 1.0, "mixed_target": 1.0, "mixed_source": float("nan"), "validation_loss": 1.0}
    k = [
        {"k": 4 - epoch, "lam": (4 - epoch) / 4, "selection": "topk" if epoch else "gumbel"} for epoch in range(epochs)
    ]
    return [{"epoch": epoch + 1, "validation": 0.5} | losses | k[epoch] for epoch in range(epochs)]


@pytest.mark.parametrize("epochs", [1, 5])
def test_curves_show_k_and_lam_and_the_epoch_that_was_kept(epochs, tmp_path):
    """A run of one epoch shows its dots; lam = k / N; k = 0 in the last epoch of five."""
    figure = plots.curves(history(epochs), "accuracy", epochs)
    losses, validation, mixed = figure.axes
    assert losses.lines[0].get_marker() == "."
    assert validation.get_legend().get_texts()[0].get_text() == f"kept: epoch {epochs}"
    plots.save(figure, tmp_path / "a.png")
    (lam,) = mixed.child_axes
    assert np.allclose(np.array(mixed.get_ylim()) / 4, lam.get_ylim())
    assert mixed.patches[0].get_data().values.tolist() == [4, 3, 2, 1, 0][:epochs]


def test_scatter_has_a_panel_per_value_with_equal_axes():
    targets = torch.tensor([[0.0, 100.0], [1.0, 300.0]])
    figure = plots.scatter(targets + 1, targets)
    assert [axis.get_title() for axis in figure.axes] == ["value 0", "value 1"]
    assert all(axis.get_xlim() == axis.get_ylim() for axis in figure.axes)
    assert len(plots.scatter(targets.repeat(1, 5), targets.repeat(1, 5)).axes) == 6


def test_long_class_names_are_cut():
    figure = plots.confusion(torch.eye(2), torch.tensor([0, 1]), ("x" * 60, "y"))
    assert len(figure.axes[0].get_xticklabels()[0].get_text()) == plots.LONGEST_NAME
