"""A run as a method sees it: data, settings, and the stages of training that it asks for."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from crossmodal.data.dataset import Dataset
from crossmodal.errors import UserError
from crossmodal.models.base import Model
from crossmodal.models.finetuned import FineTuned
from crossmodal.settings import Config
from crossmodal.training import sharding
from crossmodal.training.evaluation import Evaluation, evaluate
from crossmodal.training.folder import RunFolder
from crossmodal.training.objective import Objective
from crossmodal.training.probe import start_head
from crossmodal.training.trainer import Trainer


class Run:
    """Owns folder, seed, processes, checkpoints and resume of every stage.

    Attributes:
        config, task, accelerator, folder: of the run.
        model: what the method built, and after `train` what was trained.
        objective: the method's.
        best: `epoch`, `metric` and `loss` of the epoch of the last stage whose weights were kept; None without training.
        history: records of all epochs of all stages.
        steps, seconds: of all stages.
        test_seconds: of predicting the test samples, in which pinn does all its work.

    Args:
        length: how many epochs there are and why, said before the first stage: not every method has any.
        most: steps after which an epoch ends, if it has not before, in stages that have the epochs of the settings.
    """

    def __init__(
        self,
        config: Config,
        task,
        model: Model,
        objective: Objective,
        accelerator: Accelerator,
        folder: RunFolder,
        length: str = "",
        most: int | None = None,
    ) -> None:
        self.config, self.task, self.accelerator, self.folder = config, task, accelerator, folder
        self.model, self.objective = model, objective
        self.best: dict[str, Any] | None = None
        self.history: list[dict[str, Any]] = []
        self.steps, self.seconds, self.test_seconds = 0, 0.0, 0.0
        self._length, self._most = length, most
        self._trainer: Trainer | None = None

    def train(
        self,
        model: Model,
        objective: Objective,
        *,
        stage: str = "train",
        epochs: int | None = None,
        batch_size: int | None = None,
        probe: bool = True,
        schedule: dict[str, Any] | None = None,
        **optimizer: Any,
    ) -> Model:
        """One stage: the model with the weights of its best epoch. A stage that is done is not done again on resume.

        Args:
            model, objective: what is trained, by what.
            stage: its name, unique in a run.
            epochs: of this stage (None: those of the settings).
            batch_size: samples per batch of this stage, each of which is a step (None: as the settings say).
            probe: whether the settings may ask for a head that starts as a linear probe, which is done before the stage `train`.
            schedule: settings of the learning rate over the steps that differ in this stage, e.g. `kind`.
            optimizer: settings of the optimizer that differ in this stage, e.g. `new_lr`.

        Raises:
            UserError: shards are asked for in a second stage.
            NonFiniteLoss, Interrupted: see `Trainer.fit`.
        """
        if self._trainer is not None and sharding.in_force(self.accelerator):
            raise UserError("shard: a method of several stages cannot train in shards; take --shard false")
        if self._trainer is None and self._length:
            self.accelerator.print(self._length)
        self.accelerator.free_memory()  # forgets model and optimizer of the stage before
        config = self.config.changed(optimizer=optimizer, lr_schedule=schedule or {})
        if batch_size is not None:
            config = dataclasses.replace(config, batch_size=batch_size, accumulate=1)
        if stage == "train" and probe and self._starts_as_probe(model):
            self.accelerator.print("head: starts as a linear model of the frozen features (--model.probe)")
            start_head(model.to(self.accelerator.device), self.task.train, config.loader.eval_batch_size)
        trainer = Trainer(
            config,
            self.task,
            model,
            objective,
            self.accelerator,
            self.folder,
            stage=stage,
            epochs=epochs,
            most=self._most if epochs is None else None,
            before=self.history,
        )
        self._trainer = trainer
        trainer.fit()
        self.best, self.model, self.objective = trainer.selection.best, trainer.model, trainer.objective
        self.history += trainer.state.history
        self.steps += trainer.state.step
        self.seconds += trainer.state.seconds
        return self.model

    def _starts_as_probe(self, model: Model) -> bool:
        if not isinstance(model, FineTuned) or model.task_kind == "dense":
            return False
        measured = model.encoder.modality == "image" and model.encoder.source_embedder is not None  # pretrained
        return measured if self.config.model.probe is None else self.config.model.probe

    def evaluate(self, split: Dataset, task=None) -> Evaluation:
        """Figures and outputs of a split, with the weights as they are, scored as the run's or another task says."""
        task = task or self.task
        if self._trainer is not None:
            return self._trainer.evaluate(split, task)
        size = self.config.loader.eval_batch_size
        predict = partial(self.objective.predict, self.model.to(self.accelerator.device))
        return evaluate(predict, split, task, size, self.accelerator)

    def whole_weights(self) -> dict[str, Tensor]:
        """All weights of the model (complete on process 0)."""
        return self.model.state_dict() if self._trainer is None else self._trainer.whole_weights()

    def checkpoints(self) -> list[Any]:
        """Complete checkpoints of the stage at work, oldest first."""
        return [] if self._trainer is None else self._trainer.checkpoints.list()
