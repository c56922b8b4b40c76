"""What can be known to be wrong before the first step is said before the first step."""

from __future__ import annotations

import torch
from accelerate import DistributedType
from torch import Tensor

from crossmodal.config import Config, ConfigError
from crossmodal.tasks.checks import CHUNK_VALUES


class DataError(ValueError):
    """Samples or labels that cannot be learned from; names split, index and value."""


def check_task(task) -> None:
    """Values of every split as the model will see them; what they were before is checked where a task is loaded.

    Raises:
        DataError: names the split, the first sample concerned and its value: so far from the training samples that
            normalising makes it infinite.
    """
    for name in ("train", "validation", "test"):
        split = getattr(task, name)
        _check_finite(f"{task.name}, {name} split, normalised", "sample", split.x)
        if split.y.is_floating_point():
            _check_finite(f"{task.name}, {name} split, normalised", "target of sample", split.y)


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
