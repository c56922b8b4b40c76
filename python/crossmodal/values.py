"""Values of settings: from YAML, a command line or Python to their type, within their range, or an error that names the key."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import yaml

from crossmodal.errors import UserError


@dataclass(frozen=True)
class Range:
    """Which numbers a setting may have, in words and as a test."""

    words: str
    holds: Callable[[float], bool]


_ABOVE_0, _FROM_0 = Range("> 0", lambda value: value > 0), Range(">= 0", lambda value: value >= 0)
Count = Annotated[int, _ABOVE_0]
Whole = Annotated[int, _FROM_0]
Positive = Annotated[float, _ABOVE_0]
NotNegative = Annotated[float, _FROM_0]
Fraction = Annotated[float, Range("from 0 to 1", lambda value: 0 <= value <= 1)]
BelowOne = Annotated[float, Range(">= 0 and < 1", lambda value: 0 <= value < 1)]
Share = Annotated[float, Range("> 0 and < 1", lambda value: 0 < value < 1)]
Factor = Annotated[float, Range("> 0 and <= 1", lambda value: 0 < value <= 1)]
Seed = Annotated[int, Range("from 0 to 2^31 - 1", lambda value: 0 <= value < 2**31)]


@functools.cache
def hints(section: type) -> dict[str, Any]:
    """The type of each setting of a dataclass, sections within it left out."""
    found = typing.get_type_hints(section, include_extras=True)
    return {name: kind for name, kind in found.items() if not dataclasses.is_dataclass(kind) and kind is not Any}


def settle(section: Any, prefix: str = "") -> None:
    """Brings the settings of a dataclass to their types.

    Raises:
        UserError: see `converted`.
    """
    for name, kind in hints(type(section)).items():
        object.__setattr__(section, name, converted(f"{prefix}{name}", getattr(section, name), kind))


def converted(key: str, value: Any, kind: Any) -> Any:
    """A value from YAML or Python, or a text from the command line, in its type.

    Raises:
        UserError: it is of another type, or out of range; names the key.
    """
    try:
        return _converted(value, kind)
    except _Mismatch:
        raise UserError(f"{key}: expected {expected(kind)}, got {value!r}") from None


class _Mismatch(Exception):
    """A value that is not of its key's type."""


def _converted(value: Any, kind: Any) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        for one in inner:
            try:
                return _converted(value, one)
            except _Mismatch:
                continue
    elif origin is Annotated:
        value = _converted(value, inner[0])
        if inner[1].holds(value):
            return value
    elif origin is Literal:
        if value in inner:
            return value
    elif origin is tuple:
        parts = _list(value)
        if parts is not None and (inner[-1] is ... or len(parts) == len(inner)):
            return tuple(_converted(part, inner[0]) for part in parts)  # all of one type
    elif kind is type(None):
        if value is None or value == "null":
            return None
    elif kind is bool:
        if isinstance(value, bool) or value in ("true", "false"):
            return value in (True, "true")
    elif kind in (int, float):
        if not isinstance(value, bool) and isinstance(value, (int, str) if kind is int else (int, float, str)):
            try:
                number = kind(value)
            except (ValueError, OverflowError):
                raise _Mismatch from None
            if math.isfinite(number):
                return number
    elif kind is str and isinstance(value, str | os.PathLike):
        return os.fspath(value)
    raise _Mismatch


def _list(value: Any) -> list | None:
    if isinstance(value, str):
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError:
            return None
    return list(value) if isinstance(value, list | tuple) else None


def expected(kind: Any) -> str:
    """A type in words."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(expected, inner))
    if origin is Annotated:
        return f"{expected(inner[0])} {inner[1].words}"
    if origin is Literal:
        return " or ".join(inner)
    if origin is tuple:
        return f"a list in brackets, like [0.5,0.9], each {expected(inner[0])}"
    return {type(None): "null", bool: "true or false", int: "int", float: "float", str: "text"}[kind]


def shown(value: Any) -> str:
    """A value as it is written in YAML and on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(list(value)) if isinstance(value, tuple) else str(value)
