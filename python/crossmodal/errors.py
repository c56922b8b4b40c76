"""The one kind of error whose message is for the person who started the program."""

import contextlib
import warnings
from collections.abc import Iterator


class UserError(ValueError):
    """Something that a person can act on: what was wrong (key, file, place, value), what was expected, and often the remedy.

    The command line prints it as one message, without a traceback.
    """

    exit_code = 2


class MissingPackage(UserError):
    """What was asked for needs a package of an extra that is not installed."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what}: needs the package {package}, which is not installed; pip install 'pare-kernels[{extra}]'"
        )


@contextlib.contextmanager
def training_packages() -> Iterator[None]:
    """Says of a missing module that the extra "train" brings its package; other extras are asked for where they are used."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackage("crossmodal", str(error.name).partition(".")[0], "train") from error


@contextlib.contextmanager
def sparing(what: str) -> Iterator[None]:
    """Pictures and pages must not cost a run that is done: where memory, the disk or a font is at fault, it is warned of."""
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        said = f"{what}: could not be made ({type(error).__name__}: {error}); the run is whole without"
        warnings.warn(said, stacklevel=3)


class Interrupted(RuntimeError):
    """SIGTERM or Ctrl-C; the run was saved. `signum` says which."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum
