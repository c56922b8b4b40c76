"""How kernels are declared and launched: run-time numbers stay run-time numbers."""

from __future__ import annotations

import ctypes
import functools
import inspect

import torch
import triton
from torch import Tensor
from triton import knobs
from triton.runtime import driver

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
    made = triton.jit(function, do_not_specialize=numbers, do_not_specialize_on_alignment=rows)
    if isinstance(made, triton.JITFunction):  # and not the interpreter's
        made.launchable, made.pointers = {}, len(pointers)
        made.aligned = tuple(at for at, name in enumerate(pointers) if name not in rows)
    return made


def launch(
    kernel,
    programs: int,
    *arguments,
    device: torch.device,
    num_warps: int,
    **constants,
) -> None:
    """Runs `programs` programs of a kernel on the current stream of the tensors' own device; nothing for an empty grid.

    What Triton compiled for such arguments before is found at a third of the time that its own look-up takes. The key has all
    that a compilation hangs on: on NVIDIA GPUs types, the alignment of pointers where it is asked for, and how many bits an
    integer needs. Pointers come before numbers. Profilers hook into Triton's own launches.
    """
    if programs == 0:
        return
    if programs > MAX_PROGRAMS:
        raise ValueError(f"{kernel.__name__} needs {programs} programs, more than a device's {MAX_PROGRAMS}")
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            launch(kernel, programs, *arguments, device=device, num_warps=num_warps, **constants)
        return
    launchable = getattr(kernel, "launchable", None)
    enter, leave = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    hooked = getattr(enter, "calls", enter) or getattr(leave, "calls", leave)
    if launchable is None or torch.version.hip or hooked:
        kernel[(programs,)](*arguments, num_warps=num_warps, **constants)
        return
    pointers, numbers = arguments[: kernel.pointers], arguments[kernel.pointers :]
    widths = ()
    if max(numbers, default=0) >= 2**31 or min(numbers, default=0) < -(2**31):
        widths = tuple(0 if -(2**31) <= number < 2**31 else 1 if number < 2**63 else 2 for number in numbers)
    active = driver.active
    device = active.get_current_device()
    types, places = [tensor.dtype for tensor in pointers], [pointers[at].data_ptr() % 16 for at in kernel.aligned]
    key = (device, num_warps, widths, *constants.values(), *types, *places)
    found = launchable.get(key)
    if found is None:
        made = kernel[(programs,)](*arguments, num_warps=num_warps, **constants)
        launchable[key] = made.run, made.function, made.packed_metadata, tuple(constants.values())
        return
    run, function, metadata, constants = found
    run(programs, 1, 1, active.get_current_stream(device), function, metadata, None, None, None, *arguments, *constants)


@functools.lru_cache
def split_number(value: float) -> tuple[float, float]:
    """A double as two singles whose sum it is to 48 bits: Triton passes every float as a single."""
    high = ctypes.c_float(value).value  # and no tensor, which the default device may put where reading it waits
    return high, value - high


def alignment(*tensors: Tensor) -> int:
    """How many elements every row start of (B, N, D) tensors is a multiple of: enough for 16-byte loads, or 1."""
    return _alignment(16 // tensors[0].element_size(), *[(tensor.shape, tensor.stride()) for tensor in tensors])


@functools.lru_cache
def _alignment(elements: int, *layouts: tuple[tuple[int, ...], tuple[int, ...]]) -> int:
    for shape, (*outer, last) in layouts:
        steps = [stride for stride, size in zip(outer, shape[:-1], strict=True) if size > 1]
        if last != 1 or shape[-1] % elements or any(step % elements for step in steps):
            return 1
    return elements
