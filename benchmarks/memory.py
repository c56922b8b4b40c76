"""Peak memory of one step beyond what was there before it: the inputs, the interpreter, the libraries.

CPU: the kernel's own record of the resident set, `VmHWM` of /proc/self/status, reset by writing 5 to /proc/self/clear_refs (Linux).
The heap's free pages are given back first (`malloc_trim`), so memory that was only kept for reuse counts as well, and so does
memory that bypasses PyTorch's allocator. Granularity: pages, and up to 0.5 MiB of bookkeeping per thread.
CUDA: the allocator's `max_memory_allocated`.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.heap import give_back

MIB = 2**20
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_mib(step: Callable[[], object], device: torch.device) -> float | None:
    """MiB, or None where the machine cannot tell (a CPU that does not run Linux)."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / MIB
    if not sys.platform.startswith("linux"):
        return None
    gc.collect()
    give_back()
    try:
        _CLEAR.write_text("5")
    except OSError:  # some containers forbid it
        return None
    before = _kib(_STATUS, "VmRSS")
    step()
    return (_kib(_STATUS, "VmHWM") - before) / 1024


def available_bytes() -> int | None:
    """Memory that can be taken without swapping, or None where the machine cannot tell."""
    try:
        return _kib(Path("/proc/meminfo"), "MemAvailable") * 1024
    except OSError:
        return None


def _kib(path: Path, key: str) -> int:
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{key}:"))
