"""What readers that rest on somebody else's parser say of a file that this cannot read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from crossmodal.errors import UserError


@contextlib.contextmanager
def explained(path: Path, kind: str) -> Iterator[None]:
    """Turns whatever a parser raises for a file into a UserError that names it; what has its words already stays.

    Args:
        path: the file.
        kind: what it should be, with its article.

    Raises:
        UserError: no such file, no file of that kind, a damaged one, or one that takes more memory than is free.
        OSError: the disk fails, or forbids it.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except MemoryError:
        raise UserError(f"{path}: refused: its content does not fit into the memory that is free") from None
    except Exception as error:  # a damaged file raises whatever its bytes happen to say
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"{path}: not {kind}, or a damaged one: {str(error) or type(error).__name__}") from None
