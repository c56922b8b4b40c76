"""The folder in which things that take long to make are kept between runs."""

from __future__ import annotations

import functools
import os
import warnings
from pathlib import Path

from crossmodal import files


def folder() -> Path:
    """``$PARE_CACHE_DIR``, else ``$XDG_CACHE_HOME/pare_kernels``, else ``~/.cache/pare_kernels``; it need not exist."""
    own = os.environ.get("PARE_CACHE_DIR")
    if own:
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path("~/.cache").expanduser()) / "pare_kernels"


def write(path: Path, text: str) -> None:
    """Write a cache file, whole or not at all; where that is impossible, warn once: it costs time, not the run."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, text)
    except OSError as error:
        _warn_once(str(path.parent), str(error))


@functools.cache
def _warn_once(place: str, reason: str) -> None:
    warnings.warn(
        f"the cache folder {place} cannot be written ({reason}); set PARE_CACHE_DIR to one that can", stacklevel=3
    )
