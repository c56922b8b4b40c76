"""What a run can end with, beside a mistake in its settings or data (ValueError, TypeError, OSError)."""

from __future__ import annotations


class RunFolderError(RuntimeError):
    """The output folder holds something that must not be overwritten, does not fit, or cannot be written."""


class CheckpointError(RuntimeError):
    """A checkpoint that is damaged, or does not fit the run."""


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient became NaN or infinite."""


class Interrupted(RuntimeError):
    """SIGTERM or Ctrl-C; the run was saved. `signum` says which."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum
