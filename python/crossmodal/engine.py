"""The training loop: many processes or one, any precision, interruptible at every step, and the same numbers each time."""

from __future__ import annotations

import contextlib
import math
import resource
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule

from crossmodal import losses, metrics, seeds, sharding
from crossmodal.checkpoint import Checkpoints
from crossmodal.config import Config
from crossmodal.loader import BatchPlan, Share, TrainLoader, eval_rows
from crossmodal.methods import METHODS, Batch, MixPlan, TrainingStep
from crossmodal.optim import build_optimizer, build_scheduler
from crossmodal.progress import Progress
from crossmodal.results import RunFolder, RunFolderError
from crossmodal.selection import EpochSelection

__all__ = ["Evaluation", "Interrupted", "NonFiniteLoss", "State", "Trainer"]

PARTS = ("loss", "target", "mixed_target", "mixed_source")
MOST_SKIPPED = 20  # Steps in a row; beyond that the weights themselves are no longer sound.
SAVE_COST = 0.01  # Share of the time that checkpoints by time may take, beyond one per `every_minutes`.
PICTURED = 4  # Training samples whose replaced patches are kept for the picture.


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient became NaN or infinite."""


class Interrupted(RuntimeError):
    """SIGTERM or Ctrl-C; the run was saved. `signum` says which."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


@dataclass
class State:
    """Where a run stands, beside weights, optimizer, generators and `EpochSelection`: plain numbers, part of every checkpoint."""

    data: str = ""  # sha256 of the task's data
    epoch: int = 0
    batch: int = 0  # next batch of that epoch
    step: int = 0  # optimizer steps done, skipped ones included
    seconds: float = 0.0
    totals: list[float] = field(default_factory=lambda: [0.0] * len(PARTS))  # sums over the samples of this epoch
    samples: int = 0
    gradient: float = 0.0
    skipped: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    replaced: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # epoch -> training sample -> slots


@dataclass(frozen=True)
class Evaluation:
    """Outputs of a whole split, in its order (normalised, as the model gives them), with loss and metric.

    scores: float64 (n,), what each sample says for the model, higher is better: for classes whether it is right, else minus
    its loss.
    """

    outputs: Tensor
    loss: float
    metric: float
    scores: Tensor


class Trainer:
    """Trains one model on one task.

    Args:
        config: the run's settings.
        task: data, kind of target, names of loss and metric.
        source: data of the pretraining modality, or None for a method without mixing.
        model: `CrossModalModel`.
        accelerator: from accelerate; decides device, processes and precision.
        folder: the run's folder; checkpoints and `metrics.jsonl` go there.
    """

    def __init__(
        self, config: Config, task, source, model: nn.Module, accelerator: Accelerator, folder: RunFolder
    ) -> None:
        self.config, self.task, self.accelerator, self.folder = config, task, accelerator, folder
        self.loss, self.metric = losses.get(task.loss), metrics.get(task.metric)
        mixes = METHODS[config.method].mixes
        self.schedule = config.mixing.replace_schedule()
        self.patches = patches_at_hand(model, source) if mixes else 0
        self.gumbel_epochs = gumbel_epochs(config, task.ndim)

        sharding.choose_layers(accelerator, model.encoder)
        step = TrainingStep(model, self.loss, task.normalizer.inverse_y, config.mixing if mixes else None)
        optimizer = build_optimizer(model, config.optimizer)
        rank, world = accelerator.process_index, accelerator.num_processes
        self.plan = BatchPlan(
            len(task.train),
            config.batch_size,
            config.accumulate,
            config.seed,
            len(source.inputs) if mixes else 0,
            rank,
            world,
        )
        # Before the optimizer is prepared: with a loss scaler accelerate exchanges its `step`, which the schedule counts.
        self.scheduler = build_scheduler(optimizer, config.lr_schedule, self.plan.steps * config.epochs)
        self.step, self.optimizer = accelerator.prepare(step, optimizer)
        # All of them, frozen ones too: accelerate knows a sharded model by the list of its parameters.
        self._parameters = list(self.step.parameters())
        pin = config.loader.pin_memory and accelerator.device.type == "cuda"
        self.loader = TrainLoader(task.train, source if mixes else None, self.plan, config.loader.workers, pin)
        self.checkpoints = Checkpoints(folder.checkpoints, config.keep, rank, accelerator.wait_for_everyone)
        self.state = State(data=task.sha256)
        self.selection = EpochSelection(config.select, self.metric)
        self.best_weights: dict[str, Tensor] | None = None  # of the epoch that the selection keeps
        self.progress: Progress | None = None  # while `fit` is at work
        self._signal: int | None = None
        self._lr: float = self.scheduler.get_last_lr()[0]  # of the last step
        self._skipped_in_a_row = 0
        self._saved_at = time.monotonic()
        self._save_seconds: float | None = None  # what the last checkpoint cost; None before the first
        # Of the epoch, since it began or was resumed: when that was, the samples before it, seconds spent waiting for batches.
        self._began, self._samples_before, self._waited = 0.0, 0, 0.0

    # ----- what the outside calls -------------------------------------------------------------------------------------

    def fit(self) -> None:
        """Trains from where the state stands to the last epoch, saves, then takes the weights of the best epoch.

        Raises:
            NonFiniteLoss: the loss is not finite and `on_nan` is `stop`; or every step had to be skipped.
            Interrupted: a signal came; a checkpoint was written.
        """
        torch.manual_seed(seeds.derive(self.config.seed, "training", self.accelerator.process_index))
        self._restore()
        total = self.plan.steps * self.config.epochs
        self.progress = Progress(
            total, self.config.epochs, self.task.metric, self.state.step, self.accelerator.is_main_process
        )
        try:
            with self._signals():
                for epoch in range(self.state.epoch, self.config.epochs):
                    began, done = time.perf_counter(), self.state.seconds
                    self._train_epoch(epoch, began, done)
                    self._end_epoch(epoch, began, done)
                self._check_trained()
                path = self._save()  # what is left, the test and the pictures, can fail and is not to cost the training
                _, stop, _ = self._agree(torch.zeros(len(PARTS), dtype=torch.float64, device=self.accelerator.device))
                if stop:
                    raise self._interrupted(stop, path)
        finally:
            self.progress.close()
        self._load_weights(self.best_weights)

    def evaluate(self, split) -> Evaluation:
        """Outputs, loss and metric of a split, with the weights as they are."""
        outputs = self._outputs(split)
        normalizer = self.task.normalizer
        physical_outputs, physical_y = normalizer.decode(outputs), normalizer.inverse_y(split.y)
        pair = (physical_outputs, physical_y) if self.loss.physical else (outputs, split.y)
        per_sample = self.loss.per_sample(*pair).double()
        scores = outputs.argmax(1) == split.y if self.task.kind == "classification" else -per_sample
        metric = self.metric(physical_outputs, physical_y)
        return Evaluation(outputs, per_sample.mean().item(), metric, scores.double())

    # ----- one epoch --------------------------------------------------------------------------------------------------

    def _train_epoch(self, epoch: int, began: float, done: float) -> None:
        state, config = self.state, self.config
        self.step.train()
        k = self._k(epoch)
        pictured = self._pictured_epoch(epoch)
        group = torch.zeros(len(PARTS), dtype=torch.float64, device=self.accelerator.device)
        samples: list[tuple[Tensor, Tensor]] = []
        self._began, self._samples_before, self._waited = began, state.samples, 0.0
        for number, (batch, share) in self._batches(epoch, state.batch):
            last = (number + 1) % config.accumulate == 0 or number + 1 == self.plan.batches
            step_in_epoch = number // config.accumulate
            size = self.plan.group_size(step_in_epoch)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.step):
                parts = self._forward(batch, self._mix_plan(epoch, number, k, share))
                # Summed over the samples of the whole group, whatever the batches and processes it is divided into;
                # data-parallel training averages over the processes.
                loss = (parts["loss"] * batch.weight).sum() * (self.accelerator.num_processes / size)
                self.accelerator.backward(loss)
            samples.append((batch.index, parts["loss"].detach()))
            for place, name in enumerate(PARTS):
                if name in parts:
                    group[place] += (parts[name].detach().double() * batch.weight).sum()
            if pictured and "replaced" in parts:
                self._note_replaced(epoch, batch, parts["replaced"])
            if last:
                state.batch = number + 1
                state.seconds = done + time.perf_counter() - began
                self._optimizer_step(epoch, group, samples, size, k)
                group.zero_()
                samples.clear()

    def _forward(self, *arguments) -> Any:
        """The step in the run's precision; accelerate sees to that of its own accord for models that are not sharded."""
        with self.accelerator.autocast():
            return self.step(*arguments)

    def _batches(self, epoch: int, start: int) -> Iterator[tuple[int, tuple[Batch, Share]]]:
        """Batches of an epoch on this process's device, numbered; the time spent waiting for them is added up."""
        batches = self.loader.epoch(epoch, start)
        for number in range(start, self.plan.batches):
            before = time.perf_counter()
            batch, share = next(batches)
            batch = batch.to(self.accelerator.device)
            self._waited += time.perf_counter() - before
            yield number, (batch, share)

    def _optimizer_step(
        self, epoch: int, group: Tensor, samples: list[tuple[Tensor, Tensor]], size: int, k: int | None
    ) -> None:
        state, config = self.state, self.config
        norm = self.accelerator.clip_grad_norm_(self._parameters, config.optimizer.clip or float("inf"))
        norm = float(sharding.whole(norm))
        totals, stop, save = self._agree(group)
        taken = all(map(math.isfinite, totals)) and math.isfinite(norm)
        lr = self.scheduler.get_last_lr()[0]
        if all(map(math.isfinite, totals)):
            state.totals = [a + b for a, b in zip(state.totals, totals, strict=True)]
            state.samples += size
        if taken:
            self.optimizer.step()
            self.scheduler.step()
            self._skipped_in_a_row = 0
            state.gradient += norm
        else:
            self._not_finite(epoch, totals[0] / size, norm, samples)
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.update()  # lowers the scale; else it takes the next step for the same one
        self.optimizer.zero_grad()
        state.step += 1
        elapsed = max(time.perf_counter() - self._began, 1e-9)
        self.progress.step(totals[0] / size, lr, k, (state.samples - self._samples_before) / elapsed)
        self._lr = lr
        if stop:
            raise self._interrupted(stop, self._save())
        every = config.checkpoint.every_steps
        if save or (every and state.step % every == 0):
            self._save()

    def _agree(self, group: Tensor) -> tuple[list[float], float, bool]:
        """Sums over all processes of the group's losses; the signal any of them met; whether process 0 wants to save."""
        due = self.accelerator.is_main_process and self._due()
        words = torch.tensor([float(self._signal or 0), float(due)], dtype=torch.float64, device=group.device)
        if self.accelerator.num_processes > 1:
            everyone = self.accelerator.gather(torch.cat([group, words]).unsqueeze(0))
            group, words = everyone[:, : len(group)].sum(0), everyone[:, len(group) :].amax(0)
        stop, save = words.tolist()
        return group.tolist(), stop, bool(save)

    def _due(self) -> bool:
        """Whether it is time to save: after `every_minutes` at the latest, sooner where a checkpoint costs little."""
        longest = 60 * self.config.checkpoint.every_minutes
        wait = longest if self._save_seconds is None else min(longest, self._save_seconds / SAVE_COST)
        return longest > 0 and time.monotonic() - self._saved_at > wait

    def _interrupted(self, signum: float, path: str) -> Interrupted:
        name = signal.Signals(int(signum)).name
        where = f"stopped after step {self.state.step}, saved {path}; `--resume true` goes on"
        return Interrupted(int(signum), f"{name}: {where}")

    def _not_finite(self, epoch: int, loss: float, norm: float, samples: list[tuple[Tensor, Tensor]]) -> None:
        bad_rows = [row for rows, losses in samples for row in rows[~torch.isfinite(losses)].tolist()]
        rows = sorted(set(gather_object(bad_rows) if self.accelerator.num_processes > 1 else bad_rows))
        what = f"loss {loss}" if not math.isfinite(loss) else f"gradient norm {norm}"
        where = f"at step {self.state.step} (epoch {epoch + 1}): {what}"
        where += f", training samples {rows[:20]}" if rows else ""
        self.state.skipped += 1
        self._skipped_in_a_row += 1
        # Finite losses with an infinite gradient: the scale of the loss was too high for fp16. That is expected, now and then.
        overflow = self.accelerator.scaler is not None and math.isfinite(loss)
        skip = overflow or self.config.on_nan == "skip"
        if skip and self._skipped_in_a_row <= MOST_SKIPPED:
            if not overflow:
                self.progress.say(f"step skipped {where}")
            return
        saved = self.checkpoints.list()
        last = f"the last good checkpoint is {saved[-1]}" if saved else "there is no checkpoint yet"
        times = f" in {self._skipped_in_a_row} steps in a row" if skip else ""
        raise NonFiniteLoss(f"not a finite number{times}, {where}; {last}")

    def _check_trained(self) -> None:
        """Raises where not one step was taken, which MOST_SKIPPED does not see in a short run."""
        steps = self.state.step
        if sum(record["skipped_steps"] for record in self.state.history) < steps:
            return
        scaler = self.accelerator.scaler
        remedy = ""
        if scaler is not None:
            remedy = f"; the scale of the fp16 loss has come down to {scaler.get_scale():g}, take more epochs or precision bf16"
        raise NonFiniteLoss(f"nothing was learned: loss or gradient was not finite in any of the {steps} steps{remedy}")

    def _end_epoch(self, epoch: int, began: float, done: float) -> None:
        state, task = self.state, self.task
        trained = time.perf_counter() - began
        validation = self.evaluate(task.validation)
        k = self._k(epoch)
        record: dict[str, Any] = {"epoch": epoch, "step": state.step, "lr": self._lr}
        record |= {
            name: total / max(state.samples, 1)
            for name, total in zip(PARTS, state.totals, strict=True)
            if k is not None or name in ("loss", "target")
        }
        record |= {
            "k": k,
            "lam": None if k is None else k / self.model.encoder.num_tokens,
            "selection": None if k is None else self._selection(epoch),
            "validation": validation.metric,
            "validation_loss": validation.loss,
            "gradient_norm": state.gradient / max(self.plan.steps - state.skipped, 1),
            "skipped_steps": state.skipped,
            "samples_per_second": (state.samples - self._samples_before) / trained,
            "data_share": self._waited / trained,
            "memory_mib": memory_mib(self.accelerator.device),
            "seconds": done + time.perf_counter() - began,
        }
        if self.selection.consider(epoch, validation.metric, validation.loss, validation.scores):
            self.best_weights = self._weights()
        self._gather_replaced(epoch)
        state.history.append(record)
        state.epoch, state.batch, state.samples, state.skipped, state.gradient = epoch + 1, 0, 0, 0, 0.0
        state.totals = [0.0] * len(PARTS)
        state.seconds = record["seconds"]
        if self.accelerator.is_main_process:
            self.folder.append_metrics(record)
        numbers = {name: value for name, value in record.items() if isinstance(value, int | float)}
        self.accelerator.log(numbers, step=state.step)
        self.progress.epoch(record)
        if self.config.checkpoint.every_minutes and self._save_seconds is None:
            self._save()  # an early end is not to cost a short run everything, and now it is known what saving costs

    # ----- mixing -----------------------------------------------------------------------------------------------------

    def _k(self, epoch: int) -> int | None:
        """Patches replaced in an epoch; the same for all its steps. None without mixing."""
        return self.schedule(epoch / self.config.epochs, self.patches) if self.patches else None

    def _selection(self, epoch: int) -> str:
        chosen = self.config.mixing.selection
        return "topk" if chosen == "gumbel" and epoch >= self.gumbel_epochs else chosen

    def _mix_plan(self, epoch: int, batch: int, k: int | None, share: Share) -> MixPlan | None:
        if k is None:
            return None
        seed = seeds.derive(self.config.seed, "mix", epoch, batch)
        return MixPlan(k, self._selection(epoch), seed, (share.first, share.total))

    def _pictured_epoch(self, epoch: int) -> bool:
        """Early, midway and late: the first, the middle and the last epoch with anything replaced."""
        mixing = [e for e in range(self.config.epochs) if self._k(e)]
        return bool(mixing) and epoch in (mixing[0], mixing[len(mixing) // 2], mixing[-1])

    def _note_replaced(self, epoch: int, batch: Batch, slots: Tensor) -> None:
        for row, chosen in zip(batch.index.tolist(), slots, strict=True):
            if row < PICTURED:
                self.state.replaced.setdefault(str(epoch), {})[str(row)] = chosen.tolist()

    def _gather_replaced(self, epoch: int) -> None:
        if self._pictured_epoch(epoch) and self.accelerator.num_processes > 1:
            parts = gather_object([self.state.replaced.get(str(epoch), {})])
            self.state.replaced[str(epoch)] = {row: slots for part in parts for row, slots in part.items()}

    # ----- weights and checkpoints ------------------------------------------------------------------------------------

    @property
    def model(self) -> nn.Module:
        """The model, without what the data-parallel wrapper puts around it."""
        return self.accelerator.unwrap_model(self.step).model

    def whole_weights(self) -> dict[str, Tensor]:
        """All weights of the model, put together from their shards if there are any (complete on process 0)."""
        return get_model_state_dict(self.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))

    def _weights(self) -> dict[str, Tensor]:
        """A copy of the trainable weights, on the CPU (complete on process 0)."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
        return {name: value.clone() for name, value in get_model_state_dict(self.step, options=options).items()}

    def _load_weights(self, weights: dict[str, Tensor] | None) -> None:
        self._reshard()
        set_model_state_dict(self.step, weights or {}, options=self._loading)

    def _reshard(self) -> None:
        """An evaluation leaves what no layer holds put together, and then it can be neither loaded nor saved."""
        if isinstance(self.step, FSDPModule):
            self.step.reshard()

    @property
    def _loading(self) -> StateDictOptions:
        return StateDictOptions(
            full_state_dict=True, strict=False, broadcast_from_rank0=self.accelerator.num_processes > 1
        )

    def _save(self) -> str:
        began = time.monotonic()
        self._reshard()
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        optimizer = get_optimizer_state_dict(self.step, self.optimizer.optimizer, options=options)
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None
        state = {
            "state": vars(self.state) | self.selection.state() | {"lr": self._lr},
            "optimizer": optimizer,
            "scheduler": {"last_epoch": self.scheduler.last_epoch, "last_lr": self.scheduler.get_last_lr()},
            "scaler": scaler,
        }
        path = self.checkpoints.save(self.state.step, self._weights(), state, self.best_weights)
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - began
        return str(path)

    def _restore(self) -> None:
        found = self.checkpoints.load() if self.config.resume else None
        if found is None:
            if self.accelerator.is_main_process:
                if self.config.resume:
                    print(f"no checkpoint in {self.folder.checkpoints}, starting anew", flush=True)
                self.folder.write_metrics([])
            return
        weights, saved, self.best_weights, path = found
        self._load_weights(weights)
        set_optimizer_state_dict(self.step, self.optimizer.optimizer, saved["optimizer"], options=self._loading)
        self.scheduler.load_state_dict(
            self.scheduler.state_dict()
            | {"last_epoch": saved["scheduler"]["last_epoch"], "_last_lr": saved["scheduler"]["last_lr"]}
        )
        if saved["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved["scaler"])
        self._lr = saved["state"].pop("lr")
        self.selection.load_state({key: saved["state"].pop(key) for key in self.selection.state()})
        self.state = State(**saved["state"])
        if self.state.data != self.task.sha256:
            raise RunFolderError(f"resume: the data of {self.task.name} have changed since {path} was written")
        if self.accelerator.is_main_process:
            self.folder.write_metrics(self.state.history)
            print(f"resumed from {path} (step {self.state.step}, epoch {self.state.epoch + 1})", flush=True)

    # ----- the rest ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _outputs(self, split) -> Tensor:
        self.step.eval()
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        outputs = []
        for rows in eval_rows(len(split), self.config.loader.eval_batch_size, rank, world):
            x = split.x[rows].to(self.accelerator.device)
            weight = torch.ones(len(rows), device=x.device)
            outputs.append(self._forward(Batch(x, split.y[rows].to(x.device), rows.to(x.device), weight)))
        return self.accelerator.gather(torch.cat(outputs))[: len(split)].cpu()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C are noted and acted upon at the end of the step; a second one ends the process at once."""

        def note(signum: int, frame) -> None:
            self._signal = signum
            signal.signal(signum, before[signum])

        before = {}
        try:
            for signum in (signal.SIGTERM, signal.SIGINT):
                before[signum] = signal.signal(signum, note)
        except ValueError:  # Not the main thread: whoever embeds the trainer minds the signals.
            pass
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


def gumbel_epochs(config: Config, ndim: int) -> int:
    """Epochs of noisy selection: as set, else 5 for 1-D inputs and 10 for 2-D, as the method's authors have it."""
    if config.mixing.gumbel_epochs is not None:
        return config.mixing.gumbel_epochs
    return 5 if ndim == 1 else 10


def patches_at_hand(model: nn.Module, source) -> int:
    """How many patches can be replaced at most: tokens of a target or of a source sample, whichever are fewer."""
    return min(model.encoder.num_tokens, model.embed_source(source.inputs[:1]).shape[1])


def memory_mib(device: torch.device) -> float:
    """Peak memory of this process: of the GPU where it trains on one, else its resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, Linux KiB
