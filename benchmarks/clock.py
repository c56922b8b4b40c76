"""Time of forward and backward passes, all candidates of one table interleaved in one process.

CPU: wall time (`perf_counter_ns`) and CPU time (of the calling thread with one thread, of the process with more) around each pass.
Outputs are allocated and freed as a training step does it (whether that faults pages in, `benchmarks.heap` decides); freeing them,
and the graph, is not timed.
CUDA: events around each pass, the queue kept filled, inputs rotated over buffers larger than the L2 cache.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from benchmarks.operations import BACKWARD, FORWARD, Workload
from benchmarks.providers.base import Call, Provider

BOTH = "both"
BACKLOG_CYCLES = 400_000  # a fifth of a millisecond in which the host queues what is to be timed


@dataclass
class Quantiles:
    """Milliseconds: median, 20th and 80th percentile."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quantiles:
        low, median, high = np.percentile(values, (20, 50, 80))
        return cls(float(median), float(low), float(high))


@dataclass
class Sample:
    """Milliseconds of each pass: `wall` by the clock of the wall or of the device, `cpu` of the processor (CPU runs only)."""

    wall: dict[str, float]
    cpu: dict[str, float] = field(default_factory=dict)


@dataclass
class Timing:
    """All samples of one candidate."""

    samples: list[Sample] = field(default_factory=list)

    def _of(self, kind: str) -> dict[str, Quantiles]:
        passes = getattr(self.samples[0], kind)
        result = {name: Quantiles.of([getattr(sample, kind)[name] for sample in self.samples]) for name in passes}
        if BACKWARD in passes:
            result[BOTH] = Quantiles.of([sum(getattr(sample, kind).values()) for sample in self.samples])
        return result

    @property
    def wall(self) -> dict[str, Quantiles]:
        return self._of("wall")

    @property
    def cpu(self) -> dict[str, Quantiles]:
        return self._of("cpu")


@dataclass
class Candidate:
    """Something to be timed: `step()` runs both passes once."""

    step: Callable[[], Sample]
    timing: Timing = field(default_factory=Timing)


def interleave(
    candidates: Sequence[Candidate],
    *,
    seconds: float,
    least: int = 3,
    most: int = 40,
    before: Callable[[], None] = lambda: None,
) -> None:
    """Fills the timing of every candidate, round after round over all of them, so that a busy moment hits them alike; in another
    order each round, since the one before leaves its inputs in the caches.

    Each gets about `seconds` of time, but `least` to `most` samples; those with fewer are spread evenly over the rounds. The
    first step warms up; a candidate that is slow enough for `least` samples was warm after its check, and that step counts.
    `before` runs before every step.
    """
    counts = []
    for candidate in candidates:
        before()
        started = time.perf_counter()
        sample = candidate.step()
        once = max(time.perf_counter() - started, 1e-6)
        count = int(min(max(seconds / once, least), most))
        if count == least:
            candidate.timing.samples.append(sample)
            count -= 1
        counts.append(count)
    rounds = max(counts, default=0)
    order = [*zip(candidates, counts, strict=True)]
    shuffle = random.Random(0).shuffle
    for turn in range(rounds):
        shuffle(order)
        for candidate, count in order:
            if (turn + 1) * count // rounds > turn * count // rounds:
                before()
                candidate.timing.samples.append(candidate.step())


# ---------------------------------------------------------------------------------------------------------------------
# Steps on a CPU.
# ---------------------------------------------------------------------------------------------------------------------


def processor_clock() -> Callable[[], int]:
    """Processor time in nanoseconds: of this thread where torch uses no other, so that nothing else of the process counts."""
    return time.thread_time_ns if torch.get_num_threads() == 1 else time.process_time_ns


def cpu_step(provider: Provider, call: Call, workload: Workload, inner: int = 1) -> Callable[[], Sample]:
    """inner: calls per sample, for calls too short for the clock; only without a backward pass."""
    leaves, upstream = workload.leaves, workload.upstream

    def step() -> Sample:
        processor = processor_clock()
        inputs = workload.copy() if provider.in_place else workload
        begin = time.perf_counter_ns(), processor()
        for _ in range(inner):
            output = call(inputs, None)
        middle = time.perf_counter_ns(), processor()
        times = {FORWARD: (begin, middle)}
        if upstream is not None:
            grad = upstream if upstream.dtype == output.dtype else upstream.to(output.dtype)
            middle = time.perf_counter_ns(), processor()
            grads = torch.autograd.grad(output, leaves, grad)
            times[BACKWARD] = middle, (time.perf_counter_ns(), processor())
            del grads
        wall, cpu = (
            {name: (end[kind] - start[kind]) / 1e6 / inner for name, (start, end) in times.items()} for kind in (0, 1)
        )
        return Sample(wall, cpu)

    return step


# ---------------------------------------------------------------------------------------------------------------------
# Steps on a GPU.
# ---------------------------------------------------------------------------------------------------------------------


def rotate(workload: Workload, device: torch.device) -> list[Workload]:
    """Copies of a workload that together are four times larger than the L2 cache, so that no call finds its inputs in it."""
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    copies = int(min(max(4 * cache // max(workload.input_bytes, 1), 1), 64))
    ring = [workload]
    for _ in range(copies - 1):
        leaves = tuple(leaf.detach().clone().requires_grad_(leaf.requires_grad) for leaf in workload.leaves)
        ring.append(replace(workload, leaves=leaves))
    return ring


def cuda_step(provider: Provider, call: Call, workload: Workload, device: torch.device) -> Callable[[], Sample]:
    ring = itertools.cycle(rotate(workload, device))

    def step() -> Sample:
        inputs = next(ring)
        leaves = inputs.leaves
        inputs = inputs.copy() if provider.in_place else inputs
        events = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
        torch.cuda._sleep(BACKLOG_CYCLES)
        events[0].record()
        output = call(inputs, None)
        events[1].record()
        if inputs.upstream is not None:
            torch.autograd.grad(output, leaves, inputs.upstream.to(output.dtype))
            events[2].record()
        torch.cuda.synchronize(device)
        wall = {FORWARD: events[0].elapsed_time(events[1])}
        if inputs.upstream is not None:
            wall[BACKWARD] = events[1].elapsed_time(events[2])
        return Sample(wall)

    return step


def cuda_graph_ms(provider: Provider, call: Call, workload: Workload, device: torch.device) -> float:
    """Median milliseconds of both passes replayed as one CUDA graph: what remains without launch overhead.

    Raises:
        RuntimeError: the provider cannot be captured (it waits for the device, or draws from a generator that cannot be).
    """
    leaves = workload.leaves

    def both() -> None:
        inputs = workload.copy() if provider.in_place else workload
        output = call(inputs, None)
        if workload.upstream is not None:
            torch.autograd.grad(output, leaves, workload.upstream.to(output.dtype))

    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            both()
    torch.cuda.current_stream(device).wait_stream(side)
    graph, generator = torch.cuda.CUDAGraph(), torch.cuda.default_generators[torch.cuda.current_device()]
    try:
        with torch.cuda.graph(graph):
            both()
    except RuntimeError:
        # The generator still waits for the end of a capture that broke off, and would draw no more; a copy of its state does not.
        generator.graphsafe_set_state(generator.clone_state())
        raise
    times = []
    for _ in range(20):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(BACKLOG_CYCLES)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize(device)
        times.append(start.elapsed_time(end))
    return Quantiles.of(times).median
