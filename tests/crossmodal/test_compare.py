from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from crossmodal import compare
from crossmodal.errors import UserError
from crossmodal.report import pictures as plots
from crossmodal.settings import Config
from crossmodal.training.folder import RunFolder
from tests.crossmodal import runs


def job(tmp_path, method: str, seed: int, test: float, metric: str = "accuracy") -> compare.Job:
    config = Config(task="digits", method=method, seed=seed)
    folder = RunFolder(tmp_path / f"digits-{method}-{seed}")
    folder.prepare(config)
    interval = None if test != test else [test - 0.05, test + 0.01]
    samples = {"samples": {"test": 40}, "test_interval": interval}
    folder.write_results({"metric": metric, "test": test, "seconds": 2.0 + seed} | samples)
    return compare.Job(config, folder, [])


def test_table_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(
        compare, "yardstick", lambda _: {"name": "logistic regression", "error": 4.0, "interval": [1, 9]}
    )
    jobs = [job(tmp_path, "pare", s, t) for s, t in enumerate((0.9, 0.8, 0.7))]
    jobs += [job(tmp_path, "nft", s, t) for s, t in enumerate((0.8, 0.8, 0.6))]
    table = compare.summarise(jobs)
    pare = table["methods"]["pare"]
    assert pare["errors"] == pytest.approx([10, 20, 30])
    assert (pare["mean"], pare["std"], pare["seconds"]) == pytest.approx((20, 10, 3))
    # differences -10, 0, -10: mean -20/3, standard deviation 10/sqrt(3), standard error 10/3
    assert (pare["difference"], pare["standard_error"]) == pytest.approx((-20 / 3, 10 / 3))
    text = compare.render(table)
    assert "| pare | 20.00 | 10.00 | -6.67 ± 3.33 | 3 |" in text
    assert "| nft | 26.67 | 11.55 |  | 3 |" in text
    assert "| logistic regression, raw values | 4.00 | | | |" in text
    # 4.3027 standard errors, by Student's t for three seeds; scores, whose best is 1, become errors
    assert pare["difference_interval"] == pytest.approx([-20 / 3 - 14.342, -20 / 3 + 14.342], abs=1e-3)
    assert "| 95 % interval | over 40 test samples, mean of the seeds' | of the difference, over seeds |" in text
    assert "| pare | 19.00 to 25.00 | -21.01 to +7.68 |" in text
    assert "| nft | 25.67 to 31.67 |  |" in text
    assert "| logistic regression, raw values | 1.00 to 9.00 |  |" in text


@pytest.mark.parametrize("tests", [[(0.8, 0.7), (0.9, 0.8)], [(0.8, 0.7), (0.9, 0.8), (0.7, 0.6)]])
def test_agreement_by_chance_is_no_precision(tmp_path, monkeypatch, tests):
    """Two seeds, or three whose differences are the same: nothing, instead of ± 0.00."""
    monkeypatch.setattr(compare, "yardstick", lambda _: None)
    jobs = [job(tmp_path, "pare", seed, pare) for seed, (pare, _) in enumerate(tests)]
    table = compare.summarise(jobs + [job(tmp_path, "nft", seed, nft) for seed, (_, nft) in enumerate(tests)])
    pare = table["methods"]["pare"]
    assert pare["difference"] == pytest.approx(-10)
    assert pare["standard_error"] is pare["difference_interval"] is None
    assert "| -10.00 |" in compare.render(table)


def test_one_seed_has_no_deviation_and_errors_stay_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "yardstick", lambda _: None)
    table = compare.summarise([job(tmp_path, "pare", 0, 0.5, "rmse"), job(tmp_path, "nft", 0, 0.75, "rmse")])
    assert table["label"] == "error"
    assert "| pare | 0.500 |  | -0.250 | 2 |" in compare.render(table)


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
def test_errors_have_digits_that_suit_them(tmp_path, monkeypatch, errors, row, other):
    monkeypatch.setattr(compare, "yardstick", lambda _: None)
    one, two, rival = errors
    jobs = [job(tmp_path, "pare", seed, test, "rmse") for seed, test in enumerate((one, (one + two) / 2, two))]
    jobs += [job(tmp_path, "nft", seed, rival, "rmse") for seed in range(3)]
    text = compare.render(compare.summarise(jobs))
    assert row in text
    assert f"| nft | {other} |" in text


def test_a_small_standard_error_is_not_written_as_zero(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "yardstick", lambda _: None)
    jobs = [job(tmp_path, "pare", seed, test) for seed, test in enumerate((0.90004, 0.90006, 0.90005))]
    text = compare.render(compare.summarise(jobs + [job(tmp_path, "nft", seed, 0.9) for seed in range(3)]))
    assert "| pare | 9.9950 | 0.0010 | -0.0050 ± 0.0006 |" in text


def test_a_metric_that_is_nan_leaves_a_blank(tmp_path, monkeypatch):
    """results.json holds null for NaN; what depends on it is blank, the rest stands, and the picture is drawn."""
    monkeypatch.setattr(
        compare, "yardstick", lambda _: {"name": "logistic regression", "error": float("nan"), "interval": None}
    )
    jobs = [job(tmp_path, "pare", s, t, "auroc") for s, t in enumerate((0.5, float("nan")))]
    jobs += [job(tmp_path, "nft", s, t, "auroc") for s, t in enumerate((0.5, 0.75))]
    jobs += [job(tmp_path, "scratch", s, float("nan"), "auroc") for s in range(2)]
    table = compare.summarise(jobs)
    assert table["methods"]["pare"]["errors"] == [50.0, None]
    text = compare.render(table)
    assert "| pare |  |  |  | 2 |" in text
    assert "| nft | 37.50 | 17.68 |  | 2 |" in text
    assert "| logistic regression, raw values |  | | | |" in text
    assert "No mean of pare, scratch: test auroc is NaN in at least one run." in text
    plots.save(plots.comparison(table), tmp_path / "a.png")


def test_yardstick_of_one_label(tmp_path):
    """One column of zeros and ones, told to be multi-label."""
    path = runs.write_data(tmp_path, "multilabel")
    with np.load(path) as data:
        np.savez(path, **dict(data) | {key: data[key][:, :1] for key in ("y_train", "y_test")})
    found = compare.yardstick(Config(task="arrays", data=str(path), kind="multilabel"))
    assert found["error"] < 20.0


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression", "dense"])
def test_yardstick_learns(tmp_path, kind):
    path = runs.write_data(tmp_path, kind)
    found = compare.yardstick(Config(task="arrays", data=str(path), kind=kind))
    if kind == "dense":
        assert found is None
        return
    data = np.load(path)
    assert found["error"] < (1.0 if kind == "regression" else 20.0)
    assert found["name"] == ("ridge regression" if kind == "regression" else "logistic regression")
    if kind == "regression":
        assert found["error"] < data["y_test"].std() / 3


def test_runs_side_by_side_then_taken_as_they_are(tmp_path, tiny_bert, capsys, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "safetensors.py").write_text(
        "raise SystemError('a file of the user passed for a module')"
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    settings = runs.settings(tmp_path, tiny_bert, epochs=1)
    del settings["output_dir"]
    path = runs.write_settings(tmp_path, settings)
    arguments = [
        "--methods",
        "nft,pare",
        "--seeds",
        "0",
        "--runs_dir",
        str(tmp_path / "runs"),
        "--jobs",
        "2",
        "--config",
        str(path),
    ]
    assert compare.main(arguments) == 0
    first = capsys.readouterr().out
    assert "pare seed 0: epoch 1/1" in first
    assert "| pare |" in first
    assert compare.main(arguments) == 0
    second = capsys.readouterr().out
    assert "nft seed 0: finished before, taken as it is" in second
    assert first[first.index("arrays: test") :] == second[second.index("arrays: test") :]
    table = json.loads((tmp_path / "runs" / "arrays-comparison.json").read_text())
    assert list(table["methods"]) == ["pare", "nft"]
    names = {path.name for path in (tmp_path / "runs").iterdir()}
    assert {"arrays-comparison.md", "arrays-comparison.png", "arrays-nft-0", "arrays-pare-0"} <= names
    with pytest.raises(UserError, match=r"other settings \(batch_size was 8 and is now 7\); add --overwrite"):
        compare.main([*arguments, "--batch_size", "7"])

    with np.load(settings["data"]) as data:
        np.savez(settings["data"], **dict(data) | {"x_train": data["x_train"] + 1})
    refusal = (
        r"arrays-pare-0 holds a run on data that have changed since \(data of arrays \(sha256 .*\)\); add --overwrite"
    )
    with pytest.raises(UserError, match=refusal):
        compare.main(arguments)
    assert compare.main([*arguments, "--overwrite"]) == 0
    assert "nft seed 0: epoch 1/1" in capsys.readouterr().out

    source = Path(settings["source"]["name"])
    source.write_text(source.read_text().replace('raft 0",vessel', 'raft 0",fruit'))  # one label
    with pytest.raises(UserError, match=r"arrays-pare-0 holds .* since \(source .*source.csv \(sha256 .*\)\)"):
        compare.main(arguments)


def test_a_failed_run_stops_the_others_and_shows_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(
        compare,
        "TRAIN",
        "import sys, time; print('before'); time.sleep(60 * ('nft' in sys.argv)); sys.exit('broken pipe')",
    )
    folders = {method: RunFolder(tmp_path / method) for method in ("nft", "pare")}
    jobs = [compare.Job(Config(method=m), folder, [m]) for m, folder in folders.items()]
    began = time.monotonic()
    with pytest.raises(UserError, match=r"(?s)pare seed 0 failed \(exit code 1\).*pare.log:.*before.*broken pipe"):
        compare.execute(jobs, 2)
    assert time.monotonic() - began < 40


def test_stop_insists(monkeypatch):
    calls = []
    process = SimpleNamespace(
        poll=lambda: None,
        terminate=lambda: calls.append("terminate"),
        kill=lambda: calls.append("kill"),
        wait=lambda timeout=None: (
            (_ for _ in ()).throw(compare.subprocess.TimeoutExpired("x", 0)) if timeout is not None else None
        ),
    )
    monkeypatch.setattr(compare, "GRACE_SECONDS", 0.0)
    compare.stop([SimpleNamespace(process=process)])
    assert calls == ["terminate", "kill"]


def test_interrupted_runs_are_resumed_and_other_settings_replaced_on_demand(tmp_path):
    config = Config(task="digits", output_dir=str(tmp_path / "a"))
    folder = RunFolder(tmp_path / "a")
    folder.prepare(config)
    unfinished = compare.Job(config, folder, [])
    assert unfinished.prepare(False, dict)
    assert unfinished.arguments == ["--resume", "true"]
    changed = compare.Job(Config(task="digits", epochs=99), folder, [])
    assert changed.prepare(True, dict)
    assert changed.arguments == ["--overwrite", "true"]


def test_an_interrupted_run_on_other_data_is_replaced_on_demand(tmp_path):
    config = Config(task="digits", output_dir=str(tmp_path / "a"))
    folder = RunFolder(tmp_path / "a")
    folder.prepare(config, {"data of digits": "12"})
    changed = compare.Job(config, folder, [])
    with pytest.raises(UserError, match=r"changed since \(data of digits \(sha256 34, then 12\)\); add --overwrite"):
        changed.prepare(False, lambda: {"data of digits": "34"})
    assert changed.prepare(True, lambda: {"data of digits": "34"})
    assert changed.arguments == ["--overwrite", "true"]


def test_ctrl_c_ends_the_children(tmp_path, tiny_bert):
    settings = runs.settings(tmp_path, tiny_bert, epochs=2000)
    del settings["output_dir"]
    process = runs.script(
        "compare.py",
        "--methods",
        "nft",
        "--seeds",
        "0",
        "--runs_dir",
        tmp_path / "runs",
        "--config",
        runs.write_settings(tmp_path, settings),
    )
    metrics = tmp_path / "runs" / "arrays-nft-0" / "metrics.jsonl"
    deadline = time.monotonic() + 400  # a busy machine takes its time to start
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 130, output
    log = (tmp_path / "runs" / "arrays-nft-0.log").read_text()
    assert "SIGTERM: stopped after step" in log, log


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0,1,0"], "seeds: 0 is given twice"),
        (["--methods", "nft,nft"], "methods: nft is given twice"),
        (["--output_dir", "here"], "output_dir: each run of a comparison has its own; take --runs_dir"),
        (["--seed=3"], "seed: each run of a comparison has its own; take --seeds"),
        (["--run", "here"], "unrecognized arguments: --run"),
    ],
)
def test_what_does_not_go_to_every_run_is_refused(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        compare.main(["--task", "digits", "--runs_dir", str(tmp_path), *arguments])
    assert not list(tmp_path.iterdir())


def test_wrong_words(tmp_path):
    with pytest.raises(UserError, match=r"methods: unknown name 'nfd', did you mean 'nft'"):
        compare.main(["--methods", "nfd"])
    with pytest.raises(UserError, match="seeds: expected whole numbers"):
        compare.main(["--seeds", "a"])
    assert compare.cpu_cores() >= 1
