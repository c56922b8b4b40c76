from __future__ import annotations

import sys

from crossmodal.progress import Progress

RECORD = {"epoch": 0, "step": 2, "loss": 0.5, "validation": 0.75, "k": 3, "lr": 1e-3, "samples_per_second": 10.0}


def test_plain_lines_where_there_is_no_terminal(capsys):
    progress = Progress(4, 2, "accuracy")
    progress.step(0.5, 1e-3, 3, 10.0)
    progress.epoch(RECORD)
    progress.say("hello")
    progress.close()
    out, err = capsys.readouterr()
    assert "epoch 1/2  loss 0.5000  validation accuracy 0.7500  k 3  lr 1.0e-03  10 samples/s  left" in out
    assert "hello" in out
    assert err == ""


def test_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress = Progress(4, 2, "accuracy", start=1)
    progress.epoch(RECORD)
    progress.step(0.5, 1e-3, 3, 10.0)
    progress.say("hello")
    progress.close()
    out, err = capsys.readouterr()
    assert "epoch" not in out
    for part in ("loss=0.500", "accuracy=0.7500", "k=3", "lr=1.0e-03", "10/s", "2/4"):
        assert part in err, part


def test_only_one_process_talks(capsys):
    progress = Progress(4, 2, "accuracy", enabled=False)
    progress.epoch(RECORD)
    progress.say("hello")
    progress.close()
    assert capsys.readouterr() == ("", "")


def test_long_times_are_in_minutes(monkeypatch):
    progress = Progress(100, 2, "accuracy")
    monkeypatch.setattr("time.perf_counter", lambda: progress.began + 10)
    assert progress._left(1) == "16.5 min"
    assert progress._left(50) == "10 s"
