"""One stage of a run: any model and objective, one process or many, interruptible at every step, the same numbers each time."""

from __future__ import annotations

import contextlib
import math
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
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
from torch.optim.lr_scheduler import LambdaLR

from crossmodal import seeds
from crossmodal.data.dataset import Batch, Dataset
from crossmodal.data.loader import BatchPlan, Share, TrainLoader
from crossmodal.errors import Interrupted, UserError
from crossmodal.models.convolutions import has_batch_norm, has_dropout, settling
from crossmodal.scoring import metrics
from crossmodal.settings import Config
from crossmodal.training import sharding
from crossmodal.training.checkpoint import Checkpoints
from crossmodal.training.evaluation import Evaluation, evaluate
from crossmodal.training.folder import RunFolder
from crossmodal.training.objective import Objective, Position, Step, merged
from crossmodal.training.optim import build_optimizer, learning_rate_factor
from crossmodal.training.progress import Progress
from crossmodal.training.selection import EpochSelection

MOST_SKIPPED = 20  # Steps in a row; beyond that the weights themselves are no longer sound.
SETTLED = 512  # samples from which statistics of batch norm are taken, where they are not those of training
SAVE_COST = 0.01  # Share of the time that checkpoints by time may take, beyond one per `every_minutes`.


class NonFiniteLoss(UserError):
    """The loss or its gradient became NaN or infinite."""

    exit_code = 1


@dataclass
class State:
    """Where a stage stands, beside weights, optimizer, generators and `EpochSelection`: plain numbers, part of every checkpoint."""

    data: str = ""  # fingerprint of the training data
    epoch: int = 0  # epochs done
    batch: int = 0  # batches done of the epoch after these
    step: int = 0  # optimizer steps done, skipped ones included
    seconds: float = 0.0
    totals: dict[str, float] = field(default_factory=dict)  # sums of losses over the samples of this epoch
    samples: int = 0
    gradient: float = 0.0
    skipped: int = 0
    averaged: int = 0  # steps of which `Trainer.mean` is the mean
    history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """Trains a model on a task by an objective.

    Args:
        config: the run's settings.
        task: data, kind of target, names of loss and metrics.
        model: an `nn.Module` that takes `Batch.x`; what it may offer beside is in `models.base`.
        objective: what is minimised.
        accelerator: from accelerate; decides device, processes and precision.
        folder: the run's folder; checkpoints and `metrics.jsonl` go there.
        stage: name of this stage: of its checkpoints and of its random streams.
        epochs: of this stage (None: those of the settings).
        most: optimizer steps of an epoch, if it has more.
        before: records of the stages before this one.
    """

    def __init__(
        self,
        config: Config,
        task,
        model: nn.Module,
        objective: Objective,
        accelerator: Accelerator,
        folder: RunFolder,
        *,
        stage: str = "train",
        epochs: int | None = None,
        most: int | None = None,
        before: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.config, self.task, self.accelerator, self.folder = config, task, accelerator, folder
        self.stage, self.epochs, self.before = stage, epochs or config.epochs, list(before)
        self.seed = config.seed if stage == "train" else seeds.derive(config.seed, stage)
        self.parts = ("loss", *objective.parts)

        sharding.choose_layers(accelerator, model)
        optimizer = build_optimizer(model, objective, config.optimizer)
        rank, world = accelerator.process_index, accelerator.num_processes
        companions = {name: len(data) for name, data in objective.companions.items()}
        classes = task.train.y if config.sampler == "balanced" else None
        self.plan = BatchPlan(
            len(task.train),
            config.batch_size,
            config.accumulate,
            self.seed,
            companions,
            rank,
            world,
            classes,
            most,
        )
        # Before the optimizer is prepared: with a loss scaler accelerate exchanges its `step`, which the schedule counts.
        factor = learning_rate_factor(config.lr_schedule, self.plan.steps * self.epochs)
        self.scheduler = LambdaLR(optimizer, factor)
        self.step, self.optimizer = accelerator.prepare(Step(model, objective), optimizer)
        # All of them, frozen ones too: accelerate knows a sharded model by the list of its parameters.
        self._parameters = list(self.step.parameters())
        pin = config.loader.pin_memory and accelerator.device.type == "cuda"
        self.loader = TrainLoader(task.train, objective.companions, self.plan, config.loader.workers, pin)
        self.checkpoints = Checkpoints(folder.checkpoints / stage, config.keep, rank, accelerator.wait_for_everyone)
        self.state = State(data=task.fingerprint, totals=dict.fromkeys(self.parts, 0.0))
        self.validates = objective.predicts and len(task.validation) > 0
        rule = config.select if self.validates else "last"
        self.selection = EpochSelection(rule, metrics.get(task.metric))
        self.best_weights: dict[str, Tensor] | None = None  # of the epoch that the selection keeps
        self.mean: list[Tensor] = []  # of each trained parameter, over the last steps, where these are averaged
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
        torch.manual_seed(seeds.derive(self.seed, "training", self.accelerator.process_index))
        with self._signals():  # first of all: who sees the folder may send one
            self._restore()
            total = self.plan.steps * self.epochs
            self.progress = Progress(
                total, self.epochs, self.task.metric, self.state.step, self.accelerator.is_main_process
            )
            try:
                for epoch in range(self.state.epoch, self.epochs):
                    if self._patience_ends() or self.objective.ends(self.state.history):
                        break
                    began, done = time.perf_counter(), self.state.seconds
                    self._train_epoch(epoch, began, done)
                    self._end_epoch(epoch, began, done)
                self._check_trained()
                path = self._save()  # the test and the pictures, still to come, can fail without costing the training
                _, stop, _ = self._agree(self._zeros())
                if stop:
                    raise self._interrupted(stop, path)
            finally:
                self.progress.close()
        self.mean = []
        self._load_weights(self.best_weights)

    def evaluate(self, split: Dataset, task=None) -> Evaluation:
        """Figures and outputs of a split, with the weights as they are, scored as the stage's or another task says."""
        self.step.eval()
        size = self.config.loader.eval_batch_size
        return evaluate(self._forward, split, task or self.task, size, self.accelerator)

    def _patience_ends(self) -> bool:
        done, best, patience = self.state.epoch, self.selection.best, self.config.patience
        if patience is None or best is None or done - best["epoch"] < patience:
            return False
        self.progress.say(f"stopped after epoch {done}: none since {best['epoch']} was kept (patience {patience})")
        return True

    # ----- one epoch --------------------------------------------------------------------------------------------------

    def _train_epoch(self, epoch: int, began: float, done: float) -> None:
        state, config = self.state, self.config
        self.step.train()
        group, samples = self._zeros(), []
        self._began, self._samples_before, self._waited = began, state.samples, 0.0
        for number, (batch, share) in self._batches(epoch, state.batch):
            last = (number + 1) % config.accumulate == 0 or number + 1 == self.plan.batches
            size = self.plan.group_size(number // config.accumulate)
            position = Position(epoch, self.epochs, number, self.seed, share.first)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.step):
                losses = self._forward(batch, position)
                # Summed over the samples of the whole group, whatever the batches and processes it is divided into;
                # data-parallel training averages over the processes.
                loss = (losses["loss"] * batch.weight).sum() * (self.accelerator.num_processes / size)
                self.accelerator.backward(loss)
            samples.append((batch.index, losses["loss"].detach()))
            for place, name in enumerate(self.parts):
                group[place] += (losses[name].detach().double() * batch.weight).sum()
            if last:
                state.batch = number + 1
                state.seconds = done + time.perf_counter() - began
                self._optimizer_step(epoch, group, samples, size)
                group, samples = self._zeros(), []

    def _zeros(self) -> Tensor:
        return torch.zeros(len(self.parts), dtype=torch.float64, device=self.accelerator.device)

    def _forward(self, *arguments) -> Any:
        """The step in the run's precision; accelerate does that itself for models that are not sharded."""
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

    def _optimizer_step(self, epoch: int, group: Tensor, samples: list[tuple[Tensor, Tensor]], size: int) -> None:
        state, config = self.state, self.config
        norm = self.accelerator.clip_grad_norm_(self._parameters, config.optimizer.clip or float("inf"))
        norm = float(sharding.whole(norm))
        totals, stop, save = self._agree(group)
        taken = all(map(math.isfinite, totals)) and math.isfinite(norm)
        lr = self.scheduler.get_last_lr()[0]
        if all(map(math.isfinite, totals)):
            for name, total in zip(self.parts, totals, strict=True):
                state.totals[name] += total
            state.samples += size
        if taken:
            self.objective.before_step(self.model)
            self.optimizer.step()
            self.model.constrain()
            self.scheduler.step()
            self._skipped_in_a_row = 0
            state.gradient += norm
            self._average()
        else:
            self._not_finite(epoch, totals[0] / size, norm, samples)
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.update()  # lowers the scale; else it takes the next step for the same one
        self.optimizer.zero_grad()
        state.step += 1
        elapsed = max(time.perf_counter() - self._began, 1e-9)
        self.progress.step(totals[0] / size, lr, self._said(epoch), (state.samples - self._samples_before) / elapsed)
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
        where = f"at step {self.state.step + 1} (epoch {epoch + 1}): {what}"
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
        with self._mean_in_place():
            self._settle(Position(epoch, self.epochs, seed=self.seed))
            validation = self.evaluate(task.validation) if self.validates else None
            found = (math.nan, math.nan, self._zeros())
            if validation is not None:
                found = (validation.metric, validation.loss, validation.scores)
            if self.selection.consider(epoch + 1, *found):
                self.best_weights = self._weights()
        means = {name: total / max(state.samples, 1) for name, total in state.totals.items()}
        record: dict[str, Any] = {"stage": self.stage, "epoch": epoch + 1, "step": state.step, "lr": self._lr}
        record |= {"loss": means.pop("loss")} | {f"loss_{name}": mean for name, mean in means.items()}
        record |= self._said(epoch)
        if validation is not None:
            record |= {"validation": validation.metric, "validation_loss": validation.loss}
            record |= {f"validation_{name}": value for name, value in list(validation.metrics.items())[1:]}
        record |= {
            "gradient_norm": state.gradient / max(self.plan.steps - state.skipped, 1),
            "skipped_steps": state.skipped,
            "samples_per_second": (state.samples - self._samples_before) / trained,
            "data_share": self._waited / trained,
            "memory_mib": memory_mib(self.accelerator.device),
            "seconds": done + time.perf_counter() - began,
        }
        self.objective.observe(record)
        if self.accelerator.num_processes > 1:
            self.objective.notes = merged(gather_object([self.objective.notes]))
        state.history.append(record)
        state.epoch, state.batch, state.samples, state.skipped, state.gradient = epoch + 1, 0, 0, 0, 0.0
        state.totals = dict.fromkeys(self.parts, 0.0)
        state.seconds = record["seconds"]
        if self.accelerator.is_main_process:
            self.folder.append_metrics(record)
        numbers = {name: value for name, value in record.items() if isinstance(value, int | float)}
        self.accelerator.log(numbers, step=state.step)
        self.progress.epoch(record, self._said(epoch))
        if self.config.checkpoint.every_minutes and self._save_seconds is None:
            self._save()  # so that a short run that ends early keeps something; and now it is known what saving costs

    @torch.no_grad()
    def _settle(self, position: Position) -> None:
        """Statistics of batch norm for the weights as they are evaluated, where those of training are not; see `settling`. They are
        of what the model learns from: of whole fields that are mostly padding they would be those of padding."""
        stale = self.mean or has_dropout(self.model)
        if not (stale and self.objective.predicts and has_batch_norm(self.model)):
            return
        data, size = self.task.train, min(self.config.batch_size, len(self.task.train))
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(self.seed))
        with settling(self.step):
            for rows in order[: max(size, SETTLED - SETTLED % size)].split(size):
                if len(rows) == size:
                    batch = data.read(rows).to(self.accelerator.device)
                    self._forward(self.objective.learned_from(batch, position))

    def _said(self, epoch: int) -> dict[str, Any]:
        return self.objective.record(Position(epoch, self.epochs))

    # ----- weights and checkpoints ------------------------------------------------------------------------------------

    @property
    def model(self) -> nn.Module:
        """The model, without what the data-parallel wrapper puts around it."""
        return self.accelerator.unwrap_model(self.step).model

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        return self.accelerator.unwrap_model(self.step).objective

    def whole_weights(self) -> dict[str, Tensor]:
        """All weights of the model, put together from their shards if there are any (complete on process 0)."""
        return get_model_state_dict(self.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))

    def _weights(self) -> dict[str, Tensor]:
        """A copy of the trainable weights, on the CPU (complete on process 0)."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
        return {name: value.clone() for name, value in get_model_state_dict(self.step, options=options).items()}

    @property
    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self._parameters if parameter.requires_grad]

    def _average(self) -> None:
        """Takes the weights of a step into the mean (stochastic weight averaging, Izmailov et al., UAI 2018)."""
        if self.state.step < (1 - self.config.optimizer.average) * self.plan.steps * self.epochs:
            return
        self.state.averaged += 1
        if not self.mean:
            self.mean = [parameter.detach().clone() for parameter in self._trained]
        with torch.no_grad():
            for mean, parameter in zip(self.mean, self._trained, strict=True):
                mean.lerp_(parameter, 1 / self.state.averaged)

    @contextlib.contextmanager
    def _mean_in_place(self) -> Iterator[None]:
        """The mean as the model's weights, where there is one."""
        self._swap_mean()
        try:
            yield
        finally:
            self._swap_mean()

    @torch.no_grad()
    def _swap_mean(self) -> None:
        if not self.mean:
            return
        self._reshard()
        for mean, parameter in zip(self.mean, self._trained, strict=True):
            last = parameter.clone()
            parameter.copy_(mean)
            mean.copy_(last)

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
        if self.accelerator.is_main_process and not optimizer:  # torch hands it to its own process 0 alone
            raise RuntimeError("no state of the optimizer to save: another process is the first one for torch")
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None
        with self._mean_in_place():
            mean = self._weights() if self.mean else None
        state = {
            "state": vars(self.state) | self.selection.state() | {"lr": self._lr, "notes": self.objective.notes},
            "optimizer": optimizer,
            "epochs": self.epochs,
            "scheduler": {"last_epoch": self.scheduler.last_epoch},
            "scaler": scaler,
            "mean": mean,
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
                    print(f"no checkpoint in {self.checkpoints.folder}, starting anew", flush=True)
                self.folder.write_metrics(self.before)
            return
        weights, saved, self.best_weights, path = found
        if "epochs" not in saved:
            raise UserError(
                f"{path} is of an earlier version, which counted epochs from 0; add --overwrite to start anew"
            )
        if saved["epochs"] > self.epochs:
            raise UserError(
                f"epochs: {path} is of a run of {saved['epochs']}, which may grow but not shrink to {self.epochs}"
            )
        if saved.get("mean") is not None:
            self._load_weights(saved["mean"])
            self.mean = [parameter.detach().clone() for parameter in self._trained]
        self._load_weights(weights)
        set_optimizer_state_dict(self.step, self.optimizer.optimizer, saved["optimizer"], options=self._loading)
        lr_before = self._move_scheduler(saved["scheduler"]["last_epoch"])
        if saved["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(saved["scaler"])
        self._lr, self.objective.notes = saved["state"].pop("lr"), saved["state"].pop("notes")
        self.selection.load_state({key: saved["state"].pop(key) for key in self.selection.state()})
        self.state = State(**saved["state"])
        if self.state.data != self.task.fingerprint:
            raise UserError(f"resume: the data of {self.task.title} have changed since {path} was written")
        if self.accelerator.is_main_process:
            self.folder.write_metrics([*self.before, *self.state.history])
            epoch = min(self.state.epoch + 1, saved["epochs"])
            print(f"resumed from {path} (step {self.state.step}, epoch {epoch})", flush=True)
            if saved["epochs"] != self.epochs:
                print(self._longer(saved["epochs"], lr_before), flush=True)

    def _move_scheduler(self, step: int) -> float:
        """Sets the learning rates of `step`; returns the first that the optimizer had, from a checkpoint, before."""
        scheduler, groups = self.scheduler, self.optimizer.optimizer.param_groups
        before = groups[0]["lr"]
        rates = [base * factor(step) for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
        scheduler.load_state_dict(scheduler.state_dict() | {"last_epoch": step, "_last_lr": rates})
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        return before

    def _longer(self, epochs: int, lr: float) -> str:
        """What more epochs than a checkpoint's change about its next step, for which it has the learning rate `lr`."""
        changes = {"learning rate": (f"{lr:.2g}", f"{self.scheduler.get_last_lr()[0]:.2g}")}
        was, now = (self.objective.record(Position(self.state.epoch, total)) for total in (epochs, self.epochs))
        changes |= {name: (was[name], value) for name, value in now.items() if isinstance(value, int)}
        said = [f"{name} {now}" + (f" instead of {was}" if now != was else "") for name, (was, now) in changes.items()]
        return (
            f"epochs: {self.epochs} instead of {epochs}. From here on the schedules are those of a run of so many: "
            f"the next step has {', '.join(said)}"
        )

    # ----- the rest ---------------------------------------------------------------------------------------------------

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


def memory_mib(device: torch.device) -> float:
    """Peak memory of this process: of the GPU where it trains on one, else its resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, Linux KiB
