"""How kernels are declared and launched: run-time numbers stay run-time numbers."""

from __future__ import annotations

import contextlib
import ctypes
import inspect

import torch
import triton
from torch import Tensor

MAX_PROGRAMS = 2**31 - 1  # of a one-dimensional grid, on every device
ROWS = "gate_", "mask_", "noise_", "noisy_", "scores_"  # pointers to rows of any length, one after the other


def kernel(function):
    """`triton.jit` that never specializes on the value of a number, so that another N, B or k compiles nothing.

    What is not a pointer (`*_ptr`) and not `tl.constexpr` is a run-time number. The alignment of tokens, which decides about
    wide loads, is said by the constexpr `ALIGN` instead. Scores, noise and masks have none to rely on: their rows, of any
    length, follow each other in memory.
    """
    parameters = inspect.signature(function).parameters.items()
    pointers = [name for name, _ in parameters if name.endswith("_ptr")]
    numbers = [
        name for name, parameter in parameters if name not in pointers and "constexpr" not in str(parameter.annotation)
    ]
    rows = [name for name in pointers if name.startswith(ROWS)]
    return triton.jit(function, do_not_specialize=numbers, do_not_specialize_on_alignment=rows)


def launch(
    kernel,
    programs: int,
    *arguments,
    device: torch.device,
    num_warps: int,
    **constants,
) -> None:
    """Runs `programs` programs of a kernel on the current stream of the tensors' own device; nothing for an empty grid."""
    if programs == 0:
        return
    if programs > MAX_PROGRAMS:
        raise ValueError(f"{kernel.__name__} needs {programs} programs, more than a device's {MAX_PROGRAMS}")
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        kernel[(programs,)](*arguments, num_warps=num_warps, **constants)


def split_number(value: float) -> tuple[float, float]:
    """A double as two singles whose sum it is to 48 bits: Triton passes every float as a single."""
    high = ctypes.c_float(value).value  # and no tensor, which the default device may put where reading it waits
    return high, value - high


def alignment(*tensors: Tensor) -> int:
    """How many elements every row start of (B, N, D) tensors is a multiple of: enough for 16-byte loads, or 1."""
    elements = 16 // tensors[0].element_size()
    for tensor in tensors:
        *outer, last = tensor.stride()
        steps = [stride for stride, size in zip(outer, tensor.shape[:-1], strict=True) if size > 1]
        if last != 1 or tensor.shape[-1] % elements or any(step % elements for step in steps):
            return 1
    return elements
