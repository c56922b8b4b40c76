"""Target tasks: data sets of a modality the encoder was not pretrained on.

``load(name)`` gives a :class:`Task` with normalised train, validation and test splits; ``available()`` lists the names.
A new task is one function in a module of this package, decorated with :func:`register`, that returns a
:class:`RawTask`; a new module is imported below.
"""

from crossmodal.tasks import archive, arrays, sklearn_datasets  # noqa: F401  (each import registers its tasks)
from crossmodal.tasks.base import KINDS, Options, RawTask, Split, Task, available, load, register
from crossmodal.tasks.normalizer import Normalizer

__all__ = ["KINDS", "Normalizer", "Options", "RawTask", "Split", "Task", "available", "load", "register"]
