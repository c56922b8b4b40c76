"""What `make oldest` installs and what the C++ kernels are built for are the oldest versions that the package promises."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETUP = (ROOT / "setup.py").read_text()


def test_the_oldest_versions_are_the_promised_ones():
    promised = dict(re.findall(r'"(\w+)>=([\d.]+)', SETUP))
    tested = dict(re.findall(r"^(\w+)==([\d.]+)", (ROOT / "requirements-oldest.txt").read_text(), re.M))
    for name in ("torch", "triton", "numpy", "scipy"):
        assert f"{tested[name]}.".startswith(f"{promised[name]}.")


def test_the_extension_is_built_for_the_oldest_torch():
    major, minor = re.search(r'"torch>=(\d+)\.(\d+)"', SETUP).groups()
    assert f"-DTORCH_TARGET_VERSION=0x{int(major):02x}{int(minor):02x}{0:012x}" in SETUP
