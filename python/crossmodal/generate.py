"""Solutions of an equation in a file, from the command line."""

from __future__ import annotations

import re

from crossmodal import parsers
from crossmodal.errors import UserError
from crossmodal.pde import get
from crossmodal.pde.files import Settings, generate


def main(argv: list[str] | None = None) -> None:
    """Command line: see `--help`.

    Raises:
        UserError: see `Settings` and `generate`; a part that is none; no process to work with.
    """
    arguments = parsers.generate().parse_args(argv)
    match = re.fullmatch(r"(\d+)/(\d+)", arguments.part)
    part = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part[0] <= part[1]:
        raise UserError(f"part: expected I/N with I from 1 to N, e.g. 2/8, got {arguments.part!r}")
    jobs = parsers.cpu_cores() if arguments.jobs is None else arguments.jobs
    if jobs < 1:
        raise UserError(f"jobs: expected a positive number, got {jobs}")
    equation = get(arguments.equation)
    settings = Settings(
        equation.name,
        arguments.samples,
        equation.resolution if arguments.resolution is None else arguments.resolution,
        arguments.seed,
        arguments.transient,
    )
    if generate(settings, arguments.output, jobs=jobs, part=part):
        print(arguments.output)
