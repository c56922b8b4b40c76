"""Networks of the cells of DARTS (Liu et al., ICLR 2019), and the one in which PC-DARTS (Xu et al., ICLR 2020) looks for them.

For series and images, point and dense targets; of the latter no cell makes the grid coarser, and channels stay as many.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossmodal.models.base import Model, ParameterGroups
from crossmodal.models.convolutions import AVERAGE_POOL, CONVOLUTION, MAX_POOL, BatchNorm, Head, drop_path

OPERATIONS = (
    "none",
    "max_pool_3",
    "avg_pool_3",
    "skip",
    "sep_conv_3",
    "sep_conv_5",
    "dil_conv_3",
    "dil_conv_5",
)
NODES = 4  # of a cell, beside its two inputs
PARTIAL = 4  # one channel in so many goes through the operations that are searched among
STEM = 3  # channels of the stem, in channels of the first cell
Genotype = dict[
    str, list[tuple[str, int]]
]  # "normal" and "reduce": for each node two operations and the state each starts from


class FactorizedReduction(nn.Module):
    """Half the grid, rounded up, from the even and the odd places: (B, before, *grid) to (B, after, *grid / 2)."""

    def __init__(self, ndim: int, before: int, after: int, affine: bool) -> None:
        super().__init__()
        self.ndim = ndim
        self.even = CONVOLUTION[ndim](before, after // 2, 1, stride=2, bias=False)
        self.odd = CONVOLUTION[ndim](before, after - after // 2, 1, stride=2, bias=False)
        self.norm = BatchNorm(after, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        shifted = F.pad(x, (0, 1) * self.ndim)[(..., *[slice(1, None)] * self.ndim)]
        return self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))


def _convolution(
    ndim: int, before: int, after: int, affine: bool, kernel: int = 1, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """ReLU, a convolution (of more than one value: by channel, then of one value) and norm."""
    layers: list[nn.Module] = [nn.ReLU()]
    if kernel > 1:
        padding = dilation * (kernel // 2)
        layers.append(CONVOLUTION[ndim](before, before, kernel, stride, padding, dilation, before, bias=False))
    return nn.Sequential(*layers, CONVOLUTION[ndim](before, after, 1, bias=False), BatchNorm(after, affine=affine))


def operation(name: str, ndim: int, channels: int, stride: int, affine: bool) -> nn.Module:
    """An operation (B, channels, *grid) to (B, channels, *grid / stride)."""
    kind, _, length = name.rpartition("_")
    if name == "skip":
        return nn.Identity() if stride == 1 else FactorizedReduction(ndim, channels, channels, affine)
    if kind == "max_pool":
        return MAX_POOL[ndim](int(length), stride, padding=1)
    if kind == "avg_pool":
        return AVERAGE_POOL[ndim](int(length), stride, padding=1, count_include_pad=False)
    if kind == "dil_conv":
        return _convolution(ndim, channels, channels, affine, int(length), stride, dilation=2)
    first = _convolution(ndim, channels, channels, affine, int(length), stride)
    return nn.Sequential(*first, *_convolution(ndim, channels, channels, affine, int(length)))


class Edge(nn.Module):
    """All operations between two states of a cell, weighted; on a part of the channels, which are then shuffled (PC-DARTS)."""

    def __init__(self, ndim: int, channels: int, stride: int) -> None:
        super().__init__()
        self.part = channels // PARTIAL
        self.operations = nn.ModuleList()
        for name in OPERATIONS[1:]:
            found = operation(name, ndim, self.part, stride, affine=False)
            # Pools come with no norm of their own, and would weigh more than the others.
            norm = BatchNorm(self.part, affine=False) if "pool" in name else nn.Identity()
            self.operations.append(nn.Sequential(found, norm))
        self.rest = nn.Identity() if stride == 1 else MAX_POOL[ndim](2, 2, ceil_mode=True)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """weights: (len(OPERATIONS),); the first is that of "none"."""
        taken, rest = x[:, : self.part], self.rest(x[:, self.part :])
        mixed = sum(weight * one(taken) for weight, one in zip(weights[1:], self.operations, strict=True))
        whole = torch.cat([mixed, rest], dim=1)
        return whole.unflatten(1, (PARTIAL, -1)).transpose(1, 2).flatten(1, 2)


class Cell(nn.Module):
    """Four nodes, each the sum of what comes over the edges to it; their states together are (B, 4 * channels, *grid).

    Args:
        ndim: axes of the grid.
        before: channels of the two inputs.
        channels: of a node.
        reduces: whether the grid is halved.
        after_reduction: whether the first input has the grid from before the last cell's reduction.
        chosen: operations and where they start, two for each node; None: all, from all states.
        dropped: share of the operations left out while training.
    """

    def __init__(
        self,
        ndim: int,
        before: tuple[int, int],
        channels: int,
        reduces: bool,
        after_reduction: bool,
        chosen: Sequence[tuple[str, int]] | None,
        dropped: float = 0.0,
    ) -> None:
        super().__init__()
        affine = chosen is not None
        self.dropped = dropped
        self.first = (
            FactorizedReduction(ndim, before[0], channels, affine)
            if after_reduction
            else _convolution(ndim, before[0], channels, affine)
        )
        self.second = _convolution(ndim, before[1], channels, affine)
        self.starts = [one for _, one in chosen] if chosen else [one for n in range(NODES) for one in range(2 + n)]
        strides = [2 if reduces and start < 2 else 1 for start in self.starts]
        self.edges = nn.ModuleList(
            operation(chosen[number][0], ndim, channels, stride, affine) if chosen else Edge(ndim, channels, stride)
            for number, stride in enumerate(strides)
        )
        self.ends = [n for n in range(NODES) for _ in range(2 if chosen else 2 + n)]

    def forward(self, first: Tensor, second: Tensor, weights: Sequence[Tensor] | None = None) -> Tensor:
        """weights: of the operations of each edge, (edges, len(OPERATIONS)), and of the edges to each node, (NODES, NODES + 1)."""
        states = [self.first(first), self.second(second)]
        for node in range(NODES):
            found = []
            for number in (number for number, end in enumerate(self.ends) if end == node):
                start, edge = self.starts[number], self.edges[number]
                if weights is not None:
                    found.append(weights[1][node, start] * edge(states[start], weights[0][number]))
                    continue
                one = edge(states[start])
                if self.training and self.dropped and not isinstance(edge, nn.Identity):
                    one = drop_path(one, self.dropped)
                found.append(one)
            states.append(sum(found))
        return torch.cat(states[2:], dim=1)


class _Cells(nn.Module):
    """Stem, cells and head; the grid is halved and the channels doubled after each third of the cells."""

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        dense: bool,
        cells: int,
        channels: int,
        genotype: Genotype | None,
        dropped: float = 0.0,
    ) -> None:
        super().__init__()
        ndim = len(input_shape) - 1
        before = (STEM * channels, STEM * channels)
        self.stem = nn.Sequential(
            CONVOLUTION[ndim](input_shape[0], before[0], 3, padding=1, bias=False), BatchNorm(before[0])
        )
        self.cells, self.reduces = nn.ModuleList(), []
        for number in range(cells):
            reduces = not dense and number in (cells // 3, 2 * cells // 3)
            channels *= 2 if reduces else 1
            chosen = genotype and genotype["reduce" if reduces else "normal"]
            after = bool(self.reduces) and self.reduces[-1]
            self.cells.append(Cell(ndim, before, channels, reduces, after, chosen, dropped))
            self.reduces.append(reduces)
            before = (before[1], NODES * channels)
        self.head = Head(ndim, before[1], num_outputs, dense)

    def forward(self, x: Tensor, weights: dict[str, Sequence[Tensor]] | None = None) -> Tensor:
        first = second = self.stem(x)
        for cell, reduces in zip(self.cells, self.reduces, strict=True):
            kind = "reduce" if reduces else "normal"
            first, second = second, cell(first, second, weights and weights[kind])
        return self.head(second)


class CellNetwork(Model, name="cells"):
    """Outputs (B, K) of samples (B, *input_shape), or fields (B, K, *grid), by cells of a genotype.

    Args:
        input_shape: (C, L) or (C, H, W).
        num_outputs: K.
        dense: whether outputs are fields.
        cells: how many.
        channels: of a node of the first cells.
        genotype: operations of the normal and the reduction cell, see `Genotype`.
        dropped: share of the operations, by sample, left out while training.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        dense: bool,
        cells: int,
        channels: int,
        genotype: Genotype,
        dropped: float = 0.0,
    ) -> None:
        super().__init__()
        self.network = _Cells(input_shape, num_outputs, dense, cells, channels, genotype, dropped)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class CellSearch(Model, name="cell_search"):
    """All operations on all edges, weighted. The weights of the operations of an edge, and of the edges to a node, are on a simplex
    and come as they are, without a softmax. It is searched in, and not saved.

    Args:
        input_shape, num_outputs, dense, cells, channels: see `CellNetwork`.

    Attributes:
        normal_operations, reduce_operations: (edges, len(OPERATIONS)), each row on the simplex; the second where a cell reduces.
        normal_edges, reduce_edges: (NODES, NODES + 1), each row on the simplex; zero where a node has no such edge.
    """

    def __init__(self, input_shape: Sequence[int], num_outputs: int, dense: bool, cells: int, channels: int) -> None:
        super().__init__()
        self.network = _Cells(input_shape, num_outputs, dense, cells, channels, None)
        edges = torch.tensor(
            [[1 / (2 + node) if start < 2 + node else 0.0 for start in range(NODES + 1)] for node in range(NODES)]
        )
        operations = torch.full((sum(range(2, NODES + 2)), len(OPERATIONS)), 1 / len(OPERATIONS))
        self.kinds = ("normal", "reduce") if any(self.network.reduces) else ("normal",)
        for kind in self.kinds:
            self.register_parameter(f"{kind}_operations", nn.Parameter(operations.clone()))
            self.register_parameter(f"{kind}_edges", nn.Parameter(edges.clone()))

    @property
    def architecture(self) -> dict[str, nn.Parameter]:
        """What is searched for, by its name in the module."""
        return {name: one for name, one in self.named_parameters() if not name.startswith("network.")}

    def parameter_groups(self) -> ParameterGroups:
        return ParameterGroups([list(self.architecture.values())], list(self.network.parameters()))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x, {kind: self._weights(kind) for kind in self.kinds})

    def _weights(self, kind: str) -> tuple[Tensor, Tensor]:
        return getattr(self, f"{kind}_operations"), getattr(self, f"{kind}_edges")

    def genotype(self) -> Genotype:
        """Of each node the two edges with the greatest weight, and the operation, but "none", that has it."""
        found: Genotype = {}
        for kind in self.kinds:
            operations, edges = (one.detach() for one in self._weights(kind))
            found[kind], row = [], 0
            for node in range(NODES):
                weights = operations[row : row + 2 + node, 1:] * edges[node, : 2 + node, None]
                row += 2 + node
                best, which = weights.max(1)
                for start in best.argsort(descending=True, stable=True)[:2].tolist():
                    found[kind].append((OPERATIONS[1 + int(which[start])], start))
        return found
