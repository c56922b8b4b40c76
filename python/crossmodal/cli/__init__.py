"""Entry points of the command line, and how errors are told.

What imports torch, which takes seconds, is imported when it is known to be needed: help and misspelled options do not wait.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator

from crossmodal import parsers
from crossmodal.errors import Interrupted, UserError, training_packages


def _main(action: Callable[[], int | None]) -> int:
    """Runs a command; errors that a person can act on come as one message instead of a traceback."""
    try:
        with training_packages():
            return action() or 0
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 128 + stop.signum
    except (UserError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", UserError.exit_code)
    except RuntimeError as error:
        # The process that met the mistake has said so; the traceback of one that waited for it would only hide that.
        rank = os.environ.get("RANK", "0")
        if rank == "0" or not re.search("connection (closed|reset) by peer", str(error), re.IGNORECASE):
            raise
        print(f"process {rank}: stopped, because another process did", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    """Ctrl-C ends the process at once: amid an import it would end in a traceback, or in C code be swallowed."""
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if interruptible:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ValueError:  # not the main thread, which alone minds signals
        interruptible = False
    try:
        yield
    finally:
        if interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def train(argv: list[str] | None = None) -> int:
    """`pare-train`: one run."""

    def action() -> None:
        arguments = sys.argv[1:] if argv is None else argv
        with _importing():
            if "--list" in arguments:
                print(listing())
                return
            if any(word.partition("=")[0] == "--download" for word in arguments):
                _download(arguments)
                return
            from crossmodal import parsing

            settings = parsing.parse(arguments)
            from crossmodal import run
        run.train(settings)

    return _main(action)


def _download(arguments: list[str]) -> None:
    told = parsers.download().parse_args(arguments)
    from crossmodal import tasks
    from crossmodal.data import download

    download.fetch(told.download, tasks.base.entry(told.download).files, told.data_dir)


def registries() -> dict[str, dict[str, str]]:
    """Tasks, methods, encoders, sources, losses and metrics: what each is, by name."""
    from crossmodal import sources, tasks
    from crossmodal.methods import METHODS
    from crossmodal.models import encoders
    from crossmodal.scoring import losses, metrics

    protocols = {name: found for name in tasks.available() if len(found := tasks.protocols(name)) > 1}
    return {
        "tasks": {
            name: summary + (f"; protocols: {', '.join(protocols[name])}" if name in protocols else "")
            for name, summary in tasks.available().items()
        },
        "methods": {name: method.description for name, method in METHODS.items()},
        "encoders": encoders.available(),
        "sources": sources.available(),
        "losses": {name: f"{loss.description} ({', '.join(loss.kinds)})" for name, loss in losses.LOSSES.items()},
        "metrics": {name: f"{one.description} ({', '.join(one.kinds)})" for name, one in metrics.METRICS.items()},
    }


def listing() -> str:
    """All of them, with one line each."""
    lines = []
    for title, entries in registries().items():
        lines.append(f"{title}:")
        lines += [f"  {name:<22} {description}" for name, description in entries.items()]
    return "\n".join(lines)


def _program(name: str, what: str) -> Callable[[list[str] | None], int]:
    """The entry point of the program in a module with that name, whose command line is in `parsers`."""

    def command(argv: list[str] | None = None) -> int:
        def action() -> int | None:
            getattr(parsers, name)().parse_known_args(argv)  # here as well, before torch
            with _importing():
                module = importlib.import_module(f"crossmodal.{name}")
            return module.main(argv)

        return _main(action)

    command.__doc__ = f"`pare-{name}`: {what}."
    return command


predict = _program("predict", "predictions of a finished run for new data")
evaluate = _program("evaluate", "the figure of a finished run, computed again")
compare = _program("compare", "tasks x methods x seeds, one table")
generate = _program("generate", "solutions of an equation, as PDEBench stores them")
miniature = _program("miniature", "a small set in the public format of a task")
