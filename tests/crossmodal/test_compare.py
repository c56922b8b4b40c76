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
from crossmodal.settings import Config
from crossmodal.training.folder import RunFolder
from tests.crossmodal import runs


def job(folder: Path, **changes) -> compare.Job:
    config = Config(task="digits", output_dir=str(folder), **changes)
    return compare.Job(config, RunFolder(folder))


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
    assert "| logistic regression, raw values |" in first
    assert compare.main(arguments) == 0
    second = capsys.readouterr().out
    assert "nft seed 0: finished before, taken as it is" in second
    assert first[first.index("arrays: test") :] == second[second.index("arrays: test") :]
    table = json.loads((tmp_path / "runs" / "arrays-comparison.json").read_text())
    assert list(table["methods"]) == ["nft", "pare", "linear"]
    names = {path.name for path in (tmp_path / "runs").iterdir()}
    assert {
        "arrays-comparison.md",
        "arrays-comparison.png",
        "arrays-nft-0",
        "arrays-pare-0",
        "arrays-linear-0",
    } <= names
    with pytest.raises(UserError, match=r"other settings \(batch_size was 8 and is now 7\); add --overwrite"):
        compare.main([*arguments, "--batch_size", "7"])

    with np.load(settings["data"]) as data:
        np.savez(settings["data"], **dict(data) | {"x_train": data["x_train"] + 1})
    refusal = (
        r"arrays-nft-0 holds a run on data that have changed since \(data of arrays \(sha256 .*\)\); add --overwrite"
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
        "import sys, time; print('before'); time.sleep(60 * ('nft' in sys.argv[2])); sys.exit('broken pipe')",
    )
    jobs = [job(tmp_path / method, method=method) for method in ("nft", "pare")]
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


def test_interrupted_runs_are_resumed_and_others_replaced_on_demand(tmp_path):
    """Runs with other settings, or on other data."""

    def hashes(method: str) -> dict[str, str]:
        return {"data of digits": "12"}

    unfinished, changed = job(tmp_path), job(tmp_path, epochs=99)
    unfinished.folder.prepare(unfinished.config, hashes("pare"))
    assert unfinished.prepare(False, hashes)
    assert (unfinished.config.resume, unfinished.config.overwrite) == (True, False)
    assert changed.prepare(True, hashes)
    assert (changed.config.resume, changed.config.overwrite) == (False, True)
    other = job(tmp_path)
    with pytest.raises(UserError, match=r"changed since \(data of digits \(sha256 34, then 12\)\); add --overwrite"):
        other.prepare(False, lambda _: {"data of digits": "34"})
    assert other.prepare(True, lambda _: {"data of digits": "34"})
    assert other.config.overwrite


def test_options_of_a_method_go_to_its_runs(tmp_path):
    jobs = compare.plan(["pare", "lp_ft", "linear"], [3, 4], tmp_path, ["--pare.tau", "0.5", "--lp_ft.probe_lr=0.25"])
    assert [job.name for job in jobs] == ["pare seed 3", "pare seed 4", "lp_ft seed 3", "lp_ft seed 4", "linear seed 3"]
    assert [job.config.options.tau for job in jobs[:2]] == [0.5, 0.5]
    assert jobs[2].config.options.probe_lr == 0.25


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
        (["--run", "here"], "^unknown key 'run'"),
        (
            ["--methods", "nft", "--pare.tau=1"],
            "^--pare.tau=1: an option of the method pare, which this comparison does",
        ),
    ],
)
def test_what_does_not_go_to_every_run_is_refused(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        compare.main(["--task", "digits", "--runs_dir", str(tmp_path), *arguments])
    assert not list(tmp_path.iterdir())


def test_wrong_words(tmp_path):
    with pytest.raises(UserError, match=r"method: unknown name 'nfd', did you mean 'nft'"):
        compare.main(["--methods", "nfd"])
    with pytest.raises(UserError, match="seeds: expected whole numbers"):
        compare.main(["--seeds", "a"])
    assert compare.cpu_cores() >= 1
