from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from crossmodal import compare, jobs, methods, parsers, plans
from crossmodal.errors import UserError
from crossmodal.settings import Config
from crossmodal.training import outcomes
from crossmodal.training.folder import RunFolder
from tests.crossmodal import runs

# What stands for a run: it writes what a run leaves, in milliseconds. A file `hold` in the folder of the runs makes those of seed 1
# wait, after a SIGTERM to end; a file `break` makes those of pare fail.
FAKE = """
import json, os, pathlib, signal, sys, time, yaml
config = yaml.safe_load(open(sys.argv[2]))
config["resume"] |= "--resume=true" in sys.argv
folder = pathlib.Path(config["output_dir"])
def stop(*_):
    (folder / "stopped").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
folder.mkdir(exist_ok=True)
(folder / "config.yaml").write_text(yaml.safe_dump(config))
(folder / "data.json").write_text(json.dumps({"written_by": "crossmodal", "sha256": {}}))
print("epoch 1/1", flush=True)
while (folder.parent / "hold").exists() and config["seed"] == 1:
    (folder / "waits").touch()
    time.sleep(0.05)
if (folder.parent / "break").exists() and config["method"] == "pare":
    sys.exit("error: broken pipe")
error = {"pare": 0.1, "nft": 0.2, "linear": 0.3}[config["method"]] + 0.01 * config["seed"] ** 2
results = {"task": config["task"], "method": config["method"], "encoder": None, "seed": config["seed"], "metric": "accuracy"}
results["protocol"] = config["protocol"] or "default"
results |= {"higher_is_better": True, "validation": config["optimizer"]["lr"]}
results |= {"test": 1 - error, "test_interval": None, "samples": {"test": 9}, "seconds": 1.0}
(folder / "metrics.jsonl").write_text(json.dumps({"validation": 0.5, "resumed": config["resume"]}) + chr(10))
(folder / "results.json").write_text(json.dumps(results))
"""
PLAN = """
tasks: [italy_power_demand, {task: gunpoint, label: gestures, split: {train_size: 20}}]
methods: [nft, {method: pare, label: random patches, pare.selection: random}]
seeds: [0, 1, 2]
options: {epochs: 1}
"""


def job(folder: Path, **changes) -> jobs.Job:
    config = Config(task="digits", output_dir=str(folder), **changes)
    return jobs.Job("digits", config.method, f"{config.method} seed {config.seed}", config, RunFolder(folder))


@pytest.fixture
def plan(tmp_path, monkeypatch) -> list[str]:
    """Arguments of a comparison of 14 runs that take milliseconds."""
    monkeypatch.setattr(jobs, "TRAIN", FAKE)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(compare, "_hashes", lambda *_: {})
    file = tmp_path / "small.yaml"
    file.write_text(PLAN)
    (tmp_path / "runs").mkdir()
    return ["--plan", str(file), "--runs_dir", str(tmp_path / "runs"), "--jobs", "4"]


def wait_until(true: Callable[[], object], seconds: float = 400) -> None:
    """A busy machine takes its time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def read(tmp_path: Path, title: str = "small") -> dict:
    return json.loads((tmp_path / "runs" / f"{title}.json").read_text())


def test_others_on_the_samples_of_who_has_fewer(tmp_path):
    found = []
    for method, seed, rows in (("pinn", 0, [4, 9]), ("nft", 0, [9, 4, 7]), ("nft", 1, [4, 7, 9]), ("fno", 0, [4, 7])):
        one = job(tmp_path / f"{method}{seed}", method=method, seed=seed)
        one.folder.path.mkdir()
        error = 10.0 * np.array(rows) + seed  # nRMSE of each sample is this over a size of 2
        numbers = {"error": error[:, None], "size": np.full((len(rows), 1), 2.0)}
        outcomes.save(one.folder.outcomes, outcomes.Outcomes("nrmse", numbers, np.array(rows)))
        found.append((one, {"method": method, "called": method.upper()}))
    without = job(tmp_path / "mean", method="mean")
    found.append((without, {"method": "mean"}))
    expected = np.mean([[90 / 2, 40 / 2], [91 / 2, 41 / 2]])
    assert compare.on_fewer("pinn", found) == {"NFT": pytest.approx(expected)}
    assert compare.on_fewer("mean", found) == {}


def test_runs_side_by_side_then_taken_as_they_are(tmp_path, tiny_bert, capsys, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "safetensors.py").write_text(
        "raise SystemError('a file of the user passed for a module')"
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    settings = runs.settings(tmp_path, tiny_bert, epochs=1)
    del settings["output_dir"]
    data = Path(settings["data"])
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
    assert "3 of 3 runs done" in first
    assert "| pare |" in first
    assert "| logistic regression, raw values |" in first
    assert compare.main(arguments) == 0
    second = capsys.readouterr().out
    assert "nft seed 0: finished before, taken as it is" in second
    assert first[first.index(f"{data.name}: test") :] == second[second.index(f"{data.name}: test") :]
    table = json.loads((tmp_path / "runs" / f"{data.stem}-comparison.json").read_text())
    assert list(table["tasks"][data.name]["methods"]) == ["nft", "pare", "linear"]
    names = {path.name for path in (tmp_path / "runs").iterdir()}
    assert {f"{data.stem}-comparison{end}" for end in (".md", ".tex", ".csv", ".png", "-curves.png")} <= names

    with np.load(data) as arrays:
        np.savez(data, **dict(arrays) | {"x_train": arrays["x_train"] + 1})
    refusal = r"arrays-nft-\w+-0 holds a run on data that have changed since \(data of arrays \(sha256 .*\)\); add --overwrite"
    with pytest.raises(UserError, match=refusal):
        compare.main(arguments)
    assert compare.main([*arguments, "--overwrite"]) == 0
    assert "nft seed 0: epoch 1/1" in capsys.readouterr().out

    source = Path(settings["source"]["name"])
    source.write_text(source.read_text().replace('raft 0",vessel', 'raft 0",fruit'))  # one label
    with pytest.raises(UserError, match=r"arrays-pare-\w+-0 holds .* since \(source .*source.csv \(sha256 .*\)\)"):
        compare.main(arguments)


def test_a_plan_of_several_tasks(tmp_path, plan, capsys):
    assert compare.main([*plan, "--published"]) == 0
    out = capsys.readouterr().out
    assert "gestures, random patches seed 2: epoch 1/1" in out
    # errors 20, 21 and 24 %, and for each seed 10 points less, of which no test can be made
    assert "| nft | 21.67 ± 2.08 | 21.67 ± 2.08 | 2.00 |" in out
    assert "| random patches | 11.67 ± 2.08 | 11.67 ± 2.08 | 1.00 |" in out
    assert "| linear | 30.00 | 30.00 | 3.00 |" in out
    assert "Not measured here: as printed by others" in out
    assert {path.name for path in (tmp_path / "runs").glob("small*")} == {
        f"small{end}" for end in (".md", ".tex", ".csv", ".json", ".png", "-curves.png", "-profiles.png")
    }
    assert len(read(tmp_path)["runs"]) == 14
    details = (tmp_path / "runs" / "small.md").read_text()
    assert details.count("difference to nft, paired") == 2
    assert compare.main(plan) == 0
    assert capsys.readouterr().out.count("finished before, taken as it is") == 14


def test_figures_of_others_stand_beside_what_is_measured_alike(tmp_path, plan):
    for protocol in ("single", "rollout"):
        Path(plan[1]).write_text(f"tasks: [{{task: advection, protocol: {protocol}}}]\nmethods: [nft]\nseeds: [0]\n")
        assert compare.main(plan) == 0
        text = (tmp_path / "runs" / "small.md").read_text()
        assert ("| from elsewhere | advection, nRMSE of one late frame |" in text) == (protocol == "single")


def test_runs_of_another_plan_are_found_again(tmp_path, plan, capsys):
    """By what they are, not by what they are called; other settings have another folder."""
    assert compare.main(plan) == 0
    file = tmp_path / "other.yaml"
    file.write_text("methods: [{method: pare, label: noise, pare: {selection: random}}]")
    capsys.readouterr()
    others = ["--plan", str(file), "--runs_dir", str(tmp_path / "runs"), "--task", "italy_power_demand"]
    assert compare.main([*others, "--seeds", "2,0", "--epochs", "1"]) == 0
    assert capsys.readouterr().out.count("finished before, taken as it is") == 3
    assert compare.main([*others, "--seeds", "2,0", "--epochs", "2"]) == 0
    out = capsys.readouterr().out
    assert "finished before" not in out
    assert "| noise | 12.00 |" in out


def test_of_a_grid_the_best_on_validation_is_the_row(tmp_path, plan, capsys):
    file = tmp_path / "tuned.yaml"
    file.write_text(
        "methods: [nft, {method: pare, label: tuned, grid: {optimizer.lr: [0.1, 0.3, 0.2], pare: {start: [0.5]}}}]"
    )
    given = ["--plan", str(file), "--runs_dir", str(tmp_path / "runs"), "--task", "digits", "--seeds", "0,1"]
    assert compare.main(given) == 0
    out = capsys.readouterr().out
    assert "tuned optimizer.lr 0.2, pare.start 0.5 seed 1: epoch 1/1" in out
    line = "| digits | tuned | optimizer.lr 0.3, pare.start 0.5 | optimizer.lr 0.1, pare.start 0.5: 0.1000; optimizer.lr 0.3, "
    assert line in out
    assert "| tuned | 10.50 | 0.71 |" in out
    assert len(read(tmp_path, "tuned")["runs"]) == 2 + 6 + 1
    assert read(tmp_path, "tuned")["tuning"][0]["chosen"] == "optimizer.lr 0.3, pare.start 0.5"
    (tmp_path / "runs" / "break").touch()
    file.write_text(file.read_text().replace("0.1, 0.3", "0.3, 0.4"))  # one more run each, which fails
    assert compare.main(given) == 1
    assert (
        "| tuned | optimizer.lr 0.3, pare.start 0.5 | optimizer.lr 0.3, pare.start 0.5: 0.3000; optimizer.lr 0.2"
        in capsys.readouterr().out
    )


def test_a_failed_run_is_told_and_stops_no_other(tmp_path, plan, capsys):
    (tmp_path / "runs" / "break").touch()
    assert compare.main(plan) == 1
    out, err = capsys.readouterr()
    assert "| nft | **21.67** ± 2.08 | **21.67** ± 2.08 | 1.00 |" in out
    assert "| random patches | failed | failed |  |" in out
    assert "3 runs of random patches on gestures failed." in out
    assert "italy_power_demand, random patches seed 0 failed (exit code 1); the end of " in out
    assert "epoch 1/1\nerror: broken pipe\n" in out
    assert err.count("failed: exit code 1: error: broken pipe (") == 6
    assert [run["failure"] for run in read(tmp_path)["runs"] if run["method"] == "linear"] == [None, None]
    (tmp_path / "runs" / "break").unlink()
    assert compare.main(plan) == 0
    assert "| random patches | 11.67" in capsys.readouterr().out


def test_where_no_run_ends_there_is_no_table(tmp_path, plan, capsys, monkeypatch):
    monkeypatch.setattr(methods.get("linear"), "unsuited", {"dense": "not in this test"})
    (tmp_path / "runs" / "break").touch()
    file = tmp_path / "one.yaml"
    file.write_text("methods: [pare]\ntasks: [{task: advection, protocol: rollout}]")
    assert compare.main(["--plan", str(file), *plan[2:]]) == 1
    out, err = capsys.readouterr()
    assert "|" not in out
    assert err.count("pare seed") == 3


KILLED = """
import sys
from crossmodal import compare, jobs

jobs.TRAIN, compare._hashes = open(sys.argv[1]).read(), lambda *_: {}
sys.exit(compare.main(sys.argv[2:]))
"""


def test_a_comparison_that_is_killed_continues(tmp_path, plan, capsys):
    """kill -9 leaves it no time to end its runs: they end by themselves, saved, and the next comparison goes on from there."""
    (tmp_path / "fake.py").write_text(FAKE)
    (tmp_path / "killed.py").write_text(KILLED)
    (tmp_path / "runs" / "hold").touch()
    process = runs.script(tmp_path / "killed.py", tmp_path / "fake.py", *plan[:-1], "2")
    wait_until(lambda: len(list((tmp_path / "runs").glob("*-1/waits"))) == 2)
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: len(list((tmp_path / "runs").glob("*-1/stopped"))) == 2)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*/results.json")}
    assert 0 < len(done) < 13
    (tmp_path / "runs" / "hold").unlink()
    assert compare.main(plan) == 0
    out = capsys.readouterr().out
    assert out.count("finished before, taken as it is") == len(done)
    assert all(path.stat().st_mtime_ns == then for path, then in done.items())
    assert len(list((tmp_path / "runs").glob("*/results.json"))) == 14
    resumed = [json.loads(path.read_text())["resumed"] for path in (tmp_path / "runs").glob("*/metrics.jsonl")]
    assert sum(resumed) == 2


def test_stop_insists(monkeypatch):
    calls = []
    process = SimpleNamespace(
        poll=lambda: None,
        terminate=lambda: calls.append("terminate"),
        kill=lambda: calls.append("kill"),
        wait=lambda timeout=None: (
            (_ for _ in ()).throw(jobs.subprocess.TimeoutExpired("x", 0)) if timeout is not None else None
        ),
    )
    monkeypatch.setattr(jobs, "GRACE_SECONDS", 0.0)
    jobs.Machine().stop([SimpleNamespace(process=process, poll=process.poll)])
    assert calls == ["terminate", "kill"]


def test_interrupted_runs_are_resumed_and_others_replaced_on_demand(tmp_path):
    """Runs with other settings, or on other data."""

    def hashes() -> dict[str, str]:
        return {"data of digits": "12"}

    unfinished, changed = job(tmp_path), job(tmp_path, epochs=99)
    unfinished.folder.prepare(unfinished.config, hashes())
    unfinished.folder.release()
    assert unfinished.prepare(False, hashes)
    assert (unfinished.config.resume, unfinished.config.overwrite) == (True, False)
    assert changed.prepare(True, hashes)
    assert (changed.config.resume, changed.config.overwrite) == (False, True)
    other = job(tmp_path)
    with pytest.raises(UserError, match=r"changed since \(data of digits \(sha256 34, then 12\)\); add --overwrite"):
        other.prepare(False, lambda: {"data of digits": "34"})
    assert other.prepare(True, lambda: {"data of digits": "34"})
    assert other.config.overwrite


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
    folder = tmp_path / "runs"
    wait_until(lambda: list(folder.glob("*-nft-*/metrics.jsonl")) or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 130, output
    log = next(folder.glob("*-nft-*.log")).read_text()
    assert "SIGTERM: stopped after step" in log, log


def test_two_entries_that_are_one_run_are_refused(tmp_path, plan):
    Path(plan[1]).write_text("methods: [pare, {method: pare, label: usual, pare.selection: gumbel}]")
    with pytest.raises(
        UserError, match=r"small.yaml: italy_power_demand, pare and italy_power_demand, usual are the same run"
    ):
        compare.main(plan)


# ----- clusters -----


def test_cluster_rehearsed_by_submitit(tmp_path, plan, capsys):
    pytest.importorskip("submitit")
    few = [
        *plan,
        "--cluster",
        "local",
        "--cluster.timeout_min=2",
        "--tasks",
        "italy_power_demand",
        "--methods",
        "nft,pare",
    ]
    (tmp_path / "runs" / "break").touch()
    assert compare.main([*few, "--seeds", "0"]) == 1
    out, err = capsys.readouterr()
    assert "nft seed 0: epoch 1/1" in out
    assert "random patches seed 0 failed: exit code 1: error: broken pipe" in err
    assert "| nft | 20.00 |" in out
    (tmp_path / "runs" / "break").unlink()
    assert compare.main([*few, "--seeds", "0"]) == 0
    out = capsys.readouterr().out
    assert out.count("finished before, taken as it is") == 2
    assert "| random patches | 10.00 |" in out
    assert not list((tmp_path / "runs").glob("*.job"))


def test_a_job_whose_time_is_up_goes_on_in_its_next_place(tmp_path, plan):
    """SIGUSR2, by which SLURM warns, goes to every process of the job: the run outlives it, is saved, and is resumed."""
    pytest.importorskip("submitit")
    (tmp_path / "runs" / "hold").touch()
    read = plans.read(Path(plan[1]), "italy_power_demand", "nft", "1", [])
    (one,) = read.jobs(read.tasks[0], read.methods[0], tmp_path / "runs")
    (at_work,) = jobs.Cluster("local", {"timeout_min": 9}, tmp_path / "runs" / "submitit").start([one])
    wait_until((one.folder.path / "waits").exists)
    (task,) = psutil.Process(int(at_work.work.job_id)).children()
    for process in [*task.children(recursive=True), task]:
        process.send_signal(signal.SIGUSR2)
    wait_until((one.folder.path / "stopped").exists)
    (tmp_path / "runs" / "hold").unlink()
    wait_until(at_work.done)
    assert one.failure is None
    assert json.loads(one.folder.metrics.read_text())["resumed"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cluster", "local"], "^cluster.timeout_min: expected how many minutes"),
        (["--cluster", "slurm", "--cluster.timeout_min", "5"], "^cluster: Could not detect"),
        (["--cluster", "local", "--cluster.timeout_min", "5", "--cluster.cpus=1"], "^cluster: .*cpus"),
        (["--cluster", "local", "--cluster.timeout_min", "--x"], "^cluster.timeout_min: expected a value, got none"),
        (["--cluster.timeout_min", "5"], "^cluster.timeout_min: expected --cluster slurm or local as well"),
    ],
)
def test_cluster_mistakes(tmp_path, plan, monkeypatch, arguments, message):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=message):
        compare.main([*plan, *arguments])
    assert not list((tmp_path / "runs").glob("*.yaml"))


# Stand-ins for SLURM's programs: a job starts at once, and its number is that of its process.
SLURM = {
    "sbatch": """cp "$1" {folder}/submitted.sh  # as Slurm does: submitit moves its own as soon as this returns
setsid sh {folder}/submitted.sh > /dev/null 2>&1 & echo "Submitted batch job $!" """,
    "srun": """while [ "${{1#-}}" != "$1" ]; do case "$1" in --output|--error) shift 2;; *) shift;; esac; done
export SLURM_JOB_ID=$PPID SLURM_LOCALID=0 SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0
exec "$@" """,
    "sacct": """echo 'JobID|State|NodeList'
while [ $# -gt 0 ]; do if [ "$1" = -j ]; then
  kill -0 $2 2> /dev/null && echo "$2|RUNNING|here" || echo "$2|COMPLETED|here"; fi; shift; done""",
    "scancel": "kill $1",
}


@pytest.fixture
def cluster(tmp_path, plan, monkeypatch):
    """Slurm by stand-ins, and a run for it."""
    pytest.importorskip("submitit")
    (tmp_path / "bin").mkdir()
    for name, text in SLURM.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text.format(folder=tmp_path)}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    parameters = {"timeout_min": 7, "slurm_partition": "small"}
    read = plans.read(Path(plan[1]), "italy_power_demand", "nft", "1", [])
    (one,) = read.jobs(read.tasks[0], read.methods[0], tmp_path / "runs")
    return jobs.Cluster("slurm", parameters, tmp_path / "runs" / "submitit"), one


@pytest.mark.skipif(sys.platform != "linux", reason="setsid")
def test_slurm_by_stand_ins_and_jobs_that_outlive_their_comparison(cluster, tmp_path, capsys):
    place, one = cluster
    (tmp_path / "runs" / "hold").touch()
    (left,) = place.start([one])
    submitted = (tmp_path / "submitted.sh").read_text()
    assert "#SBATCH --partition=small" in submitted
    assert "#SBATCH --time=7" in submitted
    (again,) = place.start([one])
    assert f"nft seed 1: on the cluster already, as {left.work.job_id}" in capsys.readouterr().out
    assert not again.done()
    (tmp_path / "runs" / "hold").unlink()
    wait_until(again.done)
    assert one.failure is None
    assert one.folder.finished
    assert not one.beside(".job").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="setsid")
def test_a_job_that_slurm_ends_says_its_state(cluster, monkeypatch, tmp_path):
    place, one = cluster
    monkeypatch.setattr("submitit.SlurmJob._results_timeout_s", 0)
    (tmp_path / "runs" / "hold").touch()
    (running,) = place.start([one])
    wait_until((one.folder.path / "waits").exists)
    os.killpg(int(running.work.job_id), signal.SIGKILL)
    wait_until(lambda: running.work.done(force_check=True))
    assert running.done()
    assert re.fullmatch(r"no result, COMPLETED; see .*_0_log\.err(: .*)?", one.failure)


def test_wrong_words(tmp_path):
    with pytest.raises(UserError, match=r"method: unknown name 'nfd', did you mean 'nft'"):
        compare.main(["--methods", "nfd"])
    with pytest.raises(UserError, match=r"^jobs: expected a positive number, got 0"):
        compare.main(["--jobs", "0"])
    assert parsers.cpu_cores() >= 1
