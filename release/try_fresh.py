"""Tries a wheel where nothing else is installed: python release/try_fresh.py dist/pare_kernels-*.whl

First with torch alone, the operator; then with the extra "train", the programs. All of it runs in an empty folder. With --torch
there is that version instead of the one in constraints.txt, and the operator's tests run in the place of the programs.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
TESTED = (
    "setup.py",
    "pyproject.toml",
    "requirements-oldest.txt",
    "csrc",
    "tests",
    "benchmarks",
)  # all that the tests read
TESTS_NEED = "numpy", "scipy", "hypothesis", "mpmath", "pytest", "pytest-xdist", "setuptools", "ninja"

OPERATOR = """
import importlib.util, warnings
import torch  # which warns of missing NumPy
warnings.simplefilter("error")
assert importlib.util.find_spec("numpy") is None
import pare_kernels
from pare_kernels import report
gate = pare_kernels.PatchGate(8)
target = torch.randn(2, 9, 8, requires_grad=True)
mixed, *_ = pare_kernels.patch_replace(target, torch.randn(2, 9, 8), gate.weight, gate.bias, k=4)
mixed.square().mean().backward()
assert target.grad.isfinite().all() and gate.weight.grad.any()
assert report.backends()["patch_replace"]["CPU"].startswith("C++ kernels"), report.report()
print("the operator runs with torch alone:", report.backends()["patch_replace"]["CPU"])
"""

VERSIONS = """
import platform, torch
print(f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}")
"""

DATA = """
import numpy as np
rng = np.random.default_rng(0)
x, y = rng.standard_normal((60, 1, 32)).astype("float32"), np.arange(60) % 2
np.savez("my.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
np.savez("new.npz", x=x[:5])
np.savez("fields.npz", x_train=x[:40], y_train=x[:40], x_test=x[40:], y_test=x[40:])
"""


def main(wheel: Path, torch: str | None) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        home = folder / "home"
        home.mkdir()
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "PARE_CACHE_DIR": str(folder / "cache")}
        environment.pop("PYTHONPATH", None)
        venv.create(folder / "venv", with_pip=True)
        programs = folder / "venv" / "bin"

        def run(*command: object, fails: bool = False) -> str:
            command = str(programs / str(command[0])), *map(str, command[1:])
            done = subprocess.run(command, cwd=home, env=environment, check=False, text=True, capture_output=True)
            if bool(done.returncode) != fails:
                sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}\nended with {done.returncode}")
            return done.stdout + done.stderr

        def install(*what: str) -> None:
            run("pip", "install", "--quiet", *([] if torch else ["-c", CONSTRAINTS]), "setuptools", *what)

        install(f"torch=={torch}.*" if torch else "torch")
        install(str(wheel))
        print(run("python", "-c", OPERATOR), end="")
        if torch:
            install(*TESTS_NEED)
            for name in TESTED:
                (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, home / name)
            environment["OMP_NUM_THREADS"] = "1"
            said = run("python", "-m", "pytest", "-q", "-n", "auto", "tests/pare_kernels")
            (summary,) = re.findall(r"^=*\s?(\d+ passed.*?)\s?=*$", said, re.M)  # warnings may follow it
            print(run("python", "-c", VERSIONS).strip(), summary, sep=": ")
            return
        assert "pip install 'pare-kernels[train]'" in run("pare-train", "--print_config", fails=True)
        install(f"{wheel}[train]")
        run("python", "-c", DATA)
        data = "--task", "arrays", "--data", "my.npz"
        run("pare-train", *data, "--epochs", "1", "--output_dir", "run")
        run("pare-predict", "run", "new.npz", "-o", "out.npz")
        run("pare-evaluate", "run")
        run("pare-compare", *data, "--methods", "nft", "--seeds", "0", "--epochs", "1", "--runs_dir", "runs")
        run("pare-generate", "--help")
        run("pare-miniature", "--help")
        fields = "--task", "arrays", "--data", "fields.npz"
        assert "pip install 'pare-kernels[fno]'" in run("pare-train", *fields, "--method", "fno", fails=True)
        print("with the extra 'train' its programs run, in an empty folder")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--torch", metavar="VERSION", help="major and minor number, as 2.10")
    arguments = parser.parse_args()
    main(arguments.wheel.resolve(), arguments.torch)
