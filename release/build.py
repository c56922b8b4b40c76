"""Builds what a release consists of, to the same bytes each time: python release/build.py dist

The sdist holds the tracked files that MANIFEST.in names. The wheel is built from the sdist, so what the sdist lacks shows here, and
auditwheel gives it the tag of the oldest glibc that it promises, or says which symbol or library forbids that. Times in both are
those of the last commit (SOURCE_DATE_EPOCH overrides them).

With --cross aarch64=FOLDER the wheel is for that kind of CPU, by the compiler aarch64-linux-gnu-g++, linked to the torch that was
unpacked into FOLDER from its wheel for it.
"""

import argparse
import gzip
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from setuptools import build_meta

ROOT = Path(__file__).resolve().parents[1]
BASELINE = "manylinux_2_28"


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def repack(archive: Path, out: Path, time: int) -> None:
    """The same files in order of their names, with one owner, one time and plain permissions."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = time
        member.pax_headers = {}  # the same times, to the nanosecond
        member.mode = 0o755 if member.mode & 0o100 else 0o644
        return member

    with (
        tarfile.open(archive) as source,
        gzip.GzipFile(out, "wb", mtime=time) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as target,
    ):
        for member in sorted(source.getmembers(), key=lambda member: member.name):
            target.addfile(plain(member), source.extractfile(member))


def build_sdist(folder: Path, out: Path) -> Path:
    """The sdist of the tracked files, made in `folder`: a tree without what was built, and without the lists of earlier builds."""
    tree = folder / "tree"
    for name in filter(None, git("ls-files", "-z").split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    os.chdir(tree)
    name = build_meta.build_sdist(str(folder), {"--global-option": ["--quiet"]})
    repack(folder / name, out / name, int(os.environ["SOURCE_DATE_EPOCH"]))
    return out / name


def build_wheel(sdist: Path, folder: Path, out: Path, machine: str, torch: str) -> None:
    """The wheel for `machine`; cross-compiled if `torch` names the folder that holds torch for it."""
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    if torch:
        compiler = f"{machine}-linux-gnu-g++"
        environment |= {
            "CXX": compiler,
            "LDCXXSHARED": f"{compiler} -shared",
            "LDFLAGS": f"-L{Path(torch).resolve() / 'torch' / 'lib'}",  # the linker skips those of this machine's torch
            "_PYTHON_HOST_PLATFORM": f"linux-{machine}",
        }

    def run(module: str, *arguments: object) -> str:
        words = [sys.executable, "-m", module, *map(str, arguments)]
        return subprocess.run(words, check=True, env=environment, text=True, stdout=subprocess.PIPE).stdout

    pip = "--disable-pip-version-check", "--quiet", "wheel", "--no-deps", "--no-build-isolation"
    run("pip", *pip, "-w", folder, sdist)
    (wheel,) = folder.glob("*.whl")
    if wheel.name.endswith("-any.whl"):
        sys.exit("the wheel has no C++ kernels: pip's output (PARE_KERNELS_NO_EXT unset, --verbose) says why")
    tag = f"{BASELINE}_{machine}"
    if not torch:
        excluded = [word for library in ("libtorch*", "libc10*") for word in ("--exclude", library)]
        run("auditwheel", "repair", "--plat", tag, "--only-plat", *excluded, "-w", out, wheel)
        return
    said = run("auditwheel", "show", wheel)  # it repairs wheels of its own machine alone, but reads others
    needed = re.search(rf"manylinux_2_(\d+)_{machine}", said)
    if not needed or int(needed[1]) > int(BASELINE.rpartition("_")[2]):
        sys.exit(f"{wheel.name} needs more than {BASELINE}:\n{said}")
    run("wheel", "tags", "--remove", "--platform-tag", tag, wheel)
    (wheel,) = folder.glob("*.whl")
    shutil.move(wheel, out / wheel.name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the sdist and the wheel")
    parser.add_argument("--cross", default=platform.machine(), metavar="MACHINE=FOLDER", help="see above")
    options = parser.parse_args()
    out = options.out.resolve()
    machine, _, torch = options.cross.partition("=")
    out.mkdir(parents=True, exist_ok=True)
    os.umask(0o022)
    os.environ.setdefault("SOURCE_DATE_EPOCH", git("log", "-1", "--format=%ct").strip())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        build_wheel(build_sdist(folder, out), folder, out, machine, torch)
