"""The one kind of error whose message is for the person who started the program."""


class UserError(ValueError):
    """Something that a person can act on: what was wrong (key, file, place, value), what was expected, and often the remedy.

    The command line prints it as one message, without a traceback.
    """

    exit_code = 2


class Interrupted(RuntimeError):
    """SIGTERM or Ctrl-C; the run was saved. `signum` says which."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum
