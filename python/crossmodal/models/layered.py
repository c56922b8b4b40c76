"""Layers of which each has an operation and takes what earlier ones left: the search space of AMBER (Zhang et al., Nature Machine
Intelligence 2021), and the recurrent controller that looks for them in shared weights (ENAS, Pham et al., ICML 2018).

For series and images, point and dense targets; of the latter the grid stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossmodal.models.base import Model, ParameterGroups
from crossmodal.models.convolutions import AVERAGE_POOL, CONVOLUTION, MAX_POOL, BatchNorm, Head, SameConv

# Kernel length and dilation, or the pool.
OPERATIONS = ((8, 1), (4, 1), (8, 10), (4, 10), "max_pool", "avg_pool", "identity")
LAYERS, WIDENED = 12, (2, 5, 8)  # after these the channels double, and the grid is divided by 4
FIRST, HIDDEN, POOL = 32, 925, 4
Architecture = list[
    list[int]
]  # of each layer its operation and, for each layer before it, whether that is added (0 or 1)


class _Operation(nn.Module):
    """An operation, batch norm and ReLU, (B, channels, *grid) to the same; pools have a convolution of one value before them."""

    def __init__(self, ndim: int, channels: int, kind: str | tuple[int, int]) -> None:
        super().__init__()
        self.pools, self.ndim = kind in ("max_pool", "avg_pool"), ndim
        if isinstance(kind, tuple):
            self.body: nn.Module = SameConv(ndim, channels, channels, kind[0], dilation=kind[1])
        elif kind == "identity":
            self.body = nn.Identity()
        else:
            pool = (MAX_POOL if kind == "max_pool" else AVERAGE_POOL)[ndim]
            self.body = pool(POOL, 1)
            self.before = CONVOLUTION[ndim](channels, channels, 1, bias=False)
        self.norm = BatchNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.pools:  # of even length, and the grid is kept
            x = F.pad(self.before(x), (1, 2) * self.ndim, mode="replicate")
        return F.relu(self.norm(self.body(x)))


class _Layers(nn.Module):
    """Stem, layers and head; with what one architecture needs, or all of them (None)."""

    def __init__(
        self, input_shape: Sequence[int], num_outputs: int, dense: bool, architecture: Architecture | None
    ) -> None:
        super().__init__()
        ndim, channels = len(input_shape) - 1, FIRST
        grid = list(input_shape[1:])
        self.stem = nn.Sequential(SameConv(ndim, input_shape[0], channels, 8), BatchNorm(channels), nn.ReLU())
        self.layers, self.widening = nn.ModuleList(), nn.ModuleDict()
        for number in range(LAYERS):
            offered = architecture[number][:1] if architecture else range(len(OPERATIONS))
            self.layers.append(
                nn.ModuleDict({str(one): _Operation(ndim, channels, OPERATIONS[one]) for one in offered})
            )
            if number in WIDENED:
                pool = nn.Identity() if dense else MAX_POOL[ndim](POOL, POOL, ceil_mode=True)
                # One for each layer whose output is still asked for.
                later = architecture[number + 1 :] if architecture else [[1] * LAYERS]
                asked = [one for one in range(number + 1) if one == number or any(row[1 + one] for row in later)]
                self.widening[str(number)] = nn.ModuleDict(
                    {
                        str(one): nn.Sequential(
                            pool,
                            CONVOLUTION[ndim](channels, 2 * channels, 1, bias=False),
                            BatchNorm(2 * channels),
                        )
                        for one in asked
                    }
                )
                channels *= 2
                grid = grid if dense else [-(-side // POOL) for side in grid]
        if dense:
            self.head: nn.Module = Head(ndim, channels, num_outputs, dense)
        else:
            values = channels * torch.Size(grid).numel()
            self.head = nn.Sequential(
                nn.Flatten(), nn.Linear(values, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, num_outputs)
            )

    def forward(self, x: Tensor, architecture: Architecture) -> Tensor:
        x, before = self.stem(x), {}
        for number, (operation, *taken) in enumerate(architecture):
            x = self.layers[number][str(operation)](x)
            x = x + sum(before[str(one)] for one, take in enumerate(taken) if take)
            before[str(number)] = x
            if number in WIDENED:
                before = {one: widen(before[one]) for one, widen in self.widening[str(number)].items()}
                x = before[str(number)]
        return self.head(x)


class LayeredNetwork(Model, name="layered"):
    """Outputs (B, K) of samples (B, *input_shape), or fields (B, K, *grid).

    Args:
        input_shape: (C, L) or (C, H, W).
        num_outputs: K.
        dense: whether outputs are fields.
        architecture: see `Architecture`.
    """

    def __init__(self, input_shape: Sequence[int], num_outputs: int, dense: bool, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.network = _Layers(input_shape, num_outputs, dense, self.architecture)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x, self.architecture)


class Controller(nn.Module):
    """Draws architectures, one decision after the other, by a recurrent network."""

    def __init__(self) -> None:
        super().__init__()
        width = 64
        self.cell = nn.LSTMCell(width, width)
        self.start = nn.Parameter(torch.empty(1, width))
        self.embedding = nn.Embedding(len(OPERATIONS), width)
        self.operation = nn.Linear(width, len(OPERATIONS), bias=False)
        self.earlier, self.now = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.taken = nn.Linear(width, 1, bias=False)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    def forward(self) -> tuple[Architecture, Tensor, Tensor]:
        """An architecture drawn with torch's generator, the logarithm of its probability, and the logits of all connections."""
        inputs, state = self.start, None
        architecture, logarithm, connections, anchors = [], self.start.new_zeros(()), [], []
        for layer in range(LAYERS):
            state = self.cell(inputs, state)
            drawn = torch.distributions.Categorical(logits=self._bounded(self.operation(state[0])[0]))
            operation = drawn.sample()
            logarithm = logarithm + drawn.log_prob(operation)
            inputs, row = self.embedding(operation)[None], [int(operation)]
            state = self.cell(inputs, state)
            if layer:
                found = torch.tanh(torch.cat([self.earlier(one) for one in anchors]) + self.now(state[0]))
                logits = self._bounded(self.taken(found)[:, 0])
                kept = torch.distributions.Bernoulli(logits=logits)
                taken = kept.sample()
                logarithm = logarithm + kept.log_prob(taken).sum()
                connections.append(logits)
                row += [int(one) for one in taken]
                if taken.any():
                    inputs = (taken @ torch.cat(anchors) / taken.sum())[None]
            architecture.append(row)
            anchors.append(state[0])
        return architecture, logarithm, torch.cat(connections)

    def _bounded(self, logits: Tensor) -> Tensor:
        return 1.5 * torch.tanh(logits / 2.0)


class LayeredSearch(Model, name="layered_search"):
    """All operations of all layers, whose weights every architecture shares, and the controller. It is searched in, and not saved.

    Args:
        input_shape, num_outputs, dense: see `LayeredNetwork`.

    Attributes:
        architecture: which the next forward pass takes.
        baseline: mean reward so far, decaying; NaN before the first.
    """

    def __init__(self, input_shape: Sequence[int], num_outputs: int, dense: bool) -> None:
        super().__init__()
        self.network = _Layers(input_shape, num_outputs, dense, None)
        self.controller = Controller()
        self.architecture: Architecture = [[0] * (1 + layer) for layer in range(LAYERS)]
        self.register_buffer("baseline", torch.tensor(torch.nan))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x, self.architecture)

    def parameter_groups(self) -> ParameterGroups:
        return ParameterGroups([list(self.controller.parameters())], list(self.network.parameters()))
