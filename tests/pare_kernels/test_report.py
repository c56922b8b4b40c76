import os
import subprocess
import sys

import pytest
import torch

from pare_kernels import _library, report


def run_report(**environment):
    return subprocess.run(
        [sys.executable, "-m", "pare_kernels.report"],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=True,
    ).stdout


def test_report_names_versions_devices_and_every_operator():
    text = report.report()
    assert torch.__version__ in text
    for name in _library.SCHEMAS:
        assert f"  {name} " in text


def test_report_names_the_build_of_torch(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.11.0+cu130")  # the metadata of that wheel say 2.11.0
    assert report.package_versions()["torch"] == "2.11.0+cu130"


def test_report_says_why_the_reference_serves():
    served = [line for line in run_report(PARE_KERNELS_NO_EXT="1").splitlines() if line.startswith("  patch_replace ")]
    assert served[0].endswith("CPU   reference (switched off by PARE_KERNELS_NO_EXT=1)")
    if not torch.cuda.is_available():
        assert "CUDA  none (" in served[1]


@pytest.mark.skipif(_library.EXTENSION_PROBLEM is not None, reason="the C++ kernels are not built here")
def test_report_names_the_instruction_set_in_use():
    assert "CPU   C++ kernels (" in run_report()
    assert report.backends()["patch_swap_"]["CPU"].startswith("C++ kernels")


def test_report_without_a_package(monkeypatch):
    monkeypatch.setattr(report, "PACKAGES", ("torch", "no-such-package-at-all"))
    assert report.package_versions()["no-such-package-at-all"] == "not installed"
