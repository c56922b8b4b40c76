"""The network in which DASH (Shen et al., NeurIPS 2022) looks for the length and dilation of each kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossmodal.models.base import Model, ParameterGroups
from crossmodal.models.convolutions import SameConv

CONVOLVE = {1: F.conv1d, 2: F.conv2d}


class Mixture(nn.Module):
    """A convolution by the weighted sum of kernels of several lengths and dilations, in the place of a `SameConv`.

    With as many channels before as after each of them is convolved by itself, as in the paper (in the search alone).

    Args:
        conv: what it stands for: channels, stride, and whether there is a bias.
        choices: length, odd, and dilation of each kernel.
        form: "plain" adds up convolutions, one for each dilation; "fft" does one with the sum of all kernels by Fourier transforms.
            They differ by rounding.

    Attributes:
        shares: (len(choices),), weights of the kernels, to be set before a forward pass.
    """

    def __init__(self, conv: SameConv, choices: Sequence[tuple[int, int]], form: str) -> None:
        super().__init__()
        before, after = conv.conv.in_channels, conv.conv.out_channels
        self.ndim, self.choices, self.form = conv.ndim, list(choices), form
        self.stride, self.groups = conv.conv.stride[0], before if before == after else 1
        self.weights = nn.ParameterList(
            nn.Parameter(0.01 * torch.randn(after, before // self.groups, *[length] * self.ndim))
            for length, _ in choices
        )
        self.bias = conv.conv.bias
        self.shares: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "fft":
            return self._by_fft(x)
        found = None
        for dilation in sorted({dilation for _, dilation in self.choices}):
            # Values further away than the grid is wide are never met.
            half = [(side - 1) // dilation for side in x.shape[2:]]
            kernel = self.kernel(half, dilation)
            padding = [dilation * (length // 2) for length in kernel.shape[2:]]
            one = CONVOLVE[self.ndim](x, kernel, None, self.stride, padding, dilation, self.groups)
            found = one if found is None else found + one
        return self._with_bias(found)

    def _by_fft(self, x: Tensor) -> Tensor:
        """In float32: a spectrum needs it."""
        axes = tuple(range(-self.ndim, 0))
        reach = max(dilation * (length - 1) // 2 for length, dilation in self.choices)
        sizes = [side + 2 * reach for side in x.shape[2:]]
        with torch.autocast(x.device.type, enabled=False):
            signal = torch.fft.rfftn(x.float(), s=sizes, dim=axes)
            kernel = self.kernel([reach] * self.ndim)
            kernel = torch.fft.rfftn(kernel.float(), s=sizes, dim=axes).conj()
            if self.groups == 1:
                product = torch.einsum("bi...,oi...->bo...", signal, kernel)
            else:
                product = signal * kernel[:, 0]
            # Cross-correlation; the kernel's centre lies `reach` from where the signal begins.
            found = torch.fft.irfftn(product, s=sizes, dim=axes).roll([reach] * self.ndim, dims=axes)
        for axis, side in zip(axes, x.shape[2:], strict=True):
            found = found.narrow(axis, 0, side)
        return self._with_bias(found[(..., *[slice(None, None, self.stride)] * self.ndim)].to(x.dtype))

    def _with_bias(self, found: Tensor) -> Tensor:
        return found if self.bias is None else found + self.bias.view(-1, *[1] * self.ndim)

    def kernel(self, most: Sequence[int], only: int | None = None) -> Tensor:
        """The weighted sum of the kernels, each spread by its dilation; or of those of one dilation, as they are.

        Args:
            most: along each axis, so many values at most on either side of the middle.
            only: the dilation.

        Returns:
            (after, before / groups, *lengths), each length odd.
        """
        chosen = [
            (share * weight, dilation // (only or 1), length // 2 * (dilation // (only or 1)))
            for share, weight, (length, dilation) in zip(self.shares, self.weights, self.choices, strict=True)
            if only in (None, dilation)
        ]
        longest = max(half for *_, half in chosen)
        whole = chosen[0][0].new_zeros(*chosen[0][0].shape[:2], *[2 * longest + 1] * self.ndim)
        for weight, apart, half in chosen:
            whole[(..., *[slice(longest - half, longest + half + 1, apart)] * self.ndim)] += weight
        for axis, half in enumerate(most, 2):
            half = min(half, longest)
            whole = whole.narrow(axis, longest - half, 2 * half + 1)
        return whole


class Supernet(Model, name="dash_supernet"):
    """A network with a `Mixture` for each `SameConv`; its shortcuts stay as they are. It is searched in, and not saved.

    While training, the shares of a mixture are a sample of the Gumbel-softmax distribution at temperature 1 (Jang et al., ICLR
    2017); else they are a softmax.

    Args:
        network: what it is made of; taken over.
        choices: length and dilation of the kernels of each mixture.
        form: see `Mixture`.

    Attributes:
        architecture: (mixtures, len(choices)), logits of the shares.
    """

    def __init__(self, network: Model, choices: Sequence[tuple[int, int]], form: str = "plain") -> None:
        super().__init__()
        self.network, self.choices = network, list(choices)
        for parent in list(network.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, SameConv):
                    setattr(parent, name, Mixture(child, choices, form))
        self.mixtures = [module for module in network.modules() if isinstance(module, Mixture)]
        self.architecture = nn.Parameter(1e-3 * torch.randn(len(self.mixtures), len(choices)))

    def forward(self, x: Tensor) -> Tensor:
        logits = F.log_softmax(self.architecture, 1)
        shares = F.gumbel_softmax(logits) if self.training else logits.exp()
        for mixture, share in zip(self.mixtures, shares, strict=True):
            mixture.shares = share
        return self.network(x)

    def parameter_groups(self) -> ParameterGroups:
        return ParameterGroups([[self.architecture]], list(self.network.parameters()))

    def kernels(self) -> list[list[int]]:
        """Length and dilation of the kernel with the greatest share, of each convolution in order."""
        return [list(self.choices[one]) for one in self.architecture.argmax(1).tolist()]
