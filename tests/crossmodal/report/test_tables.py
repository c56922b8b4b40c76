from __future__ import annotations

from crossmodal.report.tables import closing_table


def test_closing_table():
    results = {
        "metric": "accuracy",
        "validation": 0.5,
        "test": 0.25,
        "validation_loss": 1.0,
        "test_loss": float("nan"),
        "test_metrics": {"accuracy": 0.25, "macro_f1": 0.125},
        "test_interval": [0.04559, 0.6994],
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
    assert last == "weights of epoch 2 of 3 (select: metric); 12 steps in 1.5 min"
    *_, last = closing_table(results | {"validation": float("nan")}, "metric").splitlines()
    assert "weights of epoch 2 of 3 (select: loss, because validation accuracy is NaN in every epoch)" in last
    *_, last = closing_table(results | {"validation": float("nan")}, "last").splitlines()
    assert "(select: last)" in last


def test_closing_table_of_a_method_without_epochs():
    results = {"metric": "rmse", "validation": None, "test": 0.25, "validation_loss": None, "test_loss": 0.5}
    results |= {"test_metrics": {"rmse": 0.25}, "test_interval": None, "best_epoch": None}
    *_, samples = closing_table(results | {"samples": {"train": 8, "validation": 2, "test": 4}}, "metric").splitlines()
    assert samples.split() == ["samples", "2", "4"]
