"""Cross-modal fine-tuning: a pretrained transformer learns a modality it never saw, by patch replacement (PaRe).

- :func:`crossmodal.load` -- a finished run as a module with ``predict``
- :mod:`crossmodal.tasks` -- target data sets: ``tasks.load("italy_power_demand")``, ``tasks.available()``
- :mod:`crossmodal.sources` -- labelled data of the pretraining modality: ``sources.load("scipy_docs", ...)``
- :mod:`crossmodal.models` -- pretrained encoders, what is put around them, and other networks
- :mod:`crossmodal.scoring` -- losses, metrics, protocols
- :mod:`crossmodal.methods` -- ways to learn a task
- :mod:`crossmodal.training` -- the trainer, which runs one stage of a method

Submodules are imported on first use, so that ``import crossmodal`` costs nothing.
"""

import importlib as _importlib
import typing as _typing

from crossmodal.errors import training_packages as _training_packages

__all__ = ["load", "methods", "models", "scoring", "sources", "tasks", "training"]

if _typing.TYPE_CHECKING:
    from crossmodal import methods, models, scoring, sources, tasks, training
    from crossmodal.predict import load
else:

    def __getattr__(name: str) -> object:
        if name in __all__:
            with _training_packages():
                if name == "load":
                    return _importlib.import_module(f"{__name__}.predict").load
                return _importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__]
