"""The names used from transformers, imported in one place so that a broken environment gets one clear message."""

from __future__ import annotations

import importlib.util

# transformers imports these when it finds them, and fails when they were built for another torch.
OPTIONAL_COMPANIONS = ("torchvision", "torchaudio")


def explain_import_failure(error: Exception) -> ImportError:
    """The error to raise when transformers cannot be imported: names the usual culprits where they are installed."""
    installed = [name for name in OPTIONAL_COMPANIONS if importlib.util.find_spec(name) is not None]
    if not installed:
        return ImportError(f"transformers cannot be imported: {error}")
    names = "/".join(installed)
    return ImportError(
        f"transformers cannot be imported beside the installed {names}: uninstall {names}: built for another torch "
        f"(pip uninstall {' '.join(installed)}). The first error was: {error}"
    )


try:
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoTokenizer,
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )
    from transformers.image_processing_base import ImageProcessingMixin
    from transformers.modeling_layers import GradientCheckpointingLayer
    from transformers.utils import logging
except Exception as error:  # RuntimeError, ImportError or OSError, depending on what broke first
    raise explain_import_failure(error) from error

__all__ = [
    "AutoConfig",
    "AutoModel",
    "AutoTokenizer",
    "GradientCheckpointingLayer",
    "ImageProcessingMixin",
    "PreTrainedConfig",
    "PreTrainedModel",
    "PreTrainedTokenizerBase",
    "logging",
]
