"""Everything that needs a GPU, in one command of at most nine minutes: `python benchmarks/gpu.py --out DIR` (`make gpu OUT=DIR`).

Uses the Python it is started with, which must have torch and triton; nothing is fetched, installed or built. Compiles the
kernels, runs their tests on the device, then the benchmarks, each part in a process of its own with a time limit, and ends with
one table: what each part came to, each kernel, and the figures against their bars. With `--check` (`make gpu-check OUT=DIR`, at
most two minutes), the first thing to do on a device, one small case of each operator takes the place of tests and benchmarks.
With `--rehearse` all parts run without a GPU, in Triton's interpreter and at tiny sizes.

Leaves `gpu.log` (everything printed), `kernels.csv` (every compilation) and `gpu.csv` (every measurement) in DIR, each written as
it comes. Compiled kernels are kept in TRITON_CACHE_DIR, or where Triton keeps them.

Exit code: 0 all tests passed and no part failed; 1 a part failed or ran out of time, or tests could not run (no pytest); 2 there
is nothing to run on.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUDGET, CHECK_BUDGET = 530.0, 115.0  # seconds for everything
COMPILE_LIMIT, CASE_LIMIT = 55.0, 45.0
TEST_LIMIT = 135.0  # of each test process; they run side by side
HEADLINE = "swin-2000-B32"
OURS = "pare", "pare-inplace", "pare-exact"
RIVALS, COMPILED = ("paper", "eager-closed-manual"), ("compile-closed", "compile-closed-manual")
# What a part of the operator costs by itself, beside others' way to do that part.
OPERATIONS_ALONE = "forward", "pairs", "select", "sampler"
ALONE = "pare", "pare-exact", "topk-gather", "compile-topk-gather", "topk", "topk-sorted", "closed-manual", "lapsum"
RIVALS_ALONE = {
    "forward": ("forward alone", "topk-gather", ""),
    "pairs": ("forward alone, pairs by score", "topk-gather", ""),
    "select": ("selecting alone", "topk-sorted", ""),
}
# Of these files the tests that are marked `gpu`; of tests/triton/on_device all.
OPERATOR_TESTS = ("functional", "library", "properties", "backends", "errors", "nn", "transforms")
MODEL_TESTS = ("finetuned",)
CASES = (  # of tests.triton.device_check
    *("replace", "replace-bf16", "replace-fp64", "replace-by-score", "replace-odd", "replace-topk", "replace-swin"),
    *("replace-long", "replace-exact", "swap", "scores", "topk", "topk-long", "topk-exact", "graph"),
)
MODEL_PACKAGES = ("transformers", "accelerate", "sklearn", "yaml")
REHEARSED_TESTS = (  # one or two of each file of tests, which a rehearsal runs; `make test` runs all of them in the interpreter
    *(
        "gate_scores_alone",
        "ends_of_k",
        "gate_scores_backward",
        "hand_worked",
        "declared_alike",
        "relaxation_of_any_scores",
    ),
    *("tokens_that_are_not_finite", "nested_tensors", "module_calls", "gradients_per_sample", "model_on_the_gpu"),
)
REHEARSAL = {"TRITON_INTERPRET": "1", "PARE_KERNELS_NO_EXT": "1", "TORCH_COMPILE_DISABLE": "1", "OMP_NUM_THREADS": "1"}
PASSED, FAILED, LATE, SKIPPED = "passed", "FAILED", "OUT OF TIME", "skipped"

PROBE = """
import json, torch
found = {"torch": torch.__version__, "cuda": torch.cuda.is_available(), "devices": []}
try:
    import triton
    found["triton"] = triton.__version__
except ImportError as error:
    found["triton"] = None
if found["cuda"]:
    found["devices"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Part:
    """One process: its command, the modules it cannot do without, and its time limit in seconds.

    Parts of one group run side by side: tests do, to share the time that compiling takes; measurements never.
    """

    name: str
    command: tuple[str, ...]
    limit: float
    group: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    part: str
    result: str
    seconds: float
    note: str = ""


def preparation(out: Path) -> list[Part]:
    """What the machine is, and its kernels compiled: once, before processes that would each do it."""
    check, limit = (sys.executable, "-m", "tests.triton.device_check"), COMPILE_LIMIT
    options = "--csv", str(out / "kernels.csv"), "--limit", str(limit - 15)  # it starts with importing torch
    return [
        Part("report", (sys.executable, "-m", "pare_kernels.report"), limit, group="preparation"),
        Part("compile", (*check, "compile", *options), limit, group="preparation"),
    ]


def check_parts(out: Path, rehearse: bool = False) -> list[Part]:
    check = (sys.executable, "-m", "tests.triton.device_check")
    names = ("all",) if rehearse else CASES
    return [*preparation(out), *(Part(f"case: {name}", (*check, name), CASE_LIMIT, group="cases") for name in names)]


def parts(out: Path, rehearse: bool = False) -> list[Part]:
    python, file = sys.executable, str(out / "gpu.csv")
    # By name, so that the log of a process that is cut short says which test it was in.
    pytest = (python, "-m", "pytest", "-v", "--no-header", "--durations=3", "-p", "no:cacheprovider")

    def test(path: Path, *selection: str, needs: tuple[str, ...] = ()) -> Part:
        name = f"tests: {path.parent.name}/{path.stem.removeprefix('test_')}"
        command = (*pytest, *selection, str(path.relative_to(ROOT)))
        return Part(name, command, limit=TEST_LIMIT, group="tests", needs=("pytest", *needs))

    def marked(folder: str, name: str, *needs: str) -> Part:
        return test(ROOT / "tests" / folder / f"test_{name}.py", "-m", "gpu", needs=needs)

    tests = [
        *(test(path) for path in sorted((ROOT / "tests" / "triton" / "on_device").glob("test_*.py"))),
        marked("triton", "gpu"),
        *(marked("pare_kernels", name, *(("hypothesis",) if name == "properties" else ())) for name in OPERATOR_TESTS),
        *(marked("crossmodal/models", name, *MODEL_PACKAGES) for name in MODEL_TESTS),
    ]
    device, size, seconds = ("cpu", "tiny", "0.01") if rehearse else ("cuda", "base", "1")
    measure = (python, "-m", "benchmarks.run", "--device", device, "--csv", file, "--seconds", seconds)

    def operator(case: str, limit: float, *providers: str, operations: tuple[str, ...] = ("replace",)) -> Part:
        chosen = [word for name in operations for word in ("--operation", name)]
        chosen += [word for name in providers for word in ("--provider", name)]
        name = f"{case}: {', '.join(providers)}"
        return Part(name, (*measure, "--case", case, *chosen), limit=limit, group=name)

    step = (python, "-m", "benchmarks.train_step", "--device", device, "--size", size, "--csv", file)
    training = Part("training step", step, limit=75, group="step", needs=MODEL_PACKAGES)
    if rehearse:
        imported = "tests/triton/test_gpu.py"  # which is not collected without a GPU
        files = [part.command[-1] for part in tests if part.command[-1] != imported]
        needs = tuple(dict.fromkeys(name for part in tests for name in part.needs))
        return [
            *preparation(out),
            Part(
                "tests: of each file", (*pytest, "-k", " or ".join(REHEARSED_TESTS), *files), TEST_LIMIT, "tests", needs
            ),
            Part(f"tests: {imported}", (python, "-c", "import tests.triton.test_gpu"), TEST_LIMIT, "tests", needs),
            operator("tiny", 80, *OURS, *RIVALS, *COMPILED),
            operator("tiny", 80, *ALONE, operations=OPERATIONS_ALONE),
            training,
        ]
    # What matters most comes first, and what may hang, be slow (compilers, the paper's thousands of launches) or break the
    # process's hold on the device is on its own: a part writes its rows when it ends, and one that is cut short loses no others.
    return [
        *preparation(out),
        *tests,
        operator(HEADLINE, 40, OURS[0]),
        operator(HEADLINE, 45, "paper"),
        operator(HEADLINE, 55, "eager-closed-manual", "compile-closed-manual", "lapsum"),
        operator(HEADLINE, 50, "compile-closed"),
        training,
        operator(HEADLINE, 40, *OURS[1:]),
        operator(HEADLINE, 40, *ALONE, operations=OPERATIONS_ALONE),
        operator("short", 25, *OURS, *RIVALS),
    ]


class Log:
    """Prints lines and keeps them in a file as they come."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")
        self._start = time.monotonic()
        self._lock = threading.Lock()

    def line(self, text: str) -> None:
        stamped = f"[{time.monotonic() - self._start:4.0f} s] {text}"
        with self._lock:
            print(stamped, flush=True)
            self._file.write(stamped + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def probe() -> dict[str, object]:
    """Versions and devices, found out by another process: a broken installation must not end this one."""
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        problem = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"torch": None, "problem": problem}
    return json.loads(done.stdout.strip().splitlines()[-1])


def missing(found: dict[str, object]) -> str | None:
    """Why nothing can run here, or None."""
    remedy = "use a Python that has them: make gpu PYTHON=/path/to/python"
    if found["torch"] is None:
        return f"{sys.executable} cannot import torch ({found['problem']}); {remedy}"
    if found["triton"] is None:
        return f"{sys.executable} has no triton; {remedy}"
    if not found["cuda"]:
        return f"torch {found['torch']} sees no CUDA device; the tests that need none are in `make test`"
    return None


def run_group(group: Sequence[Part], log: Log, deadline: float) -> list[Outcome]:
    """Runs the parts of one group side by side and returns how they ended, in their order."""
    with concurrent.futures.ThreadPoolExecutor(len(group)) as pool:
        return list(pool.map(lambda part: run_part(part, log, deadline), group))


def run_part(part: Part, log: Log, deadline: float) -> Outcome:
    """Runs one part, its output going to the log line by line; ends it when its time is up."""
    absent = [name for name in part.needs if importlib.util.find_spec(name) is None]
    if absent:
        return Outcome(part.name, SKIPPED, 0, f"this Python has no {', '.join(absent)}")
    start = time.monotonic()
    limit = min(part.limit, deadline - start)
    if limit < 5:
        return Outcome(part.name, LATE, 0, "no time was left to start it")
    path = os.pathsep.join([str(ROOT), str(ROOT / "python"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    # A session of its own, so that what the part started ends with it.
    process = subprocess.Popen(
        part.command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    late = threading.Event()

    def stop() -> None:
        late.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(limit, stop)
    timer.start()
    last = ""
    try:
        for line in process.stdout:
            log.line(f"{part.name} | {line.rstrip()}")
            last = line.strip() or last
        code = process.wait()
    finally:
        timer.cancel()
    seconds = time.monotonic() - start
    if late.is_set():
        return Outcome(part.name, LATE, seconds, f"ended after {limit:.0f} s; it last said: {last[:80]}")
    return Outcome(part.name, PASSED if code == 0 else FAILED, seconds, last[:100])


def figures(path: Path) -> list[tuple[str, str, str]]:
    """(what, measured, bar) from the measurements of the headline case and of the training step; newest rows win."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        measured = [row for row in csv.DictReader(file) if row["status"] == "ok"]
    rows = {(row["case"], row.get("operation") or "replace", row["provider"]): row for row in measured}

    def number(provider: str, field: str, operation: str = "replace") -> float | None:
        text = rows.get((HEADLINE, operation, provider), {}).get(field, "")
        return float(text) if text else None

    def milliseconds(provider: str) -> float | None:
        return number(provider, "graph_ms") or number(provider, "both_ms")

    table = []
    row, ours = rows.get((HEADLINE, "replace", "pare")), milliseconds("pare")
    if ours:
        sizes = [int(row[field]) for field in ("batch", "num_target", "dim")]
        tokens = sizes[0] * sizes[1] * sizes[2] * (4 if row["dtype"] == "float32" else 2)
        # Forward: both tokens are scored, one is read and one written. Backward: three are read and two written, and the row
        # dots read a gradient and tokens before.
        gbs = 11 * tokens / ours / 1e6
        share = f" = {gbs / float(row['copy_gbs']):.0%} of copying" if row.get("copy_gbs") else ""
        table.append(("forward and backward, B 32", f"{ours:.3f} ms, {gbs:.0f} GB/s{share}", "80 % of copying"))
        # Like with like: graphs with graphs, eager calls, in which the host may decide, with eager calls.
        for what, field in (("as CUDA graphs", "graph_ms"), ("eager", "both_ms")):
            mine = number("pare", field)
            compiled = [time for name in COMPILED if (time := number(name, field))]
            if mine and compiled:
                table.append((f"faster than torch.compile, same maths, {what}", f"{min(compiled) / mine:.1f} x", "2 x"))
        paper, mine = number("paper", "both_ms"), number("pare", "both_ms")  # it cannot be captured
        if paper and mine:
            table.append(("faster than the paper's algorithm, eager", f"{paper / mine:.0f} x", "1000 x"))
        exact = milliseconds("pare-exact")
        if exact:
            table.append(("the same with every step of the relaxation", f"{exact:.3f} ms", ""))
    for operation, (what, rival, bar) in RIVALS_ALONE.items():
        ours, other = (number(name, "forward_ms", operation) for name in ("pare", rival))
        if ours and other:
            table.append((f"{what}, faster than {rival}", f"{ours:.3f} ms, {other / ours:.1f} x", bar))
    for (case, _, provider), step in rows.items():
        if provider == "pare" and step.get("operator_share") and "swin" in case.lower():
            table.append((f"operator's share of a step, {case}", f"{float(step['operator_share']):.1%}", "at most 3 %"))
    return table


def kernels(path: Path, outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each kernel, the worst of its forms: whether it compiled, and whether the cases that launch it passed."""
    rows = []
    if path.is_file():
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    wrong = {
        out.part.removeprefix("case: ") for out in outcomes if out.part.startswith("case: ") and out.result != PASSED
    }
    lines = []
    for kernel in sorted({row["kernel"] for row in rows}):
        forms = [row for row in rows if row["kernel"] == kernel]
        broken = [row for row in forms if row["status"] != "ok"]
        doubtful = [name for name in dict.fromkeys(" ".join(row["cases"] for row in forms).split()) if name in wrong]
        status = broken[0]["status"] if broken else "IN DOUBT" if doubtful else "ok"

        def most(field: str, forms=forms) -> str:
            return max((row[field] for row in forms if row[field]), key=int, default="?")

        line = (
            f"{kernel:32}  {status:11}  {most('registers'):>3} registers, {most('spills')} spilled, {most('shared'):>6} bytes "
            f"shared, {max(float(row['seconds']) for row in forms):4.1f} s, {len(forms)} forms"
        )
        notes = [f"{row['constants']}: {row['note']}" for row in broken[:1]]
        notes += [f"used by {', '.join(doubtful)}"] if doubtful else []
        lines.append("; ".join([line, *notes]))
    return lines


def summary(outcomes: Sequence[Outcome], of_kernels: Sequence[str], found: Sequence[tuple[str, str, str]]) -> list[str]:
    width = max(len(outcome.part) for outcome in outcomes)
    lines = [
        f"{outcome.part:{width}}  {outcome.result:11}  {outcome.seconds:4.0f} s  {outcome.note}" for outcome in outcomes
    ]
    lines += ["", *of_kernels] if of_kernels else []
    if found:
        what, measured = (max(len(row[column]) for row in found) for column in (0, 1))
        lines += ["", *(f"{a:{what}}  {b:{measured}}  {c and 'bar: ' + c}".rstrip() for a, b, c in found)]
    return lines


def cache_folder() -> str:
    """Where all processes keep compiled kernels: said to Triton, which torch.compile would otherwise give a place of its own."""
    folder = Path(os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return str(folder)
    except OSError:
        return tempfile.mkdtemp(prefix="triton-")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder for what is left")
    parser.add_argument("--check", action="store_true", help="one small case of each operator, in at most two minutes")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU, in Triton's interpreter, at tiny sizes")
    options = parser.parse_args(arguments)
    patience = 10 if options.rehearse else 1  # nothing is measured, on a machine that may be slow
    deadline = time.monotonic() + patience * (CHECK_BUDGET if options.check else BUDGET)
    found = probe()
    if options.rehearse:
        os.environ.update(REHEARSAL)
        found |= {"cuda": True, "devices": ["no GPU, a rehearsal"]}
    reason = missing(found)
    if reason is not None:
        print(f"nothing to run: {reason}", file=sys.stderr)
        return 2
    os.environ["TRITON_CACHE_DIR"] = cache_folder()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    (out / "kernels.csv").unlink(missing_ok=True)
    log = Log(out / ("gpu-check.log" if options.check else "gpu.log"))
    try:
        log.line(
            f"{', '.join(found['devices'])}; torch {found['torch']}, triton {found['triton']}, {sys.version.split()[0]}; "
            f"compiled kernels in {os.environ['TRITON_CACHE_DIR']}"
        )
        everything, outcomes = (check_parts if options.check else parts)(out, options.rehearse), []
        everything = [replace(part, limit=patience * part.limit) for part in everything]
        for name in dict.fromkeys(part.group for part in everything):
            outcomes += run_group([part for part in everything if part.group == name], log, deadline)
        log.line("-" * 100)
        for line in summary(outcomes, kernels(out / "kernels.csv", outcomes), figures(out / "gpu.csv")):
            log.line(line)
    finally:
        log.close()
    untested = any(outcome.result == SKIPPED and outcome.part.startswith("tests") for outcome in outcomes)
    return int(untested or any(outcome.result in (FAILED, LATE) for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
