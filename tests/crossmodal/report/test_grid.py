from __future__ import annotations

import csv

import numpy as np
import pytest

from crossmodal import drawing
from crossmodal.files import read_yaml
from crossmodal.report import comparison_pictures as pictures
from crossmodal.report import published
from crossmodal.report.grid import Grid, comma_separated, latex, markdown
from crossmodal.report.tables import summarise
from tests.crossmodal.report.test_tables import result


@pytest.fixture
def grid() -> Grid:
    """Two tasks; of `b|c` a run of one failed and the other it cannot do, `linear` has no seeds."""
    one = [result("a_1", s, t) for s, t in enumerate((0.9, 0.91, 0.92))]
    one += [result("b|c", s, t) for s, t in enumerate((0.8, 0.82))]
    one += [result("linear", 0, 0.5) | {"called": "logistic regression", "seeded": False}]
    two = [result("a_1", s, t, "rmse") for s, t in enumerate((0.5, 0.7, 0.9))]
    two += [result("linear", 0, 0.8, "rmse") | {"called": "ridge", "seeded": False}]
    return Grid(
        {"one": summarise(one), "two": summarise(two)},
        ["a_1", "b|c", "linear"],
        {("one", "b|c"): 1},
        {("two", "b|c"): "why"},
    )


def test_markdown(grid):
    text = markdown(grid)
    assert text.startswith(
        "Test errors, mean ± standard deviation over 3 seeds, lower is better (one by accuracy, two by rmse).\n"
    )
    assert "| method | one, error % | two, error | average rank |" in text
    assert "| a_1 | 9.00 ± 1.00 | 0.700 ± 0.200 | 1.00 |" in text
    assert r"| b\|c | 19.00 ± 1.41 (2 of 3) |  |  |" in text
    assert "| linear | 50.00 | 0.800 | 2.00 |" in text
    assert "over 2 tasks (1: lowest error); without b|c, not in all of them or on fewer samples." in text
    assert "b|c cannot do two: why.\n1 run of b|c on one failed.\n" in text


def test_who_has_fewer_samples_is_neither_tested_nor_ranked_and_set_beside_the_others_on_the_same():
    several = [result(m, s, t * (1 - s * s / 100)) for m, t in (("nft", 0.9), ("b", 0.5)) for s in range(3)]
    few = [result("few", s, 0.99 + s / 1000) | {"samples": {"test": 4}} for s in range(3)]
    tables = {"one": summarise(several + few), "two": summarise(several + [result("few", s, 0.99) for s in range(3)])}
    found = Grid(tables, ["nft", "b", "few"])
    assert found.tests == 1 + 2
    assert found.ranks == {"nft": 1, "b": 2}
    assert "difference" in found.row("one", "b")
    assert "difference" not in found.row("one", "few")
    found.row("one", "few")["others"] = {"nft": 12.3456, "b": 50.0}
    text = markdown(found)
    assert "the test samples are the same, and who has fewer is not compared." in text
    assert "few on one: 4 of the 40 test samples, on which the others have: nft 12.35, b 50.00.\n" in text


def test_best_is_bold_in_every_form():
    table = summarise([result(m, s, t + s / 100) for m, t in (("a", 0.9), ("b", 0.5)) for s in range(3)])
    table["methods"]["a"]["errors"][0] += 0.01  # differences that are not all the same
    found = Grid({"one": table}, ["a", "b"])
    assert "| a | **9.00** ± 1.00 |" in markdown(found)
    assert "Holm's correction for the 1 test of the table" in markdown(found)
    assert r"a & \textbf{9.00} $\pm$ 1.00 \\" in latex(found)


def test_protocols_are_told_apart():
    both = {
        name: summarise([result("a", s, 0.9) | {"protocol": name} for s in range(2)]) for name in ("single", "rollout")
    }
    texts = [markdown(Grid({"burgers": table}, ["a"])) for table in both.values()]
    assert ["| method | burgers (single), error % |" in text for text in texts] == [True, False]
    assert ",single," in comma_separated(Grid({"burgers": both["single"]}, ["a"]))
    assert [axis.get_title() for axis in pictures.comparison({"burgers": both["rollout"]}).axes] == [
        "burgers (rollout)"
    ]


def test_latex_escapes(grid):
    text = latex(grid)
    assert r"method & one, error \% & two, error & average rank \\" in text
    assert r"a\_1 & 9.00 $\pm$ 1.00 & 0.700 $\pm$ 0.200 & 1.00 \\" in text
    assert "b$|$c" in text
    assert text.count("{") == text.count("}")


def test_comma_separated(grid):
    lines = list(csv.DictReader(comma_separated(grid).splitlines()))
    assert [(line["task"], line["method"], line["seeds"], line["failed"]) for line in lines] == [
        ("one", "a_1", "3", "0"),
        ("one", "b|c", "2", "1"),
        ("one", "linear", "1", "0"),
        ("two", "a_1", "3", "0"),
        ("two", "b|c", "0", "0"),
        ("two", "linear", "1", "0"),
    ]
    assert float(lines[0]["mean"]) == pytest.approx(9)
    assert (lines[4]["mean"], lines[2]["std"], lines[3]["average_rank"]) == ("", "", "1.0")


def test_a_task_alone_has_no_ranks(grid):
    found = Grid({"two": grid.tasks["two"]}, ["a_1", "linear"])
    assert found.ranks == {}
    assert "average rank" not in markdown(found)


def test_published_figures_have_a_unit_and_a_source():
    known = read_yaml(published.FILE)
    for line in known["figures"]:
        tasks = line.keys() - {"method", "source"}
        assert tasks
        assert tasks <= known["errors"].keys()
        assert line["source"] in known["sources"]
        assert all(isinstance(line[task], str) and float(line[task]) > 0 for task in tasks), line
    text = published.markdown(["darcy_flow", "digits"])
    assert "| from elsewhere | darcy_flow, relative L2 |" in text
    assert "| best architecture search [1] | 2.6e-3 |" in text
    assert "| best architecture search [2] | 0.026 |" in text
    assert "[2] Tu et al., NAS-Bench-360" in text
    assert published.markdown(["digits"]) == ""
    assert all(task in published.markdown() for task in known["errors"])


def test_pictures_of_several_tasks(grid, tmp_path):
    """Drawn with what there is: runs of unequal length, a NaN in every run, an infinite ratio."""
    nan = float("nan")
    curves = {"one": {"a": [[0.1, nan, 0.3], [0.2, nan]], "b": [[0.5, 0.6]]}, "two": {"b": [[0.5]]}}
    figure = pictures.learning_curves(curves, ["accuracy", "rmse"])
    first = figure.axes[0].lines[0]
    assert first.get_xdata().tolist() == [1, 3]
    assert first.get_ydata() == pytest.approx([0.15, 0.3])
    assert figure.axes[0].lines[1].get_color() == figure.axes[1].lines[0].get_color()
    means = np.array([[3.0, 1.0, 1.1]] * 3 + [[3.0, 1.1, 1.0]] * 4)
    ranks = pictures.critical_difference(["a", "b", "c"], means)
    assert {text.get_text() for text in ranks.axes[0].texts} >= {"a (3.00)", "b (1.57)", "c (1.43)"}
    assert "critical difference 1.25, 7 tasks" in {text.get_text() for text in ranks.axes[0].texts}
    drawn = {"curves.png": figure, "ranks.png": ranks, "comparison.png": pictures.comparison(grid.tasks)}
    drawn["profiles.png"] = pictures.profiles(["a", "b"], np.array([[0.0, 1.0], [1.0, 1.0]]))
    drawing.save_all(drawn, tmp_path)
    assert all((tmp_path / name).stat().st_size for name in drawn)
