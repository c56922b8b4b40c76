"""Things by their name, and how they are called in messages: names nobody knows, with the nearest one that exists, and numbers of
things."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from typing import Generic, TypeVar

from crossmodal.errors import UserError

Item = TypeVar("Item")


class Registry(dict[str, Item], Generic[Item]):
    """Things of one kind by name, in the order in which they were added.

    Args:
        what: the kind, for messages.
    """

    def __init__(self, what: str, items: dict[str, Item] | None = None) -> None:
        super().__init__(items or {})
        self.what = what

    def add(self, name: str, item: Item) -> None:
        """Raises ValueError where the name is taken."""
        if name in self:
            raise ValueError(f"{self.what} {name!r} is registered already")
        self[name] = item

    def find(self, name: str) -> Item:
        """Raises UserError where there is none of that name; the nearest is given."""
        if name not in self:
            raise UserError(unknown(self.what, name, self))
        return self[name]


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


def title(task: str, data: os.PathLike | str | None) -> str:
    """What titles call what is learned: the file or folder of data of one's own, else the task."""
    return task if data is None else os.path.basename(os.path.abspath(data))


def by_protocol(task: str, protocol: str) -> str:
    """How a task is called where its figures stand: with the protocol, if it has several."""
    return task if protocol == "default" else f"{task} ({protocol})"


def counted(count: int, things: str) -> str:
    """So many of them: `1 group`, `3 groups`."""
    return f"{count} {things.removesuffix('s') if count == 1 else things}"
