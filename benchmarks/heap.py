"""What the C library does with large blocks of memory, fixed for a whole table.

kept    freed blocks stay in the process and are handed out again, as in a long run whose memory has settled
fresh   every block of 128 KiB or more is mapped when it is taken and unmapped when it is freed, and free memory is given back
        before each step, as in a process that has just started: each output faults its pages in, which costs more than filling them

Left alone, glibc drifts from the second to the first with the history of a process, and the same code takes up to five times as
long in one as in the other. Memory once kept goes on to serve large blocks: fresh comes first. CPU and glibc only; elsewhere
tables say nothing about it.
"""

from __future__ import annotations

import ctypes

import torch

KEPT, FRESH = "kept", "fresh"
HEAPS = (KEPT, FRESH)

# malloc.h of glibc; every call also ends its own adjustment of the thresholds.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_DEFAULTS = {_TRIM_THRESHOLD: 128 * 1024, _TOP_PAD: 128 * 1024, _MMAP_THRESHOLD: 128 * 1024, _MMAP_MAX: 65536}
_SETTINGS = {
    KEPT: _DEFAULTS | {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 * 2**20},
    FRESH: _DEFAULTS,
}


def controllable(device: torch.device) -> bool:
    """Whether tables of this device depend on the heap and it can be fixed here."""
    return device.type == "cpu" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


def use_heap(name: str, device: torch.device) -> str:
    """Treats large blocks as `name` says from now on; returns the name, or "" where there is no such choice."""
    if not controllable(device):
        return ""
    library = ctypes.CDLL(None)
    for parameter, value in _SETTINGS[name].items():
        if library.mallopt(parameter, value) != 1:
            raise OSError(f"mallopt({parameter}, {value}) was refused")
    return name


def give_back() -> None:
    """Gives the heap's free pages back to the system; nothing where the C library is not glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
