"""Runs the tests on a simulated device, in a process of their own: PyTorch asks for its devices once."""

import os
import subprocess
import sys

from tests.crossmodal.runs import ROOT


def test_training_leaves_nothing_behind_on_the_cpu():
    environment = os.environ | {"SIMULATED_DEVICE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow"]
    command = [sys.executable, "-m", "pytest", *options, "tests/crossmodal/on_device"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
