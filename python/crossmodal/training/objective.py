"""What one step of training minimises, and how a batch is predicted. A method brings its own; the trainer knows this much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from crossmodal.data.dataset import Batch, Dataset
from crossmodal.scoring import losses, protocols


@dataclass(frozen=True)
class Position:
    """Where in a stage a batch is.

    epoch: from 0, of `epochs`. batch: of the epoch. seed: of the stage. first: this process holds the rows of the batch from this
    one on.
    """

    epoch: int
    epochs: int
    batch: int = 0
    seed: int = 0
    first: int = 0


class Objective(nn.Module):
    """The task's loss of a model's outputs: what plain fine-tuning minimises, and what other methods add to.

    Parameters of an objective (a gate, a head for another data set) are trained with the model, and are no part of it.

    Args:
        task: gives the loss, and the way from normalised values to the data's own.

    Attributes:
        parts: names of what `losses` returns beside `loss`; means per epoch go into metrics.jsonl as `loss_NAME`.
        description: what is learned from beside the task's data, in words, if anything is.
        predicts: whether the model is meant to predict while this is minimised; where it is not, epochs are not validated, and the
            weights of the last one are kept.
        companions: data sets of which one sample goes with each training sample, as `batch.extras[NAME]`.
        notes: plain values that belong into checkpoints; keys of the two outer levels are strings. What several processes
            note in an epoch is merged.
    """

    parts: tuple[str, ...] = ()
    description: str = ""
    predicts: bool = True

    def __init__(self, task) -> None:
        super().__init__()
        self.loss, self.normalizer, self.steps = losses.get(task.loss), task.normalizer, task.steps
        self.class_weights = task.class_weights
        self.companions: dict[str, Dataset] = {}
        self.notes: dict[str, dict[str, Any]] = {}

    def losses(self, model: nn.Module, batch: Batch, position: Position) -> dict[str, Tensor]:
        """Per-sample losses float32 (B,): `loss`, what is minimised, and the detached `parts`."""
        batch = self.learned_from(batch, position)
        return {"loss": self.task_loss(model(batch.x), batch)}

    def learned_from(self, batch: Batch, position: Position) -> Batch:
        """What the model sees of a batch while it trains, where that is not all of it."""
        return batch

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Outputs (B, ...) for samples that nothing is learned from; a roll-out where the task asks for one."""
        return protocols.predict(model, batch.x, self.steps, self.normalizer)

    def before_step(self, model: nn.Module) -> None:
        """Is called when the gradients of a step are whole, finite and clipped, before the optimizer takes it: may change them, or
        set parameters that the optimizer leaves alone, as those at a learning rate of 0."""

    def ends(self, history: list[dict[str, Any]]) -> bool:
        """Whether the stage ends before its next epoch; asked before each, with the records of those done. By these alone, so that
        it ends in the same place when it is resumed."""
        return False

    def record(self, position: Position) -> dict[str, Any]:
        """What metrics.jsonl says of an epoch beside losses and metrics: plain values."""
        return {}

    def observe(self, record: dict[str, Any]) -> None:
        """Is told of each epoch when it ends: what metrics.jsonl says of it. What it remembers of that belongs into `notes`."""

    def facts(self) -> dict[str, Any]:
        """What results.json says of the method beside its figures."""
        return {}

    def fingerprints(self) -> dict[str, str]:
        """What is learned from beside the task's data, in words, and its sha256."""
        return {}

    def task_loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The task's loss of a batch, per sample (B,)."""
        return losses.of_batch(self.loss, outputs, batch, self.normalizer, self.class_weights)


class Step(nn.Module):
    """Model and objective as the one module that is wrapped for several processes."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch, position: Position | None = None) -> dict[str, Tensor] | Tensor:
        """`Objective.losses` while training, else `Objective.predict` in float32."""
        if self.training:
            return self.objective.losses(self.model, batch, position)
        return self.objective.predict(self.model, batch).float()


def merged(parts: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The notes of several processes as one."""
    whole: dict[str, dict[str, Any]] = {}
    for part in parts:
        for key, values in part.items():
            whole[key] = whole.get(key, {}) | values
    return whole
