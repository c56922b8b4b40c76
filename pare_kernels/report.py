"""`python -m pare_kernels.report`: versions, devices, and which kernels serve which operator, or why not. For bug reports.

The environment variables that change them are in the README.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys

import torch

from . import _library, _triton
from ._ops import ops
from ._version import __version__

PACKAGES = ("torch", "triton", "transformers", "numpy", "scipy", "scikit-learn", "accelerate", "ninja", "pybind11")


def package_versions() -> dict[str, str]:
    """Installed versions by package name, "not installed" where there is none."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    versions["torch"] = torch.__version__  # with the build (+cu130, +cpu), which installers may leave out of theirs
    return versions


def devices() -> dict[str, str]:
    """What the operators can run on here."""
    found = {
        "cpu": f"{platform.machine()}, torch uses {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    }
    if not torch.cuda.is_available():
        found["cuda"] = "no device" if torch.backends.cuda.is_built() else "torch is built without CUDA"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = (
            f"{properties.name}, compute capability {properties.major}.{properties.minor}, {properties.total_memory >> 30} GiB"
        )
    return found


def backends() -> dict[str, dict[str, str]]:
    """Per operator and device, which implementation serves it, and why nothing faster or nothing at all does."""
    instructions = ops.cpu_capability() if _library.EXTENSION_PROBLEM is None else ""
    on_cpu = (
        f"reference ({_library.EXTENSION_PROBLEM})" if _library.EXTENSION_PROBLEM else f"C++ kernels ({instructions})"
    )
    on_cuda = f"none ({reason})" if (reason := _triton.unavailable_reason()) else "Triton kernels"
    kernels, composed = (
        {"CPU": on_cpu, "CUDA": on_cuda},
        dict.fromkeys(("CPU", "CUDA"), "copies, and patch_swap_ on them"),
    )
    return {name: kernels if name in _triton.OPERATORS else composed for name in _library.SCHEMAS}


def report() -> str:
    """The whole report as text."""
    lines = [f"pare_kernels {__version__}, Python {sys.version.split()[0]}, {platform.platform()}", "", "packages"]
    lines += [f"  {name:<14}{version}" for name, version in package_versions().items()]
    lines += ["", "devices"]
    lines += [f"  {name:<14}{text}" for name, text in devices().items()]
    lines += ["", "operators"]
    for name, served in backends().items():
        lines += [f"  {name:<24}{key:<6}{text}" for key, text in served.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
