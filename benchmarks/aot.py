"""Compiles every Triton kernel for every GPU architecture without a GPU and reads what became of it: `python -m benchmarks.aot`.

Writes `benchmarks/results/aot.csv`: registers, stack (spills), shared memory and instructions per iteration of the hot loops. The
tools that read a compiled kernel come with Triton: the record is that of the version in constraints.txt. The assembler of Triton
3.6 spills 8 to 48 bytes where pairs are made by score, in rows beyond registers and in float64; in nothing of the default operator.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import csv
import io
import itertools
import multiprocessing
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from benchmarks.records import write_aside

RESULTS = Path(__file__).resolve().parent / "results" / "aot.csv"
TARGETS = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}
SHARED_LIMIT = 64 * 1024  # bytes per program: the least of the targets (gfx942; sm_80 has 163 KiB)

POINTERS = {
    "target_index_ptr": "*i64",
    "source_index_ptr": "*i64",
    "index_ptr": "*i64",
    "seed_ptr": "*i64",
    "partner_target_ptr": "*i32",
    "partner_source_ptr": "*i32",
    "orders_ptr": "*i32",
    "left_ptr": "*i32",
}
TOKENS = (
    "target_ptr",
    "source_ptr",
    "mixed_ptr",
    "grad_ptr",
    "grad_target_ptr",
    "grad_source_ptr",
    "dtarget_ptr",
    "dsource_ptr",
)
FLOATS = ("scale", "scale_low", "tau", "tau_low", "series_limit", "narrow")


@dataclass(frozen=True)
class Variant:
    """One compilation of a kernel: `module.kernel` of `pare_kernels._triton`, token type, warps and constants."""

    name: str
    kernel: str
    tokens: str = "fp32"
    scores: str = "fp32"
    memory: str | None = None  # of the steps of the relaxation, where it is not that of the scores
    num_warps: int = 8
    max_registers: int | None = None
    constants: tuple[tuple[str, object], ...] = ()
    targets: tuple[str, ...] = tuple(TARGETS)


@dataclass
class Result:
    """Per thread: registers, stack bytes, local loads and stores. Per program: shared bytes. Instructions per warp."""

    variant: str
    kernel: str
    target: str
    num_warps: int
    registers: int
    stack_bytes: int
    local_instructions: int
    shared_bytes: int
    instructions: int
    series_loop: int | None  # of one series step, where there is one
    widest_load_bits: int | None


def variants() -> Iterator[Variant]:
    """Every kernel in the form in which the launchers run it at N 3136, D 128, and in its other forms once."""
    tile = {"BLOCK_ROWS": 16, "BLOCK_COLUMNS": 128, "ALIGN": 4}
    half = tile | {"ALIGN": 8}
    passes = {"HAS_GATE": True, "NEED_TARGET": True, "NEED_SOURCE": True, "NEED_WEIGHT": True}
    for label, tokens, shape in (("fp32", "fp32", tile), ("bf16", "bf16", half)):
        two_loads = shape | {"BLOCK_ROWS": 32 if tokens == "bf16" else 16}
        make = {"tokens": tokens}
        four_loads = two_loads | {"BLOCK_ROWS": 2 * two_loads["BLOCK_ROWS"]}
        yield _variant(f"gate_scores-{label}", "tokens.gate_scores_kernel", {"HAS_BIAS": True, **four_loads}, **make)
        yield _variant(f"replace-{label}", "tokens.replace_kernel", two_loads, **make)
        yield _variant(f"swap-{label}", "tokens.swap_kernel", two_loads, **make)
        yield _variant(f"dots-{label}", "tokens.dots_kernel", {"SWAPPED": False, **two_loads}, **make)
        yield _variant(
            f"gradient-{label}", "tokens.gradient_kernel", {"MODE": 0, "SOURCE_GRAD": False, **passes, **shape}, **make
        )
    yield _variant("swap-strided", "tokens.swap_kernel", tile | {"ALIGN": 1})
    yield _variant(
        "gradient-strided", "tokens.gradient_kernel", {"MODE": 0, "SOURCE_GRAD": False, **passes, **tile, "ALIGN": 1}
    )
    yield _variant("gradient-swapped", "tokens.gradient_kernel", {"MODE": 1, "SOURCE_GRAD": True, **passes, **tile})
    yield _variant(
        "gradient-gate",
        "tokens.gradient_kernel",
        {"MODE": 2, "SOURCE_GRAD": False, **passes, "NEED_SOURCE": False, **tile},
    )
    yield _variant("reduce", "tokens.reduce_kernel", {"BLOCK_ROWS": 1024, "BLOCK_COLUMNS": 8}, num_warps=16)
    choose = {"HAS_GATE": True, "NOISE": 2, "HAS_MASK": False, "BY_SCORE": False, "SINGLE": True}
    rows, long = {"BLOCK": 4096}, {"BLOCK": 2048}
    row_of = {"num_warps": 16}
    yield _variant("select", "selection.select_kernel", choose | rows, **row_of)
    yield _variant("select-by-score", "selection.select_kernel", choose | rows | {"BY_SCORE": True}, **row_of)
    yield _variant("select-long", "selection.select_kernel", choose | long | {"SINGLE": False}, **row_of)
    yield _variant("partners", "row_kernels.partners_kernel", rows, **row_of)
    both, alone = {"GIVEN": False, "LEFT": False}, {"GIVEN": True, "LEFT": False}
    adjoint, relaxed = "row_kernels.adjoint_kernel", "row_kernels.relaxed_kernel"
    inside = {"SINGLE": True, "WIDE": False}
    nodes, forth, back = {"memory": "fp64"}, {"GIVEN": True, "BACK": False}, {"GIVEN": False, "BACK": True}
    yield _variant("compress", "nodes.compress_kernel", back | {"BLOCK": 2048}, **nodes, **row_of)
    yield _variant("flow", "nodes.flow_kernel", back, num_warps=1, **nodes)
    yield _variant("flow-forward", "nodes.flow_kernel", forth, num_warps=1, **nodes)
    yield _variant("spread", "nodes.spread_kernel", back | {"BLOCK": 1024}, **nodes)
    yield _variant("adjoint", adjoint, both | inside | rows, **row_of)
    yield _variant("adjoint-short", adjoint, both | inside | {"BLOCK": 64}, num_warps=1)
    yield _variant("topk-adjoint", adjoint, alone | inside | rows, **row_of)
    yield _variant("relaxed", relaxed, inside | rows | alone, **row_of)
    # The bar of the series step: 150 instructions per warp with eight warps and 64 registers.
    yield _variant("relaxed-64", relaxed, inside | rows, num_warps=8, max_registers=64, targets=("sm_80", "sm_90"))
    swept = {"SINGLE": False, "WIDE": False, "BLOCK": 1024}
    yield _variant("adjoint-long", adjoint, both | swept, **row_of)
    yield _variant("topk-adjoint-long", adjoint, alone | swept, **row_of)
    yield _variant("relaxed-long", relaxed, swept, **row_of)
    wide, swept = {"memory": "fp64", "num_warps": 8}, {"SINGLE": False, "WIDE": True, "BLOCK": 1024}
    yield _variant("adjoint-wide", adjoint, both | swept, **wide)
    yield _variant("topk-adjoint-wide", adjoint, alone | swept, **wide)
    yield _variant("relaxed-wide", relaxed, swept, **(wide | {"num_warps": 4}))
    double = {"scores": "fp64", "tokens": "fp64", **row_of}
    yield _variant("select-fp64", "selection.select_kernel", choose | long, **double)
    yield _variant("adjoint-fp64", adjoint, both | inside | long, **double)


def _variant(name: str, kernel: str, constants: dict[str, object], **options) -> Variant:
    return Variant(name, kernel, constants=tuple(sorted(constants.items())), **options)


def compile_variant(variant: Variant, target: str) -> Result:
    """Compiles one variant for one target and reads what became of it.

    Raises:
        RuntimeError: Triton, or the assembler that comes with it, refused the kernel.
    """
    compiled = compile_for(variant, target)
    cuda = TARGETS[target][0] == "cuda"
    numbers = _read_cubin(compiled.asm["cubin"]) if cuda else _read_amdgcn(compiled.asm["amdgcn"])
    module, name = variant.kernel.split(".")
    if not dict(variant.constants).get("SINGLE") or module != "row_kernels":
        numbers["series_loop"] = None
    return Result(variant.name, name, target, variant.num_warps, shared_bytes=compiled.metadata.shared, **numbers)


def compile_for(variant: Variant, target: str):
    """What Triton makes of a variant for a target."""
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, name = variant.kernel.split(".")
    kernel = getattr(importlib.import_module(f"pare_kernels._triton.{module}"), name)
    constants, signature, hints = dict(variant.constants), {}, {}
    for position, parameter in enumerate(kernel.params):
        if parameter.is_constexpr:
            signature[parameter.name] = "constexpr"
        elif parameter.name.endswith("_ptr"):
            kind = variant.tokens if parameter.name in TOKENS else variant.scores
            if parameter.name in ("saved_ptr", "state_ptr", "work_ptr"):
                kind = variant.memory or variant.scores
            signature[parameter.name] = POINTERS.get(parameter.name, f"*{kind}")
            if not parameter.do_not_specialize_on_alignment:
                hints[(position,)] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = "fp32" if parameter.name in FLOATS else "i32"
    backend, architecture, warp_size = TARGETS[target]
    options = {"num_warps": variant.num_warps}
    if variant.max_registers is not None and backend == "cuda":
        options["maxnreg"] = variant.max_registers
    used = {key: value for key, value in constants.items() if key in kernel.arg_names}
    return triton.compile(
        ASTSource(kernel, signature, used, hints), target=GPUTarget(backend, architecture, warp_size), options=options
    )


def _tool(name: str) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    if not tool.is_file():
        raise RuntimeError(f"this Triton brings no {name}: {tool} does not exist")
    return str(tool)


def disassemble(cubin: bytes) -> tuple[tuple[int, int, int], list[str], dict[str, int]]:
    """(registers, stack and local bytes per thread), the instructions of a kernel, and where each label points."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage = subprocess.run(
            [_tool("cuobjdump"), "-res-usage", path], capture_output=True, text=True, check=True
        ).stdout
        sass = subprocess.run([_tool("nvdisasm"), "-c", path], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump said nothing about registers: {usage.strip()[-500:]}")
    return tuple(map(int, found.groups())), *_instructions(sass)


def _read_cubin(cubin: bytes) -> dict[str, int | None]:
    (registers, stack, local), instructions, labels = disassemble(cubin)
    widths = [int(bits) for line in instructions for bits in re.findall(r"LDG\.E\.(?:\w+\.)*?(64|128)\b", line)]
    return {
        "registers": registers,
        "stack_bytes": stack + local,
        "local_instructions": sum(bool(re.search(r"\b(LDL|STL)\b", line)) for line in instructions),
        "instructions": len(instructions),
        "series_loop": _series_loop(instructions, labels),
        "widest_load_bits": max(widths, default=32),
    }


def _instructions(sass: str) -> tuple[list[str], dict[str, int]]:
    """The instructions of a kernel, and where each label points."""
    instructions, labels = [], {}
    for line in sass.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif instruction := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            instructions.append(instruction[1])
    return instructions, labels


def innermost_loops(instructions: list[str], labels: dict[str, int]) -> list[tuple[int, int]]:
    """First and last instruction of the loops that hold no other, in order."""
    loops = []
    for end, line in enumerate(instructions):
        branch = re.search(r"\bBRA\b.*?(\.L_x_\d+)", line)
        if branch and labels.get(branch[1], end + 1) <= end:
            loops.append((labels[branch[1]], end))
    holds = [any(a <= c and d <= b and (a, b) != (c, d) for c, d in loops) for a, b in loops]
    return [loop for loop, outer in zip(loops, holds, strict=True) if not outer]


def _series_loop(instructions: list[str], labels: dict[str, int]) -> int | None:
    """Instructions of the shortest innermost loop with a reduction over the block: a series step, where there is one."""
    lengths = []
    for start, end in innermost_loops(instructions, labels):
        body = instructions[start : end + 1]
        reduces = any("SHFL" in line for line in body) and any("BAR" in line for line in body)
        # A series step multiplies and adds, and has one reciprocal.
        if reduces and sum("MUFU" in line for line in body) <= 1 and sum("FFMA" in line for line in body) >= 8:
            lengths.append(end - start + 1)
    return min(lengths, default=None)


def _read_amdgcn(assembly: str) -> dict[str, int | None]:
    def number(key: str) -> int:
        found = re.search(rf"\.{key}:\s+(\d+)", assembly)
        if found is None:
            raise RuntimeError(f"the assembly says nothing about {key}")
        return int(found[1])

    code = [line for line in assembly.splitlines() if re.match(r"\s+[sv]_|\s+(global|buffer|ds|scratch|flat)_", line)]
    return {
        "registers": number("vgpr_count"),
        "stack_bytes": number("private_segment_fixed_size"),
        "local_instructions": number("vgpr_spill_count"),
        "instructions": len(code),
        "series_loop": None,
        "widest_load_bits": None,
    }


def compile_all(targets: list[str], workers: int = 2, names: list[str] | None = None) -> list[Result]:
    """Every variant (or those named) for every target, in `workers` processes; in the order of `variants`.

    Raises:
        RuntimeError: a kernel does not compile; the message names the variant and the target.
    """
    jobs = [
        (variant, target)
        for variant, target in itertools.product(variants(), targets)
        if target in variant.targets and (not names or variant.name in names)
    ]
    # A fresh interpreter per worker: Triton and a parent's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(compile_variant, *job) for job in jobs]
        results = []
        for (variant, target), future in zip(jobs, futures, strict=True):
            try:
                results.append(future.result())
            except Exception as error:
                pool.shutdown(cancel_futures=True)
                raise RuntimeError(f"{variant.name} does not compile for {target}: {error}") from error
    return results


def write(results: list[Result], path: Path = RESULTS) -> None:
    """Replaces the file as a whole."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Result)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(result) for result in results)
    write_aside(path, text.getvalue().encode())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aot", description=__doc__.splitlines()[0])
    parser.add_argument("--target", action="append", choices=TARGETS, help="repeatable; default: all")
    parser.add_argument(
        "--variant", action="append", metavar="NAME", help="repeatable; default: all, written to the file"
    )
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    results = compile_all(options.target or list(TARGETS), options.workers, options.variant)
    print(
        f"{'variant':20} {'target':8} {'warps':>5} {'regs':>5} {'stack':>6} {'shared':>7} {'instr':>6} {'series':>6} {'load':>5}"
    )
    for result in results:
        numbers = (result.series_loop or "", result.widest_load_bits or "")
        print(
            f"{result.variant:20} {result.target:8} {result.num_warps:5} {result.registers:5} {result.stack_bytes:6} "
            f"{result.shared_bytes:7} {result.instructions:6} {numbers[0]!s:>6} {numbers[1]!s:>5}"
        )
    if not (options.target or options.variant):
        write(results)
    return int(any(result.stack_bytes or result.local_instructions for result in results))


if __name__ == "__main__":
    sys.exit(main())
