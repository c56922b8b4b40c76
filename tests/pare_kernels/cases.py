"""Inputs for the operator's tests."""

from __future__ import annotations

import torch

OPTION_WORDS = [
    {"selection": selection, "replace": replace, "pairing": pairing}
    for selection in ("gumbel", "topk", "random")
    for replace in ("lowest", "highest")
    for pairing in ("position", "score")
]


def make_inputs(batch, num_target, num_source, dim, dtype=torch.float64, seed=0, requires_grad=False, device="cpu"):
    """(target, source, gate_weight, gate_bias) with scores that spread over most of (0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    scale = max(dim, 1) ** -0.5
    tensors = (
        torch.randn(batch, num_target, dim, generator=generator, dtype=torch.float64),
        torch.randn(batch, num_source, dim, generator=generator, dtype=torch.float64),
        torch.randn(1, dim, generator=generator, dtype=torch.float64) * scale * 1.5,
        torch.randn(1, generator=generator, dtype=torch.float64) * 0.3,
    )
    return [tensor.to(device, dtype).requires_grad_(requires_grad) for tensor in tensors]


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cosine_similarity(a, b, dim=-1)
