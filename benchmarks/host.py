"""What an eager call of the operator costs the host on a GPU, measured without one: `python -m benchmarks.host`.

Kernels are compiled for sm_90 and launched into a driver that does nothing, with CPU tensors in the place of CUDA tensors. Checks,
autograd, allocation (of the CPU), the look-up of the compiled kernel and the preparation of its arguments are all in it; what the
driver and CUDA's allocator would add is not. Least of many calls, microseconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch
import triton
from triton.backends.compiler import GPUTarget

import pare_kernels
from pare_kernels import _triton
from pare_kernels._triton import _launch, launchers

BATCH, PATCHES, FEATURES, K = 2, 64, 64, 32


class NoDriver:
    """A driver of one H100 that launches nothing."""

    utils = SimpleNamespace(
        load_binary=lambda name, kernel, shared, device: (1, 1, 32, 0, 1024),
        unload_module=lambda module: None,
        get_device_properties=lambda device: {"max_shared_mem": 232448, "multiprocessor_count": 132},
    )

    def __init__(self) -> None:
        self.launches = 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def launcher_cls(self, source, metadata) -> Callable:
        def launch(*arguments) -> None:
            self.launches += 1

        return launch


def least(call: Callable[[], object], seconds: float) -> float:
    """Microseconds of the fastest call: the machine disturbs one now and then, never for the better."""
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best * 1e6


def measure(seconds: float) -> list[tuple[str, float, float]]:
    """(what, microseconds, launches) of the forward pass, of both passes, and of what of these is Triton's launching."""
    driver = NoDriver()
    triton.runtime.driver.set_active(driver)
    route = torch.library.Library("pare_kernels", "IMPL")
    _triton.register(route, "CPU")

    tokens = [torch.randn(BATCH, PATCHES, FEATURES, requires_grad=True) for _ in range(2)]
    gate = pare_kernels.PatchGate(FEATURES)
    inputs = *tokens, gate.weight, gate.bias
    grad = torch.randn(BATCH, PATCHES, FEATURES)

    def forward():
        return pare_kernels.patch_replace(*inputs, k=K).mixed

    def both():
        return torch.autograd.grad(forward(), inputs, grad)

    def without_gradient():
        with torch.no_grad():
            forward()

    calls = {"forward, no gradient needed": without_gradient, "forward": forward, "forward and backward": both}
    rows = []
    for name, call in calls.items():
        call()
        driver.launches = 0
        call()
        launches = driver.launches
        rows.append((name, least(call, seconds), launches))
    launchers.launch = lambda *_, **__: None
    try:
        rows.append(("forward and backward, but for launches", least(both, seconds), 0))
    finally:
        launchers.launch = _launch.launch
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row (default: 5)")
    torch.set_num_threads(1)
    print("| what | microseconds | launches |\n| --- | ---: | ---: |")
    for name, microseconds, launches in measure(parser.parse_args().seconds):
        print(f"| {name} | {microseconds:.0f} | {launches} |")
