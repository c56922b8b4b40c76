"""What can be known to be wrong before the first step is said before the first step."""

from __future__ import annotations

import os

import torch
from accelerate import DistributedType
from accelerate.utils import get_int_from_env

from crossmodal.config import Config, ConfigError
from crossmodal.tasks.numeric import require_finite

# How launchers say how many processes they started: torchrun and accelerate, then MPI's.
WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


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


def started() -> int:
    """How many processes a launcher has started for this program, by its variables."""
    return get_int_from_env(WORLD_SIZES, 1)


def check_processes(joined: int) -> None:
    """Processes that share the run against those that a launcher started.

    Args:
        joined: how many processes share the run.

    Raises:
        ConfigError: each of them would be a run of its own, or the launcher started one where several were asked for.
    """
    if joined != started():
        raise ConfigError(
            f"device: {started()} processes were started, but they do not join into one run on the device that 'auto' takes "
            "here; start them with torchrun, on a machine without CUDA GPUs with --device cpu"
        )
    # `accelerate launch` on a CPU starts one process whatever it is told; these variables it sets for several.
    if joined == 1 and {"ACCELERATE_USE_CPU", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise ConfigError(
            "num_processes: `accelerate launch` was asked for several processes and started one, as it does on a CPU; "
            "start them with `torchrun --nproc_per_node=N`, or one with plain `python`"
        )


def check_distribution(kind: DistributedType) -> None:
    """Ways of spreading a model over processes: whole copies of it (DDP), or shards of it (FSDP2).

    Raises:
        ConfigError: another way, from which no run folder here is written.
    """
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise ConfigError(
            f"{kind.value}: runs are data-parallel; launch without it, for large models with --shard true"
        )
