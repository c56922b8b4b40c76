"""Fine-tune a pretrained encoder on a modality it never saw: python python/train.py --help"""

import sys
from pathlib import Path

# Works from a plain checkout too, where nothing is installed.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from crossmodal.cli import train  # noqa: E402

if __name__ == "__main__":
    sys.exit(train())
