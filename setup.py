"""Build of pare_kernels (the operator) and crossmodal (the training code).

`pip install --no-build-isolation .` builds against the torch that is already installed.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "pare_kernels" / "_version.py").read_text(), re.M).group(1)

TRAIN = [
    "accelerate>=1.10",
    "jsonargparse[signatures]>=4.40",
    "matplotlib>=3.8",
    "numpy>=1.26",
    "pillow>=10",
    "safetensors>=0.5",
    "scikit-learn>=1.5",
    "scipy>=1.13",
    "tqdm>=4.66",
    "transformers>=5.0",
]
TEST = [
    "hypothesis>=6.100",
    "ninja",
    "pybind11>=2.13",
    "pytest>=8",
    "pytest-benchmark>=5",
    "pytest-cov>=5",
    "pytest-xdist>=3.5",
    "ruff",
    "triton>=3.6; platform_system == 'Linux'",
]

setup(
    name="pare-kernels",
    version=VERSION,
    description="Patch replacement for cross-modal fine-tuning: the fused operator and the training around it",
    long_description=(ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["pare_kernels", "pare_kernels.*"]) + find_packages("python"),
    package_dir={"crossmodal": "python/crossmodal"},
    package_data={"crossmodal": ["configs/*.yaml"]},
    install_requires=["torch>=2.10", *TRAIN],
    extras_require={"test": TEST},
    entry_points={
        "console_scripts": [
            "pare-train = crossmodal.cli:train",
            "pare-predict = crossmodal.cli:predict",
            "pare-compare = crossmodal.cli:compare",
        ]
    },
)
