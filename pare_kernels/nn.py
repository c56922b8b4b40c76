"""The operator as modules: they hold parameters and options, and call `pare_kernels.functional`."""

from __future__ import annotations

from typing import TYPE_CHECKING, SupportsIndex

import torch
from torch import Tensor, nn

from pare_kernels._checks import as_int, check_options
from pare_kernels._types import PatchReplaceResult
from pare_kernels.functional import gate_scores, patch_replace


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
        features = as_int(dim)
        if features is None or features < 1:
            raise ValueError(f"dim must be an int >= 1, got {dim!r}")
        self.dim = features
        self.weight = nn.Parameter(torch.empty(1, features, device=device, dtype=dtype))
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

    Raises:
        TypeError, ValueError: an option out of its range; the message names it.
    """

    def __init__(
        self,
        dim: SupportsIndex | PatchGate,
        *,
        tau: float = 0.9,
        noise_scale: float = 1.0,
        selection: str = "gumbel",
        replace: str = "lowest",
        pairing: str = "position",
        exact_steps: SupportsIndex | None = 8,
        straight_through: bool | None = None,
    ) -> None:
        super().__init__()
        check_options(tau, noise_scale, selection, replace, pairing, exact_steps, straight_through)
        self.gate = dim if isinstance(dim, PatchGate) else PatchGate(dim)
        self.tau = tau
        self.noise_scale = noise_scale
        self.selection = selection
        self.replace = replace
        self.pairing = pairing
        self.exact_steps = exact_steps
        self.straight_through = straight_through

    def forward(
        self,
        target: Tensor,
        source: Tensor,
        *,
        k: SupportsIndex,
        seed: SupportsIndex | Tensor | None = None,
        generator: torch.Generator | None = None,
        noise: tuple[Tensor, Tensor] | None = None,
    ) -> PatchReplaceResult:
        """target (B, Nt, dim), source (B, Ns, dim) -> `PatchReplaceResult`."""
        return patch_replace(
            target,
            source,
            self.gate.weight,
            self.gate.bias,
            k=k,
            tau=self.tau,
            noise_scale=self.noise_scale,
            selection=self.selection,
            replace=self.replace,
            pairing=self.pairing,
            exact_steps=self.exact_steps,
            seed=seed,
            generator=generator,
            noise=noise,
            straight_through=self.straight_through,
        )

    if TYPE_CHECKING:
        __call__ = forward

    def extra_repr(self) -> str:
        return (
            f"tau={self.tau}, noise_scale={self.noise_scale}, selection={self.selection!r}, replace={self.replace!r}, "
            f"pairing={self.pairing!r}, exact_steps={self.exact_steps}, straight_through={self.straight_through}"
        )
