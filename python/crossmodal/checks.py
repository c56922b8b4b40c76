"""What can be known to be wrong before the first step is said before the first step."""

from __future__ import annotations

import warnings

import torch
from accelerate import DistributedType
from torch import Tensor

from crossmodal.config import Config, ConfigError
from crossmodal.tasks.checks import CHUNK_VALUES


class DataError(ValueError):
    """Samples or labels that cannot be learned from; names split, index and value."""


def check_task(task) -> None:
    """Shapes, values and labels of every split of a task.

    Raises:
        DataError: names the split, the first sample concerned and its value, and what was expected.
    """
    for name in ("train", "validation", "test"):
        split = getattr(task, name)
        where = f"{task.name}, {name} split"
        if len(split.x) == 0:
            raise DataError(f"{where}: no samples")
        if len(split.x) != len(split.y):
            raise DataError(f"{where}: {len(split.x)} samples but {len(split.y)} targets")
        if tuple(split.x.shape[1:]) != tuple(task.input_shape):
            raise DataError(f"{where}: samples of shape {tuple(split.x.shape[1:])}, expected {tuple(task.input_shape)}")
        _check_finite(where, "sample", split.x)
        _check_targets(where, task, split.y)
    _check_classes(task)


def _check_finite(where: str, what: str, values: Tensor) -> None:
    affected, place, done = 0, None, 0
    for part in values.split(max(CHUNK_VALUES // max(values[:1].numel(), 1), 1)):
        bad = ~torch.isfinite(part)
        if bad.any():
            affected += int(bad.flatten(1).any(1).sum())
            first, *rest = bad.nonzero()[0].tolist()
            place = place or (done + first, *rest)
        done += len(part)
    if place is not None:
        raise DataError(
            f"{where}: {what} {place[0]} holds {values[place].item()} at position {place[1:]} "
            f"({affected} of {len(values)} affected)"
        )


def _check_targets(where: str, task, y: Tensor) -> None:
    if task.kind == "classification":
        if y.ndim != 1 or y.dtype != torch.int64:
            raise DataError(
                f"{where}: class labels must be int64 of shape (n,), got {y.dtype} of shape {tuple(y.shape)}"
            )
        bad = ((y < 0) | (y >= task.num_outputs)).nonzero().flatten().tolist()
        if bad:
            raise DataError(f"{where}: label {y[bad[0]].item()} of sample {bad[0]} is not in 0..{task.num_outputs - 1}")
        return
    _check_finite(where, "target of sample", y)
    if y.ndim < 2 or y.shape[1] != task.num_outputs:
        raise DataError(f"{where}: targets of shape {tuple(y.shape)}, expected (n, {task.num_outputs}, ...)")
    if task.kind == "multilabel":
        bad = ((y != 0) & (y != 1)).nonzero().tolist()
        if bad:
            raise DataError(
                f"{where}: label {bad[0][1]} of sample {bad[0][0]} is {y[tuple(bad[0])].item()}, expected 0 or 1"
            )


def _check_classes(task) -> None:
    names = task.class_names or tuple(map(str, range(task.num_outputs)))
    if task.kind == "classification":
        empty = sorted(set(range(task.num_outputs)) - set(task.train.y.tolist()))
        if empty:
            raise DataError(
                f"{task.name}, train split: class {empty[0]} ({names[empty[0]]}) has no sample to learn from"
            )
    if task.kind == "multilabel":
        empty = (task.train.y.sum(0) == 0).nonzero().flatten().tolist()
        if empty:
            warnings.warn(f"{task.name}, train split: label {empty[0]} ({names[empty[0]]}) never occurs", stacklevel=3)


def check_source(source, batch_size: int) -> None:
    """Labels and number of the source samples.

    Raises:
        DataError: fewer samples than a batch needs, labels out of range, values that are not finite.
    """
    where = f"source {source.name}"
    if len(source.inputs) < batch_size:
        raise DataError(
            f"{where}: {len(source.inputs)} samples are fewer than one batch ({batch_size}); take more or lower batch_size"
        )
    if len(source.inputs) != len(source.labels):
        raise DataError(f"{where}: {len(source.inputs)} samples but {len(source.labels)} labels")
    bad = ((source.labels < 0) | (source.labels >= len(source.class_names))).nonzero().flatten().tolist()
    if bad:
        raise DataError(
            f"{where}: label {source.labels[bad[0]].item()} of sample {bad[0]} is not in 0..{len(source.class_names) - 1}"
        )
    if source.inputs.is_floating_point():
        _check_finite(where, "sample", source.inputs)


def check_mixing(config: Config, patches: int) -> None:
    """Numbers of patches against the patches there are (the smaller of target and source).

    Raises:
        ConfigError: names the key.
    """
    for key in ("start", "end"):
        value = getattr(config.mixing, key)
        if isinstance(value, int) and value > patches:
            raise ConfigError(
                f"mixing.{key}: {value} patches are more than the {patches} there are; a float is a fraction"
            )


def check_device(config: Config, device: torch.device) -> None:
    """Settings that need a GPU.

    Raises:
        ConfigError: names the key.
    """
    if config.precision == "fp16" and device.type != "cuda":
        raise ConfigError("precision: fp16 needs a GPU; take bf16 or no")


def check_distribution(kind: DistributedType) -> None:
    """Ways of spreading a model over processes: whole copies of it (DDP), or shards of it (FSDP2).

    Raises:
        ConfigError: another way, from which no run folder here is written.
    """
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise ConfigError(
            f"{kind.value}: runs are data-parallel; launch without it, for large models with --shard true"
        )
