"""The operators on NVIDIA and AMD GPUs, in Triton. Importing this package imports neither triton nor a driver."""

from __future__ import annotations

import functools
import importlib
import importlib.util

import torch

# All but `patch_swap`, which every backend leaves to the fallback: copies, and `patch_swap_` on them.
OPERATORS = (
    "gate_scores",
    "gate_scores_backward",
    "gumbel_topk",
    "gumbel_topk_backward",
    "patch_replace",
    "patch_replace_backward",
    "patch_swap_",
    "patch_swap_backward",
)
_REMEDY = "install triton for this torch (pip install triton), or move the tensors to the CPU"


def register(library: torch.library.Library, key: str = "CUDA") -> None:
    """Registers the operators for the CUDA key (which ROCm shares); the kernels are imported at the first call.

    `key="CPU"` is for Triton's interpreter, which runs the kernels on CPU tensors.
    """
    for name in OPERATORS:
        library.impl(name, functools.partial(_call, name), key)


def _call(name: str, *arguments):
    with (
        torch._C._AutoDispatchBelowAutograd()
    ):  # views of parameters, which the kernels take, are not tracked: a third of the time
        return getattr(_operators(), name)(*arguments)


@functools.cache
def _operators():
    try:
        return importlib.import_module(".operators", __package__)
    except ImportError as error:
        raise RuntimeError(
            f"pare_kernels needs triton for CUDA tensors, but it cannot be imported ({error}): {_REMEDY}"
        ) from error


def unavailable_reason() -> str | None:
    """Why the kernels cannot run here, in words, or None."""
    if importlib.util.find_spec("triton") is None:
        return f"triton is not installed: {_REMEDY}"
    if not torch.cuda.is_available():
        return (
            "torch sees no CUDA device"
            if torch.version.cuda or torch.version.hip
            else "this torch is built without CUDA"
        )
    try:
        _operators()
    except RuntimeError as error:
        return str(error)
    return None
