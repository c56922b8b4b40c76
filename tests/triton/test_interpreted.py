"""Runs the kernels' tests in Triton's interpreter, each file in a process of its own: the mode is fixed when Triton is imported.

The operators' own tests run there too, on CPU tensors that go to the Triton operators instead of the C++ ones: what they say about
dispatch, autograd, fake kernels and options then holds for the GPU code. The longest of them are left to a GPU (`make gpu`).

Triton 3.6 interprets with numpy below 2.4 alone: it makes Python numbers of arrays of one element, which numpy 2.4 refuses.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((Path(__file__).parent / "on_device").glob("test_*.py"))
SLOW = "equals_the_reference", "swap_has", "streams", "seeds", "gradcheck"
OPERATORS = {
    "test_functional": " and ".join(f"not {name}" for name in SLOW),
    "test_backends": "random_cases or ties or not_finite or leading",
    "test_library": "opcheck and (gumbel or gate or backward)",
    "test_nn": "",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_kernels_agree_with_the_definition(path):
    run_interpreted(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_of_the_gpu_agree_with_the_definition(name):
    run_interpreted(ROOT / "tests" / "pare_kernels" / f"{name}.py", "-k", OPERATORS[name])


def run_interpreted(path, *options):
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PARE_KERNELS_NO_EXT": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        *options,
        str(path),
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout
