"""What a provider is, and the registry of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.operations import Workload

Noise = tuple[Tensor, Tensor]
# (workload, noise) -> output; noise None: the provider draws its own.
Call = Callable[[Workload, "Noise | None"], Tensor]

# Estimators of the choice's gradient, as `exact_steps` of the definition. Providers of any other are held to the hard
# choice alone.
DEFAULT_STEPS = 8
EXACT, DEFAULT, NO_GRADIENT = "exact", f"{DEFAULT_STEPS} steps + tail", "-"
COMPARABLE = {EXACT: None, DEFAULT: DEFAULT_STEPS, NO_GRADIENT: None}


@dataclass(frozen=True)
class Provider:
    """One way to compute an operation.

    family: "ours", "paper" (the paper's algorithm, the baseline of speed-ups) or "rival".
    estimator: which gradient the choice gets; a key of `COMPARABLE`, or the name of another estimator.
    build: (case, device) -> Call.
    memory: case -> bytes that it is known to need beyond its inputs, for those that may not fit.
    yardstick: does other work, with which the others are compared; its output is not checked.
    in_place: overwrites its leaves; it is given copies, made outside the clock.
    compiled: its first call compiles.
    seeded: draws the noise of `pare_kernels` from the workload's seed, so that this path is checked too.
    backend: (device) -> what serves it, for the record.
    """

    operation: str
    name: str
    summary: str
    build: Callable[[Case, torch.device], Call]
    family: str = "rival"
    estimator: str = NO_GRADIENT
    memory: Callable[[Case], int] = lambda case: 0
    yardstick: bool = False
    in_place: bool = False
    compiled: bool = False
    seeded: bool = False
    backend: Callable[[torch.device], str] = lambda device: "torch"

    @property
    def comparable(self) -> bool:
        return self.estimator in COMPARABLE

    @property
    def exact_steps(self) -> int | None:
        return COMPARABLE[self.estimator] if self.comparable else None


PROVIDERS: dict[tuple[str, str], Provider] = {}


def register(provider: Provider) -> None:
    """Adds a provider; a name is unique within its operation.

    Raises:
        ValueError: the operation has one of that name already.
    """
    key = provider.operation, provider.name
    if key in PROVIDERS:
        raise ValueError(f"provider {provider.name!r} of operation {provider.operation!r} is registered already")
    PROVIDERS[key] = provider


def providers_of(operation: str, names: tuple[str, ...] = ()) -> list[Provider]:
    """The providers of an operation in order of registration, or those named.

    Raises:
        ValueError: a name that the operation does not have; the message lists those it has.
    """
    known = {name: provider for (of, name), provider in PROVIDERS.items() if of == operation}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"operation {operation!r} has no provider {unknown[0]!r}; it has {', '.join(known)}")
    return [provider for name, provider in known.items() if not names or name in names]


def draw_gumbel(like: Tensor) -> Tensor:
    """Standard Gumbel noise the fast way in PyTorch, float32 in the shape of `like`."""
    return torch.empty(like.shape, device=like.device).exponential_().log_().neg_()
