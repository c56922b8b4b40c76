"""Run tasks x methods x seeds and print one table: python python/compare.py --help"""

import sys
from pathlib import Path

# Works from a plain checkout too, where nothing is installed.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from crossmodal.cli import compare  # noqa: E402

if __name__ == "__main__":
    sys.exit(compare())
