"""Who learns: every module of this package registers its methods."""

import importlib
import pkgutil

from crossmodal.methods.base import METHODS, Method, get, reason_against, register

for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "Method", "get", "reason_against", "register"]
