"""The operations that are measured: their inputs, what is right by the float64 definition, and the bytes they must move.

replace   the whole operator: scores, noise, choice, rows; gradients of tokens and gate
forward   the same without a gradient
swap      the rows alone, the choice being given
pairs     choice and rows by given scores, no two of them equal, the best source patch into the lowest slot; no gradient
scores    the gate's scores of one token tensor
sampler   scores to a random k-subset with straight-through gradient
select    scores to the indices of the k largest, no gradient
overhead  one tiny call without gradient: what a call costs beside its work
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from benchmarks.cases import Case
from pare_kernels import reference

FORWARD, BACKWARD = "forward", "backward"


@dataclass
class Workload:
    """Inputs of one operation on one case.

    leaves: the differentiable inputs. upstream: gradient that arrives at the output, or None without a backward pass.
    noise: (noise_target, noise_source) float32 Gumbel values. seed: int64 tensor of one element.
    choice: (target_index, source_index) int64 (B, k), ascending; for operations that are given the choice.
    """

    case: Case
    leaves: tuple[Tensor, ...]
    upstream: Tensor | None
    noise: tuple[Tensor, Tensor]
    seed: Tensor
    choice: tuple[Tensor, Tensor]

    def copy(self) -> Workload:
        """For a provider that changes its inputs; gradients still go to the leaves of the original."""
        return replace(self, leaves=tuple(leaf.clone() for leaf in self.leaves))

    @property
    def input_bytes(self) -> int:
        tensors = [*self.leaves, *([] if self.upstream is None else [self.upstream])]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@dataclass
class Expected:
    """What the float64 definition says: an output compared bit for bit, or to a tolerance, and the gradients of the leaves."""

    output: Tensor
    grads: tuple[Tensor, ...] = ()
    copied: bool = True


@dataclass(frozen=True)
class Operation:
    """make: (case, device) -> Workload. expect: (workload, exact_steps, seed or None) -> Expected.
    traffic: case -> {phase: (bytes that must be read, bytes that must be written)}, empty where memory is not the limit.
    """

    name: str
    make: Callable[[Case, torch.device], Workload]
    expect: Callable[[Workload, int | None, Tensor | None], Expected]
    traffic: Callable[[Case], dict[str, tuple[int, int]]] = field(default=lambda case: {})
    random: bool = False


def make_workload(
    case: Case, device: torch.device, *, parts: str = "tswb", upstream: str | None = "tokens"
) -> Workload:
    """Random inputs, the same on every machine. parts: t(arget), s(ource), w(eight), b(ias), g(ate scores)."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{case.name}/{case.shape}".encode()))
    dtype = getattr(torch, case.dtype)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device=device, dtype=dtype)

    def gumbel(patches: int) -> Tensor:
        return torch.empty(case.batch, patches).exponential_(generator=generator).log_().neg_().to(device)

    target_shape, source_shape = (case.batch, case.num_target, case.dim), (case.batch, case.num_source, case.dim)
    noise = gumbel(case.num_target), gumbel(case.num_source)
    choice = tuple(
        torch.rand(case.batch, patches, generator=generator).topk(case.k).indices.sort().values.to(device)
        for patches in (case.num_target, case.num_source)
    )
    make = {
        "t": lambda: normal(*target_shape),
        "s": lambda: normal(*source_shape),
        "w": lambda: normal(case.dim) * case.dim**-0.5,
        "b": lambda: normal(1)[0],
        "g": lambda: torch.rand(case.batch, case.num_target, generator=generator).to(device),
    }
    leaves = tuple(make[part]().requires_grad_(upstream is not None) for part in parts)
    shape = {"tokens": target_shape, "rows": (case.batch, case.num_target), None: None}[upstream]
    grad = None if shape is None else torch.randn(*shape, generator=generator).to(device)
    if upstream == "tokens":
        grad = grad.to(dtype)
    seed = torch.tensor(20240721, dtype=torch.int64, device=device)
    return Workload(case, leaves, grad, noise, seed, choice)


def make_pairs(case: Case, device: torch.device) -> Workload:
    workload = make_workload(case, device, parts="ts", upstream=None)
    return replace(workload, noise=tuple(part.argsort().argsort().float() for part in workload.noise))


# ---------------------------------------------------------------------------------------------------------------------
# What is right.
# ---------------------------------------------------------------------------------------------------------------------


def _double(workload: Workload) -> tuple[Tensor, ...]:
    return tuple(leaf.detach().double().requires_grad_(leaf.requires_grad) for leaf in workload.leaves)


def _grads(output: Tensor, leaves: tuple[Tensor, ...], workload: Workload) -> tuple[Tensor, ...]:
    if workload.upstream is None:
        return ()
    return torch.autograd.grad(output, leaves, workload.upstream.double())


def expect_replace(workload: Workload, exact_steps: int | None, seed: Tensor | None) -> Expected:
    leaves, case = _double(workload), workload.case
    randomness = {"noise": tuple(part.double() for part in workload.noise)} if seed is None else {"seed": seed}
    mixed = reference.patch_replace(*leaves, k=case.k, tau=case.tau, exact_steps=exact_steps, **randomness).mixed
    return Expected(mixed.detach(), _grads(mixed, leaves, workload))


def expect_swap(workload: Workload, exact_steps: int | None, seed: Tensor | None) -> Expected:
    target, source = leaves = _double(workload)
    slots, patches = (index.unsqueeze(-1).expand(-1, -1, workload.case.dim) for index in workload.choice)
    mixed = target.scatter(1, slots, source.gather(1, patches))
    return Expected(mixed.detach(), _grads(mixed, leaves, workload))


def expect_pairs(workload: Workload, exact_steps: int | None, seed: Tensor | None) -> Expected:
    target, source = _double(workload)
    noise, weight = tuple(part.double() for part in workload.noise), target.new_zeros(workload.case.dim)
    options = {"selection": "random", "pairing": "score", "noise": noise}
    return Expected(reference.patch_replace(target, source, weight, k=workload.case.k, **options).mixed)


def expect_scores(workload: Workload, exact_steps: int | None, seed: Tensor | None) -> Expected:
    leaves = _double(workload)
    scores = reference.gate_scores(*leaves)
    return Expected(scores.detach(), _grads(scores, leaves, workload), copied=False)


def expect_sampler(workload: Workload, exact_steps: int | None, seed: Tensor | None) -> Expected:
    (scores,) = leaves = _double(workload)
    case = workload.case
    noise = workload.noise[0].double()
    if seed is not None:
        noise = reference.gumbel_noise(seed, *scores.shape, reference.TARGET_STREAM)
    noisy = scores + noise
    relaxed = reference.RelaxedTopK.apply(noisy, case.k, case.tau, exact_steps)
    return Expected(reference.topk_mask(noisy.detach(), case.k).double(), _grads(relaxed, leaves, workload))


def expect_select(workload: Workload, exact_steps: int | None, seed: Tensor | None) -> Expected:
    (scores,) = workload.leaves
    chosen = reference.mask_to_index(reference.topk_mask(scores.detach().double(), workload.case.k), workload.case.k)
    return Expected(chosen)


# ---------------------------------------------------------------------------------------------------------------------
# What memory must carry: each input read once, each output written once.
# ---------------------------------------------------------------------------------------------------------------------


def _token_bytes(case: Case) -> tuple[int, int]:
    element = torch.finfo(getattr(torch, case.dtype)).bits // 8
    row = case.batch * case.dim * element
    return case.num_target * row, case.num_source * row


def replace_traffic(case: Case) -> dict[str, tuple[int, int]]:
    target, source = _token_bytes(case)
    # Backward: upstream gradient, target and source come in, both gradients go out.
    return {FORWARD: (target + source, target), BACKWARD: (2 * target + source, target + source)}


def swap_traffic(case: Case) -> dict[str, tuple[int, int]]:
    target, source = _token_bytes(case)
    return {FORWARD: (target, target), BACKWARD: (target, target + source)}


def scores_traffic(case: Case) -> dict[str, tuple[int, int]]:
    target, _ = _token_bytes(case)
    return {FORWARD: (target, 0), BACKWARD: (target, target)}


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("replace", make_workload, expect_replace, replace_traffic, random=True),
        Operation(
            "forward",
            lambda c, d: make_workload(c, d, upstream=None),
            expect_replace,
            lambda c: {FORWARD: replace_traffic(c)[FORWARD]},
            random=True,
        ),
        Operation("swap", lambda c, d: make_workload(c, d, parts="ts"), expect_swap, swap_traffic),
        Operation("pairs", make_pairs, expect_pairs),
        Operation(
            "scores", lambda c, d: make_workload(c, d, parts="twb", upstream="rows"), expect_scores, scores_traffic
        ),
        Operation("sampler", lambda c, d: make_workload(c, d, parts="g", upstream="rows"), expect_sampler, random=True),
        Operation("select", lambda c, d: make_workload(c, d, parts="g", upstream=None), expect_select),
        Operation("overhead", lambda c, d: make_workload(c, d, upstream=None), expect_replace),
    )
}
