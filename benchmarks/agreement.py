"""The gate before the clock: a provider is timed only after it agreed with the float64 definition on the very case.

Outputs are copies of rows (or zeros and ones, or indices) and must be equal to the bit. Gradients, and scores, must lie within
`TOLERANCE` of the definition, relative to its largest entry; weight and bias of the gate count as one vector. The tolerance is
what a float32 run of the paper's own algorithm needs; how close a provider came is in the records.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.operations import Expected, Operation, Workload
from benchmarks.providers.base import DEFAULT_STEPS, Call, Provider

TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2, "float16": 4e-3}


class Disagreement(Exception):
    """A provider computes something else than the definition; the message says what."""


class Judge:
    """Holds providers of one operation on one workload to the definition, which is computed once per estimator."""

    def __init__(self, operation: Operation, workload: Workload) -> None:
        self.operation = operation
        self.workload = workload
        self._expected: dict[tuple[int | None, bool], Expected] = {}

    def expected(self, exact_steps: int | None, seeded: bool) -> Expected:
        key = exact_steps, seeded
        if key not in self._expected:
            seed = self.workload.seed if seeded else None
            self._expected[key] = self.operation.expect(self.workload, exact_steps, seed)
        return self._expected[key]

    def check(self, provider: Provider, call: Call) -> float:
        """Largest relative error of the gradients (and scores), with given noise and with the provider's own.

        Raises:
            Disagreement: the provider is wrong.
        """
        if provider.yardstick:
            call(self.workload, None)
            return 0.0
        error = self._compare(provider, call, self.workload.noise, seeded=False)
        if not self.operation.random:
            return error
        if provider.seeded:
            return max(error, self._compare(provider, call, None, seeded=True))
        self._check_drawn(run(provider, call, self.workload, None)[0])
        return error

    def _compare(self, provider: Provider, call: Call, noise, *, seeded: bool) -> float:
        output, grads = run(provider, call, self.workload, noise)
        # The estimator changes nothing but gradients, so any of them serves to check the hard choice: other estimators, and
        # the exact form's own noise, are held to that of the default form, which is quickly computed.
        steps = provider.exact_steps if provider.comparable else DEFAULT_STEPS
        choice_only = not provider.comparable or (seeded and steps != DEFAULT_STEPS)
        expected = self.expected(DEFAULT_STEPS if choice_only else steps, seeded)
        limit = TOLERANCE[self.workload.case.dtype]
        where = "with its own noise" if seeded else "with the given noise"
        error = self._compare_output(output, expected, limit, where)
        if any(not grad.isfinite().all() for grad in grads):
            raise Disagreement(f"a gradient is not finite {where}")
        if choice_only:
            return error
        for name, actual, exact in _grouped(grads, expected.grads):
            worst = relative_error(actual, exact)
            if not worst <= limit:
                raise Disagreement(f"gradient of {name}: relative error {worst:.1e} {where}, allowed {limit:.0e}")
            error = max(error, worst)
        return error

    def _compare_output(self, output: Tensor, expected: Expected, limit: float, where: str) -> float:
        if output.shape != expected.output.shape:
            raise Disagreement(f"output of shape {tuple(output.shape)}, not {tuple(expected.output.shape)}")
        if not expected.copied:
            worst = relative_error(output, expected.output)
            if not worst <= limit:
                raise Disagreement(f"output: relative error {worst:.1e}, allowed {limit:.0e}")
            return worst
        if output.dtype == torch.int64:  # indices may come in any order
            output = output.sort(dim=1).values
        wrong = (output.double() != expected.output).flatten(2 if output.ndim == 3 else 1).any(-1)
        if wrong.any():
            raise Disagreement(f"output differs in {int(wrong.sum())} of {wrong.numel()} rows {where}")
        return 0.0

    def _check_drawn(self, output: Tensor) -> None:
        """With noise of its own nobody knows which k are chosen, but k there must be."""
        case = self.workload.case
        changed = (output != self.workload.leaves[0]).any(-1) if output.ndim == 3 else output > 0.5
        counts = changed.sum(dim=1)
        if not (counts == case.k).all():
            raise Disagreement(
                f"with its own noise {int(counts.min())} to {int(counts.max())} of {case.k} patches are chosen"
            )


def run(provider: Provider, call: Call, workload: Workload, noise) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Output and gradients of one call.

    Raises:
        Disagreement: the output has a shape that the definition's has not.
    """
    leaves = workload.leaves
    output = call(workload.copy() if provider.in_place else workload, noise)
    if workload.upstream is None:
        return output, ()
    if output.shape != workload.upstream.shape:
        raise Disagreement(f"output of shape {tuple(output.shape)}, not {tuple(workload.upstream.shape)}")
    grads = torch.autograd.grad(output, leaves, workload.upstream.to(output.dtype))
    return output.detach(), grads


def relative_error(actual: Tensor, exact: Tensor) -> float:
    """Largest difference relative to the largest entry of `exact`."""
    if exact.numel() == 0:
        return 0.0
    scale = exact.abs().max().clamp_min(1e-30)
    return ((actual.double() - exact).abs().max() / scale).item()


def _grouped(actual: tuple[Tensor, ...], exact: tuple[Tensor, ...]):
    """Token gradients one by one; the small ones of the gate together, since a bias alone may cancel to nothing."""
    gate_actual, gate_exact = [], []
    for index, (mine, right) in enumerate(zip(actual, exact, strict=True)):
        if mine.shape != right.shape:
            raise Disagreement(f"gradient {index} has shape {tuple(mine.shape)}, not {tuple(right.shape)}")
        if right.ndim <= 1:
            gate_actual.append(mine.double().flatten())
            gate_exact.append(right.flatten())
        else:
            yield f"input {index}", mine, right
    if gate_exact:
        yield "the gate", torch.cat(gate_actual), torch.cat(gate_exact)
