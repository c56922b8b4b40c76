"""Another commit of this project under the same benchmark: `python -m benchmarks.run --base REF`.

The commit is checked out into a throw-away worktree, its extension built there, and this version of `benchmarks/` put in place of
its own, so that both commits are measured by the same code. They run in two processes one after the other; the line of the memory
limit, which no commit can change, shows what the machine itself did in between.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import records
from benchmarks.measure import LIMIT, honest_ms
from benchmarks.records import OK, ROOT, Row


def compare(ref: str, arguments: Sequence[str], rows: Sequence[Row]) -> str:
    """Measures `ref` with the same arguments and returns a table: how many times faster this version is.

    Raises:
        ValueError: git does not know the commit, or measuring it failed.
    """
    with worktree(ref) as folder:
        csv = folder / "base.csv"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-m", "benchmarks.run", *arguments, "--csv", str(csv)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise ValueError(f"--base {ref}: measuring it failed:\n{(done.stderr or done.stdout).strip()[-2000:]}")
        base = records.read(csv)
    return comparison(ref, base, rows)


def comparison(ref: str, base: Sequence[Row], rows: Sequence[Row]) -> str:
    """Table of both commits: milliseconds of forward and backward together, and their ratio."""
    before = {row.key: row for row in base if row.status == OK}
    lines = [f"{'case':24} {'operation':9} {'provider':22} {ref[:14] + ' ms':>17} {'this ms':>10} {'x faster':>9}"]
    for row in rows:
        other = before.get(row.key)
        if row.status != OK or other is None or row.family not in ("ours", LIMIT):
            continue
        then, now = honest_ms(other), honest_ms(row)
        name = "(memory limit)" if row.family == LIMIT else row.provider
        lines.append(f"{row.case:24} {row.operation:9} {name:22} {then:17.4g} {now:10.4g} {then / now:9.2f}")
    return "\n".join(lines)


@contextlib.contextmanager
def worktree(ref: str) -> Iterator[Path]:
    """A checkout of `ref` in a temporary folder with its extension built and this version's benchmarks; removed afterwards.

    Raises:
        ValueError: git does not know the commit, or its extension cannot be built.
    """
    with tempfile.TemporaryDirectory(prefix="pare-base-") as parent:
        folder = Path(parent) / "base"
        _run(["git", "worktree", "add", "--detach", "--force", str(folder), ref], ROOT, f"--base {ref}: not a commit")
        try:
            if (folder / "csrc").is_dir():
                build = [sys.executable, "setup.py", "build_ext", "--inplace"]
                _run(build, folder, f"--base {ref}: its extension cannot be built")
            shutil.rmtree(folder / "benchmarks", ignore_errors=True)
            ignored = shutil.ignore_patterns("__pycache__", "results")
            shutil.copytree(Path(__file__).parent, folder / "benchmarks", ignore=ignored)
            yield folder
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(folder)], cwd=ROOT, capture_output=True)


def _run(command: Sequence[str], folder: Path, problem: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise ValueError(f"{problem}: {(done.stderr or done.stdout).strip()[-1000:]}")
