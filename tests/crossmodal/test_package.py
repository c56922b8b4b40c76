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


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("from crossmodal import cli; sys.exit(cli.train(['--print_config']))", "error: "),
        ("import crossmodal; crossmodal.load", "MissingPackage: "),
    ],
)
def test_with_torch_alone_the_extra_is_named(code, told):
    code = f"import sys; sys.modules['yaml'] = None; {code}"
    run = subprocess.run([sys.executable, "-c", code], cwd=PYTHON, check=False, capture_output=True, text=True)
    assert run.returncode != 0
    assert (
        f"{told}crossmodal: needs the package yaml, which is not installed; pip install 'pare-kernels[train]'"
        in run.stderr
    )
