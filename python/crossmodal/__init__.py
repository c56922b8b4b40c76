"""Cross-modal fine-tuning: a pretrained transformer learns a modality it never saw, by patch replacement (PaRe).

The parts, each importable on its own:

- :mod:`crossmodal.tasks` -- target data sets: ``tasks.load("italy_power_demand")``, ``tasks.available()``
- :mod:`crossmodal.sources` -- labelled data of the pretraining modality: ``sources.load("scipy_docs", ...)``
- :mod:`crossmodal.encoders` and :mod:`crossmodal.model` -- pretrained transformers and what is put around them
- :mod:`crossmodal.methods`, :mod:`crossmodal.losses`, :mod:`crossmodal.metrics`, :mod:`crossmodal.engine` -- training
- :func:`crossmodal.load` -- a finished run as a module with ``predict``

Submodules are imported on first use, so that ``import crossmodal`` costs nothing.
"""

import importlib as _importlib
import typing as _typing

__all__ = ["encoders", "engine", "load", "losses", "methods", "metrics", "model", "sources", "tasks"]

if _typing.TYPE_CHECKING:
    from crossmodal import encoders, engine, losses, methods, metrics, model, sources, tasks
    from crossmodal.predict import load
else:

    def __getattr__(name: str) -> object:
        if name == "load":
            return _importlib.import_module(f"{__name__}.predict").load
        if name in __all__:
            return _importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__]
