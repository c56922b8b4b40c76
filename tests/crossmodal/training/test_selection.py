from __future__ import annotations

import pytest
import torch

from crossmodal.scoring import metrics
from crossmodal.training.selection import EpochSelection

NAN = float("nan")
RIGHT = torch.ones(10, dtype=torch.float64)


def wrong(*rows: int) -> torch.Tensor:
    """Scores of ten samples, of which these are wrong."""
    return RIGHT.index_fill(0, torch.tensor(rows), 0.0)


def kept(selection: EpochSelection, *scores: torch.Tensor) -> list[bool]:
    """What is said of epochs with these scores."""
    return [selection.consider(epoch, one.mean().item(), 1.0, one) for epoch, one in enumerate(scores)]


@pytest.fixture
def within_error() -> EpochSelection:
    return EpochSelection("within_error", metrics.get("accuracy"))


def test_within_error_keeps_the_last_epoch_that_the_samples_do_not_object_to(within_error):
    """Ten samples right in epoch 0; then one wrong (one standard error: kept), two wrong (not), another one (kept)."""
    assert kept(within_error, RIGHT, wrong(3), wrong(3, 4), wrong(7)) == [True, True, False, True]
    assert within_error.best == {"epoch": 3, "metric": 0.9, "loss": 1.0}
    assert within_error.reference == RIGHT.tolist()


def test_within_error_follows_a_better_epoch(within_error):
    worse, better = torch.tensor([-2.0, -1.0, -4.0]).double(), torch.tensor([-0.1, -0.2, -0.3]).double()
    assert kept(within_error, worse, better, better - 1.0) == [True, True, False]
    assert within_error.reference == better.tolist()
    assert within_error.best["epoch"] == 1


def test_within_error_of_one_sample_has_no_error(within_error):
    assert kept(within_error, torch.ones(1).double(), torch.zeros(1).double()) == [True, False]


def test_within_error_leaves_nan_behind(within_error):
    broken, sound = torch.full((3,), NAN).double(), torch.tensor([-2.0, -1.0, -4.0]).double()
    assert kept(within_error, broken, sound, broken) == [True, True, False]


@pytest.mark.parametrize(
    ("rule", "metric", "epochs", "best"),
    [
        ("metric", "accuracy", [(0.5, 1.0), (0.7, 2.0), (0.6, 0.5)], 1),
        ("metric", "accuracy", [(0.7, 1.0), (0.7, 0.5), (0.7, 0.8)], 1),
        ("metric", "accuracy", [(0.7, 1.0), (0.7, 1.0), (0.6, 1.0)], 1),
        ("metric", "rmse", [(3.0, 1.0), (2.0, 9.0), (2.5, 0.1)], 1),
        ("loss", "accuracy", [(0.5, 1.0), (0.4, 0.5), (0.9, 0.8)], 1),
        ("loss", "accuracy", [(0.5, 0.5), (0.4, 0.5), (0.9, 0.8)], 1),
        ("last", "accuracy", [(0.9, 0.1), (0.4, 0.5), (NAN, NAN)], 2),
        ("metric", "auroc", [(NAN, 1.0), (0.9, 2.0), (0.8, 0.5)], 1),
        ("metric", "auroc", [(0.5, 1.0), (NAN, 0.1), (0.4, 0.5)], 0),
        ("metric", "rmse", [(NAN, 1.0), (3.0, 9.0), (NAN, 0.5), (2.0, 9.0)], 3),
        ("metric", "auroc", [(NAN, 1.0), (NAN, 0.5), (NAN, 0.7)], 1),
        ("metric", "auroc", [(NAN, NAN), (NAN, 0.5), (NAN, NAN)], 1),
        ("loss", "auroc", [(0.1, NAN), (0.2, 0.5), (0.3, NAN)], 1),
    ],
)
def test_the_epoch_that_is_kept(rule, metric, epochs, best):
    """NaN is worst, and the loss decides where there is nothing else; the later of two equal epochs."""
    selection = EpochSelection(rule, metrics.get(metric))
    for epoch, (value, loss) in enumerate(epochs):
        chosen = selection.consider(epoch, value, loss, torch.zeros(0))
        assert chosen == (selection.best["epoch"] == epoch)
    assert selection.best == {"epoch": best, "metric": epochs[best][0], "loss": epochs[best][1]}


@pytest.mark.parametrize("rule", ["metric", "loss", "within_error", "last"])
def test_the_state_goes_on_where_it_was_saved(rule):
    scores = (wrong(1), RIGHT, wrong(3), wrong(3, 4), wrong(7))
    straight, first, second = (EpochSelection(rule, metrics.get("accuracy")) for _ in range(3))
    expected = kept(straight, *scores)
    kept(first, *scores[:2])
    second.load_state(first.state())
    resumed = [second.consider(epoch, scores[epoch].mean().item(), 1.0, scores[epoch]) for epoch in (2, 3, 4)]
    assert resumed == expected[2:]
    assert second.state() == straight.state()
