"""Interruption, bad luck and several processes, for real: fresh processes, signals, kill -9."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

import crossmodal
from crossmodal import evaluate, parsing, run
from crossmodal.errors import UserError
from crossmodal.models import hand_designed
from crossmodal.models.convolutions import settling
from crossmodal.models.hand_designed import resnet1d
from crossmodal.settings import Config
from crossmodal.training import outcomes, sharding, trainer
from crossmodal.training.checkpoint import Checkpoints
from crossmodal.training.folder import RunFolder
from crossmodal.training.selection import EpochSelection
from crossmodal.training.trainer import Interrupted, NonFiniteLoss, Trainer
from tests.crossmodal import runs
from tests.crossmodal.runs import numbers, stop_at


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def assert_equal(folder: Path, expected: Path) -> None:
    """The same weights and records, to the bit."""
    assert weights(folder) == weights(expected)
    assert numbers(folder) == numbers(expected)


def train(values: dict, **changes) -> dict:
    return run.train(parsing.from_dict(values | changes))


def interrupt(values: dict, monkeypatch, step: int = 3, error: Exception | None = None) -> None:
    """Runs until optimizer step `step` meets SIGTERM, or an error."""

    def stop() -> None:
        if error is not None:
            raise error
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        stop_at(patch, step, stop)
        with pytest.raises(type(error) if error else Interrupted):
            train(values)


def assert_same_curve(one: Path, other: Path, rel: float) -> None:
    """Whole numbers and words are equal, sums in another order near one another."""
    for found, expected in zip(numbers(one), numbers(other), strict=True):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert found[key] == (pytest.approx(value, rel=rel) if isinstance(value, float) else value), key


@pytest.fixture
def straight(tmp_path, tiny_bert):
    """Settings with dropout, steps of two batches, and the uninterrupted run they make; checkpoints by steps alone."""
    changes = {"epochs": 4, "batch_size": 4, "accumulate": 2, "model__dropout": 0.1, "seed": 5}
    checkpoint = {"every_steps": 2, "every_minutes": 0}
    values = runs.settings(tmp_path, tiny_bert, **changes, checkpoint=checkpoint)
    train(values, output_dir=str(tmp_path / "straight"))
    return values, tmp_path / "straight"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [0, 4])
def test_a_signal_saves_and_resuming_gives_the_same_bits(straight, monkeypatch, signum, step):
    """Step 4 lies in the middle of an epoch of three."""
    values, expected = straight
    with monkeypatch.context() as patch:
        stop_at(patch, step, lambda: os.kill(os.getpid(), signum))
        with pytest.raises(Interrupted, match=rf"stopped after step {step + 1}, saved .*--resume true") as stopped:
            train(values)
    assert stopped.value.signum == signum
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    results = train(values, resume=True)
    assert results["steps"] == 12
    folder = Path(values["output_dir"])
    assert_equal(folder, expected)
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize("flat", [True, False])
def test_epochs_may_grow(straight, monkeypatch, tmp_path, capsys, flat):
    """Where nothing is scheduled over the epochs the run is that of so many from the start; else it goes on as such a run."""
    values, _ = straight
    if flat:
        constant = {"lr_schedule": {"kind": "constant", "warmup": 0.0}}
        values = values | constant | {"pare": {"schedule": "constant", "start": 3, "gumbel_epochs": 1}}
    more = values | {"epochs": 6}
    train(more, output_dir=str(tmp_path / "more"))
    interrupt(values, monkeypatch, 4)
    capsys.readouterr()
    train(more, resume=True)
    said = "epochs: 6 instead of 4. From here on the schedules are those of a run of so many: the next step has "
    # Step 6 of 18 instead of 12, two of which warm up: 5e-3 * (1 - 3 / 16), not 5e-3 * (1 - 3 / 10); epoch 2: 8 * (1 - 1 / 6).
    said += "learning rate 0.005, k 3\n" if flat else "learning rate 0.0041 instead of 0.0035, k 6\n"
    assert said in capsys.readouterr().out
    found, expected = numbers(Path(values["output_dir"])), numbers(tmp_path / "more")
    assert [record["epoch"] for record in found] == [1, 2, 3, 4, 5, 6]
    if flat:
        assert found == expected
        assert weights(Path(values["output_dir"])) == weights(tmp_path / "more")
    for one, other in zip(found[2:], expected[2:], strict=True):
        assert (one["k"], one["lr"]) == (other["k"], other["lr"])


def test_patience_ends_training_and_goes_on_where_it_was(straight, monkeypatch):
    """Of 4 epochs the first alone is kept, so 2 more are made; with a patience of 2 there is no fourth."""
    values, _ = straight
    monkeypatch.setattr(EpochSelection, "_is_best", lambda self, *seen: self.best is None)
    values = values | {"patience": 2}
    interrupt(values, monkeypatch, 7)
    results = train(values, resume=True)
    assert [record["epoch"] for record in numbers(Path(values["output_dir"]))] == [1, 2, 3]
    assert (results["best_epoch"], results["steps"]) == (1, 9)


def test_a_run_may_be_shorter_than_an_epoch(straight):
    """An epoch has three steps."""
    values, folder = straight
    short = values | {"epochs": None, "steps": 2, "output_dir": str(folder.with_name("short"))}
    results = train(short)
    assert (results["steps"], results["epochs"]) == (2, 2)
    assert train(short, steps=3, overwrite=True)["steps"] == 3
    assert train(short, steps=4, overwrite=True)["steps"] == 4  # epochs of one step, not of all three
    assert train(short, steps=14, overwrite=True)["steps"] == 15  # five epochs, the last one whole


@pytest.mark.parametrize("step", [None, 4, 9])
def test_the_mean_of_the_last_steps_is_kept(straight, monkeypatch, step):
    """Over 6 of 12 steps; resumed before and after the mean begins, to the same bits."""
    values, _ = straight
    values = values | {"select": "last", "optimizer": values["optimizer"] | {"average": 0.5}}
    walked, original = [], Trainer._average

    def noted(self):
        original(self)
        walked.append({name: value.clone() for name, value in self.model.state_dict().items()})

    monkeypatch.setattr(Trainer, "_average", noted)
    if step is not None:
        interrupt(values, monkeypatch, step)
    train(values, resume=step is not None)
    assert len(walked) == 12
    folder = Path(values["output_dir"])
    for name, value in load_file(folder / "model" / "model.safetensors").items():
        expected = torch.stack([weights[name].double() for weights in walked[6:]]).mean(0)
        torch.testing.assert_close(value.double(), expected, atol=1e-6, rtol=1e-5)
        assert not value.equal(walked[-1][name])
    assert evaluate.evaluate(folder)["value"] == RunFolder(folder).read_results()["test"]


@pytest.mark.parametrize(("dropout", "average"), [(0.5, 0.0), (0.0, 0.5), (0.0, 0.0)])
def test_batch_norm_is_evaluated_with_statistics_of_the_weights_that_are_kept(tmp_path, monkeypatch, dropout, average):
    """Which those of training are, where there is neither dropout nor a mean of weights."""
    monkeypatch.setattr(resnet1d, "DROPOUT", dropout)
    monkeypatch.setattr(hand_designed, "ResNet1D", partial(resnet1d.ResNet1D, width=32, blocks=2))
    values = runs.settings(tmp_path, "none", method="hand_designed", epochs=3, batch_size=64, select="last")
    values |= {"hand_designed": {"network": "resnet1d"}, "optimizer": values["optimizer"] | {"average": average}}
    config = parsing.from_dict(values)
    results = run.train(config)
    model, task = crossmodal.load(values["output_dir"]).model, run.load_task(config)
    stored = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    with settling(model), torch.no_grad():
        model(task.train.x)  # one batch
    anew = [torch.allclose(value, model.get_buffer(name), atol=1e-6) for name, value in stored.items()]
    assert all(anew) if dropout or average else not any(anew)
    assert evaluate.evaluate(values["output_dir"])["value"] == results["test"]


def test_a_checkpoint_of_an_earlier_version_is_refused(straight, monkeypatch):
    values, _ = straight
    with monkeypatch.context() as patch:
        save = torch.save
        patch.setattr("torch.save", lambda state, path: save({k: v for k, v in state.items() if k != "epochs"}, path))
        interrupt(values, monkeypatch)
    with pytest.raises(UserError, match=r"step-00000004 is of an earlier version, .* --overwrite"):
        train(values, resume=True)


def test_no_checkpoint_without_the_optimizer(straight, monkeypatch):
    """What torch gives to a process that is not its first one."""
    values, _ = straight
    monkeypatch.setattr(trainer, "get_optimizer_state_dict", lambda *_, **__: {})
    with pytest.raises(RuntimeError, match="no state of the optimizer to save"):
        train(values)
    assert not Checkpoints(Path(values["output_dir"]) / "checkpoints" / "train").list()


def test_keep_limits_checkpoints(straight, monkeypatch):
    values, _ = straight
    stop_at(monkeypatch, 9, lambda: (_ for _ in ()).throw(RuntimeError("power cut")))
    with pytest.raises(RuntimeError, match="power cut"):
        train(values, keep=3)
    saved = Checkpoints(Path(values["output_dir"]) / "checkpoints" / "train").list()
    assert [path.name for path in saved] == ["step-00000004", "step-00000006", "step-00000008"]


def test_a_checkpoint_of_other_data_is_refused(straight, tmp_path, monkeypatch):
    """Copied into the folder of another run."""
    values, _ = straight
    interrupt(values, monkeypatch)
    with np.load(values["data"]) as data:
        np.savez(values["data"], **dict(data) | {"x_test": data["x_test"] + 1})
    other = values | {"output_dir": str(tmp_path / "other")}
    interrupt(other, monkeypatch)
    shutil.rmtree(tmp_path / "other" / "checkpoints")
    shutil.copytree(Path(values["output_dir"]) / "checkpoints", tmp_path / "other" / "checkpoints")
    with pytest.raises(
        UserError, match=r"the data of classification1\.npz have changed since .*step-00000004 was written"
    ):
        train(other, resume=True)


def test_resume_asks_for_the_same_source(straight, monkeypatch):
    values, _ = straight
    interrupt(values, monkeypatch)
    source = Path(values["source"]["name"])
    source.write_text(source.read_text().replace("plum 1", "kiwi 1"))
    with pytest.raises(UserError, match=r"has changed since: source .*source.csv \(sha256 .*; add --overwrite"):
        train(values, resume=True)


@pytest.mark.parametrize(
    ("writer", "error"),
    [
        ("crossmodal.training.checkpoint.save_file", SafetensorError("I/O error: No space left on device")),
        ("torch.save", RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")),
    ],
)
def test_a_full_disk_leaves_the_last_checkpoint(straight, monkeypatch, writer, error):
    """What safetensors and torch raise on a full disk."""
    values, expected = straight

    def full(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        stop_at(patch, 5, lambda: patch.setattr(writer, full))
        with pytest.raises(
            UserError, match=r"run cannot be written: .*step-00000006: .* MiB free.*last checkpoint is .*04"
        ):
            train(values)
    folder = Path(values["output_dir"])
    assert sorted(path.name for path in (folder / "checkpoints" / "train").iterdir()) == [
        "step-00000002",
        "step-00000004",
    ]
    train(values, resume=True)
    assert weights(folder) == weights(expected)


def test_too_little_space_is_said_before_training(tmp_path, tiny_bert, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match=r"has 0 MiB left, this run may need"):
        train(runs.settings(tmp_path, tiny_bert))


def test_kill_9_and_resume_give_the_same_bits(straight, tmp_path):
    values, expected = straight
    folder = Path(values["output_dir"])
    process = runs.script(Path(__file__).with_name("stop.py"), runs.write_settings(tmp_path, values), 5, "SIGKILL")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, output
    assert [path.name for path in Checkpoints(folder / "checkpoints" / "train").list()] == [
        "step-00000002",
        "step-00000004",
    ]
    assert not (folder / "results.json").exists()
    train(values, resume=True)
    assert_equal(folder, expected)


def test_a_power_cut_after_the_first_epoch_does_not_cost_a_short_run(straight, monkeypatch, capsys):
    """Checkpoints as they are made by default."""
    values, expected = straight
    values = values | {"checkpoint": {}}
    interrupt(values, monkeypatch, 11, RuntimeError("power cut"))
    train(values, resume=True)
    assert re.search(r"resumed from \S+step-0\S+ \(step [1-9]", capsys.readouterr().out)
    folder = Path(values["output_dir"])
    assert_equal(folder, expected)


def test_resume_says_where_there_is_no_checkpoint(straight, monkeypatch, capsys):
    values, expected = straight
    interrupt(values, monkeypatch, 1, RuntimeError("power cut"))
    train(values, resume=True)
    assert f"no checkpoint in {values['output_dir']}/checkpoints/train, starting anew" in capsys.readouterr().out
    assert weights(Path(values["output_dir"])) == weights(expected)


@pytest.mark.parametrize("moment", ["validation", "test", "writing"])
def test_the_end_of_training_is_kept(straight, monkeypatch, moment):
    """SIGTERM in the last validation, a failure in the test, a full disk for the model: nothing is trained again."""
    values, expected = straight
    values = values | {"checkpoint": {"every_steps": 5, "every_minutes": 0}}  # none after step 10 by itself
    folder = Path(values["output_dir"])
    evaluated = Trainer.evaluate

    def evaluate_and_stop(self, split, task=None):
        if moment == "test" and split is self.task.test:
            raise RuntimeError("power cut")
        if moment == "validation" and split is self.task.validation and self.state.step == 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluated(self, split, task)

    def full(*_, **__):
        raise SafetensorError("I/O error: No space left on device")

    failure, message = {
        "validation": (Interrupted, "stopped after step 12, saved .*step-00000012; `--resume true` goes on"),
        "test": (RuntimeError, "power cut"),
        "writing": (UserError, "model.safetensors: .*No space .*last checkpoint is .*step-00000012"),
    }[moment]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "evaluate", evaluate_and_stop)
        if moment == "writing":
            patch.setattr("crossmodal.models.base.save_file", full)
        with pytest.raises(failure, match=message):
            train(values)
    assert not [path for path in folder.rglob(".*") if path.name != ".lock"]
    with monkeypatch.context() as patch:
        patch.delattr(Trainer, "_optimizer_step")
        train(values, resume=True)
    assert_equal(folder, expected)


def test_checkpoints_by_time_cost_a_hundredth_at_most(monkeypatch):
    trainer = SimpleNamespace(config=Config(), _saved_at=100.0, _save_seconds=None)
    trainer.config.checkpoint.every_minutes = 2.0

    def due(after: float) -> bool:
        monkeypatch.setattr("time.monotonic", lambda: 100.0 + after)
        return Trainer._due(trainer)

    assert [due(119), due(121)] == [False, True]
    trainer._save_seconds = 0.5
    assert [due(49), due(51)] == [False, True]
    trainer._save_seconds = 50.0
    assert [due(119), due(121)] == [False, True]
    trainer.config.checkpoint.every_minutes = 0.0
    assert not due(1e6)


def poison(monkeypatch, steps: set[int]) -> None:
    """Makes the losses of the first sample infinite in those steps."""
    original = trainer.Step.forward
    calls = {"count": -1}

    def patched(self, batch, plan=None):
        found = original(self, batch, plan)
        if self.training:
            calls["count"] += 1
            if calls["count"] in steps:
                found["loss"] = found["loss"] * torch.where(torch.arange(len(batch.x)) == 0, float("nan"), 1.0)
        return found

    monkeypatch.setattr(trainer.Step, "forward", patched)


def test_nan_stops_and_names_step_samples_and_checkpoint(tmp_path, tiny_bert, monkeypatch):
    poison(monkeypatch, {3})
    values = runs.settings(tmp_path, tiny_bert, checkpoint__every_steps=2)
    order = trainer.BatchPlan(21, 8, 1, 0, {"source": 12})
    sample = next(iter(order.shares(1))).rows[0].item()
    with pytest.raises(
        NonFiniteLoss, match=rf"step 4 \(epoch 2\): loss nan, training samples \[{sample}\]; .*step-00000002"
    ):
        train(values)


def test_nan_can_be_skipped(tmp_path, tiny_bert, monkeypatch, capsys):
    poison(monkeypatch, {3})
    results = train(runs.settings(tmp_path, tiny_bert, on_nan="skip"))
    assert results["steps"] == 9
    assert [record["skipped_steps"] for record in numbers(tmp_path / "run")] == [0, 1, 0]
    assert "step skipped at step 4 (epoch 2)" in capsys.readouterr().out


@pytest.fixture
def half(monkeypatch):
    """`precision: fp16` on a CPU: torch has arithmetic and loss scaler for it, accelerate offers them on a GPU alone."""
    make, made = sharding.make_accelerator, SimpleNamespace(scale=1024.0, scalers=[])

    def scaled(*arguments, **options):
        accelerator = make(*arguments, **options)
        accelerator.native_amp, accelerator.scaler = True, torch.amp.GradScaler("cpu", init_scale=made.scale)
        made.scalers.append(accelerator.scaler)
        return accelerator

    monkeypatch.setattr(sharding, "make_accelerator", scaled)
    monkeypatch.setattr("crossmodal.run.check_machine", lambda *_: None)
    return made


def test_fp16_stays_near_float32(tmp_path, tiny_bert, half, recwarn):
    """Losses and gradient norms are those of unscaled gradients; the clipping is too."""
    values = runs.settings(tmp_path, tiny_bert, optimizer__clip=0.1)
    train(values, precision="fp16")
    assert not [str(warning.message) for warning in recwarn if "lr_scheduler" in str(warning.message)]
    runs.fresh_accelerator()
    half.scale = 1.0
    train(values, output_dir=str(tmp_path / "plain"))
    for one, other in zip(numbers(tmp_path / "run"), numbers(tmp_path / "plain"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=5e-3)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=3e-2)


def test_fp16_overflow_is_skipped_counted_and_does_not_move_the_learning_rate(tmp_path, tiny_bert, half):
    half.scale = 2.0**22
    values = runs.settings(tmp_path, tiny_bert, precision="fp16", epochs=5)
    train(values)
    records = numbers(tmp_path / "run")
    skipped = sum(record["skipped_steps"] for record in records)
    assert records[0]["skipped_steps"] == 3
    assert 3 <= skipped < 10
    assert half.scalers[0].get_scale() == 2.0 ** (22 - skipped)
    steps, warm = 15, 2
    assert records[-1]["step"] == steps
    taken_before = steps - skipped - 1
    assert records[-1]["lr"] == pytest.approx(5e-3 * (1 - (taken_before - warm) / (steps - warm)))
    assert records[-1]["loss"] < records[0]["loss"]


def test_fp16_that_never_gets_a_finite_gradient_is_an_error(tmp_path, tiny_bert, half):
    half.scale = float("inf")
    values = runs.settings(tmp_path, tiny_bert, precision="fp16", epochs=10)
    with pytest.raises(NonFiniteLoss, match=r"in 21 steps in a row, at step 21 .*gradient norm"):
        train(values)


@pytest.mark.parametrize("resumed", [False, True])
def test_fp16_that_skips_every_step_of_a_short_run_is_an_error(tmp_path, tiny_bert, half, monkeypatch, resumed):
    half.scale = 2.0**100
    values = runs.settings(tmp_path, tiny_bert, precision="fp16")
    if resumed:
        interrupt(values, monkeypatch, 4)
    with pytest.raises(
        NonFiniteLoss, match=r"not finite in any of the 9 steps; .* down to 2.47588e\+27, .*precision bf16"
    ):
        train(values, resume=resumed)
    assert not RunFolder(tmp_path / "run").finished


def test_fp16_skips_nan(tmp_path, tiny_bert, half, monkeypatch):
    poison(monkeypatch, {3})
    values = runs.settings(tmp_path, tiny_bert, precision="fp16", on_nan="skip")
    train(values)
    assert [record["skipped_steps"] for record in numbers(tmp_path / "run")] == [0, 1, 0]
    assert half.scalers[0].get_scale() == 512.0, "halved once"


def test_fp16_resumes_with_the_scale_it_had(tmp_path, tiny_bert, half, monkeypatch):
    half.scale = 2.0**22
    values = runs.settings(tmp_path, tiny_bert, precision="fp16")
    train(values, output_dir=str(tmp_path / "straight"))
    interrupt(values, monkeypatch, 4)
    train(values, resume=True)
    assert_equal(tmp_path / "run", tmp_path / "straight")
    assert half.scalers[0].get_scale() == half.scalers[2].get_scale() < half.scale


@pytest.mark.parametrize(
    ("epochs", "message"),
    [
        (3, r"nothing was learned: .* not finite in any of the 9 steps$"),
        (10, "in 21 steps in a row.*no checkpoint yet"),
    ],
)
def test_skipping_ends_when_nothing_but_nan_comes(tmp_path, tiny_bert, monkeypatch, epochs, message):
    poison(monkeypatch, set(range(100)))
    values = runs.settings(tmp_path, tiny_bert, on_nan="skip", epochs=epochs, checkpoint__every_minutes=0)
    with pytest.raises(NonFiniteLoss, match=message):
        train(values)


LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
ACCELERATE = ("-m", "accelerate.commands.launch", "--num_processes=2", "--num_machines=1", "--mixed_precision=no")
ACCELERATE += ("--dynamo_backend=no", "--main_process_port=0")
SHARDED = (*ACCELERATE, "--use_fsdp", "--fsdp_version=2")


PARE = {"method": "pare", "pare__end": 0.0, "pare__start": 3}
VARIANTS = {"noise_on": "logits", "noise_end": 0.5, "straight_through": True, "saliency": "gradient", "end_patience": 1}


@pytest.mark.parametrize(
    ("changes", "launcher"),
    [
        pytest.param(PARE, LAUNCH, id="pare-torchrun"),
        pytest.param(
            {"method": "orca", "orca__epochs": 2, "orca__samples": 15},
            LAUNCH,
            id="orca-torchrun",
            marks=pytest.mark.slow,
        ),
        pytest.param({"method": "nft"}, (*ACCELERATE, "--multi_gpu"), id="nft-accelerate"),
        pytest.param(PARE, SHARDED, id="pare-sharded"),
        *(
            pytest.param(changes, LAUNCH, id="-".join(map(str, changes.values()))[:30], marks=pytest.mark.slow)
            for changes in (
                PARE | {f"pare__{name}": value for name, value in VARIANTS.items()} | {"pare__partners": "nearest"},
                PARE | {"pare__partners": "class", "pare__labels": "joint"},
                {"method": "pare_released"},
                {"method": "cutmix", "sampler": "balanced", "thresholds": "f1", "metric": "macro_f1"},
            )
        ),
    ],
)
def test_two_processes_make_the_same_curve_as_one(tmp_path, tiny_bert, changes, launcher):
    """Short last batches, a last batch of one sample, Gumbel noise, plain top-k, k = 0 in the last epoch."""
    changes = {"epochs": 3, "batch_size": 5} | changes
    values = runs.settings(tmp_path, tiny_bert, **changes)
    path = runs.write_settings(tmp_path, values)
    other = ("--output_dir", tmp_path / "two", "--device", "auto")
    process = runs.script("train.py", "--config", path, *other, launcher=launcher)
    train(values, output_dir=str(tmp_path / "one"))
    output = runs.finish(process)
    assert output.count("weights of epoch") == 1  # one process talks
    assert_same_curve(tmp_path / "two", tmp_path / "one", rel=2e-4)
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two")]
    assert results[1]["processes"] == 2
    assert results[1]["sharded"] == (launcher is SHARDED)
    others = [result["verdict"].pop("others") for result in results]
    assert [one["value"] for one in others[0].values()] == [one["value"] for one in others[1].values()]
    assert results[0]["verdict"]["value"] == pytest.approx(results[1]["verdict"]["value"])
    kept = [outcomes.load(tmp_path / name / "test.npz") for name in ("one", "two")]
    assert kept[0].rows.tolist() == kept[1].rows.tolist()
    assert all(np.array_equal(kept[0].numbers[key], values) for key, values in kept[1].numbers.items())
    assert results[0]["thresholds"] == pytest.approx(results[1]["thresholds"], abs=1e-3)
    x = np.random.default_rng(0).standard_normal((4, 2, runs.LENGTH)).astype(np.float32)
    outputs = [crossmodal.load(tmp_path / name).predict(x).probabilities for name in ("one", "two")]
    assert outputs[0] == pytest.approx(outputs[1], rel=2e-3)
    again = evaluate.evaluate(tmp_path / "two")
    assert again["value"] == again["stored"]
    assert results[0]["test_loss"] == pytest.approx(results[1]["test_loss"], rel=2e-4)
    if changes["method"] == "pare":
        assert [record["k"] for record in numbers(tmp_path / "one")] == [3, 2, 1] or "k_ended_after_epoch" in results[0]
        assert results[0]["replaced"] == results[1]["replaced"]


def test_accelerate_that_starts_one_process_for_two_is_refused(tmp_path, tiny_bert):
    """What `accelerate launch` does on a CPU."""
    path = runs.write_settings(tmp_path, runs.settings(tmp_path, tiny_bert, device="auto"))
    process = runs.script("train.py", "--config", path, launcher=ACCELERATE[:3])
    output, _ = process.communicate(timeout=120)
    assert "error: num_processes: `accelerate launch` was asked for several processes and started one" in output
    assert "torchrun --nproc_per_node" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_shards_compute_in_the_run_s_precision_and_go_back_to_the_best_epoch(tmp_path, tiny_bert):
    """bfloat16 with shards is the bfloat16 of one process, not float32. A high learning rate: the last epoch is not the best."""
    values = runs.settings(
        tmp_path, tiny_bert, epochs=4, optimizer={"lr": 0.05, "new_lr": 0.1}, model__layers=3, seed=1
    )
    path = runs.write_settings(tmp_path, values)
    changes = ("--output_dir", tmp_path / "two", "--precision", "bf16", "--shard", "true")
    process = runs.script("train.py", "--config", path, *changes, launcher=LAUNCH)
    first = {}
    for precision in ("no", "bf16"):
        train(values, precision=precision, output_dir=str(tmp_path / precision))
        first[precision] = numbers(tmp_path / precision)[0]["loss"]
        runs.fresh_accelerator()
    runs.finish(process)
    shared = numbers(tmp_path / "two")[0]["loss"]
    assert abs(shared - first["bf16"]) < 0.2 * abs(first["no"] - first["bf16"])
    results = RunFolder(tmp_path / "two").read_results()
    assert results["best_epoch"] < 4
    again = evaluate.evaluate(tmp_path / "two", "validation")
    assert again["value"] == again["stored"] == max(record["validation"] for record in numbers(tmp_path / "two"))


@pytest.mark.parametrize("shard", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["whole", "sharded"])
def test_two_processes_stop_together_and_one_goes_on(tmp_path, tiny_bert, shard):
    """One of them meets the signal, in the middle of an epoch of three steps."""
    values = runs.settings(tmp_path, tiny_bert, epochs=4, checkpoint__every_minutes=0, shard=shard)
    path = runs.write_settings(tmp_path, values)
    process = runs.script(Path(__file__).with_name("stop.py"), path, 4, "SIGTERM", launcher=LAUNCH)
    output, _ = process.communicate(timeout=120)
    assert "SIGTERM: stopped after step 5, saved" in output, output
    saved = Checkpoints(tmp_path / "run" / "checkpoints" / "train")
    assert [path.name for path in saved.list()] == ["step-00000005"]
    assert len(list(saved.list()[-1].glob("random-*.pt"))) == 2
    assert saved.load()[1]["state"]["step"] == 5
    assert not (tmp_path / "run" / "results.json").exists()

    resumed = train(values, resume=True)
    runs.fresh_accelerator()
    straight = train(values, output_dir=str(tmp_path / "straight"))
    assert resumed["steps"] == straight["steps"] == 12
    assert_same_curve(tmp_path / "run", tmp_path / "straight", rel=1e-4)
    assert resumed["test_loss"] == pytest.approx(straight["test_loss"], rel=1e-5)


@pytest.mark.parametrize("shard", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["whole", "sharded"])
def test_two_processes_take_over_from_one_and_from_two(tmp_path, tiny_bert, monkeypatch, shard):
    """One process stops after step 2, two stop after step 5, two end the run: the curve of one that never stopped."""
    values = runs.settings(tmp_path, tiny_bert)
    with monkeypatch.context() as patch:
        stop_at(patch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match="stopped after step 2"):
            train(values, shard=shard)
    path = runs.write_settings(tmp_path, values | {"shard": shard, "resume": True})
    process = runs.script(Path(__file__).with_name("stop_and_resume.py"), path, 4, launcher=LAUNCH)
    runs.fresh_accelerator()
    train(values, output_dir=str(tmp_path / "straight"))
    output = runs.finish(process)
    assert re.findall(r"resumed from \S+ \(step (\d)", output) == ["2", "5"]
    found, expected = (RunFolder(tmp_path / name) for name in ("run", "straight"))
    assert_same_curve(found.path, expected.path, rel=2e-4)
    results = found.read_results()
    assert (results["processes"], results["sharded"]) == (2, shard)
    assert results["test_loss"] == pytest.approx(expected.read_results()["test_loss"], rel=2e-4)


@pytest.mark.slow
def test_compiled_shards_make_the_same_curve(tmp_path, tiny_bert):
    values = runs.settings(tmp_path, tiny_bert, method="nft", epochs=2, batch_size=26)
    path = runs.write_settings(tmp_path, values | {"shard": True, "compile": True})
    process = runs.script(Path(__file__).with_name("train_compiled.py"), "--config", path, launcher=LAUNCH)
    train(values, output_dir=str(tmp_path / "plain"))
    assert re.search("[1-9][0-9]* graphs compiled", runs.finish(process))
    found, expected = (RunFolder(tmp_path / name).read_results() for name in ("run", "plain"))
    assert found["sharded"]
    assert found["test_loss"] == pytest.approx(expected["test_loss"], rel=2e-4)
    for one, other in zip(numbers(tmp_path / "run"), numbers(tmp_path / "plain"), strict=True):
        for key in ("loss", "gradient_norm", "validation_loss"):
            assert one[key] == pytest.approx(other[key], rel=2e-4), key


@pytest.mark.parametrize(("platform", "factor"), [("linux", 2**10), ("darwin", 2**20)])
def test_peak_memory_is_in_mib_whatever_the_platform_counts_in(monkeypatch, platform, factor):
    usage = SimpleNamespace(ru_maxrss=300 * factor)
    monkeypatch.setattr(trainer.resource, "getrusage", lambda _: usage)
    monkeypatch.setattr(trainer.sys, "platform", platform)
    assert trainer.memory_mib(torch.device("cpu")) == 300


def test_a_metric_that_is_never_defined_says_so(tmp_path, tiny_bert, capsys):
    """Validation samples that all have both labels: there is no ROC curve."""
    values = runs.settings(tmp_path, tiny_bert, "multilabel", epochs=3)
    with np.load(values["data"]) as data:
        both = data["y_train"].all(axis=1)
        np.savez(values["data"], **data, x_val=data["x_train"][both], y_val=data["y_train"][both])
    results = train(values)
    losses = [record["validation_loss"] for record in numbers(tmp_path / "run")]
    assert results["best_epoch"] == losses.index(min(losses)) + 1 > 1
    assert "(select: loss, because validation auroc is NaN in every epoch)" in capsys.readouterr().out
