"""The limit beside every figure: how fast this machine reads and copies, measured in the same run.

On a CPU the best of PyTorch's own copy and sum, and of a few lines of C (`bandwidth.c`: vector loads, non-temporal stores), built
when a C compiler is at hand. On a GPU PyTorch's copy and sum.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.clock import BACKLOG_CYCLES, Sample, processor_clock

SOURCE = Path(__file__).with_name("bandwidth.c")
LARGE = 256 * 2**20  # bytes; beyond the caches of every machine this is likely to run on
_ALIGNMENT = 64


@functools.cache
def native() -> ctypes.CDLL | None:
    """The functions of `bandwidth.c`, or None without a C compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory(prefix="bandwidth-") as folder:
        library = Path(folder) / "bandwidth.so"
        for extra in (("-march=native", "-fopenmp"), ("-fopenmp",), ()):
            command = [*compiler.split(), "-O3", *extra, "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
            if subprocess.run(command, capture_output=True).returncode == 0:
                break
        else:
            return None
        loaded = ctypes.CDLL(str(library))  # stays loaded when its file is gone
    loaded.read_words.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int]
    loaded.read_words.restype = ctypes.c_uint64
    loaded.stream_copy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int]
    loaded.stream_copy.restype = None
    return loaded


def buffer(size: int, device: torch.device) -> Tensor:
    """`size` bytes rounded up to whole cache lines, aligned to one, float32, every page touched."""
    words = -(-max(size, _ALIGNMENT) // _ALIGNMENT) * _ALIGNMENT // 4
    storage = torch.ones(words + _ALIGNMENT // 4, device=device)
    skip = (-storage.data_ptr() % _ALIGNMENT) // 4
    return storage[skip : skip + words]


def _readers(data: Tensor) -> list:
    ways = [data.sum]
    library = native() if data.device.type == "cpu" else None
    if library is not None:
        words = data.numel() // 2
        ways.append(lambda: library.read_words(data.data_ptr(), words, torch.get_num_threads()))
    return ways


def _copiers(to: Tensor, source: Tensor) -> list:
    ways = [lambda: to.copy_(source)]
    library = native() if to.device.type == "cpu" else None
    if library is not None:
        size = to.numel() * 4
        ways.append(lambda: library.stream_copy(to.data_ptr(), source.data_ptr(), size, torch.get_num_threads()))
    return ways


def _seconds(way, device: torch.device, repeats: int) -> float:
    """Best of `repeats`: a limit, not a typical value. One thread: CPU time, which a busy neighbour does not stretch."""
    clock = time.thread_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    best = float("inf")
    way()
    for _ in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = clock()
        way()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, clock() - start)
    return best


def read_and_copy_gbs(device: torch.device, size: int = LARGE, repeats: int = 5) -> tuple[float, float]:
    """GB/s (10^9) of reading, and of copying counted as read plus written, for arrays of `size` bytes."""
    source, to = buffer(size, device), buffer(size, device)
    size = source.numel() * 4
    read = min(_seconds(way, device, repeats) for way in _readers(source))
    copy = min(_seconds(way, device, repeats) for way in _copiers(to, source))
    return size / read / 1e9, 2 * size / copy / 1e9


class Limit:
    """The bytes of one pass moved and nothing else: what is written is copied from as much input, the rest is read.

    Works on arrays of the case's own size, so that what fits into a cache does so for the limit too, and takes the fastest way
    to copy and to read that size. Outputs are not fresh: a provider that allocates them pays for their pages, the limit does not.
    """

    def __init__(self, traffic: dict[str, tuple[int, int]], device: torch.device) -> None:
        self.device = device
        self.passes = {}
        for name, (read, written) in traffic.items():
            ways = []
            if written:
                to, source = buffer(written, device), buffer(written, device)
                ways.append(self._fastest(_copiers(to, source)))
            if read > written:
                ways.append(self._fastest(_readers(buffer(read - written, device))))
            self.passes[name] = ways

    def _fastest(self, ways: list):
        return min(ways, key=lambda way: _seconds(way, self.device, 5))

    def step(self) -> Sample:
        wall, cpu = {}, {}
        for name, ways in self.passes.items():
            if self.device.type == "cuda":
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                torch.cuda._sleep(BACKLOG_CYCLES)
                start.record()
                for way in ways:
                    way()
                end.record()
                torch.cuda.synchronize(self.device)
                wall[name] = start.elapsed_time(end)
                continue
            processor = processor_clock()
            begin = time.perf_counter_ns(), processor()
            for way in ways:
                way()
            finish = time.perf_counter_ns(), processor()
            wall[name], cpu[name] = ((finish[kind] - begin[kind]) / 1e6 for kind in (0, 1))
        return Sample(wall, cpu)
