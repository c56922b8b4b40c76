"""Predict with a finished run: python python/predict.py RUN inputs.npz -o out.npz"""

import sys
from pathlib import Path

# Works from a plain checkout too, where nothing is installed.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from crossmodal.cli import predict  # noqa: E402

if __name__ == "__main__":
    sys.exit(predict())
