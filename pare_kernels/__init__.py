"""Patch replacement for cross-modal fine-tuning (PaRe, Cai et al., ICML 2024): the operator, its parts, its modules.

    >>> import torch, pare_kernels
    >>> target, source = torch.randn(4, 196, 768), torch.randn(4, 196, 768)
    >>> gate = pare_kernels.PatchGate(768)
    >>> mixed, lam, slots, patches = pare_kernels.patch_replace(target, source, gate.weight, gate.bias, k=98)
    >>> mixed.shape, lam
    (torch.Size([4, 196, 768]), 0.5)

`pare_kernels.reference` is the definition in plain PyTorch; `python -m pare_kernels.report` says which kernels serve this machine.
"""

from . import reference
from ._checks import draw_seed
from ._types import PatchReplaceResult, TopKResult
from ._version import __version__
from .functional import gate_scores, gumbel_topk, patch_replace, patch_swap_
from .nn import PatchGate, PatchReplace
from .schedule import ReplaceSchedule

__all__ = [
    "PatchGate",
    "PatchReplace",
    "PatchReplaceResult",
    "ReplaceSchedule",
    "TopKResult",
    "__version__",
    "draw_seed",
    "gate_scores",
    "gumbel_topk",
    "patch_replace",
    "patch_swap_",
    "reference",
]
