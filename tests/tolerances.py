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

# Of h and its gradient where scores lead by up to 690 tau: the norm of a row's error relative to the norm of the row.
LEADING = {torch.float64: 1e-9, torch.float32: 1e-4}


def assert_row(name: str, actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    """The error of one row by norm; what is next to the least number of the type may be anything as small."""
    scale = max(expected.abs().max().item(), 1e10 * torch.finfo(dtype).tiny)
    error, norm = (((x / scale).norm()).item() for x in (actual.double() - expected, expected))
    assert error <= LEADING[dtype] * max(norm, 1), f"{name}: relative error {error / max(norm, 1):.1e}"


def assert_gradient(name: str, actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    """Largest error relative to the largest entry of the reference."""
    error = (actual.double() - expected.double()).abs().max().item() if expected.numel() else 0.0
    scale = max(expected.abs().max().item(), 1e-6) if expected.numel() else 1.0
    assert error <= GRADIENTS[dtype] * scale, (
        f"{name}: error {error:.3e} at scale {scale:.3e}, allowed {GRADIENTS[dtype]:.0e}"
    )
