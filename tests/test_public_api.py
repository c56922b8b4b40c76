"""What a user of the two packages meets: names, types and files. A program that also runs; `make lint` has mypy read it.

The lines with `type: ignore` are wrong on purpose: the type checker must say so, or says that the comment is unused.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import crossmodal
import crossmodal.predict
import pare_kernels

ROOT = Path(__file__).resolve().parents[1]


def test_a_program_of_the_operator() -> None:
    target = torch.randn(2, 16, 8, requires_grad=True)
    source = torch.randn(2, 12, 8)
    gate = pare_kernels.PatchGate(8, device="cpu", dtype=torch.float32)
    schedule = pare_kernels.ReplaceSchedule("linear", start=1.0, end=0)
    k = assert_type(schedule(progress=0.25, num_patches=12), int)
    assert_type(gate.weight, nn.Parameter)
    assert_type(gate.bias, nn.Parameter | None)
    assert_type(gate(target), Tensor)
    mixed, lam, slots, patches = pare_kernels.patch_replace(target, source, gate.weight, gate.bias, k=k)
    assert_type(mixed, Tensor)
    assert_type(lam, float)
    assert_type(slots, Tensor)
    assert_type(patches, Tensor)
    wrong: str = lam  # type: ignore[assignment]
    assert wrong is lam

    replace = pare_kernels.PatchReplace(gate, selection="topk", exact_steps=None)
    assert_type(replace(target, source, k=k), pare_kernels.PatchReplaceResult)
    assert_type(pare_kernels.reference.patch_replace(target, source, gate.weight, k=k).mixed, Tensor)
    assert_type(pare_kernels.patch_swap_(target * 1, source, gate.weight, k=k, seed=3).lam, float)
    top = assert_type(pare_kernels.gumbel_topk(gate(source), k, seed=pare_kernels.draw_seed()), pare_kernels.TopKResult)
    assert_type(top.mask, Tensor)
    assert_type(pare_kernels.gate_scores(source, gate.weight), Tensor)


def of_crossmodal(folder: str) -> None:
    """Read by the type checker alone: it would need a finished run."""
    predictor = assert_type(crossmodal.load(folder), crossmodal.predict.Predictor)
    assert_type(predictor.predict(torch.randn(3, 24)).probabilities, Tensor | None)
    assert_type(crossmodal.tasks.load("italy_power_demand"), crossmodal.tasks.Task)
    crossmodal.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_public_names_are_those_of_all() -> None:
    for module in (crossmodal, pare_kernels):
        public = {name for name in vars(module) if not name.startswith("_")}
        submodules = {name for name in public if f"{module.__name__}.{name}" in sys.modules}
        assert public - submodules <= {*module.__all__}
    assert dir(crossmodal) == crossmodal.__all__


@pytest.mark.parametrize("name", [name for name in crossmodal.__all__ if name != "load"])
def test_modules_offer_what_they_define_alone(name: str) -> None:
    module = getattr(crossmodal, name)
    for offered in module.__all__:
        value = getattr(module, offered)
        assert not callable(value) or value.__module__.startswith(module.__name__), offered


def test_types_and_settings_are_packaged(tmp_path: Path) -> None:
    environment = os.environ | {"PARE_KERNELS_NO_EXT": "1"}
    build = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, env=environment, check=True, capture_output=True)
    for package, source in (("pare_kernels", ROOT / "pare_kernels"), ("crossmodal", ROOT / "python" / "crossmodal")):
        data = [path.relative_to(source) for path in source.rglob("*") if path.suffix in (".typed", ".yaml")]
        assert Path("py.typed") in data
        assert all((tmp_path / package / path).is_file() for path in data)
