"""Started by `test_trainer` in several processes: the run of a settings file is stopped at a step, resumed, and ended."""

import os
import signal
import sys

import pytest

from crossmodal import parsing, run
from crossmodal.training.trainer import Interrupted
from tests.crossmodal.runs import fresh_accelerator, stop_at

if __name__ == "__main__":
    settings, step = parsing.load(sys.argv[1]), int(sys.argv[2])
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            run.train(settings)
    fresh_accelerator()
    run.train(settings)
