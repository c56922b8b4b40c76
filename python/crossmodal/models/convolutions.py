"""Parts of convolutional networks for series and images alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

CONVOLUTION = {1: nn.Conv1d, 2: nn.Conv2d}
MAX_POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d}
AVERAGE_POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d}


class BatchNorm(_BatchNorm):
    """Batch norm of (B, C, ...). Where a channel has a single value, which deviates from nothing, the running statistics serve."""

    def _check_input_dim(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a model looks at the other samples of a batch."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def has_dropout(model: nn.Module) -> bool:
    """Whether values are dropped while a model trains."""
    return any(isinstance(module, _DropoutNd) and module.p > 0 for module in model.modules())


@contextmanager
def settling(model: nn.Module) -> Iterator[None]:
    """Running statistics of batch norm are taken anew from what passes a model meanwhile, each batch with the same weight, without
    dropout; afterwards the model is in evaluation mode.

    Those that training leaves are of values that dropout spread: with it in front of batch norm a deep network gives nearly the
    same outputs for all samples (Li et al., CVPR 2019). And where weights are averaged, they belong to other weights.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    usual = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    yield
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    model.eval()


class SameConv(nn.Module):
    """A convolution that keeps the grid, (B, before, *grid) to (B, after, *grid), or divides it by the stride, rounding up.

    Args:
        ndim: axes of the grid.
        before, after: channels.
        kernel: length along each axis; of an even one the later half is longer by one.
        stride, dilation, bias: as in torch.
    """

    def __init__(
        self, ndim: int, before: int, after: int, kernel: int, stride: int = 1, dilation: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.ndim, reach = ndim, dilation * (kernel - 1)
        self.uneven = bool(reach % 2)
        self.conv = CONVOLUTION[ndim](before, after, kernel, stride, reach // 2, dilation, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1) * self.ndim) if self.uneven else x)


class Head(nn.Module):
    """Outputs (B, K) of the mean of features (B, C, *grid), or of each place (B, K, *grid)."""

    def __init__(self, ndim: int, channels: int, num_outputs: int, dense: bool) -> None:
        super().__init__()
        self.dense = dense
        self.map = CONVOLUTION[ndim](channels, num_outputs, 1) if dense else nn.Linear(channels, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x if self.dense else x.flatten(2).mean(2))


def drop_path(x: Tensor, share: float) -> Tensor:
    """Leaves out that share of the samples, the others made larger by as much (Larsson et al., ICLR 2017)."""
    kept = x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(1 - share)
    return x * kept / (1 - share)
