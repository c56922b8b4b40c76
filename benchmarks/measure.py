"""One table: the providers of a plan, checked, timed side by side, with memory and the limit beside them."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
import time
import traceback
from collections.abc import Iterator

import torch

from benchmarks.agreement import Disagreement, Judge, run
from benchmarks.bandwidth import Limit
from benchmarks.cases import Case, Plan
from benchmarks.clock import BOTH, FORWARD, Candidate, Timing, cpu_step, cuda_graph_ms, cuda_step, interleave
from benchmarks.heap import FRESH, give_back, use_heap
from benchmarks.memory import MIB, available_bytes, peak_mib
from benchmarks.operations import OPERATIONS, Operation, Workload
from benchmarks.providers import Provider, providers_of
from benchmarks.providers.base import COMPARABLE
from benchmarks.records import FAILED, OK, REFUSED, SKIPPED, Row

COMPILE_SECONDS = 180  # a first call, compilation included, that takes longer is given up
OVERHEAD_CALLS = 300  # calls per sample where one is too short for the clock
LIMIT = "limit"


class TooSlow(Exception):
    """A first call was given up."""


def measure(plan: Plan, device: torch.device, *, seconds: float) -> list[Row]:
    """A row per provider of the plan, and one for the limit where memory traffic sets one.

    seconds: time given to each provider; a slow one is still measured three times.

    Raises:
        ValueError: the plan names a provider or an operation that does not exist.
    """
    operation = OPERATIONS[plan.operation]
    providers = providers_of(plan.operation, plan.providers)
    before = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        used = use_heap(plan.heap, device)
        rows = _measure(plan, operation, providers, device, seconds, give_back if used == FRESH else lambda: None)
        for row in rows:
            row.heap = used
        return rows
    finally:
        torch.set_num_threads(before)
        _forget()


def _measure(plan, operation: Operation, providers, device, seconds: float, before) -> list[Row]:
    workload = operation.make(plan.case, device)
    judge = Judge(operation, workload)
    rows, ready = [], []
    for provider in providers:
        row = _row(plan, provider, device)
        rows.append(row)
        call = _admit(provider, plan.case, device, judge, row)
        if call is not None:
            ready.append((row, provider, call))
    del judge

    candidates = []
    for _, provider, call in ready:
        if device.type == "cuda":
            step = cuda_step(provider, call, workload, device)
        else:
            step = cpu_step(provider, call, workload, OVERHEAD_CALLS if operation.name == "overhead" else 1)
        candidates.append(Candidate(step))
    traffic = operation.traffic(plan.case)
    if traffic:
        limit = Limit(traffic, device)
        candidates.append(Candidate(limit.step))
        rows.append(_limit_row(plan))
    interleave(candidates, seconds=seconds, before=before)

    for row, candidate in zip([*(row for row, *_ in ready), *rows[len(providers) :]], candidates, strict=True):
        _fill_times(row, candidate.timing)
    if operation.name != "overhead":
        for row, provider, call in ready:
            _fill_memory(row, provider, call, workload, device)
    if device.type == "cuda":  # last: a capture that fails can leave the process unable to do more
        for row, provider, call in ready:
            _fill_graph(row, provider, call, workload, device)
    if traffic:
        _fill_traffic(rows, traffic)
    fill_ratios(rows)
    return rows


def _row(plan: Plan, provider: Provider, device: torch.device) -> Row:
    row = _blank(plan)
    row.provider, row.family, row.estimator = provider.name, provider.family, provider.estimator
    row.backend = provider.backend(device)
    return row


def _limit_row(plan: Plan) -> Row:
    row = _blank(plan)
    row.provider = row.family = LIMIT
    row.note = "the same bytes copied and read, nothing else"
    return row


def _blank(plan: Plan) -> Row:
    case = plan.case
    return Row(
        sweep=plan.sweep,
        case=case.name,
        batch=case.batch,
        num_target=case.num_target,
        num_source=case.num_source,
        dim=case.dim,
        k=case.k,
        dtype=case.dtype,
        threads=plan.threads,
        operation=plan.operation,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Who may run.
# ---------------------------------------------------------------------------------------------------------------------


def _admit(provider: Provider, case: Case, device: torch.device, judge: Judge, row: Row):
    """The provider's call if it can run here and is right; else None, and the row says why."""
    reason = _too_large(provider, case, device)
    if reason is not None:
        row.status, row.note = SKIPPED, reason
        return None
    try:
        with time_limit(COMPILE_SECONDS if provider.compiled else None):
            call = provider.build(case, device)
            started = time.perf_counter()
            if provider.compiled:
                run(provider, call, judge.workload, judge.workload.noise)
                row.compile_s = time.perf_counter() - started
        row.error = judge.check(provider, call)
        return call
    except Disagreement as disagreement:
        row.status, row.note = REFUSED, str(disagreement)
    except TooSlow as slow:
        row.status, row.note = SKIPPED, str(slow)
    except Exception as error:  # a rival may fail in any way; the others are measured all the same
        row.status, row.note = FAILED, _first_line(error)
    return None


def _too_large(provider: Provider, case: Case, device: torch.device) -> str | None:
    needed = provider.memory(case)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_bytes()
    if free is not None and needed > free / 2:
        return f"needs about {needed / 2**30:.1f} GiB, more than half of the {free / 2**30:.1f} GiB that are free"
    return None


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raises `TooSlow` inside the block after `seconds`; without effect outside the main thread and where no alarm exists."""
    if seconds is None or not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(signum, frame):
        raise TooSlow(f"given up after {seconds:g} s of compilation")

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except Exception as error:
        # torch.compile wraps what is raised while it works.
        if isinstance(error, TooSlow) or "TooSlow" in "".join(traceback.format_exception(error)):
            raise TooSlow(f"given up after {seconds:g} s of compilation") from None
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split("\n")[0].split())
    return f"{type(error).__name__}: {text}"[:200]


# ---------------------------------------------------------------------------------------------------------------------
# What is put into the rows.
# ---------------------------------------------------------------------------------------------------------------------


def _fill_times(row: Row, timing: Timing) -> None:
    row.samples = len(timing.samples)
    for name, quantiles in timing.wall.items():
        setattr(row, f"{name}_ms", quantiles.median)
        setattr(row, f"{name}_p20_ms", quantiles.low)
        setattr(row, f"{name}_p80_ms", quantiles.high)
    for name, quantiles in timing.cpu.items():
        setattr(row, f"{name}_cpu_ms", quantiles.median)


def _fill_memory(row: Row, provider: Provider, call, workload: Workload, device: torch.device) -> None:
    outputs = 0

    def step() -> None:
        nonlocal outputs
        output = call(inputs, None)
        grads = ()
        if workload.upstream is not None:
            grads = torch.autograd.grad(output, workload.leaves, workload.upstream.to(output.dtype))
        made = grads if provider.in_place else (output, *grads)
        outputs = sum(tensor.numel() * tensor.element_size() for tensor in made)

    inputs = workload.copy() if provider.in_place else workload
    row.peak_mib = peak_mib(step, device)
    if row.peak_mib is not None:
        row.peak_beyond_outputs_mib = max(row.peak_mib - outputs / MIB, 0.0)
    _forget()


def _fill_graph(row: Row, provider: Provider, call, workload: Workload, device: torch.device) -> None:
    try:
        row.graph_ms = cuda_graph_ms(provider, call, workload, device)
    except RuntimeError as error:
        row.note = f"no CUDA graph: {_first_line(error)}"
        torch.cuda.synchronize(device)


def _fill_traffic(rows: list[Row], traffic: dict[str, tuple[int, int]]) -> None:
    limit = next(row for row in rows if row.family == LIMIT)
    for row in rows:
        for name, (read, written) in traffic.items():
            setattr(row, f"{name}_bytes", read + written)
            took, least = honest_ms(row, name), honest_ms(limit, name)
            if row.status == OK and took and least:
                setattr(row, f"{name}_gbs", (read + written) / took / 1e6)
                setattr(row, f"{name}_of_limit", least / took)


def honest_ms(row: Row, name: str = BOTH) -> float | None:
    """The time that ratios are made of: CPU time with one thread, which a busy neighbour does not stretch, else wall time.

    `both` of an operation without a backward pass is its forward pass.
    """
    if name == BOTH and row.both_ms is None:
        name = FORWARD
    cpu = getattr(row, f"{name}_cpu_ms")
    return cpu if row.threads == 1 and cpu else getattr(row, f"{name}_ms")


def fill_ratios(rows: list[Row]) -> None:
    """How many times faster than the paper's algorithm, and than the fastest rival with a comparable gradient."""
    timed = [row for row in rows if row.status == OK and honest_ms(row)]
    paper = next((row for row in timed if row.family == "paper"), None)
    rivals = [row for row in timed if row.family in ("rival", "paper") and row.estimator in COMPARABLE]
    best = min(rivals, key=honest_ms, default=None)
    for row in timed:
        if paper is not None and row.family != LIMIT:
            row.over_paper = honest_ms(paper) / honest_ms(row)
        if best is not None and row.family == "ours":
            row.over_best_rival, row.best_rival = honest_ms(best) / honest_ms(row), best.provider


def _forget() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
