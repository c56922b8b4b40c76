"""Metrics of fields: a number for each channel of each frame."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from crossmodal.scoring.metric import ZERO_NORM, Numbers

LOW, MIDDLE = 4, 12  # the highest wave numbers of the two lower bands (Takamoto et al., NeurIPS 2022)


def errors(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
    """Errors, float64 (B, fields, *grid), zero where a value does not count."""
    error = outputs.double() - targets.double()
    return error if mask is None else error * mask


def root_mean_square(values: Tensor) -> Tensor:
    """Over the grid: (B, fields, ...) to (B, fields)."""
    return values.flatten(2).square().mean(2).sqrt()


def rmse(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    return {"error": root_mean_square(errors(outputs, targets, mask))}


def nrmse(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    targets = targets.double() if mask is None else targets.double() * mask
    return rmse(outputs, targets, mask) | {"size": root_mean_square(targets)}


def max(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    return {"error": errors(outputs, targets, mask).abs().flatten(2).amax(2)}


def boundary(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Over the outermost cells, each once: the two ends of a series, the edges of a square."""
    error = errors(outputs, targets, mask)
    edge = torch.ones(error.shape[2:], dtype=torch.bool, device=error.device)
    edge[(slice(1, -1),) * edge.ndim] = False
    return {"error": root_mean_square(error[:, :, edge])}


def conserved(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    return {"error": errors(outputs, targets, mask).flatten(2).mean(2).abs()}


def band(lowest: int, highest: float) -> Callable[[Tensor, Tensor, Tensor | None], dict[str, Tensor]]:
    """sqrt(sum |F(error)|^2 / N^2) over the wave numbers, of either sign, whose length rounded down is in the band: the squares of
    the three bands add up to that of the RMSE. (PDEBench divides by the number of wave numbers, too.)"""

    def of_samples(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        error = errors(outputs, targets, mask)
        axes = tuple(range(2, error.ndim))
        numbers = [torch.fft.fftfreq(size, 1 / size, device=error.device) for size in error.shape[2:]]
        length = sum(one.square() for one in torch.meshgrid(*numbers, indexing="ij")).sqrt().floor()
        band = (length >= lowest) & (length <= highest)
        spectrum = torch.fft.fftn(error, dim=axes, norm="forward")
        return {"error": spectrum[:, :, band].abs().square().sum(2).sqrt()}

    return of_samples


def mean(numbers: Numbers) -> float:
    return float(numbers["error"].mean())


def largest(numbers: Numbers) -> float:
    return float(numbers["error"].max())


def relative(numbers: Numbers) -> float:
    """A field of zeros is treated as in `values.relative_l2`, by what is typical of its channel and frame; one that is zero in
    every sample is left out."""
    size = numbers["size"]
    typical = np.sqrt(np.square(size).mean(0))
    some = typical > 0
    size, typical = size[:, some], typical[some]
    if not size.size:
        return float("nan")
    return float((numbers["error"][:, some] / np.where(size > ZERO_NORM * typical, size, typical)).mean())
