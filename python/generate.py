"""Solutions of an equation, as PDEBench stores them: python python/generate.py burgers --samples 1000 -o burgers.hdf5"""

import sys
from pathlib import Path

# Works from a plain checkout too, where nothing is installed.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from crossmodal.cli import generate  # noqa: E402

if __name__ == "__main__":
    sys.exit(generate())
