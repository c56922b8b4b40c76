"""Measures the operator beside its rivals: `python -m benchmarks.run [--suite standard] [--case swin-2000] ...`

Prints a table per case (milliseconds, memory, share of the memory-bound limit, speed-ups) and adds every row to
`benchmarks/results/<device>.csv`. A provider that disagrees with the float64 definition is refused: its line says why.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import growth
from benchmarks.bandwidth import read_and_copy_gbs
from benchmarks.base import compare
from benchmarks.cases import CASES, DTYPES, SUITES, Plan
from benchmarks.heap import FRESH, HEAPS, KEPT, controllable
from benchmarks.measure import LIMIT, honest_ms, measure
from benchmarks.operations import OPERATIONS
from benchmarks.providers import PROVIDERS, providers_of
from benchmarks.records import FAILED, OK, REFUSED, Provenance, Row, append, results_path


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Throughput of patch replacement beside every other way to compute it.",
        epilog="Without --case and --provider the whole suite is run; with --case but no --suite, every provider of --operation.",
    )
    parser.add_argument("--suite", choices=SUITES, metavar="NAME", help=f"{', '.join(SUITES)} (default: standard)")
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda[:N]", help="default: cpu")
    for option, choices, told in (
        ("case", case_names(), f"one of {', '.join(CASES)}"),
        ("provider", list(dict.fromkeys(name for _, name in PROVIDERS)), "see --list"),
        ("operation", OPERATIONS, f"one of {', '.join(OPERATIONS)}"),
        ("dtype", DTYPES, f"one of {', '.join(DTYPES)}"),
        ("heap", HEAPS, f"{' or '.join(HEAPS)} memory, default: as the suite says"),
    ):
        parser.add_argument(f"--{option}", action="append", choices=choices, metavar="NAME", help=f"repeatable; {told}")
    parser.add_argument(
        "--threads", type=positive, action="append", metavar="N", help="repeatable; default: as the suite says, 1"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="time per provider and case (default: 1)")
    parser.add_argument("--base", metavar="REF", help="also measure that commit, in a throw-away worktree, and compare")
    parser.add_argument("--csv", type=Path, metavar="PATH", help="default: benchmarks/results/<device>.csv")
    parser.add_argument("--no-csv", action="store_true", help="print only")
    parser.add_argument("--list", action="store_true", help="print cases, suites and providers, and end")
    options = parser.parse_args(arguments)
    if not options.seconds > 0:
        parser.error(f"argument --seconds: must be > 0, got {options.seconds}")
    options.device = parse_device(parser, options.device)
    if options.csv is not None and options.no_csv:
        parser.error("argument --csv: not together with --no-csv")
    return options


def positive(text: str) -> int:
    """An option that counts something."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def parse_device(parser: argparse.ArgumentParser, name: str) -> torch.device:
    """The device of `--device`; ends the program with an error that names the option where there is none."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        parser.error(f"argument --device: must be cpu or cuda[:N], got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        parser.error(f"argument --device: got {name!r}, but this PyTorch sees {torch.cuda.device_count()} CUDA devices")
    return device


def case_names() -> list[str]:
    """Cases of the table, and those that only suites have (other dtypes, sweeps)."""
    names = [*CASES]
    for suite in SUITES.values():
        names += [plan.case.name for plan in suite()]
    return list(dict.fromkeys(names))


def plans_of(options: argparse.Namespace) -> list[Plan]:
    """What the options ask for.

    Raises:
        ValueError: nothing is left to measure.
    """
    if options.suite is None and options.case:
        cases = {plan.case.name: plan.case for suite in SUITES.values() for plan in suite()} | CASES
        plans = [
            Plan(cases[name], operation, ()) for name in options.case for operation in options.operation or ["replace"]
        ]
    else:
        plans = SUITES[options.suite or "standard"]()
        plans = [plan for plan in plans if not options.case or plan.case.name in options.case]
        plans = [plan for plan in plans if not options.operation or plan.operation in options.operation]
    chosen = []
    for plan in plans:
        for dtype in options.dtype or [plan.case.dtype]:
            for threads in options.threads or [plan.threads]:
                for heap in options.heap or [plan.heap]:
                    chosen.append(plan.with_(case=plan.case.with_(dtype=dtype), threads=threads, heap=heap))
    if not controllable(options.device):
        chosen = [plan for plan in chosen if plan.heap == KEPT]
    if options.provider:
        chosen = [_only(plan, options.provider) for plan in chosen]
    chosen = [plan for plan in dict.fromkeys(chosen) if plan is not None]
    if not chosen:
        raise ValueError("no case is left: --suite, --case, --operation and --provider have nothing in common")
    return chosen


def _only(plan: Plan, names: Sequence[str]) -> Plan | None:
    """The plan with those of the named providers that its operation has."""
    kept = tuple(provider.name for provider in providers_of(plan.operation, plan.providers) if provider.name in names)
    return plan.with_(providers=kept) if kept else None


def run(plans: Sequence[Plan], device: torch.device, *, seconds: float, csv: Path | None, suite: str = "") -> list[Row]:
    """Measures all plans, printing each table as it is done and adding it to the CSV at once."""
    provenance = Provenance.here(device, suite)
    torch.set_num_threads(1)
    read, copy = read_and_copy_gbs(device)
    print(provenance)
    print(f"memory, one thread: reads {read:.1f} GB/s, copies {copy:.1f} GB/s (read + written)")
    everything = []
    for plan in sorted(plans, key=lambda plan: plan.heap != FRESH):
        rows = measure(plan, device, seconds=seconds)
        for row in rows:
            row.read_gbs, row.copy_gbs = read, copy
            provenance.stamp(row)
        print("\n" + table(plan, rows), flush=True)
        if csv is not None:
            append(csv, rows)
        everything += rows
    return everything


# ---------------------------------------------------------------------------------------------------------------------
# Tables.
# ---------------------------------------------------------------------------------------------------------------------

_HEADER = (
    *("provider", "gradient", "fwd ms", "20-80 %", "bwd ms", "20-80 %", "both ms", "CPU ms", "graph ms", "MiB"),
    *("of limit", "x paper", "x rival", "error"),
)


def table(plan: Plan, rows: Sequence[Row]) -> str:
    """A text table of one plan: times of the wall (and of the CPU), the rest as in the records."""
    case = plan.case
    lines = [[*_HEADER]]
    notes = []
    for row in rows:
        name = row.provider if row.family != "ours" else f"{row.provider} [{row.backend}]"
        if row.status != OK:
            notes.append(f"  {name}: {row.status}: {row.note}")
            continue
        lines.append(
            [
                name,
                row.estimator,
                _number(row.forward_ms),
                _range(row.forward_p20_ms, row.forward_p80_ms),
                _number(row.backward_ms),
                _range(row.backward_p20_ms, row.backward_p80_ms),
                _number(row.both_ms),
                _number(honest_ms(row) if row.forward_cpu_ms else None),
                _number(row.graph_ms),
                _number(row.peak_mib),
                " / ".join(f"{share:.0%}" for share in (row.forward_of_limit, row.backward_of_limit) if share)
                if row.family != LIMIT
                else "",
                _number(row.over_paper),
                _number(row.over_best_rival),
                f"{row.error:.0e}" if row.error else "",
            ]
        )
        if row.compile_s is not None:
            notes.append(f"  {name}: compiled in {row.compile_s:.0f} s")
    used = [column for column in range(len(_HEADER)) if any(line[column] for line in lines[1:])]
    widths = {column: max(len(line[column]) for line in lines) for column in used}
    text = [
        f"{case.name}: {plan.operation}, {case.shape}, {case.dtype}, {plan.threads} thread{'s' * (plan.threads > 1)}"
        + (f", {rows[0].heap} heap" if rows[0].heap else "")
    ]
    for line in lines:
        cells = (f"{line[column]:{'<' if column < 2 else '>'}{widths[column]}}" for column in used)
        text.append("  " + "  ".join(cells).rstrip())
    return "\n".join([*text, *notes])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None else f"{_number(low)}-{_number(high)}"


def summary(rows: Sequence[Row]) -> str:
    """What no single table shows: how threads scale, how cost grows, who was refused."""
    lines = []
    one = {row.key: row for row in rows if row.threads == 1}
    for row in rows:
        single = one.get(row.alone)
        if row.threads > 1 and row.status == OK and single is not None and single.status == OK and row.both_ms:
            times = single.both_ms / row.both_ms
            lines.append(f"{row.provider:22} {row.threads} threads: {times:.2f}x one thread ({row.case}, wall time)")
    lines += growth.summary(rows).splitlines()
    bad = [row for row in rows if row.status in (REFUSED, FAILED)]
    lines += [f"{row.provider} on {row.case} ({row.operation}): {row.status}: {row.note}" for row in bad]
    return "\n".join(lines)


def listing() -> str:
    lines = ["cases:"]
    lines += [f"  {case.name:12} {case.shape:45} {case.origin}" for case in CASES.values()]
    lines += [f"suites: {', '.join(SUITES)}", "providers:"]
    for provider in PROVIDERS.values():
        gradient = "" if provider.comparable else f" (another estimator: {provider.estimator})"
        lines.append(f"  {provider.operation:9} {provider.name:22} {provider.summary}{gradient}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.list:
        print(listing())
        return 0
    try:
        plans = plans_of(options)
        csv = None if options.no_csv else options.csv or results_path(options.device)
        suite = options.suite or ("" if options.case or options.provider or options.operation else "standard")
        rows = run(plans, options.device, seconds=options.seconds, csv=csv, suite=suite)
        print("\n" + summary(rows))
        if csv is not None:
            print(f"added {len(rows)} rows to {csv}")
        if options.base is not None:
            print("\n" + compare(options.base, _without_records(arguments), rows))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _without_records(arguments: Sequence[str] | None) -> list[str]:
    """The arguments of a run without those that say what is compared and recorded."""
    kept, skip = [], False
    for argument in sys.argv[1:] if arguments is None else arguments:
        if skip:
            skip = False
        elif argument in ("--base", "--csv"):
            skip = True
        elif argument != "--no-csv" and not argument.startswith(("--base=", "--csv=")):
            kept.append(argument)
    return kept


if __name__ == "__main__":
    sys.exit(main())
