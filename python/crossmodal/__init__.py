"""Cross-modal fine-tuning: a pretrained transformer learns a modality it never saw, by patch replacement (PaRe).

The parts, each importable on its own:

- :mod:`crossmodal.tasks` -- target data sets: ``tasks.load("italy_power_demand")``, ``tasks.available()``
- :mod:`crossmodal.sources` -- labelled data of the pretraining modality: ``sources.load("scipy_docs", ...)``
- :mod:`crossmodal.models.encoders` and :mod:`crossmodal.models.finetuned` -- pretrained transformers and what is put around them
- :mod:`crossmodal.methods`, :mod:`crossmodal.scoring.losses`, :mod:`crossmodal.scoring.metrics`, :mod:`crossmodal.training.trainer` -- training
- :func:`crossmodal.load` -- a finished run as a module with ``predict``

Submodules are imported on first use, so that ``import crossmodal`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = ["encoders", "engine", "losses", "methods", "metrics", "model", "sources", "tasks"]

__all__ = [*_MODULES, "load"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "load":
        return importlib.import_module(f"{__name__}.predict").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
