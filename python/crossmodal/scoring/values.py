"""Metrics of values: regression and fields as a whole; distances of residues, protein by protein."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from crossmodal.errors import UserError
from crossmodal.scoring.metric import ZERO_NORM, Numbers, mean_of


def masked(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """(error, target, count), float64 (B, values), zero where a value does not count."""
    error, target = (outputs.double() - targets.double()).flatten(1), targets.double().flatten(1)
    count = torch.ones_like(target) if mask is None else mask.double().flatten(1)
    return error * count, target * count, count


def errors(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Per sample, float64 (B,): sums of squared and absolute errors, norm of the target, and how many values count."""
    error, target, count = masked(outputs, targets, mask)
    return {
        "squares": error.square().sum(1),
        "absolute": error.abs().sum(1),
        "norm": target.norm(dim=1),
        "count": count.sum(1),
    }


def mse(numbers: Numbers) -> float:
    return float(numbers["squares"].sum() / numbers["count"].sum())


def rmse(numbers: Numbers) -> float:
    return mse(numbers) ** 0.5


def mae(numbers: Numbers) -> float:
    return float(numbers["absolute"].sum() / numbers["count"].sum())


def relative_l2(numbers: Numbers) -> float:
    """A target of zeros (an empty mask) has no norm of its own: its error is taken relative to the root mean square of the
    norms of all targets. NaN where every target is zero."""
    norm = numbers["norm"]
    typical = np.sqrt(np.square(norm).mean())
    if typical == 0:
        return float("nan")
    return float((np.sqrt(numbers["squares"]) / np.where(norm > ZERO_NORM * typical, norm, typical)).mean())


def pairs(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Error and target of every value, float64 (B, values)."""
    error, target, _ = masked(outputs, targets, mask)
    return {"error": error, "truth": target}


def r2(numbers: Numbers) -> float:
    """NaN for fewer than two samples. A value that is constant counts 1 where it is met exactly, else 0, as in scikit-learn."""
    error, truth = numbers["error"], numbers["truth"]
    if len(truth) < 2:
        return float("nan")
    residual, spread = np.square(error).sum(0), np.square(truth - truth.mean(0)).sum(0)
    varies = (truth != truth[0]).any(0)
    scores = np.where(varies, 1 - residual / np.where(varies, spread, 1.0), residual == 0)
    return float(scores.mean())


# ----- distances of residues, protein by protein ---------------------------------------------------------------------------

APART, NEAR, SHORTEST = 24, 8.0, 0.01  # residues along the chain, and angstrom


def near_residues(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Per column of maps of distances (B, 1, L, L), counted from the first residue, sums of absolute errors and how many there are:
    over pairs at least 24 residues apart along the chain whose true distance is at most 8 angstrom, each once; predicted is the
    mean of both triangles."""
    if targets.ndim != 4 or targets.shape[1] != 1 or targets.shape[2] != targets.shape[3]:
        raise UserError(f"metric: mae_8 is of square maps, got targets of shape {tuple(targets.shape[1:])}")
    count = torch.ones_like(targets, dtype=torch.bool) if mask is None else mask
    found, true, count = outputs.double().squeeze(1), targets.double().squeeze(1), count.squeeze(1)
    found = (found + found.mT) / 2
    counts = count & (true <= NEAR) & torch.ones_like(count[0]).triu(APART)
    first = count.any(1).int().argmax(1)  # where the padding ends
    columns = (torch.arange(true.shape[2], device=true.device) + first[:, None]) % true.shape[2]
    sums = {"absolute": ((found - true).abs() * counts).sum(1), "count": counts.sum(1).double()}
    return {name: values.gather(1, columns) for name, values in sums.items()}


def near_mean(numbers: Numbers, length: int | None = None) -> float:
    """Mean over the proteins that have such a pair, among their first residues."""
    absolute, count = (numbers[name][:, :length].sum(1) for name in ("absolute", "count"))
    return mean_of(absolute[count > 0] / count[count > 0])


def near_residues_released(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """The public code overwrites the upper triangle by the mean of both, then takes the mean of both again."""
    upper = (outputs.double() + outputs.double().mT) / 2
    once = torch.where(torch.ones_like(upper[0], dtype=torch.bool).triu(), upper, outputs.double())
    return near_residues(once.clamp_min(SHORTEST), targets, mask)
