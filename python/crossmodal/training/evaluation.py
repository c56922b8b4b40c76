"""Evaluation of a split, batch after batch, with any number of processes: the figures are those of the whole split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from crossmodal.data.dataset import Batch, Dataset
from crossmodal.data.loader import eval_rows
from crossmodal.scoring import losses, metrics, thresholds

KEPT_VALUES = 2**26  # Outputs are kept, for pictures, where a split has no more values than these,
KEPT_SAMPLES = 64  # else those of so many samples.


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a split.

    loss: mean over the samples. metrics: by name, the task's in their order. numbers: what each metric says of every sample, in
    the split's order. scores: float64 (n,), what each sample says for the model, higher is better: for classes whether it is
    right, else minus its loss. outputs, targets: of the split, or of some samples where they are many, on the CPU, as
    metrics take them: logits of classes and labels, else values in the data's own units, float64. group: int64 (n,), of what
    the samples are parts, if they are. shift: see `thresholds.shift`.
    """

    loss: float
    metrics: dict[str, float]
    numbers: dict[str, metrics.Numbers]
    scores: Tensor
    outputs: Tensor
    targets: Tensor
    group: np.ndarray | None = None
    shift: Tensor | None = None

    @property
    def decided(self) -> Tensor:
        """The outputs, of logits less what thresholds take: the largest is predicted, of labels what is positive."""
        return self.outputs if self.shift is None else self.outputs - self.shift

    @property
    def metric(self) -> float:
        """The task's first metric."""
        return next(iter(self.metrics.values()))

    def by_field(self, channels: int) -> dict[str, list[list[float]]]:
        """Figures of each channel of each frame, frames first, for the metrics that have them; for fields of so many channels."""
        chosen = {name: metric for name in self.metrics if (metric := metrics.get(name)).of_fields}
        return {name: metric.by_field(self.numbers[name], channels) for name, metric in chosen.items()}

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the first metric, for the chance by which these samples, or their groups, were drawn; see
        `Metric.interval`."""
        name = next(iter(self.metrics))
        return metrics.get(name).interval(self.numbers[name], self.group)

    @property
    def unit(self) -> str:
        """What the interval takes the split for a choice of: "samples" or "groups"."""
        return "samples" if self.group is None else "groups"


def evaluate(
    predict: Callable[[Batch], Tensor],
    split: Dataset,
    task,
    batch_size: int,
    accelerator: Accelerator | None = None,
    processes: int = 1,
) -> Evaluation:
    """Goes through a split once.

    Args:
        predict: outputs of the model for a batch on its device, float32, normalised.
        split: a split of the task.
        task: gives loss, metrics, kind, thresholds and normalizer.
        batch_size: samples at a time.
        accelerator: device and processes; None: the CPU, this process alone,
        processes: in the batches that so many would have: another number of rows in a matrix product may change the last bit.
    """
    device = accelerator.device if accelerator else torch.device("cpu")
    world = accelerator.num_processes if accelerator else processes
    ranks = [accelerator.process_index] if accelerator else range(processes)
    chosen = {name: metrics.get(name) for name in task.metrics}
    shift = thresholds.shift(task.kind, task.thresholds)
    parts: dict[tuple[str, str], list[Tensor]] = {}
    kept = 0
    for rows in (rows for rank in ranks for rows in eval_rows(len(split), batch_size, rank, world)):
        batch = split.read(rows).to(device)
        with torch.no_grad():
            outputs = predict(batch)
        per_sample = losses.of_batch(losses.get(task.loss), outputs, batch, task.normalizer).double()
        decoded = task.normalizer.decode(outputs)
        decided = decoded if shift is None else decoded - shift.to(device)
        score = (decided.argmax(1) == batch.y).double() if task.kind == "classification" else -per_sample
        batch = replace(batch, y=task.normalizer.inverse_y(batch.y))
        found = {("", "loss"): per_sample, ("", "score"): score}
        if "group" in batch.extras:
            found["", "group"] = batch.extras["group"]
        for name, metric in chosen.items():
            found |= {(name, key): values for key, values in metric.measure(decoded, batch, shift).items()}
        if kept < KEPT_SAMPLES or outputs[0].numel() * len(split) <= KEPT_VALUES:
            found |= {("", "outputs"): decoded, ("", "targets"): batch.y}
            kept += len(batch)
        for key, values in found.items():
            parts.setdefault(key, []).append(values.cpu())
    whole = {}
    for key in list(parts):
        values = torch.cat(parts.pop(key))
        if accelerator is not None and world > 1:
            values = accelerator.gather(values.to(device)).cpu()
        whole[key] = values[: len(split)]
    numbers = {name: {key: values.numpy() for (of, key), values in whole.items() if of == name} for name in chosen}
    return Evaluation(
        whole["", "loss"].mean().item(),
        {name: metric.figure(numbers[name]) for name, metric in chosen.items()},
        numbers,
        whole["", "score"],
        whole["", "outputs"],
        whole["", "targets"],
        whole["", "group"].numpy() if ("", "group") in whole else None,
        shift,
    )
