"""Kinds of target, which decide on heads, losses and metrics."""

from __future__ import annotations

from typing import Literal, get_args

Kind = Literal["classification", "multilabel", "regression", "dense"]
KINDS: tuple[str, ...] = get_args(Kind)
POINT_KINDS = ("classification", "multilabel", "regression")  # one target for a sample, not one for each place in it
LABEL_KINDS = ("classification", "multilabel")  # whose targets are classes
REAL_KINDS = ("regression", "dense")  # whose targets are real numbers, which are normalised
