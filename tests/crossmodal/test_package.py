"""The package itself: cheap to import, its parts at hand."""

import subprocess
import sys
from pathlib import Path

import pytest

import crossmodal

PYTHON = Path(crossmodal.__file__).parents[1]


def test_import_loads_no_submodule():
    code = (
        "import sys, crossmodal; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'crossmodal.tasks')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PYTHON, check=False).returncode == 0


def test_submodules_are_found_on_first_use():
    assert "italy_power_demand" in crossmodal.tasks.available()
    assert "scipy_docs" in crossmodal.sources.available()
    assert "tasks" in dir(crossmodal)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        crossmodal.nonsense  # noqa: B018
