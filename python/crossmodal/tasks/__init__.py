"""Target tasks: data sets of a modality the encoder was not pretrained on.

``load(name)`` gives a :class:`Task` with normalised train, validation and test splits; ``available()`` lists the names.
A new task is one function in a module of this package, decorated with :func:`register`, that returns a
:class:`RawTask`; every module of the package is imported, which is what registers it.
"""

import importlib
import pkgutil

from crossmodal.tasks.assembly import load
from crossmodal.tasks.base import Options, RawTask, Task, available, protocols, register

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Options", "RawTask", "Task", "available", "load", "protocols", "register"]
