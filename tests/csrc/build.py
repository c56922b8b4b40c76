"""Builds the C++ core without torch as a Python module, for the unit tests and the fuzzer; with sanitizers if asked.

The result is kept in the temporary folder under the hash of everything it is made of.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pybind11

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "csrc" / "core"
MODULE = "pare_core"
COMMON = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wno-psabi", "-fno-math-errno", "-fno-trapping-math"]
PLAIN = ["-O1"]
SANITIZED = ["-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]


def compiler() -> str | None:
    """The C++ compiler, or None where there is none."""
    return shutil.which(os.environ.get("CXX", "c++"))


def sanitizer_runtime() -> Path | None:
    """The address sanitizer's shared library, to be loaded before Python; None where the compiler has none."""
    if compiler() is None or sys.platform != "linux":
        return None
    name = subprocess.run([compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    return Path(name).resolve() if Path(name).is_absolute() and Path(name).exists() else None


def build_core(*, sanitize: bool = False) -> Path:
    """The path of the compiled module.

    Raises:
        RuntimeError: the compiler failed; the message is what it said.
    """
    flags = [*COMMON, *(SANITIZED if sanitize else PLAIN)]
    units = [*sorted(CORE.glob("*.cpp")), Path(__file__).with_name("core_module.cpp")]
    parts = [*units, *sorted(CORE.glob("*.h"))]
    digest = hashlib.sha256(repr((compiler(), flags, sys.version)).encode())
    for part in parts:
        digest.update(part.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"pare_core_{os.getuid()}" / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    module = folder / (MODULE + sysconfig.get_config_var("EXT_SUFFIX"))
    with open(folder / "lock", "w") as lock:  # workers of pytest-xdist come here at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not module.exists():
            _compile(units, flags, folder, module)
    return module


def _compile(units: list[Path], flags: list[str], folder: Path, module: Path) -> None:
    includes = [f"-I{path}" for path in (CORE.parent, pybind11.get_include(), sysconfig.get_paths()["include"])]

    def run(arguments: list[str]) -> None:
        done = subprocess.run([compiler(), *arguments], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{compiler()} failed on {arguments[-1]}:\n{done.stderr}")

    def compile_one(unit: Path) -> str:
        result = str(folder / (unit.stem + ".o"))
        run([*flags, *includes, f"-DPARE_TEST_MODULE={MODULE}", "-c", str(unit), "-o", result])
        return result

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = list(pool.map(compile_one, units))
    partial = module.with_suffix(".partial")
    run(["-shared", *flags, *objects, "-o", str(partial)])
    partial.rename(module)


def load_core(path: Path) -> ModuleType:
    """Imports the module that `build_core` made."""
    spec = importlib.util.spec_from_file_location(MODULE, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sanitizer_environment() -> dict[str, str]:
    """The environment in which Python can load a sanitized module."""
    libraries = [str(sanitizer_runtime())]
    stdcxx = subprocess.run(
        [compiler(), "-print-file-name=libstdc++.so"], capture_output=True, text=True
    ).stdout.strip()
    libraries.append(str(Path(stdcxx).resolve()))  # or exceptions thrown by the module abort the sanitizer
    return {**os.environ, "LD_PRELOAD": " ".join(libraries), "ASAN_OPTIONS": "detect_leaks=0"}
