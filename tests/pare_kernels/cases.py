"""Inputs for the operator's tests."""

from __future__ import annotations

import torch

from pare_kernels import reference
from pare_kernels._checks import ReplaceArguments, ReplaceOptions

OPTION_WORDS = [
    {"selection": selection, "replace": replace, "pairing": pairing}
    for selection in ("gumbel", "topk", "random")
    for replace in ("lowest", "highest")
    for pairing in ("position", "score")
]


def normal(generator, *shape, dtype=torch.float64, device=None):
    """Normal numbers drawn on the CPU, so that every device gets the same; on the default device unless another is named."""
    drawn = torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu")
    return drawn.to(torch.get_default_device() if device is None else device, dtype)


def make_inputs(batch, num_target, num_source, dim, dtype=torch.float64, seed=0, requires_grad=False, device=None):
    """(target, source, gate_weight, gate_bias) with scores that spread over most of (0, 1); the same on every device."""
    generator = torch.Generator("cpu").manual_seed(seed)
    scale = max(dim, 1) ** -0.5
    tensors = (
        normal(generator, batch, num_target, dim, device="cpu"),
        normal(generator, batch, num_source, dim, device="cpu"),
        normal(generator, 1, dim, device="cpu") * scale * 1.5,
        normal(generator, 1, device="cpu") * 0.3,
    )
    device = torch.get_default_device() if device is None else device
    return [tensor.to(device, dtype).requires_grad_(requires_grad) for tensor in tensors]


def raw_arguments(*tensors, k, seed=None, noise=(None, None), first_row=0, **options):
    """What the raw operators take for (target, source, gate_weight, gate_bias)."""
    seed = None if seed is None else torch.tensor(seed)
    return ReplaceArguments(*tensors, seed, *noise, k, *ReplaceOptions(**options).flat, first_row)


def on_host(values):
    """A tensor, or a (named) tuple or list of them, on the CPU, where the definition is evaluated and results are compared."""
    if isinstance(values, torch.Tensor):
        return values.cpu()
    if isinstance(values, (tuple, list)):
        moved = [on_host(value) for value in values]
        return type(values)(*moved) if hasattr(values, "_fields") else type(values)(moved)
    return values


def choose_again(noisy_target, noisy_source, k, highest=False, by_score=False):
    """The definition's choice on an operator's own noisy scores: two within rounding of each other make no difference."""
    words = {"replace": "highest" if highest else "lowest", "pairing": "score" if by_score else "position"}
    return reference.choose_patches(noisy_target, noisy_source, k, **words)


def place(target, source, slots, patches):
    """The target with the source's `patches` in its `slots`."""
    slots, patches = (index.unsqueeze(-1).expand(-1, -1, target.shape[2]) for index in (slots, patches))
    return target.contiguous().scatter(1, slots, source.gather(1, patches))


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cosine_similarity(a, b, dim=-1)


def zeros_if_none(gradient, like):
    """A gradient on the CPU, of zeros where there is none."""
    return torch.zeros(like.shape, dtype=like.dtype, device="cpu") if gradient is None else gradient.cpu()
