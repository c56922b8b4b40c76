"""Models cut into shards over the processes instead of a whole copy in each (FSDP2), for encoders too large for one device.

Every process keeps its part of each weight, gradient and moment of the optimizer; a transformer layer is put together while it
computes. Checkpoints and finished runs hold whole weights, so that they can be read with any number of processes.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import gather_object, get_int_from_env
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.distributed.tensor import DTensor

from crossmodal.data.dataset import Batch
from crossmodal.errors import UserError
from crossmodal.models.base import Model
from crossmodal.settings import Config

_SWITCH = "ACCELERATE_USE_FSDP"
# How launchers say how many processes they started: torchrun and accelerate, then MPI's.
WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def started() -> int:
    """How many processes a launcher has started for this program, by its variables."""
    return get_int_from_env(WORLD_SIZES, 1)


def require_one_process(method: str) -> None:
    """Raises UserError where several were started for a method whose networks have batch norm."""
    if started() > 1:
        raise UserError(
            f"method: {method} has batch norm, which sees the samples of its own process only; start one process"
        )


def make_accelerator(config: Config, **options: Any) -> Accelerator:
    """An `Accelerator` that shards where `shard` is set or `accelerate launch --use_fsdp` asks for it.

    Raises:
        UserError: the launcher asks for the first version of FSDP.
    """
    launched = os.environ.get(_SWITCH, "false").lower() == "true"
    plugin = None
    if config.shard:
        plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    elif launched:
        plugin = FullyShardedDataParallelPlugin()  # as the launcher's other variables say
        if plugin.fsdp_version != 2:
            raise UserError(
                f"FSDP version {plugin.fsdp_version}: runs are sharded by version 2; launch with --fsdp_version 2, or set "
                "--shard true"
            )
    if plugin is not None:
        # Every process has the weights: the model is made before it is sharded.
        plugin.cpu_ram_efficient_loading = False
        # Weights stay float32 and autocast decides, as without shards; a policy would round inputs and targets as well.
        plugin.mixed_precision_policy = MixedPrecisionPolicy()
    accelerator = Accelerator(fsdp_plugin=plugin, **options)
    if not launched:
        os.environ.pop(_SWITCH, None)  # set by accelerate for good; the next run of this process decides for itself
    if plugin is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # accelerate shards over GPUs alone; torch shards over any processes.
        state = AcceleratorState()
        state.fsdp_plugin = plugin
        state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    return accelerator


def in_force(accelerator: Accelerator) -> bool:
    """Whether models are sharded; one process alone has nothing to share."""
    return accelerator.distributed_type == DistributedType.FSDP


def choose_layers(accelerator: Accelerator, model: Model) -> None:
    """Makes each layer of the model a unit of its own; what is left over is one unit."""
    if not in_force(accelerator):
        return
    found = accelerator.state.fsdp_plugin
    found.auto_wrap_policy = transformer_auto_wrap_policy
    found.transformer_cls_names_to_wrap = sorted({type(layer).__name__ for layer in model.layers()})


def whole(tensor: Tensor) -> Tensor:
    """A tensor whose shards, if it has any, are put together; all processes call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(batch: Batch) -> Batch:
    """A batch as it was before it was divided among the processes, for a loss that is no sum over samples; all processes call it.

    Companions and extras are left out, and so are stand-ins that do not count.
    """
    if PartialState().num_processes == 1:
        return batch
    part = [values[batch.weight > 0].cpu() for values in (batch.x, batch.y, batch.index, batch.weight)]
    return Batch(*map(torch.cat, zip(*gather_object([part]), strict=True))).to(batch.x.device)
