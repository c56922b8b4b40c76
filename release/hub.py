"""Builds the folder that Hugging Face's kernel hub asks for: python release/hub.py dist/hub

The folder has the sources as kernel-builder takes them (build.toml, torch-ext/, csrc/) and what `kernels` loads (build/): the C++
kernels for this machine's kind of CPU, plain PyTorch for others, and the Triton kernels. Operators are registered under the id of a
build, which is drawn from its sources, so several may be loaded at once.
"""

import argparse
import base64
import hashlib
import json
import os
import platform
import runpy
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import setuptools
import tomllib

ROOT = Path(__file__).resolve().parents[1]
HUB = ROOT / "release" / "hub"

OPS = '''"""The namespace of this build; made by release/hub.py."""

import torch
{extension}
ops = torch.ops.{id}


def add_op_namespace_prefix(op_name: str) -> str:
    return f"{id}::{{op_name}}"
'''


def write_sources(out: Path) -> str:
    """Lays out what is built, but for `_ops.py`, of which each build has its own. Returns a digest of all of it."""
    package = out / "torch-ext" / "pare_kernels"
    built = shutil.ignore_patterns("__pycache__", "*.so", "_ops.py")
    shutil.copytree(ROOT / "pare_kernels", package, ignore=built)
    shutil.copytree(ROOT / "csrc", out / "csrc")
    shutil.copy(HUB / "torch_binding.cpp", package.parent)
    shutil.copy(HUB / "build.toml", out)
    digest = hashlib.sha256()
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(out)}\0".encode() + path.read_bytes())
    shutil.copy(HUB / "CARD.md", out)
    shutil.copy(HUB / "CARD.md", out / "README.md")
    return digest.hexdigest()


def build_extension(name: str, folder: Path) -> None:
    """The C++ kernels as the extension module `name`, with the flags of setup.py."""
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path("setup.py")
    arguments = setup.call_args.kwargs
    if "ext_modules" not in arguments:
        raise SystemExit("the C++ kernels cannot be built here: the line above, or PARE_KERNELS_NO_EXT=1, says why")
    (extension,) = arguments["ext_modules"]
    extension.name = name
    core = [source for source in extension.sources if "core" in Path(source).parts]
    extension.sources = [str((HUB / "torch_binding.cpp").relative_to(ROOT)), *core]
    distribution = setuptools.Distribution({"ext_modules": [extension], "cmdclass": arguments["cmdclass"]})
    command = distribution.get_command_obj("build_ext")
    command.build_lib = str(folder)
    command.ensure_finalized()
    command.build_temp = "build/hub"
    command.run()
    if not command.extensions:
        raise SystemExit("the C++ kernels could not be compiled: the compiler's output is above")


def write_variant(out: Path, name: str, backend: str, digest: str, native: bool = False) -> None:
    general = tomllib.loads((out / "build.toml").read_text())["general"]
    kind = backend if native else f"noarch_{backend}"
    identity = f"_{general['name'].replace('-', '_')}_{kind}_{digest[:10]}"
    folder = out / "build" / name
    shutil.copytree(out / "torch-ext" / "pare_kernels", folder)
    if native:
        build_extension(identity, folder)
    extension = f"\nfrom . import {identity}  # noqa: F401  (importing it registers the kernels)\n" if native else ""
    (folder / "_ops.py").write_text(OPS.format(id=identity, extension=extension))
    files = {
        str(path.relative_to(folder)): base64.b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    metadata = {
        "id": identity,
        "name": general["name"],
        "version": general["version"],
        "license": general["license"],
        "python-depends": [],
        "backend": {"type": backend},
        "digest": {"algorithm": "sha256", "files": files},
    }
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")


def main(out: Path) -> None:
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as temporary:  # so that a build that fails leaves the folder as it was
        made = Path(temporary) / "hub"
        digest = write_sources(made)
        stable = tomllib.loads((made / "build.toml").read_text())["torch"]["stable-abi"]["cpu"].replace(".", "")
        native = f"torch-stable-abi{stable}-cpu-{platform.machine()}-{platform.system().lower()}"
        write_variant(made, native, "cpu", digest, native=True)
        write_variant(made, "torch-cpu", "cpu", digest)
        write_variant(made, "torch-cuda", "cuda", digest)
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(made, out)
    print(f"{out}: {', '.join(sorted(path.name for path in (out / 'build').iterdir()))}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to be made anew")
    main(parser.parse_args().out.resolve())
