"""Cross-modal fine-tuning: a pretrained transformer learns a modality it never saw, by patch replacement (PaRe).

- :func:`crossmodal.load` -- a finished run as a module with ``predict``

What the command line does is in :mod:`crossmodal.run`; its rooms are ``data``, ``tasks``, ``scoring``, ``models``, ``methods``,
``training`` and ``report``. They are imported on first use, so that ``import crossmodal`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        return importlib.import_module(f"{__name__}.predict").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
