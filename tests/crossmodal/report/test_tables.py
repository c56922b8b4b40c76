from __future__ import annotations

import math

import pytest

from crossmodal import drawing
from crossmodal.report import comparison_pictures as pictures
from crossmodal.report.tables import closing_table, render, summarise


def result(method: str, seed: int, test: float, metric: str = "accuracy") -> dict:
    """What results.json holds of a run of a comparison."""
    return {
        "task": "digits",
        "title": "digits",
        "protocol": "default",
        "method": method,
        "encoder": "minilm",
        "seed": seed,
        "metric": metric,
        "test": None if math.isnan(test) else test,
        "test_interval": None if math.isnan(test) else [test - 0.05, test + 0.01],
        "samples": {"test": 40},
        "seconds": 1.0 + seed,
        "test_seconds": 1.0,
    }


def test_table_by_hand():
    jobs = [result("linear", 0, 0.96) | {"called": "logistic regression, raw values", "encoder": None}]
    jobs += [result("pare", s, t) for s, t in enumerate((0.9, 0.8, 0.7))]
    jobs += [result("nft", s, t) for s, t in enumerate((0.8, 0.8, 0.6))]
    table = summarise(jobs)
    pare = table["methods"]["pare"]
    assert pare["errors"] == pytest.approx([10, 20, 30])
    assert (pare["mean"], pare["std"], pare["seconds"]) == pytest.approx((20, 10, 3))
    # differences -10, 0, -10: mean -20/3, standard deviation 10/sqrt(3), standard error 10/3
    assert (pare["difference"], pare["standard_error"]) == pytest.approx((-20 / 3, 10 / 3))
    text = render(table)
    assert text.startswith("digits: test error % (accuracy), encoder minilm, 3 seeds\n")
    assert "| pare | 20.00 | 10.00 | -6.67 ± 3.33 | 3 |" in text
    assert "| nft | 26.67 | 11.55 |  | 3 |" in text
    assert "| logistic regression, raw values | 4.00 |  |  |  |" in text
    # 4.3027 standard errors, by Student's t for three seeds; scores, whose best is 1, become errors
    assert pare["difference_interval"] == pytest.approx([-20 / 3 - 14.342, -20 / 3 + 14.342], abs=1e-3)
    assert "| 95 % interval | over 40 test samples, mean of the seeds' | of the difference, over seeds |" in text
    for row in table["methods"].values():
        row["groups"] = 7
    assert "| 95 % interval | over 7 test groups, mean" in render(table)
    assert "| pare | 19.00 to 25.00 | -21.01 to +7.68 |" in text
    assert "| nft | 25.67 to 31.67 |  |" in text
    assert "| logistic regression, raw values | 3.00 to 9.00 |  |" in text


@pytest.mark.parametrize("tests", [[(0.8, 0.7), (0.9, 0.8)], [(0.8, 0.7), (0.9, 0.8), (0.7, 0.6)]])
def test_agreement_by_chance_is_no_precision(tests):
    """Two seeds, or three whose differences are the same: nothing, instead of ± 0.00."""
    jobs = [result("pare", seed, pare) for seed, (pare, _) in enumerate(tests)]
    table = summarise(jobs + [result("nft", seed, nft) for seed, (_, nft) in enumerate(tests)])
    pare = table["methods"]["pare"]
    assert pare["difference"] == pytest.approx(-10)
    assert pare["standard_error"] is pare["difference_interval"] is None
    assert "| -10.00 |" in render(table)


def test_one_seed_has_no_deviation_and_errors_stay_errors():
    table = summarise([result("pare", 0, 0.5, "rmse"), result("nft", 0, 0.75, "rmse")])
    assert table["label"] == "error"
    assert "| pare | 0.500 |  | -0.250 | 2 |" in render(table)


@pytest.mark.parametrize(
    ("errors", "row", "other"),
    [
        ((0.0006, 0.0008, 0.0021), "| pare | 0.000700 | 0.000100 | -0.001400 ± 0.000058 |", "0.002100"),
        ((1234.0, 1236.0, 99000.0), "| pare | 1235.0 | 1.0 | -97765.0 ± 0.6 |", "99000.0"),
        ((11.40, 11.41, 11.52), "| pare | 11.4050 | 0.0050 | -0.1150 ± 0.0029 |", "11.5200"),
        ((2e-9, 2e-9, 3e-9), "| pare | 2.00e-09 | 0.00e+00 | -1.00e-09 |", "3.00e-09"),
        ((0.0, 0.0, 0.5), "| pare | 0.000 | 0.000 | -0.500 |", "0.500"),
        ((0.0, 0.0, 0.0), "| pare | 0.00 | 0.00 | +0.00 |", "0.00"),
    ],
)
def test_errors_have_digits_that_suit_them(errors, row, other):
    one, two, rival = errors
    jobs = [result("pare", seed, test, "rmse") for seed, test in enumerate((one, (one + two) / 2, two))]
    jobs += [result("nft", seed, rival, "rmse") for seed in range(3)]
    text = render(summarise(jobs))
    assert row in text
    assert f"| nft | {other} |" in text


def test_a_small_standard_error_is_not_written_as_zero():
    jobs = [result("pare", seed, test) for seed, test in enumerate((0.90004, 0.90006, 0.90005))]
    text = render(summarise(jobs + [result("nft", seed, 0.9) for seed in range(3)]))
    assert "| pare | 9.9950 | 0.0010 | -0.0050 ± 0.0006 |" in text


def test_a_metric_that_is_nan_leaves_a_blank(tmp_path):
    """results.json holds null for NaN; what depends on it is blank, the rest stands, and the picture is drawn."""
    jobs = [result("pare", s, t, "auroc") for s, t in enumerate((0.5, float("nan")))]
    jobs += [result("nft", s, t, "auroc") for s, t in enumerate((0.5, 0.75))]
    jobs += [result("scratch", s, float("nan"), "auroc") for s in range(2)]
    jobs += [result("linear", 0, float("nan"), "auroc")]
    table = summarise(jobs)
    assert table["methods"]["pare"]["errors"] == [50.0, None]
    text = render(table)
    assert "| pare |  |  |  | 2 |" in text
    assert "| nft | 37.50 | 17.68 |  | 2 |" in text
    assert "| linear |  |  |  |  |" in text
    assert "No mean of pare, scratch, linear: test auroc is NaN in at least one run." in text
    drawing.save(pictures.comparison({"digits": table}), tmp_path / "a.png")


def test_closing_table():
    results = {
        "protocol": "default",
        "test_fields": {},
        "metric": "accuracy",
        "validation": 0.5,
        "test": 0.25,
        "validation_loss": 1.0,
        "test_loss": float("nan"),
        "test_metrics": {"accuracy": 0.25, "macro_f1": 0.125},
        "test_interval": [0.04559, 0.6994],
        "test_interval_over": "samples",
        "samples": {"train": 8, "validation": 2, "test": 4},
        "best_epoch": 2,
        "epochs": 3,
        "steps": 12,
        "seconds": 90.0,
    }
    *table, interval, last = closing_table(results, "metric").splitlines()
    assert [line.split() for line in table] == [
        ["validation", "test"],
        ["accuracy", "0.5000", "0.2500"],
        ["macro_f1", "0.1250"],
        ["loss", "1.000", "nan"],
        ["samples", "2", "4"],
    ]
    assert interval == "95 % interval of the test accuracy, over samples: 0.04559 to 0.6994"
    assert "interval" not in closing_table(results | {"test_interval": None}, "metric")
    grouped = closing_table(results | {"test_interval_over": "groups"}, "metric")
    assert "95 % interval of the test accuracy, over groups: " in grouped
    assert last == "weights of epoch 2 of 3 (select: metric); 12 steps in 1.5 min"
    *_, last = closing_table(results | {"validation": float("nan")}, "metric").splitlines()
    assert "weights of epoch 2 of 3 (select: loss, because validation accuracy is NaN in every epoch)" in last
    *_, last = closing_table(results | {"validation": float("nan")}, "last").splitlines()
    assert "(select: last)" in last


def test_closing_table_of_a_method_without_epochs():
    results = {"metric": "rmse", "validation": None, "test": 0.25, "validation_loss": None, "test_loss": 0.5}
    results |= {"test_metrics": {"rmse": 0.25}, "test_interval": None, "best_epoch": None}
    results |= {"protocol": "default", "test_fields": {}}
    *_, samples = closing_table(results | {"samples": {"train": 8, "validation": 2, "test": 4}}, "metric").splitlines()
    assert samples.split() == ["samples", "2", "4"]


def test_closing_table_of_fields():
    """The protocol, and the metric that chose the epoch over frames and channels."""
    results = {
        "protocol": "rollout",
        "metric": "nrmse",
        "validation": 0.5,
        "test": 0.35,
        "validation_loss": 1.0,
        "test_loss": 1.0,
        "test_metrics": {"nrmse": 0.35, "rmse": 2.0},
        "test_fields": {"nrmse": [[0.1, 0.3], [0.2, 0.4], [0.5, 0.6]]},
        "channels": ["u", "v"],
        "test_interval": None,
        "samples": {"train": 8, "validation": 2, "test": 4},
        "best_epoch": None,
    }
    *table, frames, channels = closing_table(results, "metric").splitlines()
    assert table[-1].split() == ["protocol", "rollout"]
    assert frames == "test nrmse over the 3 frames: 0.2000 in frame 1, 0.3000 in frame 2, 0.5500 in frame 3"
    assert channels == "test nrmse by channel: u 0.2667, v 0.4333"
    table = summarise([result("pare", 0, 0.5, "rmse") | {"protocol": "single"}])
    assert render(table).startswith("digits, protocol single: test error (rmse), ")
