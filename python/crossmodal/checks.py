"""What can be known to be wrong before the first step is said before the first step."""

from __future__ import annotations

import torch
from accelerate import DistributedType

from crossmodal.data.numeric import require_finite
from crossmodal.settings import Config, ConfigError


def check_task(task) -> None:
    """Values of every split as the model will see them; what they were before is checked where a task is loaded.

    Raises:
        ValueError: names the split, the place of the first value concerned and how many samples have one: so far from the
            training samples that normalising makes it infinite.
    """
    for name in ("train", "validation", "test"):
        split = getattr(task, name)
        for part, values in (("x", split.x), ("y", split.y)):
            require_finite(values.numpy(), f"{task.name}: normalised {part} of the {name} split")


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
