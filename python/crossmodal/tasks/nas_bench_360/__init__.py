"""The ten tasks of NAS-Bench-360 (Tu et al., NeurIPS 2022), one module each, from their public files.

Each has two protocols. `default` is a fair evaluation: a validation split apart from the test split chooses the epoch, and metrics
are those of the field, over whole splits. `released` repeats the evaluation of the public code of ORCA and PaRe, so that a figure
can be set beside theirs: there the test split validates, and metrics are means over pieces of it. What differs is said in the
task's notes.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
