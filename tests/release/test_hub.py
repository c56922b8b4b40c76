"""The folder for the kernel hub: built, loaded by `kernels` without a network, and the same operators as the package's."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
import torch

import pare_kernels
from pare_kernels import _library
from tests.pare_kernels.cases import make_inputs
from tests.pare_kernels.test_library import samples

kernels = pytest.importorskip("kernels")
from kernels._rust import Build, Digest, DigestAlgorithm, Metadata  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,  # the C++ kernels are compiled, in a namespace of their own
    pytest.mark.clean_empty,
    pytest.mark.skipif(_library.EXTENSION_PROBLEM is not None, reason="the C++ kernels are not in use"),
]
NATIVE, NOARCH = "torch-stable-abi210-cpu-*", "torch-cpu"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    out = tmp_path_factory.mktemp("hub") / "made"
    made = subprocess.run(
        [sys.executable, ROOT / "release" / "hub.py", out], check=False, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return out


@pytest.fixture(scope="module", params=[NATIVE, NOARCH])
def loaded(request, hub, tmp_path_factory):
    """The module that `kernels` loads from a folder with one of the variants."""
    folder = tmp_path_factory.mktemp("one")
    (variant,) = (hub / "build").glob(request.param)
    shutil.copytree(variant, folder / "build" / variant.name)
    return kernels.get_local_kernel(folder, backend="cpu")


@pytest.mark.parametrize("name", _library.SCHEMAS)
def test_opcheck(loaded, name):
    operators = loaded._library.ops
    assert operators.name == loaded.__name__ != "pare_kernels"
    for arguments in samples(name):
        torch.library.opcheck(getattr(operators, name).default, tuple(arguments))


def test_same_results_as_the_package_and_no_graph_breaks(loaded):
    def step(module, *inputs):
        mixed, lam, *_ = module.patch_replace(*inputs, k=4, seed=7)
        return mixed.square().sum() * (1 - lam)

    inputs = make_inputs(2, 9, 8, 16, dtype=torch.float32, requires_grad=True)
    expected = torch.autograd.grad(step(pare_kernels, *inputs), inputs)
    native = loaded._library.EXTENSION_PROBLEM is None
    assert native == any(Path(loaded.__file__).parent.glob("*.so"))
    for function in (step, torch.compile(step, fullgraph=True, backend="aot_eager")):
        actual = torch.autograd.grad(function(loaded, *inputs), inputs)
        for a, e in zip(actual, expected, strict=True):
            assert torch.equal(a, e) if native else torch.allclose(a, e, rtol=1e-3, atol=1e-5)


def test_what_is_said_of_each_variant_is_true(hub):
    general = tomllib.loads((hub / "build.toml").read_text())["general"]
    assert {str(backend).rpartition(".")[2].lower() for backend in Build.open(hub).general.backends} == {"cpu", "cuda"}
    variants = sorted((hub / "build").iterdir())
    assert len({Metadata.read_from_file(variant / "metadata.json").id for variant in variants}) == len(variants) == 3
    for variant in variants:
        metadata = Metadata.read_from_file(variant / "metadata.json")
        assert (str(metadata.name), metadata.version) == (general["name"], int(pare_kernels.__version__.split(".")[0]))
        metadata.digest.validate(Digest.hash_variant(DigestAlgorithm.SHA256, variant))
        assert not [path for path in variant.rglob("*.py") if "from pare_kernels" in path.read_text()]


def test_kernel_builder_is_told_all_sources(hub):
    configuration = tomllib.loads((hub / "build.toml").read_text())
    named = {*configuration["torch"]["src"], *configuration["kernel"]["core"]["src"]}
    assert named == {str(path.relative_to(hub)) for path in hub.rglob("*") if path.suffix in (".cpp", ".h")}
