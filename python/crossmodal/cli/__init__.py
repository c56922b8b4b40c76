"""Entry points of the command line, and how errors are told."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable

EXPECTED = 2  # exit code of a mistake that the message explains


def _main(action: Callable[[], int | None]) -> int:
    """Runs a command; errors that a person can act on come as one message instead of a traceback."""
    from crossmodal.errors import Interrupted, UserError

    try:
        return action() or 0
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 128 + stop.signum
    except (UserError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXPECTED
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


def train(argv: list[str] | None = None) -> int:
    """`pare-train`: one run."""

    def action() -> None:
        from crossmodal import parsing

        arguments = sys.argv[1:] if argv is None else argv
        if "--list" in arguments:
            print(listing())
            return
        settings = parsing.parse(arguments)
        from crossmodal import run

        run.train(settings)

    return _main(action)


def listing() -> str:
    """Tasks, methods, encoders, sources, losses and metrics with one line each."""
    from crossmodal import sources, tasks
    from crossmodal.methods import METHODS
    from crossmodal.models import encoders
    from crossmodal.scoring import losses, metrics

    groups = {
        "tasks": tasks.available(),
        "methods": {name: method.description for name, method in METHODS.items()},
        "encoders": encoders.available(),
        "sources": sources.available(),
        "losses": {name: f"{loss.description} ({', '.join(loss.kinds)})" for name, loss in losses.LOSSES.items()},
        "metrics": {name: f"{one.description} ({', '.join(one.kinds)})" for name, one in metrics.METRICS.items()},
    }
    lines = []
    for title, entries in groups.items():
        lines.append(f"{title}:")
        lines += [f"  {name:<22} {description}" for name, description in entries.items()]
    return "\n".join(lines)


def predict(argv: list[str] | None = None) -> int:
    """`pare-predict`: predictions of a finished run for new data."""

    def action() -> None:
        from crossmodal.predict import main

        main(argv)

    return _main(action)


def evaluate(argv: list[str] | None = None) -> int:
    """`pare-evaluate`: the figure of a finished run, computed again."""

    def action() -> None:
        from crossmodal.evaluate import main

        main(argv)

    return _main(action)


def compare(argv: list[str] | None = None) -> int:
    """`pare-compare`: several methods and seeds, one table."""

    def action() -> int:
        from crossmodal.compare import main

        return main(argv)

    return _main(action)
