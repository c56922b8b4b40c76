"""What the GPU kernels can be expected to take, said before any measurement: `python -m benchmarks.predict`.

Launches are collected from the operators themselves (on the meta device), each kernel is compiled for sm_90, and its machine code
read: registers, instructions, loops. From these and a few constants of the device follow the least time and a prediction, which
`benchmarks/results/gpu.md` keeps beside what the machine code says. Nothing here is measured.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from unittest import mock

import torch

from benchmarks import aot
from benchmarks.cases import Case
from benchmarks.records import write_aside

RESULTS = Path(__file__).resolve().parent / "results" / "gpu.md"
TEMPLATE = Path(__file__).resolve().parent / "gpu.template.md"
PUBLISHED = Path(__file__).resolve().parent / "published.csv"
BANDWIDTH = {"H100": 3.35e12, "H200": 4.8e12}  # bytes per second, by the data sheets of the SXM cards
MULTIPROCESSORS, SCHEDULERS, CLOCK = 132, 4, 1.755e9
REGISTERS, THREADS, SHARED, PROGRAMS = 65536, 2048, 227 * 1024, 32  # of a multiprocessor
# Estimates from before any measurement; results/nvidia-h200.md says how they fared.
COPIES = 0.9  # of the bandwidth of the data sheet, where a plain copy ends
LAUNCH = 1.0e-6  # from the end of a kernel in a CUDA graph to the first instruction of the next
MEMORY, REDUCTION, DEPENDENT = (
    650,
    230,
    5,
)  # cycles: a load that misses L2, a sum over a block, an instruction that waits for one
DOUBLE_ISSUE, SHUFFLE, DOUBLE, CONVERT = 2, 27, 8, 60  # cycles of the chains of `nodes.flow_kernel`
BATCHES = 1, 8, 32, 128
BISECTIONS = 22  # of the threshold; 31 at most

# Trips of the innermost loops in the order of the machine code, for N 3136, k 2000 and the default relaxation, and what each
# program waits for memory, one load after the other. `None`: the blocks of rows that a program takes.
LOOPS = {
    "gate_scores_kernel": ((1,), 2),
    "select_kernel": ((1, BISECTIONS, 1), 2),
    "replace_kernel": ((2, 1), 4),
    "dots_kernel": ((2, 1), 4),
    "adjoint_kernel": ((1, 1, 0, 0, 8, 0, 4, 0, 0, 8), 4),
    "gradient_kernel": ((None,), 3),
    "reduce_kernel": ((2,), 2),
}
TENSORS = {
    "gate_scores_kernel": 2,
    "replace_kernel": 2,
    "dots_kernel": 2,
    "gradient_kernel": 5,
}  # T that a launch moves
FORWARD = "gate_scores_kernel", "select_kernel", "replace_kernel"


@dataclass
class Launch:
    """A launch as the operator makes it. Cycles and instructions of one program (instructions per warp)."""

    kernel: str
    programs: int
    num_warps: int
    constants: dict[str, object]
    tokens: str
    blocks: int
    wide: bool = False
    registers: int = 0
    shared: int = 0
    executed: float = 0
    waits: float = 0
    mix: dict[str, int] = field(default_factory=dict)

    @property
    def resident(self) -> int:
        """Programs that a multiprocessor holds at a time."""
        threads = 32 * self.num_warps
        by_registers = REGISTERS // (-(-self.registers // 8) * 8 * threads)
        return max(1, min(by_registers, THREADS // threads, SHARED // max(self.shared, 1), PROGRAMS))

    def seconds(self, of_bytes: float, bandwidth: float) -> dict[str, float]:
        """By what bounds it: bytes at the speed of a copy, issue slots of the busiest multiprocessor, one wave's latency after the
        other."""
        per_processor = -(-self.programs // MULTIPROCESSORS)
        issue = per_processor * self.executed * self.num_warps / SCHEDULERS / CLOCK
        alone = max(self.executed * self.num_warps / SCHEDULERS, self.executed * DEPENDENT) + self.waits
        waves = -(-per_processor // self.resident)
        return {"bytes": of_bytes / (COPIES * bandwidth), "issue": issue, "latency": waves * alone / CLOCK}


def collect(case: Case) -> list[Launch]:
    """The launches of a forward and a backward pass."""
    from pare_kernels._triton import launchers, operators

    found: list[Launch] = []

    def keep(kernel, programs, *arguments, device, num_warps, **constants):
        name = getattr(kernel, "__name__", None) or kernel.fn.__name__
        blocks = arguments[kernel.arg_names.index("blocks_per_program")] if name == "gradient_kernel" else 1
        dtype = {"float32": "fp32", "bfloat16": "bf16"}[case.dtype]
        wide = bool(constants.get("WIDE"))
        found.append(Launch(name, programs, num_warps, constants, dtype, blocks, wide))

    make = {"device": "meta", "dtype": getattr(torch, case.dtype)}
    tokens = [torch.empty(case.batch, num, case.dim, **make) for num in (case.num_target, case.num_source)]
    gate = torch.empty(1, case.dim, **make), torch.empty(1, **make)
    seed = torch.empty((), dtype=torch.int64, device="meta")
    with mock.patch.object(launchers, "launch", keep):
        call = *tokens, *gate, seed, None, None, case.k, case.tau, 1.0, 0, False, False, 8, True
        mixed, *choice = operators.patch_replace(*call)
        operators.patch_replace_backward(mixed, *tokens, gate[0], *choice, case.tau, 8, False, True, True, True, True)
    return found


_compiled: dict[tuple, tuple] = {}


def read(launch: Launch) -> Launch:
    """Fills in what the machine code says.

    Raises:
        RuntimeError: the machine code has other loops than `LOOPS` says trips for.
    """
    from pare_kernels._triton import nodes, row_kernels, selection, tokens

    module = next(m for m in (tokens, selection, row_kernels, nodes) if hasattr(m, launch.kernel))
    name = f"{module.__name__.rpartition('.')[2]}.{launch.kernel}"
    key = name, launch.tokens, launch.num_warps, tuple(sorted(launch.constants.items()))
    if key not in _compiled:
        memory = "fp64" if launch.wide else None
        variant = aot.Variant(launch.kernel, name, launch.tokens, "fp32", memory, launch.num_warps, None, key[-1])
        compiled = aot.compile_for(variant, "sm_90")
        (registers, *_), instructions, labels = aot.disassemble(compiled.asm["cubin"])
        # What follows the end of the program are the rare ways out of line.
        instructions = instructions[: [line.strip() for line in instructions].index("EXIT") + 1]
        _compiled[key] = compiled.metadata.shared, registers, instructions, aot.innermost_loops(instructions, labels)
    launch.shared, launch.registers, instructions, loops = _compiled[key]
    trips, loads = LOOPS[launch.kernel]
    if launch.wide:  # it only looks how far the scores of a row spread
        start, end = loops[0]
        launch.executed, launch.waits = 200 + 4 * (end - start), 4 * (MEMORY + REDUCTION)
        return launch
    if len(loops) != len(trips):
        raise RuntimeError(f"{launch.kernel} has {len(loops)} innermost loops, and trips are known for {len(trips)}")
    launch.executed, launch.waits = len(instructions), loads * MEMORY
    for (start, end), times in zip(loops, trips, strict=True):
        times = launch.blocks if times is None else times
        body = instructions[start : end + 1]
        launch.executed += (times - 1) * len(body)
        launch.waits += times * REDUCTION * -(-sum("BAR" in line for line in body) // 2)
        if launch.kernel == "gradient_kernel":
            launch.waits += (times - 1) * 2 * MEMORY
    launch.mix = kinds(instructions)
    return launch


def kinds(instructions: Sequence[str]) -> dict[str, int]:
    """How many instructions move memory, compute in floating point, exchange between threads, and the rest (addresses, masks)."""
    patterns = {
        "memory": r"^(LDG|STG|LDC|ULDC)",
        "floating point": r"^(F|D|MUFU|HADD|HFMA|HMUL)",
        "exchange": r"^(SHFL|BAR|STS|LDS|LDSM|REDUX|WARPSYNC)",
    }
    words = [re.sub(r"^@!?U?P\w+\s+", "", line) for line in instructions]
    counts = {kind: sum(bool(re.match(pattern, word)) for word in words) for kind, pattern in patterns.items()}
    return counts | {"rest": len(words) - sum(counts.values())}


def case_of(batch: int, dtype: str = "float32") -> Case:
    return Case(f"B {batch}", "Swin-base at 224", batch, 3136, 3136, 128, 2000, dtype)


def tensor_bytes(case: Case) -> int:
    return case.batch * case.num_target * case.dim * (4 if case.dtype == "float32" else 2)


def launch_bytes(launch: Launch, case: Case) -> float:
    """Tokens, and for the kernels of rows a few rows of scores."""
    rows = 2 * case.batch * case.num_target * 4
    moved = {"select_kernel": 4, "adjoint_kernel": 1 if launch.wide else 22}.get(launch.kernel, 0) * rows
    return TENSORS.get(launch.kernel, 0) * tensor_bytes(case) or moved


def table(header: Sequence[str], rows: Sequence[Sequence[object]], align: str = "---:") -> str:
    """Of Markdown; all but the first column aligned alike."""
    marks = ["---", *[align] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (header, marks, *rows))


def kernel_rows(dtype: str) -> list[list[object]]:
    case = case_of(32, dtype)
    rows = []
    for launch in map(read, collect(case)):
        seconds = launch.seconds(launch_bytes(launch, case), BANDWIDTH["H100"])
        bound = max(seconds, key=seconds.get)
        total = sum(launch.mix.values())
        mix = " / ".join(f"{100 * count / total:.0f}" for count in launch.mix.values()) if total else ""
        rows.append(
            [
                launch.kernel.removesuffix("_kernel") + (", second look" if launch.wide else ""),
                launch.programs,
                launch.num_warps,
                launch.registers,
                launch.shared,
                launch.resident,
                f"{launch.executed:.0f}",
                mix,
                *(f"{1e6 * value:.1f}" for value in seconds.values()),
                bound,
            ]
        )
    return rows


def predicted(case: Case, device: str) -> dict[str, float]:
    """Seconds: `least`, the bytes alone at the bandwidth of the data sheet; `forward` and `both` as launched, a CUDA graph."""
    parts = {"forward": 0.0, "both": 0.0}
    for launch in map(read, collect(case)):
        seconds = LAUNCH + max(launch.seconds(launch_bytes(launch, case), BANDWIDTH[device]).values())
        parts["both"] += seconds
        parts["forward"] += seconds * (launch.kernel in FORWARD)
    tensor = tensor_bytes(case)
    parts["least"] = 8 * tensor / BANDWIDTH[device]  # 3 T forward, 5 T backward: each read once, each written once
    parts["passes"] = 11 * tensor / BANDWIDTH[device]
    parts["share"] = 11 * tensor / parts["both"] / (COPIES * BANDWIDTH[device])
    return parts


def time_rows() -> list[list[object]]:
    rows = []
    for dtype in ("float32", "bfloat16"):
        for batch in BATCHES:
            case = case_of(batch, dtype)
            row: list[object] = [f"{dtype}, B {batch}", f"{tensor_bytes(case) / 1e6:.1f}"]
            for device in BANDWIDTH:
                found = predicted(case, device)
                row += [f"{1e6 * found[name]:.1f}" for name in ("least", "passes", "forward", "both")]
                row.append(f"{found['share']:.0%}")
            rows.append(row)
    return rows


def step_rows() -> list[list[object]]:
    """Of all steps one by one: a step's instructions, and cycles that it takes, at full width and by nodes."""
    rows = []
    full = _loops("row_kernels.adjoint_kernel", 16, GIVEN=False, LEFT=False, SINGLE=True, WIDE=False, BLOCK=4096)
    series = [body for body in full if sum("FFMA" in line for line in body) >= 8 and len(body) < 150]
    for what, body in (("forth, full width", series[0]), ("forth and kept, full width", series[-1])):
        cycles = len(body) * 16 / SCHEDULERS + REDUCTION
        rows.append([what, 16, len(body), f"{cycles:.0f}", f"{2000 * cycles / CLOCK * 1e3:.2f}"])
    back = [body for body in full if len(body) > 2][-1]
    cycles = len(back) * 16 / SCHEDULERS + REDUCTION
    rows.append(
        [
            "back, full width (both branches of a step)",
            16,
            len(back),
            f"{cycles:.0f}",
            f"{2000 * cycles / CLOCK * 1e3:.2f}",
        ]
    )
    flow = _loops("nodes.flow_kernel", 1, GIVEN=False, BACK=True)
    forth = min(
        (body for body in flow if any("MUFU" in line for line in body) and any("SHFL" in line for line in body)),
        key=len,
    )
    doubles = sum(bool(re.match(r"D(FMA|MUL|ADD)", line)) for line in forth)
    cycles = 5 * (SHUFFLE + DOUBLE) + 8 * DOUBLE + CONVERT + doubles * DOUBLE_ISSUE / 2
    rows.append(["forth and kept, nodes", 1, len(forth), f"{cycles:.0f}", f"{2000 * cycles / CLOCK * 1e3:.2f}"])
    cycles = 5 * (SHUFFLE + DOUBLE) + 7 * DOUBLE + doubles * DOUBLE_ISSUE / 2
    back = next(body for body in flow if any("LDG" in line for line in body) and any("SHFL" in line for line in body))
    rows.append(
        ["back, nodes (both branches of a step)", 1, len(back), f"{cycles:.0f}", f"{2000 * cycles / CLOCK * 1e3:.2f}"]
    )
    return rows


def sort_rows() -> list[list[object]]:
    """Of pairing by score: what sorting one list of 2000 takes in registers and digit by digit."""
    body = _sort_step()
    steps = sum(range(1, 12))
    cycles = steps * (len(body) * 16 / SCHEDULERS + 100)
    digits = _loops(
        "selection.select_kernel", 16, HAS_GATE=True, NOISE=2, HAS_MASK=False, BY_SCORE=True, SINGLE=False, BLOCK=2048
    )
    sweep = max((b for b in digits if sum("STG" in line for line in b)), key=len)
    old = 32 * 2 * (len(sweep) * 16 / SCHEDULERS + 3 * MEMORY / 2 + 2 * REDUCTION)
    return [
        [
            "digit by digit: 16 passes of two sweeps, two blocks each",
            64,
            len(sweep),
            f"{old:.0f}",
            f"{2 * old / CLOCK * 1e6:.0f}",
        ],
        ["in registers: bitonic, 66 exchanges", steps, len(body), f"{cycles:.0f}", f"{2 * cycles / CLOCK * 1e6:.0f}"],
    ]


def _sort_step() -> list[str]:
    loops = _loops(
        "selection.select_kernel", 16, HAS_GATE=True, NOISE=2, HAS_MASK=False, BY_SCORE=True, SINGLE=True, BLOCK=4096
    )
    return next(
        body
        for body in loops
        if sum("LDS" in line for line in body) >= 8 and sum("STG" in line for line in body) == 0 and len(body) < 200
    )


def _loops(kernel: str, num_warps: int, **constants) -> list[list[str]]:
    memory = "fp64" if kernel.startswith("nodes") else None
    variant = aot.Variant(kernel, kernel, "fp32", "fp32", memory, num_warps, None, tuple(sorted(constants.items())))
    _, instructions, labels = aot.disassemble(aot.compile_for(variant, "sm_90").asm["cubin"])
    return [instructions[start : end + 1] for start, end in aot.innermost_loops(instructions, labels)]


def page() -> str:
    """The page as text: `TEMPLATE` with its numbers."""
    import triton

    at_32, at_128 = (predicted(case_of(batch), "H100") for batch in (32, 128))
    half, copying = predicted(case_of(32, "bfloat16"), "H100"), COPIES * BANDWIDTH["H100"]
    rows = {dtype: kernel_rows(dtype) for dtype in ("float32", "bfloat16")}
    rest = sum(float(row[-2]) for row in rows["float32"] if row[-1] == "latency") * 1e-6
    tensor = tensor_bytes(case_of(32))
    header = ["kernel", "programs", "warps", "registers", "shared bytes", "programs per SM", "instructions per warp"]
    header += ["memory / floating / exchange / rest, %", "bytes, us", "issue, us", "latency, us", "bound by"]
    times = ["", "T, MB"]
    for device in BANDWIDTH:
        times += [f"{device}: least", "as launched, bytes alone", "forward", "forward and backward", "of copying"]
    with PUBLISHED.open(newline="") as file:
        published = [
            [row[name] for name in ("method", "figure", "conditions", "source")] for row in csv.DictReader(file)
        ]

    return Template(TEMPLATE.read_text()).substitute(
        triton=triton.__version__,
        bandwidth=", ".join(f"{name} {value / 1e12:.2f} TB/s" for name, value in BANDWIDTH.items()),
        multiprocessors=MULTIPROCESSORS,
        clock=f"{CLOCK / 1e9:.3f}",
        copies=f"{COPIES:.0%}",
        launch=f"{LAUNCH * 1e6:.1f}",
        memory=MEMORY,
        reduction=REDUCTION,
        bisections=BISECTIONS,
        kernels_float32=table(header, rows["float32"]),
        kernels_bfloat16=table(header, rows["bfloat16"]),
        times=table(times, time_rows()),
        share_32=f"{at_32['share']:.0%}",
        share_128=f"{at_128['share']:.0%}",
        share_half=f"{half['share']:.0%}",
        rest=f"{rest * 1e6:.0f}",
        both=f"{at_32['both'] * 1e6:.0f}",
        overlapped=f"{11 * tensor / (at_32['both'] - rest) / copying:.0%}",
        paper=f"{0.25 / at_32['both']:.0f}",
        half=f"{half['both'] * 1e3:.2f}",
        ahead=f"{8 * tensor / copying * 1e6:.0f}",
        steps=table(("", "warps", "instructions per warp", "cycles", "ms"), step_rows()),
        sorting=table(("", "steps", "instructions per warp", "cycles", "us"), sort_rows()),
        published=table(("method", "figure", "conditions", "source"), published, "---"),
    )


if __name__ == "__main__":
    write_aside(RESULTS, page().encode())
    print(RESULTS)
