"""What the training engine costs, measured on a tiny encoder."""

import dataclasses

import pytest
from accelerate.state import AcceleratorState

from benchmarks import engine
from benchmarks.clock import Quantiles
from benchmarks.records import read


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture
def tiny(monkeypatch):
    (setting,) = engine.SETTINGS["tiny"]
    monkeypatch.setattr(engine, "SETTINGS", {"small": (setting,)})
    return setting


def test_engine_and_bare_loop_are_measured_side_by_side(tiny, tmp_path, monkeypatch, capsys):
    """Runs of several processes are replaced: their encoders are the real ones."""
    monkeypatch.setattr(engine, "throughput", lambda setting, method, processes, *_: 10.0 * processes**0.5)
    path = tmp_path / "a.csv"
    assert engine.main(["--rounds", "2", "--steps", "2", "--repeats", "2", "--csv", str(path)]) == 0
    rows = {row.provider: row for row in read(path)}
    assert set(rows) == {f"{method}-{way}" for method in ("nft", "pare") for way in ("bare", "engine", "1", "2")}
    assert rows["pare-engine"].both_cpu_ms > 0
    assert "overhead " in rows["pare-engine"].note
    assert " ms, CPU time" in rows["pare-engine"].note
    assert rows["pare-bare"].k == 4
    assert rows["nft-2"].note == "2 process(es), 1.41 times the samples/s of 1"
    out = capsys.readouterr().out
    assert "overhead" in out
    assert "epoch 1/" not in out


def test_overhead_is_the_median_of_rounds():
    times = engine.Times()
    times.cpu["bare"], times.cpu["engine"] = [100.0, 200.0, 100.0], [101.0, 206.0, 150.0]
    found = engine.overhead_of(times)
    assert engine.added_ms(times) == pytest.approx(6.0)
    assert found.median == pytest.approx(0.03)
    assert isinstance(found, Quantiles)


def test_a_bare_loop_that_computes_something_else_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(engine, "bare_loop", lambda *_: None)
    with pytest.raises(ValueError, match="tiny, nft: engine and bare loop differ in "):
        engine.overhead(tiny, "nft", 1, 1)


@pytest.mark.slow
def test_two_processes_of_a_run():
    """The launched command, for real."""
    (setting,) = engine.SETTINGS["tiny"]
    assert engine.throughput(setting, "pare", 2, 1, "tiny", 2) > 0
    with pytest.raises(ValueError, match=r"(?s)1 process\(es\): the run failed.*unknown name 'nothing'"):
        engine.throughput(dataclasses.replace(setting, name="nothing"), "nft", 1, 1, "tiny", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--case", "swin-base"], "--case: unknown name 'swin-base'; valid with --size small are swin-small,"),
        (["--rounds", "0"], "--rounds: must be at least 1"),
        (["--repeats", "-1"], "--repeats: must be at least 0"),
        (["--processes", "1,x"], "--processes: must be numbers like 1,2, got '1,x'"),
    ],
)
def test_bad_options_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        engine.parse(arguments)
    assert message in capsys.readouterr().err
