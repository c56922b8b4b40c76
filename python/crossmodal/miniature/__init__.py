"""Miniatures: small sets in the public format of a task, made here, for trying, testing and teaching.

They are made of real data of that kind where an installed package carries some, else simulated with known structure. No result on
one stands for the real task: a file beside it says what it is, and so do the task's description and every table.

A new miniature is one function in a module of this package, decorated with :func:`register`.
"""

from __future__ import annotations

import importlib
import pkgutil

from crossmodal import parsers
from crossmodal.miniature.base import make, register

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["make", "register"]


def main(argv: list[str] | None = None) -> None:
    """Command line: see `--help`.

    Raises:
        UserError: see `make`.
    """
    arguments = parsers.miniature().parse_args(argv)
    make(arguments.task, arguments.output, arguments.seed)
    print(f"{arguments.output}: --task {arguments.task} --data_dir {arguments.output}")
