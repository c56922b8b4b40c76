"""A small set in the public format of a task, to try it with: python python/miniature.py cifar100 -o small"""

import sys
from pathlib import Path

# Works from a plain checkout too, where nothing is installed.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from crossmodal.cli import miniature  # noqa: E402

if __name__ == "__main__":
    sys.exit(miniature())
