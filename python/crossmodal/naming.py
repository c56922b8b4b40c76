"""Messages about names nobody knows, with the nearest one that exists."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, valid: Iterable[str]) -> str:
    """`, did you mean 'x'?`, or an empty string where nothing comes near."""
    close = difflib.get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=0.6)
    return f", did you mean {close[0]!r}?" if close else ""


def unknown(what: str, name: str, valid: Iterable[str]) -> str:
    """Message for an unknown name: what it names, the nearest valid one, and all of them."""
    valid = list(valid)
    return f"{what}: unknown name {name!r}{nearest(name, valid)} (available: {', '.join(valid) or 'none'})"
