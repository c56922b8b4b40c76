"""Messages about names nobody knows, with the nearest one that exists."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, valid: Iterable[str]) -> str:
    """`, did you mean 'x'?`, or an empty string where nothing comes near."""
    close = difflib.get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=0.6)
    return f", did you mean {close[0]!r}?" if close else ""


def nearest_key(name: str, keys: Iterable[str]) -> str:
    """As `nearest`, for dotted keys: the one that ends alike, or one of the same group, else what the group holds."""
    group, _, last = name.rpartition(".")
    ends = {key: key.rpartition(".") for key in keys}
    alike = [key for key, (_, _, end) in ends.items() if end == last]
    if alike:
        return f", did you mean {alike[0]!r}?"
    siblings = {end: key for key, (inside, _, end) in ends.items() if group and inside == group}
    if not siblings:
        return nearest(name, ends)
    close = difflib.get_close_matches(last, siblings, n=1)
    return f", did you mean {siblings[close[0]]!r}?" if close else f" ({group} has {', '.join(siblings)})"


def unknown(what: str, name: str, valid: Iterable[str]) -> str:
    """Message for an unknown name: what it names, the nearest valid one, and all of them."""
    valid = list(valid)
    return f"{what}: unknown name {name!r}{nearest(name, valid)} (available: {', '.join(valid) or 'none'})"
