"""Started by `test_trainer`: train.py, whose last process meets a signal at a step.

    stop.py SETTINGS STEP SIGNAL

The others, where there are any, have to be told by it.
"""

import os
import signal
import sys

import pytest

from crossmodal import cli
from tests.crossmodal.runs import stop_at

if __name__ == "__main__":
    path, step, signum = sys.argv[1], int(sys.argv[2]), signal.Signals[sys.argv[3]]
    is_last = int(os.environ.get("RANK", "0")) + 1 == int(os.environ.get("WORLD_SIZE", "1"))
    with pytest.MonkeyPatch.context() as patch:
        if is_last:
            stop_at(patch, step, lambda: os.kill(os.getpid(), signum))
        sys.exit(cli.train(["--config", path]))
