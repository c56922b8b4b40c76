from __future__ import annotations

import numpy as np
import pytest

from crossmodal.report import statistics


def table(**errors: list[float]) -> dict:
    """What `tables.summarise` gives of these errors by seed; methods of one value have no seeds."""
    rows = {}
    for name, values in errors.items():
        rows[name] = {"errors": values, "mean": float(np.mean(values)), "seeds": list(range(len(values))), "samples": 9}
        rows[name]["seeded"] = len(values) > 1
    return {"seeds": list(range(max(map(len, errors.values())))), "methods": rows, "samples": 9}


def test_paired_by_hand():
    found = statistics.paired([1.0, 2.0, 3.0])
    # mean 2, standard error 1/sqrt(3); t = 3.4641 on 2 degrees of freedom: p = 1 - t / sqrt(t^2 + 2)
    assert (found.mean, found.error, found.p) == pytest.approx((2.0, 3**-0.5, 1 - (12 / 14) ** 0.5))
    assert found.interval == pytest.approx([2 - 4.302653 * 3**-0.5, 2 + 4.302653 * 3**-0.5])
    for nothing in ([1.0, 2.0], [2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]):
        assert statistics.paired(nothing) == statistics.Paired(np.mean(nothing))


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    assert statistics.holm([]) == []


@pytest.mark.parametrize(
    ("errors", "best", "tests"),
    [
        ({"a": [1.0, 1.1, 1.2], "b": [2.0, 2.2, 2.1]}, "a", 1),
        ({"a": [1.0, 1.1, 1.2], "b": [1.0, 1.3, 1.1]}, None, 1),  # apart by chance
        ({"a": [1.0, 1.1], "b": [2.0, 2.3]}, None, 0),  # two seeds say nothing
        ({"a": [1.0, 1.1, 1.2], "b": [2.0, 2.1, 2.2]}, None, 0),  # nor do differences that are all the same
        ({"a": [1.0, 1.1, 1.2], "b": [2.0, 2.2, 2.1], "c": [1.1, 1.1, 1.2]}, None, 2),  # of two rivals one is near
        ({"a": [1.0, 1.1, 1.2], "c": [5.0]}, "a", 1),  # one run without seeds counts for each
        ({"a": [5.0, 5.1, 5.3], "c": [1.0]}, "c", 1),
        ({"b": [1.0], "c": [5.0]}, None, 0),
        ({"a": [1.0, 1.1, 1.2]}, None, 0),
    ],
)
def test_the_best_is_one_only_where_every_test_says_so(errors, best, tests):
    found = table(**errors)
    assert statistics.mark_best([found]) == tests
    assert [name for name, row in found["methods"].items() if row["best"]] == ([best] if best else [])


def test_holm_counts_the_tests_of_all_tasks():
    def one():
        return table(a=[1.0, 1.1, 1.2], b=[1.5, 1.7, 1.55])  # p = 0.018

    alone = one()
    statistics.mark_best([alone])
    assert alone["methods"]["a"]["best"]
    several = [one() for _ in range(3)]
    assert statistics.mark_best(several) == 3
    assert not any(found["methods"]["a"]["best"] for found in several)


def test_seeds_that_only_one_of_two_has_are_left_out():
    found = table(a=[1.0, 1.1, 1.2, 9.0], b=[2.0, 2.2, 2.1])
    found["methods"]["a"]["mean"] = 1.1
    statistics.mark_best([found])
    assert found["methods"]["a"]["best"]


def test_average_ranks():
    means = np.array([[3.0, 1.0, 2.0], [0.3, 0.1, 0.1]])
    assert statistics.average_ranks(means) == pytest.approx([3, 1.25, 1.75])


@pytest.mark.parametrize(("methods", "quantile"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_critical_difference_has_the_quantiles_of_nemenyis_test(methods, quantile):
    """Demšar, JMLR 2006, table 5 (a); his example of four classifiers on 14 data sets has 1.25."""
    expected = quantile * (methods * (methods + 1) / (6 * 8)) ** 0.5
    assert statistics.critical_difference(methods, 8) == pytest.approx(expected, rel=3e-4)
    assert statistics.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


def test_cliques_are_the_longest_stretches():
    ranks = np.array([1.0, 1.5, 2.2, 4.0, 4.1])
    assert statistics.cliques(ranks, 1.0) == [(0, 1), (1, 2), (3, 4)]
    assert statistics.cliques(ranks, 4.0) == [(0, 4)]
    assert statistics.cliques(ranks, 0.05) == []


def test_profile_by_hand():
    ratios, shares = statistics.profile(np.array([[1.0, 2.0], [3.0, 1.0], [0.0, 0.0], [0.0, 1.0]]))
    assert ratios == pytest.approx([1, 2, 3])
    assert shares == pytest.approx(np.array([[0.75, 0.5], [0.75, 0.75], [1.0, 0.75]]))
