"""First contact with a GPU: compiles the kernels, then holds one small case of each operator to the definition in float64.

    python -m tests.triton.device_check compile --csv FILE --limit SECONDS    a process per kernel, side by side
    python -m tests.triton.device_check NAME [NAME ...]                       cases, or `graph`; `all` for every one

`make gpu-check` runs these, each case in a process of its own, since a wrong address takes its whole process with it. With
TRITON_INTERPRET=1 the same goes through Triton's interpreter on CPU tensors, at tiny sizes.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib
import multiprocessing
import multiprocessing.connection
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import pare_kernels
from pare_kernels import _fallback, reference
from pare_kernels._checks import SELECTIONS, accumulation_dtype
from pare_kernels._types import ChoiceScores
from tests.pare_kernels.cases import choose_again, make_inputs, normal, on_host, place
from tests.tolerances import RELAXED, SCORES, assert_gradient

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
PRELOADED = ["torch", "triton", "pare_kernels._triton.launchers"]
ROOT = Path(__file__).resolve().parents[2]
TAU, SEED = 0.9, 11


@dataclass(frozen=True)
class Case:
    """One operator at one shape (B, Nt, Ns, D), forward and backward."""

    name: str
    operator: str = "patch_replace"
    shape: tuple[int, int, int, int] = (2, 70, 61, 48)
    k: int = 23
    dtype: torch.dtype = torch.float32
    exact_steps: int = 8
    selection: str = "gumbel"
    highest: bool = False
    by_score: bool = False
    long: bool = False  # rows beyond what stays in registers, or whose steps are those of nodes

    @property
    def relax(self) -> bool:
        return self.selection == "gumbel"


CASES = {
    case.name: case
    for case in (
        Case("replace"),
        Case("replace-bf16", dtype=torch.bfloat16),
        Case("replace-fp64", dtype=torch.float64),
        Case("replace-by-score", by_score=True, highest=True, exact_steps=-1),
        Case("replace-odd", shape=(3, 33, 47, 13), k=20),  # rows that wide loads cannot serve
        Case("replace-topk", selection="topk"),  # no relaxation: rows are routed alone
        Case("replace-swin", shape=(2, 3136, 3136, 128), k=2000),
        Case("replace-long", shape=(1, 9000, 5000, 8), k=3000, long=True),
        Case("replace-exact", shape=(2, 1500, 700, 8), k=500, exact_steps=-1, long=True),
        Case("swap", operator="patch_swap_"),
        Case("scores", operator="gate_scores"),
        Case("topk", operator="gumbel_topk"),
        Case("topk-long", operator="gumbel_topk", shape=(1, 9000, 1, 1), k=3000, long=True),
        Case("topk-exact", operator="gumbel_topk", shape=(2, 1500, 1, 1), k=500, exact_steps=-1, long=True),
    )
}


def tiny(case: Case) -> Case:
    """The case at a size for the interpreter, whose long rows begin at 16 patches (`short_rows`)."""
    shape = (1, 35, 19, 4) if case.long else (1, 9, 7, min(case.shape[3], 8))
    return replace(case, shape=shape, k=8 if case.long else 3, exact_steps=min(case.exact_steps, 2))


@contextlib.contextmanager
def short_rows() -> Iterator[None]:
    from pare_kernels._triton import launchers

    limits = {torch.float32: 16, torch.float64: 16}
    with mock.patch.multiple(launchers, ROW_LIMIT=limits, LONG_BLOCK=16, NODES_FROM=(16, 4)):
        yield


def operate(backend, case: Case, tensors: Iterable[Tensor], grads: Iterable[Tensor], seed: Tensor):
    """The raw operators of a backend, forward and backward: (results, gradients); buffers exchanged in place are results."""
    (target, source, weight, bias), (grad, grad_source, grad_rows) = tensors, grads
    if case.operator == "gate_scores":
        scores = backend.gate_scores(target, weight, bias)
        return (scores,), backend.gate_scores_backward(grad_rows, scores, target, weight, True, True)
    if case.operator == "gumbel_topk":
        results = backend.gumbel_topk(grad_rows.abs(), None, seed, 0, case.k, TAU, 1.0, case.exact_steps)
        return results, (backend.gumbel_topk_backward(grad_rows, results[2], case.k, TAU, case.exact_steps),)
    options = TAU, 1.0, SELECTIONS.index(case.selection), case.highest, case.by_score, case.exact_steps, case.relax
    randomness = None if case.selection == "topk" else seed, None, None
    call = weight, bias, *randomness, case.k, *options
    rest = TAU, case.exact_steps, case.highest, case.relax, True, True, case.relax
    if case.operator == "patch_swap_":
        target, source = target.clone(), source.clone()
        choice = backend.patch_swap_(target, source, *call)
        given = grad, grad_source, target, source, weight, *choice
        return (target, source, *choice), backend.patch_swap_backward(*given, *rest)
    mixed, *choice = backend.patch_replace(target, source, *call)
    return (mixed, *choice), backend.patch_replace_backward(grad, target, source, weight, *choice, *rest)


def make(case: Case, device: torch.device | str) -> tuple[list[Tensor], list[Tensor], Tensor]:
    tensors = make_inputs(*case.shape, case.dtype, device=device)
    generator = torch.Generator("cpu").manual_seed(3)
    like = {"device": device, "dtype": case.dtype}
    grads = [normal(generator, *tensor.shape, **like) for tensor in tensors[:2]]
    rows = normal(generator, *case.shape[:2], device=device, dtype=accumulation_dtype(case.dtype))
    return tensors, [*grads, rows], torch.tensor(SEED, device=device)


def check(case: Case, device: torch.device) -> None:
    """Holds the Triton operators to the definition.

    Choices are made again by the definition on the kernels' own scores, and gradients computed from those, so that two scores
    within rounding of each other cannot make a difference; the scores have a tolerance.

    Raises:
        AssertionError: they differ.
    """
    from pare_kernels._triton import operators

    tensors, grads, seed = make(case, device)
    results, gradients = on_host(operate(operators, case, tensors, grads, seed))
    tensors, grads, seed = on_host((tensors, grads, seed))
    wide, wide_grads = ([tensor.double() for tensor in part] for part in (tensors, grads))
    rtol, atol = SCORES[case.dtype]
    near = {"rtol": 4 * rtol, "atol": 4 * atol}
    if case.operator == "gate_scores":
        (scores,) = results
        torch.testing.assert_close(scores.double(), reference.gate_scores(wide[0], *wide[2:]), **near)
        expected = _fallback.gate_scores_backward(wide_grads[2], scores.double(), wide[0], wide[2], True, True)
    elif case.operator == "gumbel_topk":
        mask, relaxed, noisy, indices = results
        noise = reference.gumbel_noise(seed, *noisy.shape, 0)
        torch.testing.assert_close(noisy.double(), wide_grads[2].abs() + noise, **near)
        chosen = reference.topk_mask(noisy, case.k)
        assert torch.equal(mask.bool(), chosen), "the mask is not the top-k of the scores"
        assert torch.equal(indices, reference.mask_to_index(chosen, case.k)), "the indices are not those of the mask"
        again = noisy.double(), case.k, TAU
        exact = reference.relaxed_topk(*again, _fallback._steps(case.exact_steps))
        rtol, atol = RELAXED[noisy.dtype]
        torch.testing.assert_close(relaxed.double(), exact, rtol=rtol, atol=atol)
        expected = (_fallback.gumbel_topk_backward(wide_grads[2], *again, case.exact_steps),)
    else:
        *buffers, slots, patches, scores = results
        _, _, _, defined = operate(_fallback, replace(case, operator="patch_replace"), wide, wide_grads, seed)[0]
        torch.testing.assert_close(scores.double(), defined, **near)
        noisy = ChoiceScores.split(scores, *tensors[:2])[:2]
        again = choose_again(*noisy, case.k, case.highest, case.by_score)
        assert torch.equal(slots, again[0]), "other slots than the scores say"
        assert torch.equal(patches, again[1]), "other source patches than the scores say"
        swapped = case.operator == "patch_swap_"
        exchanged = place(*tensors[:2], *again), place(tensors[1], tensors[0], *again[::-1])
        for buffer, exact in zip(buffers, exchanged[: 1 + swapped], strict=True):
            assert torch.equal(buffer, exact), "a row is not where the indices say"
        backward = _fallback.patch_swap_backward if swapped else _fallback.patch_replace_backward
        given = [
            *wide_grads[: 1 + swapped],
            *(exact.double() for exact in exchanged if swapped),
            *wide[: 2 * (not swapped)],
        ]
        rest = TAU, case.exact_steps, case.highest, case.relax, True, True, case.relax
        expected = backward(*given, wide[2], slots, patches, scores.double(), *rest)
    for index, (actual, exact) in enumerate(zip(gradients, expected, strict=True)):
        assert_gradient(f"gradient {index}", actual, exact, case.dtype)


def graph(device: torch.device) -> None:
    """The public operator with autograd, and captured into a CUDA graph: with a seed from the CPU, which the graph keeps, and
    with one on the device, which may change between replays.

    Raises:
        AssertionError: a replay differs from a call.
    """
    case = tiny(CASES["replace"]) if INTERPRETED else CASES["replace"]
    inputs = make_inputs(*case.shape, device=device, dtype=case.dtype, requires_grad=True)

    def both(seed: int | Tensor) -> list[Tensor]:
        result = pare_kernels.patch_replace(*inputs, k=case.k, seed=seed)
        gradients = torch.autograd.grad(result.mixed.square().sum(), inputs)
        # Detached: what keeps a graph alive ties the inputs' gradients to this call's stream, which a capture may not wait for.
        return [result.mixed.detach(), *gradients]

    moving = torch.tensor(SEED, device=device)
    for name, seed in {"int": SEED, "on the CPU": torch.tensor(SEED), "on the device": moving}.items():
        expected = both(seed)
        if device.type != "cuda":
            print(f"seed {name}: no CUDA graph on this device")
            continue
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            both(seed)
        torch.cuda.current_stream().wait_stream(side)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            results = both(seed)
        for value in (SEED, SEED + 1) if seed is moving else (SEED,):
            moving.fill_(value)
            captured.replay()
            for one, other in zip(results, both(value), strict=True):
                assert torch.equal(one, other), f"seed {name}: a replay differs from a call"
        moving.fill_(SEED)
        assert torch.equal(both(seed)[0], expected[0]), f"seed {name}: a call after the capture differs"
        print(f"seed {name}: captured")


# ---------------------------------------------------------------------------------------------------------------------
# Compiling ahead: each kernel that the cases need, once, in processes side by side.
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One compilation: `module.kernel` of `pare_kernels._triton`, a dtype for each pointer, a number for each number."""

    kernel: str
    arguments: tuple[torch.dtype | int | float, ...]
    constants: tuple[tuple[str, int | bool], ...]
    num_warps: int


@dataclass(frozen=True)
class Compiled:
    """What became of a job. registers and spills (4 bytes each) per thread, shared memory in bytes per program."""

    kernel: str
    constants: str
    cases: str
    status: str
    seconds: float
    registers: int | None = None
    spills: int | None = None
    shared: int | None = None
    note: str = ""


def plan(cases: Iterable[Case]) -> dict[Job, list[str]]:
    """The compilations that cases need, and which cases need each: the operators run on tensors that have no values."""
    from pare_kernels._triton import launchers, operators

    jobs: dict[Job, list[str]] = {}

    def collect(kernel, programs, *arguments, device, num_warps, **constants):
        # Of a tensor the dtype counts (all here begin at multiples of 16 bytes, or need not), of a number the type.
        kinds = tuple(part.dtype if isinstance(part, Tensor) else type(part)(2) for part in arguments)
        name = f"{kernel.fn.__module__.rpartition('.')[2]}.{kernel.__name__}"
        job = Job(name, kinds, tuple(sorted(constants.items())), num_warps)
        needed = jobs.setdefault(job, [])
        if programs and case.name not in needed:
            needed.append(case.name)

    with mock.patch.object(launchers, "launch", collect):
        for case in cases:
            tensors, grads, seed = make(case, "cpu")
            with FakeTensorMode():
                like = [torch.empty(t.shape, dtype=t.dtype, device="cuda") for t in (*tensors, *grads, seed)]
                operate(operators, case, like[:4], like[4:7], like[7])
    return {job: needed for job, needed in jobs.items() if needed}


def compile_job(job: Job) -> dict[str, int | float | None]:
    """Compiles and loads one kernel, into Triton's cache."""
    module, name = job.kernel.split(".")
    kernel = getattr(importlib.import_module(f"pare_kernels._triton.{module}"), name)
    if INTERPRETED:
        return {"seconds": 0.0}
    start = time.monotonic()
    compiled = kernel.warmup(*job.arguments, grid=(1,), num_warps=job.num_warps, **dict(job.constants))
    compiled.run  # noqa: B018  (makes the launcher and loads the kernel, which says how many registers it takes)
    return {
        "seconds": time.monotonic() - start,
        "registers": compiled.n_regs,
        "spills": compiled.n_spills,
        "shared": compiled.metadata.shared,
    }


def _compile_and_send(job: Job, sender) -> None:
    try:
        sender.send(compile_job(job) | {"status": "ok"})
    except BaseException as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        sender.send({"status": "FAILED", "seconds": 0.0, "note": text[:300]})


def compile_all(jobs: dict[Job, list[str]], workers: int, limit: float) -> Iterator[Compiled]:
    """A process for each job, forked from one that has imported torch and Triton but not touched the device; what takes the
    compiler down, or is not ready after `limit` seconds, is a failure of its own kernel."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    deadline = time.monotonic() + limit
    slow = "adjoint", "relaxed", "select", "nodes"  # first, so that none is left for the end
    waiting = sorted(jobs, key=lambda job: not any(word in job.kernel for word in slow))
    running: dict[multiprocessing.connection.Connection, tuple[Job, multiprocessing.Process]] = {}

    def outcome(job: Job, **found) -> Compiled:
        constants = ", ".join(f"{name} {value}" for name, value in job.constants)
        pointers = dict.fromkeys(
            str(kind).removeprefix("torch.") for kind in job.arguments if isinstance(kind, torch.dtype)
        )
        return Compiled(job.kernel, f"{'/'.join(pointers)}; {constants}", " ".join(jobs[job]), **found)

    while waiting or running:
        while waiting and len(running) < workers:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_compile_and_send, args=(waiting[0], sender), daemon=True)
            process.start()
            sender.close()
            running[receiver] = waiting.pop(0), process
        ready = multiprocessing.connection.wait(list(running), timeout=max(deadline - time.monotonic(), 0.0))
        for receiver in ready:
            job, process = running.pop(receiver)
            try:
                found = receiver.recv()
            except EOFError:
                process.join()
                found = {
                    "status": "FAILED",
                    "seconds": 0.0,
                    "note": f"the compiler ended with exit code {process.exitcode}",
                }
            yield outcome(job, **found)
        if not ready:
            for job, process in running.values():
                process.kill()
                yield outcome(job, status="OUT OF TIME", seconds=limit, note=f"not ready after {limit:.0f} s")
            for job in waiting:
                yield outcome(job, status="OUT OF TIME", seconds=0.0, note=f"not begun within {limit:.0f} s")
            return


def compile_cases(path: Path, limit: float) -> int:
    """Compiles what all cases need, printing and writing a row as each is ready."""
    with short_rows() if INTERPRETED else contextlib.nullcontext():
        jobs = plan(tiny(case) if INTERPRETED else case for case in CASES.values())
    workers = min(len(os.sched_getaffinity(0)), 16)
    print(f"{len(jobs)} compilations, {workers} at a time", flush=True)
    ready = 0
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Compiled)])
        writer.writeheader()
        for result in compile_all(jobs, workers, 3600 if INTERPRETED else limit):
            writer.writerow(vars(result))
            file.flush()
            ready += result.status == "ok"
            print(
                f"{result.kernel} ({result.constants}): {result.status}, {result.seconds:.1f} s {result.note}",
                flush=True,
            )
    print(f"{ready} of {len(jobs)} ready")
    return int(ready < len(jobs))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.triton.device_check", description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="+", help=f"compile, graph, all, or of {', '.join(CASES)}")
    parser.add_argument("--csv", type=Path, default=Path("kernels.csv"), help="where `compile` writes its rows")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds that `compile` may take")
    options = parser.parse_args(arguments)
    if options.name == ["compile"]:
        return compile_cases(options.csv, options.limit)
    device = torch.device("cpu" if INTERPRETED else "cuda")
    torch.set_num_threads(2)  # of the definition on the CPU: many cases run side by side
    if INTERPRETED:
        importlib.import_module("tests.pare_kernels.conftest")  # sends CPU tensors to the Triton operators
    failed = False
    for name in [*CASES, "graph"] if options.name == ["all"] else options.name:
        try:
            with short_rows() if INTERPRETED and name != "graph" else contextlib.nullcontext():
                if name == "graph":
                    graph(device)
                else:
                    check(tiny(CASES[name]) if INTERPRETED else CASES[name], device)
        except Exception as error:
            traceback.print_exc(file=sys.stdout)
            print(f"{name}: FAILED: {' '.join(str(error).split())[:200]}")
            failed = True
        else:
            print(f"{name}: ok")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
