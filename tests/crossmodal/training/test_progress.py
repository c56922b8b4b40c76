from __future__ import annotations

import sys

from crossmodal.training.progress import Progress, duration

RECORD = {"epoch": 1, "step": 2, "loss": 0.5, "validation": 0.75, "lr": 1e-3, "samples_per_second": 10.0}
SAID = {"k": 3, "lam": 0.5, "selection": "gumbel"}  # of which whole numbers are shown


def test_plain_lines_where_there_is_no_terminal(capsys):
    progress = Progress(4, 2, "accuracy")
    progress.step(0.5, 1e-3, SAID, 10.0)
    progress.epoch(RECORD, SAID)
    progress.say("hello")
    progress.close()
    out, err = capsys.readouterr()
    assert "epoch 1/2  loss 0.5000  validation accuracy 0.7500  k 3  lr 1.0e-03  10 samples/s  left" in out
    assert "hello" in out
    assert err == ""


def test_a_stage_that_predicts_nothing_has_no_metric(capsys):
    progress = Progress(4, 2, "accuracy")
    progress.epoch({name: value for name, value in RECORD.items() if name != "validation"}, {})
    assert capsys.readouterr().out.startswith("epoch 1/2  loss 0.5000  lr 1.0e-03  ")


def test_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    progress = Progress(4, 2, "accuracy", start=1)
    progress.epoch(RECORD, SAID)
    progress.step(0.5, 1e-3, SAID, 10.0)
    progress.say("hello")
    progress.close()
    out, err = capsys.readouterr()
    assert "epoch" not in out
    for part in ("epoch 1/2", " left, ", "loss 0.500", "accuracy 0.750", "k 3", "lr 1.0e-03", "10 samples/s"):
        assert part in err, part


def test_only_one_process_talks(capsys):
    progress = Progress(4, 2, "accuracy", enabled=False)
    progress.epoch(RECORD, SAID)
    progress.say("hello")
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_long_times_are_in_minutes(monkeypatch):
    progress = Progress(100, 2, "accuracy")
    monkeypatch.setattr("time.perf_counter", lambda: progress.began + 10)
    assert progress._left(1) == "16.5 min"
    assert progress._left(50) == "10 s"
    assert duration(7200) == "2.0 h"


def test_small_errors_keep_their_digits(capsys):
    progress = Progress(4, 2, "mse")
    progress.epoch(RECORD | {"loss": 1.23456e-5, "validation": 0.000123456}, {})
    assert "loss 1.235e-05  validation mse 0.0001235" in capsys.readouterr().out
    progress.close()
