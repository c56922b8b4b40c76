"""The one table of tolerances: (rtol, atol) by what is compared and in which dtype, against the float64 reference.

Rows are copied, so outputs have no tolerance at all: they are compared with `torch.equal`.
"""

import torch

SCORES = {
    torch.float64: (1e-12, 1e-14),
    torch.float32: (2e-6, 1e-6),
    # The tokens are rounded before they come in; the arithmetic is float32.
    torch.bfloat16: (2e-6, 1e-6),
    torch.float16: (2e-6, 1e-6),
}
RELAXED = {torch.float64: (1e-9, 1e-12), torch.float32: (5e-6, 1e-7)}
# Relative to the largest entry of the reference gradient; half precision rounds the token gradients once when it stores them.
GRADIENTS = {torch.float64: 1e-10, torch.float32: 5e-6, torch.bfloat16: 5e-3, torch.float16: 6e-4}


def assert_gradient(name: str, actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    """Largest error relative to the largest entry of the reference."""
    error = (actual.double() - expected.double()).abs().max().item() if expected.numel() else 0.0
    scale = max(expected.abs().max().item(), 1e-6) if expected.numel() else 1.0
    assert error <= GRADIENTS[dtype] * scale, (
        f"{name}: error {error:.3e} at scale {scale:.3e}, allowed {GRADIENTS[dtype]:.0e}"
    )
