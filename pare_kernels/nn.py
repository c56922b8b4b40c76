"""The operator as modules: they hold parameters and options, and call `pare_kernels.functional`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, SupportsIndex

import torch
from torch import Tensor, nn

from ._checks import ReplaceOptions, check_int
from ._types import PatchReplaceResult
from .functional import gate_scores, replace_with


class PatchGate(nn.Module):
    """The gate of PaRe: one linear layer and a sigmoid, (B, N, dim) -> scores (B, N) in (0, 1), shared by both modalities.

    Args:
        dim: features per patch token, D.
        bias: whether the linear layer has a bias.

    Attributes:
        weight: (1, dim), initialised as in `torch.nn.Linear`.
        bias: (1,) or None.
    """

    def __init__(
        self,
        dim: SupportsIndex,
        bias: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.dim = check_int("dim", dim, 1, None, "an int >= 1")
        self.weight = nn.Parameter(torch.empty(1, self.dim, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(1, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = self.dim**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, tokens: Tensor) -> Tensor:
        return gate_scores(tokens, self.weight, self.bias)

    if TYPE_CHECKING:  # calls of a module are untyped in torch
        __call__ = forward

    def extra_repr(self) -> str:
        return f"dim={self.dim}, bias={self.bias is not None}"


class PatchReplace(nn.Module):
    """`patch_replace` with its gate and its options; k comes with each call, since it changes over training.

    Args:
        dim: features per patch token, D; a `PatchGate` may be given instead, to be shared.
        tau, noise_scale, selection, replace, pairing, exact_steps, straight_through: as in `pare_kernels.patch_replace`.

    Attributes:
        options: all of them but `dim`, read-only.

    Raises:
        TypeError, ValueError: an option out of its range; the message names it.
    """

    def __init__(self, dim: SupportsIndex | PatchGate, **options: Any) -> None:
        super().__init__()
        self.options = ReplaceOptions(**options)
        self.gate = dim if isinstance(dim, PatchGate) else PatchGate(dim)

    def forward(
        self,
        target: Tensor,
        source: Tensor,
        *,
        k: SupportsIndex,
        seed: SupportsIndex | Tensor | None = None,
        generator: torch.Generator | None = None,
        noise: tuple[Tensor, Tensor] | None = None,
        first_row: SupportsIndex = 0,
    ) -> PatchReplaceResult:
        """target (B, Nt, dim), source (B, Ns, dim) -> `PatchReplaceResult`."""
        randomness = seed, generator, noise, first_row
        return replace_with(self.options, target, source, self.gate.weight, self.gate.bias, k, *randomness)

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return repr(self.options)
