"""What the training engine costs: `python -m benchmarks.engine [--size tiny|small|base] [--processes 1,2]`.

Two questions, on the encoders of `benchmarks.train_step` with random weights:

    overhead     optimiser steps through the training program's `Trainer` beside a bare loop (forward, backward, optimizer) over the
                 same batches with the same model, in turns in one process. Both end with the same weights, bit for bit, which
                 is checked: the loop is the engine's work and nothing else. CPU time of the process.
    processes    samples/s of the same run, same global batch, on one process and on several (gloo), in turns. Wall time, so
                 the machine should be idle; every process has its own cores (`--threads` of them).

The engine's steps include all that a run has: the loader, the plan of each mix, sums of the losses, the gradient's norm, signals
and progress. What happens once per epoch (validation, best weights, metrics.jsonl) is reported beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator

from benchmarks import train_step
from benchmarks.clock import Quantiles
from benchmarks.records import ROOT, Provenance, Row, append, results_path
from benchmarks.run import positive
from benchmarks.train_step import SETTINGS, Setting, blank_row
from crossmodal.data.dataset import Batch
from crossmodal.settings import CheckpointConfig, Config, OptimizerConfig, ScheduleConfig
from crossmodal.training.folder import RunFolder
from crossmodal.training.objective import Position, Step
from crossmodal.training.optim import build_optimizer
from crossmodal.training.trainer import Trainer

CPU = torch.device("cpu")
METHODS = ("nft", "pare")


ROUNDS, STEPS = 8, 4


@dataclass
class Times:
    """Milliseconds of each round: wall and CPU time per step, in both ways, and of what ends an epoch."""

    wall: dict[str, list[float]] = field(default_factory=lambda: {"bare": [], "engine": []})
    cpu: dict[str, list[float]] = field(default_factory=lambda: {"bare": [], "engine": []})
    epoch_end: list[float] = field(default_factory=list)


def settings(setting: Setting, method: str, folder: Path, epochs: int) -> Config:
    """A run whose arithmetic a bare loop can repeat: constant k and learning rate, no clipping, no checkpoint before the end."""
    return Config(
        task=setting.name,
        method=method,
        epochs=epochs,
        batch_size=setting.batch,
        output_dir=str(folder),
        select="last",
        device="cpu",
        optimizer=OptimizerConfig(lr=1e-5, new_lr=1e-5, clip=0.0),
        lr_schedule=ScheduleConfig(kind="constant", warmup=0.0),
        checkpoint=CheckpointConfig(every_minutes=0.0),
    )


def make_trainer(setting: Setting, method: str, folder: Path, epochs: int, steps: int, kind: type = Trainer) -> Trainer:
    """The engine around the setting's encoder, ready to `fit`."""
    config = settings(setting, method, folder, epochs)
    task = train_step.synthetic_task(setting, steps)
    step = train_step.make_step(setting, method, task)
    run_folder = RunFolder(folder)
    accelerator = Accelerator(cpu=True)
    if accelerator.is_main_process:
        run_folder.path.mkdir(parents=True, exist_ok=True)
    return kind(config, task, step.model, step.objective, accelerator, run_folder)


class Interleaved(Trainer):
    """The engine; each epoch is also done by a bare loop on a copy of the model, before it or after it in turns."""

    def fit(self) -> None:
        self.times = Times()
        self.bare: Step = copy.deepcopy(self.accelerator.unwrap_model(self.step))
        self.bare_optimizer = build_optimizer(self.bare.model, self.bare.objective, self.config.optimizer)
        super().fit()

    def _train_epoch(self, epoch: int, began: float, done: float) -> None:
        batches = [
            (batch, Position(epoch, self.epochs, number, self.seed, share.first))
            for number, (batch, share) in enumerate(self.loader.epoch(epoch))
        ]
        ways = {
            "engine": lambda: super(Interleaved, self)._train_epoch(epoch, began, done),
            "bare": lambda: bare_loop(self.bare.train(), self.bare_optimizer, batches),
        }
        for name in sorted(ways, reverse=bool(epoch % 2)):
            torch.manual_seed(epoch)  # dropout and stochastic depth are the same in both ways
            before = time.perf_counter(), time.process_time()
            ways[name]()
            self.times.wall[name].append((time.perf_counter() - before[0]) * 1e3 / len(batches))
            self.times.cpu[name].append((time.process_time() - before[1]) * 1e3 / len(batches))

    def _end_epoch(self, epoch: int, began: float, done: float) -> None:
        before = time.process_time()
        super()._end_epoch(epoch, began, done)
        self.times.epoch_end.append((time.process_time() - before) * 1e3)


def bare_loop(step: Step, optimizer: torch.optim.Optimizer, batches: Sequence[tuple[Batch, Position]]) -> None:
    """What the engine is compared with."""
    for batch, position in batches:
        loss = step(batch, position)["loss"].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def overhead(setting: Setting, method: str, rounds: int = ROUNDS, steps: int = STEPS) -> Times:
    """Times of `rounds` epochs of `steps` optimiser steps each, after one to warm up.

    Raises:
        ValueError: the two ways did not end with the same weights.
    """
    with tempfile.TemporaryDirectory(prefix="pare-engine-") as folder:
        trainer = make_trainer(setting, method, Path(folder), rounds + 1, steps, Interleaved)
        with contextlib.redirect_stdout(io.StringIO()):  # a line per epoch
            trainer.fit()
    for (name, one), other in zip(trainer.model.named_parameters(), trainer.bare.model.parameters(), strict=True):
        if not torch.equal(one, other):
            raise ValueError(f"{setting.name}, {method}: engine and bare loop differ in {name}")
    times = trainer.times
    for values in (*times.wall.values(), *times.cpu.values(), times.epoch_end):
        del values[0]
    return times


def overhead_of(times: Times) -> Quantiles:
    """Engine over bare loop, minus one, of the CPU time of each round; as a share."""
    pairs = zip(times.cpu["engine"], times.cpu["bare"], strict=True)
    return Quantiles.of([engine / bare - 1 for engine, bare in pairs])


def added_ms(times: Times) -> float:
    """Median over the rounds of what the engine adds to a step, in milliseconds of CPU time."""
    pairs = zip(times.cpu["engine"], times.cpu["bare"], strict=True)
    return Quantiles.of([engine - bare for engine, bare in pairs]).median


def overhead_rows(setting: Setting, method: str, times: Times) -> list[Row]:
    """A row for the bare loop and one for the engine, whose note holds the overhead."""
    encoder = setting.make()
    rows = []
    for way in ("bare", "engine"):
        names = {"operation": "engine", "provider": f"{method}-{way}"}
        row = blank_row(setting, method, encoder, samples=len(times.cpu[way]), **names)
        row.both_ms, row.both_p20_ms, row.both_p80_ms = astuple(Quantiles.of(times.wall[way]))
        row.both_cpu_ms = Quantiles.of(times.cpu[way]).median
        row.samples_per_s = 1e3 * setting.batch / row.both_ms
        if way == "engine":
            share = overhead_of(times)
            row.note = (
                f"overhead {share.median:.2%} ({share.low:.2%} to {share.high:.2%}), {added_ms(times):.2f} ms, CPU time"
            )
        rows.append(row)
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# Several processes.
# ---------------------------------------------------------------------------------------------------------------------


def worker(setting: Setting, method: str, folder: Path, steps: int) -> None:
    """One process of a run of two epochs, of which the first warms up."""
    trainer = make_trainer(setting, method, folder, 2, steps)
    trainer.fit()
    # None leaves while another is still at work: gloo aborts on a broken connection.
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()


def throughput(setting: Setting, method: str, processes: int, threads: int, size: str, steps: int = STEPS) -> float:
    """Samples per second of a run on several processes, each in a fresh interpreter.

    Raises:
        ValueError: the run failed; holds the end of what it printed.
    """
    launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}") if processes > 1 else ()
    with tempfile.TemporaryDirectory(prefix="pare-engine-") as folder:
        options = ("--size", size, "--case", setting.name, "--method", method, "--steps", str(steps))
        options += ("--threads", str(threads), "--worker", folder)
        command = [sys.executable, *launcher, "-m", "benchmarks.engine", *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            raise ValueError(
                f"{processes} process(es): the run failed:\n{(done.stderr or done.stdout).strip()[-2000:]}"
            )
        return RunFolder(folder).read_metrics()[-1]["samples_per_second"]


def process_rows(setting: Setting, method: str, found: dict[int, list[float]], threads: int) -> list[Row]:
    """A row for each number of processes."""
    encoder = setting.make()
    alone = min(found)
    rows = []
    for processes, rates in found.items():
        rate = Quantiles.of(rates)
        names = {"operation": "engine_processes", "provider": f"{method}-{processes}"}
        row = blank_row(setting, method, encoder, samples=len(rates), **names)
        row.threads, row.samples_per_s = threads, rate.median
        growth = rate.median / Quantiles.of(found[alone]).median
        row.note = f"{processes} process(es), {growth:.2f} times the samples/s of {alone}"
        rows.append(row)
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# The command.
# ---------------------------------------------------------------------------------------------------------------------


def overhead_table(method: str, times: Times) -> str:
    bare, engine = (Quantiles.of(times.cpu[way]).median for way in ("bare", "engine"))
    share, end = overhead_of(times), Quantiles.of(times.epoch_end).median
    return (
        f"  {method:8} {bare:12.1f} {engine:14.1f} {added_ms(times):9.2f} {share.median:10.2%} "
        f"{f'{share.low:.2%} .. {share.high:.2%}':>20} {end:12.1f}"
    )


def parser_of() -> argparse.ArgumentParser:
    cases = ", ".join(setting.name for settings in SETTINGS.values() for setting in settings)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__.split("\n")[0])
    parser.add_argument("--size", default="small", choices=SETTINGS, help="default: small")
    parser.add_argument("--case", metavar="NAME", help=f"one case instead of all of that size: {cases}")
    parser.add_argument("--method", choices=METHODS, help="one method instead of both")
    parser.add_argument(
        "--rounds", type=positive, default=ROUNDS, help=f"epochs measured in each way; default: {ROUNDS}"
    )
    parser.add_argument("--steps", type=positive, default=STEPS, help=f"optimiser steps per epoch; default: {STEPS}")
    parser.add_argument("--threads", type=positive, default=1, help="per process; default: 1")
    parser.add_argument("--processes", default="1,2", metavar="N,N", help="numbers of processes; default: 1,2")
    parser.add_argument("--repeats", type=int, default=3, help="runs for each number of processes; default: 3, 0: none")
    parser.add_argument("--csv", type=Path, metavar="PATH", help="default: benchmarks/results/<device>.csv")
    parser.add_argument("--no-csv", action="store_true", help="print only")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return parser


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[Setting], list[int]]:
    parser = parser_of()
    options = parser.parse_args(arguments)
    chosen = [setting for setting in SETTINGS[options.size] if options.case in (None, setting.name)]
    if not chosen:
        valid = ", ".join(setting.name for setting in SETTINGS[options.size])
        parser.error(f"argument --case: unknown name {options.case!r}; valid with --size {options.size} are {valid}")
    if options.repeats < 0:
        parser.error(f"argument --repeats: must be at least 0, got {options.repeats}")
    counts = options.processes.split(",")
    if not all(count.isdecimal() and int(count) > 0 for count in counts):
        parser.error(f"argument --processes: must be numbers like 1,2, got {options.processes!r}")
    return options, chosen, sorted(set(map(int, counts)))


def main(arguments: Sequence[str] | None = None) -> int:
    options, chosen, counts = parse(arguments)
    torch.set_num_threads(options.threads)
    if options.worker is not None:
        worker(chosen[0], options.method, options.worker, options.steps)
        return 0
    provenance = Provenance.here(CPU, "engine")
    print(provenance)
    csv = None if options.no_csv else options.csv or results_path(CPU)
    methods = (options.method,) if options.method else METHODS
    try:
        for setting in chosen:
            print(
                f"\n{setting.name}: batch {setting.batch}, {options.threads} thread(s), {options.rounds} x {options.steps} steps"
            )
            print(
                f"  {'method':8} {'bare CPU ms':>12} {'engine CPU ms':>14} {'added ms':>9} {'overhead':>10} "
                f"{'p20 .. p80':>20} {'epoch end ms':>12}"
            )
            for method in methods:
                times = overhead(setting, method, options.rounds, options.steps)
                print(overhead_table(method, times), flush=True)
                if csv is not None:
                    append(csv, [provenance.stamp(row) for row in overhead_rows(setting, method, times)])
            if options.repeats == 0:
                continue
            print(f"  {'method':8} {'processes':>12} {'samples/s':>14} {'growth':>10} {'p20 .. p80':>20}")
            for method in methods:
                found: dict[int, list[float]] = {count: [] for count in counts}
                for _ in range(options.repeats):
                    for count in counts:
                        found[count].append(
                            throughput(setting, method, count, options.threads, options.size, options.steps)
                        )
                base = Quantiles.of(found[counts[0]]).median
                for count in counts:
                    rate = Quantiles.of(found[count])
                    spread = f"{rate.low:.2f} .. {rate.high:.2f}"
                    print(
                        f"  {method:8} {count:12} {rate.median:14.2f} {rate.median / base:10.2f} {spread:>20}",
                        flush=True,
                    )
                if csv is not None:
                    rows = process_rows(setting, method, found, options.threads)
                    append(csv, [provenance.stamp(row) for row in rows])
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
