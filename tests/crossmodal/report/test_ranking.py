"""Paired comparisons over test samples and groups: nominal coverage, who is told apart, how many samples would be needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from crossmodal.errors import UserError
from crossmodal.report import ranking, statistics
from crossmodal.scoring import metric as base
from crossmodal.scoring import metrics
from crossmodal.training import outcomes
from crossmodal.training.evaluation import Evaluation
from crossmodal.training.outcomes import Outcomes

MAE = metrics.get("mae")


def of_errors(errors: np.ndarray):
    return MAE.numbers(torch.from_numpy(errors)[:, None], torch.zeros(len(errors), 1))


@pytest.mark.parametrize(("groups", "size"), [(40, 1), (12, 5)])
def test_intervals_have_their_nominal_coverage(monkeypatch, groups, size):
    """Of a figure and of a paired difference, on simulated samples whose true values are known; if groups are ignored, not."""
    monkeypatch.setattr(base, "RESAMPLES", 200)
    rng, runs = np.random.default_rng(5), 150
    group = np.repeat(np.arange(groups), size)
    covered = np.zeros(3)
    for _ in range(runs):
        effect, effect_of_difference = rng.gamma(4, 0.25, groups), rng.normal(0.1, 0.3, groups)
        one = np.abs(effect[group] + 0.1 * rng.standard_normal(len(group))) + 1
        other = one + effect_of_difference[group] + 0.1 * rng.standard_normal(len(group))
        numbers = [of_errors(one), of_errors(other)]
        low, high = MAE.interval(numbers[0], group)
        figures, units = MAE.resampled(numbers, group)
        difference = MAE.figure(numbers[1]) - MAE.figure(numbers[0])
        inner, outer = statistics.compared(difference, figures[:, 1] - figures[:, 0], units).interval
        plain, units = MAE.resampled(numbers)
        naive = statistics.compared(difference, plain[:, 1] - plain[:, 0], units).interval
        covered += [low < 2.0 < high, inner < 0.1 < outer, naive[0] < 0.1 < naive[1]]
    share = covered / runs  # of which the standard error is 0.018
    assert (share[:2] > 0.905).all()
    assert (share[:2] < 0.99).all()
    assert (share[2] < 0.75) == (size > 1)


def test_of_a_mean_it_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    one, other = rng.gamma(2, 1, 60), rng.gamma(2, 1.2, 60)
    figures, units = MAE.resampled([of_errors(one), of_errors(other)])
    found = statistics.compared(one.mean() - other.mean(), figures[:, 0] - figures[:, 1], units)
    test = stats.ttest_rel(one, other)
    assert found.p == pytest.approx(test.pvalue, rel=0.15)
    assert found.interval == pytest.approx(list(test.confidence_interval()), abs=0.03)


def test_what_a_bootstrap_cannot_say():
    assert statistics.compared(0.3, np.linspace(0, 1, 50), 4) == statistics.Paired(0.3)
    assert statistics.compared(0.0, np.zeros(50), 30).p == 1.0
    assert statistics.compared(0.5, np.full(50, 0.5), 11).p == 2.0**-10
    assert statistics.units_needed(statistics.Paired(0.0, 0.1), 30) is None


def test_as_many_samples_as_are_said_tell_apart_four_times_in_five():
    error, units = 0.05, 100  # of a difference of 0.06, as if found
    needed = statistics.units_needed(statistics.Paired(0.06, error), units)
    differences = np.random.default_rng(1).normal(0.06, error * units**0.5, (4000, needed))
    assert (stats.ttest_1samp(differences, 0.0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.025)


def found_in(errors: dict[str, list[np.ndarray]], group=None) -> dict:
    return ranking.rank(
        {
            name: [Outcomes("mae", of_errors(one), np.arange(len(one)), group) for one in ones]
            for name, ones in errors.items()
        }
    )


def test_ranking_says_who_is_told_apart_and_how_many_more_would_be_needed():
    rng = np.random.default_rng(2)
    hard = rng.gamma(4, 1, 80)  # what all methods find hard: paired, it does not count
    errors = {
        "poor": [hard + 2 + 0.1 * rng.standard_normal(80)],
        "good": [hard + 0.01 + 0.2 * rng.standard_normal(80) for _ in range(2)],
        "best": [hard + 0.2 * rng.standard_normal(80) for _ in range(2)],
    }
    found = found_in(errors)
    assert found["order"][2] == "poor"
    assert found["values"]["good"] == pytest.approx(np.mean(errors["good"]))
    by_pair = {(pair["better"], pair["worse"]): pair["adjusted"] for pair in found["pairs"]}
    first, second = found["order"][:2]
    assert by_pair[first, "poor"] < 1e-6 < 0.05 < by_pair[first, second]
    assert found["needed"] > 80
    text = ranking.render("toy", found)
    assert f"Not told apart from {first} by these data: {second}." in text
    assert f"About {found['needed']} test samples instead of 80 would tell {first} from {second}" in text
    grouped = found_in(errors, np.arange(80) % 8)
    assert (grouped["over"], grouped["units"]) == ("groups", 8)
    few = found_in(errors, np.arange(80) % 3)
    assert few["needed"] is None
    assert "Too few test groups (3)" in ranking.render("toy", few)
    errors = {"best": [hard], "second": [hard + 0.5], "third": [rng.permutation(hard) + 0.55]}
    text = ranking.render("toy", found_in(errors))
    assert text.endswith("Not told apart from best by these data: third.\n")  # the best two are, so nothing is missing


def evaluation(name: str, values: int = 1, group=None) -> Evaluation:
    outputs, targets = torch.randn(30, values), torch.randn(30, values)
    numbers = {name: metrics.get(name).numbers(outputs, targets)}
    return Evaluation(
        1.0, {name: 0.5}, numbers, -(outputs - targets).double().square().mean(1), outputs, targets, group
    )


def test_outcomes_come_back_as_they_were(tmp_path, monkeypatch):
    test = evaluation("mae", group=np.arange(30) % 7)
    kept = replace(outcomes.of(test, np.arange(30)), others={"mean": {"a": np.ones(4)}}, compared=np.arange(4))
    outcomes.save(tmp_path / "test.npz", kept)
    again = outcomes.load(tmp_path / "test.npz")
    assert again.metric == "mae"
    assert np.array_equal(again.group, test.group)
    for key, values in test.numbers["mae"].items():
        assert np.array_equal(again.numbers[key], values)
    outcomes.save(tmp_path / "folds.npz", outcomes.joined([again, again.some(np.arange(9)), again]))
    folds = outcomes.load(tmp_path / "folds.npz")
    assert (len(folds), np.bincount(folds.fold).tolist(), folds.others) == (69, [30, 9, 30], {})
    both = outcomes.joined([again, again])
    assert (both.compared.tolist(), both.others["mean"]["a"].tolist()) == ([0, 1, 2, 3, 30, 31, 32, 33], [1.0] * 8)
    monkeypatch.setattr(outcomes, "MOST_VALUES", 100)
    large = evaluation("r2", 5)
    outcomes.save(tmp_path / "test.npz", outcomes.of(large, np.arange(30)))
    again = outcomes.load(tmp_path / "test.npz")
    assert (again.metric, len(again)) == ("score", 30)
    assert again.measure.figure(again.numbers) == pytest.approx(large.scores.mean().item())


ONE = {"number_a": np.zeros(3)}


@pytest.mark.parametrize("arrays", [None, {}, {"metric": "mae"}, {"metric": "none"} | ONE, {"metric": "mae"} | ONE])
def test_damaged_outcomes_are_refused(tmp_path, arrays):
    file = tmp_path / "test.npz"
    file.write_bytes(b"no archive") if arrays is None else np.savez(file, **arrays)
    with pytest.raises(UserError, match=r"test\.npz is damaged"):
        outcomes.load(file)
    with pytest.raises(UserError, match="before what came of each sample was kept"):
        outcomes.load(tmp_path / "absent.npz")
