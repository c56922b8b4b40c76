"""Thresholds: the probability above which a label, or the second of two classes, is predicted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossmodal.data.readers.tables import shown
from crossmodal.errors import UserError


def _f1(both: np.ndarray, found: np.ndarray, having: int, total: int) -> np.ndarray:
    return 2 * both / (found + having)


def _balanced_accuracy(both: np.ndarray, found: np.ndarray, having: int, total: int) -> np.ndarray:
    return (both / having + 1 - (found - both) / (total - having)) / 2


# What a threshold can be chosen by: from how many that are found have the label, how many are found, how many have it, and of
# how many.
CHOICES = {"f1": _f1, "balanced_accuracy": _balanced_accuracy}
FURTHEST = 25.0  # logit; the probability is then 1 to eleven digits


def given(asked: str | None, task) -> tuple[float, ...]:
    """The thresholds that settings name; none where they are to be chosen, or not asked for.

    Args:
        asked: a name of `CHOICES`, or a number for each label (of two classes for the second) separated by commas, or None.
        task: `tasks.Task`.

    Raises:
        UserError: not for this target, not as many numbers, or the test part is all that could choose them.
    """
    if asked is None:
        return ()
    if task.kind != "multilabel" and (task.kind, task.num_outputs) != ("classification", 2):
        what = f"{task.num_outputs} classes" if task.kind == "classification" else f"{task.kind} targets"
        raise UserError(f"thresholds: they are for labels and for two classes, {task.title} has {what}")
    if asked in CHOICES:
        if task.protocol == "released":
            raise UserError(
                "thresholds: by the protocol released the test samples validate, and these must not choose them"
            )
        return ()
    count = task.num_outputs if task.kind == "multilabel" else 1
    try:
        found = tuple(float(word) for word in asked.split(","))
    except ValueError:
        found = ()
    if len(found) != count or not all(0 < one < 1 for one in found):
        numbers = "a number" if count == 1 else f"{count} numbers separated by commas,"
        raise UserError(f"thresholds: expected {', '.join(CHOICES)} or {numbers} between 0 and 1, got {asked!r}")
    return found


def chosen(evaluate: Callable[[Any, Any], Any], task, by: str) -> tuple[float, ...]:
    """The thresholds that are best on the validation part.

    Args:
        evaluate: `training.evaluation.Evaluation` of a data set, scored as a task says.
        task: the task.
        by: a name of `CHOICES`.
    """
    asked = dataclasses.replace(task, metrics=("auroc",), thresholds=())
    numbers = evaluate(task.validation, asked).numbers["auroc"]
    of = slice(1, None) if task.kind == "classification" else slice(None)
    columns = zip(numbers["truth"].T[of], numbers["probability"].T[of], strict=True)
    return tuple(best(truth, probability, by) for truth, probability in columns)


def best(truth: np.ndarray, probability: np.ndarray, by: str) -> float:
    """The threshold that is best for one label.

    It is 1/2 where no other is better, or nothing can be said: where all samples have the label, or none. Else it lies in the
    middle, by logits, between two samples, of several equally good ones nearest to 1/2.

    Args:
        truth: bool (n,).
        probability: float64 (n,).
        by: a name of `CHOICES`.
    """
    having, total = int(truth.sum()), len(truth)
    if not 0 < having < total or np.isnan(probability).any():
        return 0.5
    with np.errstate(divide="ignore"):
        logit = np.clip(np.log(probability) - np.log1p(-probability), -FURTHEST, FURTHEST)
    levels = np.unique(logit)
    cuts = np.concatenate([[levels[0] - 1], (levels[1:] + levels[:-1]) / 2, [levels[-1] + 1], [0.0]])
    order = np.argsort(logit)
    below = np.searchsorted(logit[order], cuts, side="right")  # a probability at the threshold is not above it
    both = having - np.concatenate([[0], np.cumsum(truth[order])])[below]
    score = CHOICES[by](both, total - below, having, total)
    candidates = cuts[score >= score.max() - 1e-12]
    return float(1 / (1 + np.exp(-candidates[np.abs(candidates).argmin()])))


def shift(kind: str, thresholds: tuple[float, ...]) -> Tensor | None:
    """What is taken from logits so that 1/2 is the threshold of each: float64 (K,); None where there are no thresholds."""
    if not thresholds:
        return None
    logits = torch.tensor(thresholds, dtype=torch.float64).logit()
    return torch.cat([logits.new_zeros(1), logits]) if kind == "classification" else logits


def said(names: tuple[str, ...], values: tuple[float, ...]) -> str:
    """Thresholds in words."""
    named = [names[-1]] if len(values) == 1 < len(names) else names or [str(place) for place in range(len(values))]
    return shown([f"{name} {value:.3g}" for name, value in zip(named, values, strict=True)])
