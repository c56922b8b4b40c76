"""The records: one CSV per device, only ever appended to, each row with device, versions, date and commit."""

from __future__ import annotations

import csv
import datetime
import io
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import torch

import pare_kernels

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"

OK, REFUSED, SKIPPED, FAILED = "ok", "refused", "skipped", "failed"


@dataclass
class Row:
    """One provider on one case. Times in milliseconds, memory in MiB, bandwidth in GB/s (10^9); empty where not measured."""

    run: str = ""
    date: str = ""
    commit: str = ""
    device: str = ""
    python: str = ""
    torch: str = ""
    pare_kernels: str = ""
    suite: str = ""
    sweep: str = ""
    case: str = ""
    batch: int = 0
    num_target: int = 0
    num_source: int = 0
    dim: int = 0
    k: int = 0
    dtype: str = ""
    threads: int = 0
    heap: str = ""
    operation: str = ""
    provider: str = ""
    family: str = ""
    backend: str = ""
    estimator: str = ""
    status: str = OK
    note: str = ""
    error: float | None = None
    samples: int | None = None
    compile_s: float | None = None
    forward_ms: float | None = None
    forward_p20_ms: float | None = None
    forward_p80_ms: float | None = None
    backward_ms: float | None = None
    backward_p20_ms: float | None = None
    backward_p80_ms: float | None = None
    both_ms: float | None = None
    both_p20_ms: float | None = None
    both_p80_ms: float | None = None
    forward_cpu_ms: float | None = None
    backward_cpu_ms: float | None = None
    both_cpu_ms: float | None = None
    graph_ms: float | None = None
    peak_mib: float | None = None
    peak_beyond_outputs_mib: float | None = None
    forward_bytes: int | None = None
    backward_bytes: int | None = None
    forward_gbs: float | None = None
    backward_gbs: float | None = None
    forward_of_limit: float | None = None
    backward_of_limit: float | None = None
    read_gbs: float | None = None
    copy_gbs: float | None = None
    over_paper: float | None = None
    over_best_rival: float | None = None
    best_rival: str = ""
    samples_per_s: float | None = None
    operator_share: float | None = None

    @property
    def key(self) -> tuple:
        return self.case, self.dtype, self.threads, self.heap, self.operation, self.provider

    @property
    def alone(self) -> tuple:
        """The key of the same measurement with one thread."""
        return replace(self, threads=1).key


COLUMNS = tuple(column.name for column in fields(Row))
_TYPES = {column.name: column.type for column in fields(Row)}


@dataclass(frozen=True)
class Provenance:
    """What every row of a run has in common."""

    run: str
    date: str
    commit: str
    device: str
    python: str = platform.python_version()
    torch: str = torch.__version__
    pare_kernels: str = pare_kernels.__version__
    suite: str = field(default="", compare=False)

    @classmethod
    def here(cls, device: torch.device, suite: str = "") -> Provenance:
        now = datetime.datetime.now(datetime.timezone.utc)
        commit = commit_of(ROOT)
        run = f"{now:%Y%m%dT%H%M%S}-{os.getpid()}"
        return cls(run, f"{now:%Y-%m-%dT%H:%M:%SZ}", commit, device_name(device), suite=suite)

    def __str__(self) -> str:
        return f"{self.device}; torch {self.torch}; commit {self.commit or 'unknown'}; {self.date}"

    def stamp(self, row: Row) -> Row:
        for name, value in asdict(self).items():
            setattr(row, name, value)
        return row


def commit_of(folder: Path) -> str:
    """Short commit of a checkout, with "+" when tracked files outside the results differ from it; "" without git."""
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(
            folder, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)benchmarks/results"
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def device_name(device: torch.device) -> str:
    """Name of the processor or GPU, with the number of logical cores of a processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    if sys.platform.startswith("linux"):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {os.cpu_count()} cores"


def results_path(device: torch.device) -> Path:
    """benchmarks/results/<device>.csv"""
    return RESULTS / f"{slug(device_name(device))}.csv"


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def append(path: Path, rows: Iterable[Row]) -> None:
    """Adds rows at the end of a CSV, made with a header where there is none, in a single write.

    Raises:
        ValueError: the file has other columns than these.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if path.exists() and path.stat().st_size:
        _check_header(path)
    else:
        writer.writeheader()
    for row in rows:
        writer.writerow({name: _write(value) for name, value in asdict(row).items()})
    with open(path, "a", encoding="utf-8", newline="") as file:
        file.write(text.getvalue())


def read(path: Path) -> list[Row]:
    """All rows of a CSV.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has other columns, or a value that is none of its column.
    """
    if not path.exists():
        raise FileNotFoundError(f"no benchmark records at {path}: run python -m benchmarks.run first")
    _check_header(path)
    rows = []
    with open(path, encoding="utf-8", newline="") as file:
        for number, values in enumerate(csv.DictReader(file), start=2):
            try:
                rows.append(Row(**{name: _parse(_TYPES[name], value) for name, value in values.items()}))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
    return rows


def write_aside(path: Path, content: bytes) -> None:
    """Writes a file whole: beside its place, then renamed onto it."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    aside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        aside.chmod(0o644)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _check_header(path: Path) -> None:
    with open(path, encoding="utf-8", newline="") as file:
        header = tuple(next(csv.reader(file), ()))
    if header != COLUMNS:
        missing, extra = (
            [name for name in COLUMNS if name not in header],
            [name for name in header if name not in COLUMNS],
        )
        raise ValueError(
            f"{path} has other columns than this version writes (missing: {', '.join(missing) or 'none'}; unknown: "
            f"{', '.join(extra) or 'none'}): keep it under another name, or give another one with --csv"
        )


def _write(value) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _parse(kind: str, value: str):
    if "None" in kind and value == "":
        return None
    if kind.startswith("int"):
        return int(value)
    if kind.startswith("float"):
        return float(value)
    return value
