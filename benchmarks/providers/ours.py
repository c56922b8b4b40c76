"""`pare_kernels`: the registered operators with whatever backend serves the device, and the definition in plain PyTorch."""

from __future__ import annotations

import torch

import pare_kernels
from benchmarks.cases import Case
from benchmarks.operations import Workload
from benchmarks.providers.base import COMPARABLE, DEFAULT, EXACT, Call, Provider, register
from pare_kernels import reference


def backend(device: torch.device) -> str:
    """What serves `pare_kernels` on a device: "c++", "triton", or "fallback" (the definition, as raw operators)."""
    key = device.type.upper()
    if torch._C._dispatch_has_kernel_for_dispatch_key("pare_kernels::patch_replace", key):
        return {"cpu": "c++", "cuda": "triton"}.get(device.type, device.type)
    return "fallback"


def _replace(function, estimator: str):
    def build(case: Case, device: torch.device) -> Call:
        def call(workload: Workload, noise):
            randomness = {"seed": workload.seed} if noise is None else {"noise": noise}
            return function(
                *workload.leaves, k=case.k, tau=case.tau, exact_steps=COMPARABLE[estimator], **randomness
            ).mixed

        return call

    return build


def _register_replace(name: str, summary: str, function, estimator: str, **options) -> None:
    options = {"family": "ours", "seeded": True, "backend": backend} | options
    register(Provider("replace", name, summary, _replace(function, estimator), estimator=estimator, **options))


_register_replace("pare", "patch_replace, as by default", pare_kernels.patch_replace, DEFAULT)
_register_replace("pare-exact", "patch_replace, every step of the relaxation", pare_kernels.patch_replace, EXACT)
_register_replace("pare-inplace", "patch_swap_, as by default", pare_kernels.patch_swap_, DEFAULT, in_place=True)
_register_replace("pare-inplace-exact", "patch_swap_, every step", pare_kernels.patch_swap_, EXACT, in_place=True)
_DEFINITION = {"family": "rival", "backend": lambda device: "torch"}
_register_replace("reference", "the definition, as by default", reference.patch_replace, DEFAULT, **_DEFINITION)
_register_replace("reference-exact", "the definition, every step", reference.patch_replace, EXACT, **_DEFINITION)


register(
    Provider(
        "forward",
        "pare",
        "patch_replace without a gradient",
        _replace(pare_kernels.patch_replace, DEFAULT),
        family="ours",
        seeded=True,
        backend=backend,
    )
)


def _given_choice(workload: Workload) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores whose order is the workload's choice: 0 on free slots, 1 on kept ones; 1 on the patches that come."""
    slots, patches = workload.choice
    target, source = workload.leaves
    kept = torch.ones(target.shape[:2], device=target.device).scatter_(1, slots, 0.0)
    taken = torch.zeros(source.shape[:2], device=source.device).scatter_(1, patches, 1.0)
    return kept, taken


def _swap(function):
    def build(case: Case, device: torch.device) -> Call:
        scores: dict[int, tuple] = {}

        def call(workload: Workload, noise):
            key = workload.choice[0].data_ptr()
            if key not in scores:  # on the first call, which is not timed
                scores[key] = _given_choice(workload), torch.zeros(case.dim, device=device)
            choice, weight = scores[key]
            return function(*workload.leaves, weight, k=case.k, selection="random", noise=choice).mixed

        return call

    return build


_SWAP = {"family": "ours", "backend": backend}
register(Provider("swap", "pare", "patch_replace, which chooses as well", _swap(pare_kernels.patch_replace), **_SWAP))
register(
    Provider(
        "swap",
        "pare-inplace",
        "patch_swap_, which chooses as well",
        _swap(pare_kernels.patch_swap_),
        in_place=True,
        **_SWAP,
    )
)


def _pairs(case: Case, device: torch.device) -> Call:
    weight = torch.zeros(case.dim, device=device)
    options = {"k": case.k, "selection": "random", "pairing": "score"}
    return lambda workload, _: (
        pare_kernels.patch_replace(*workload.leaves, weight, noise=workload.noise, **options).mixed
    )


register(Provider("pairs", "pare", "patch_replace, pairing by score", _pairs, family="ours", backend=backend))


def _scores(case: Case, device: torch.device) -> Call:
    return lambda workload, noise: pare_kernels.gate_scores(*workload.leaves)


register(Provider("scores", "pare", "gate_scores", _scores, family="ours", backend=backend))


def _sampler(estimator: str):
    def build(case: Case, device: torch.device) -> Call:
        def call(workload: Workload, noise):
            randomness = {"seed": workload.seed} if noise is None else {"noise": noise[0]}
            options = {"tau": case.tau, "exact_steps": COMPARABLE[estimator]} | randomness
            return pare_kernels.gumbel_topk(*workload.leaves, case.k, **options).mask

        return call

    return build


for _name, _estimator in (("pare", DEFAULT), ("pare-exact", EXACT)):
    register(
        Provider(
            "sampler",
            _name,
            f"gumbel_topk, {_estimator}",
            _sampler(_estimator),
            family="ours",
            estimator=_estimator,
            seeded=True,
            backend=backend,
        )
    )


def _select(case: Case, device: torch.device) -> Call:
    def call(workload: Workload, noise):
        return pare_kernels.gumbel_topk(
            *workload.leaves, case.k, noise_scale=0.0, exact_steps=0, seed=workload.seed
        ).indices

    return call


register(
    Provider("select", "pare", "gumbel_topk: indices, mask and relaxed mask", _select, family="ours", backend=backend)
)


def _overhead(case: Case, device: torch.device) -> Call:
    def call(workload: Workload, noise):
        randomness = {} if noise is None else {"noise": noise}
        return pare_kernels.patch_replace(*workload.leaves, k=case.k, tau=case.tau, **randomness).mixed

    return call


def _overhead_raw(case: Case, device: torch.device) -> Call:
    operator = torch.ops.pare_kernels.patch_replace

    def call(workload: Workload, noise):
        randomness = (workload.seed, None, None) if noise is None else (None, *noise)
        return operator(*workload.leaves, *randomness, case.k, case.tau, 1.0, 0, False, False, 8, True)[0]

    return call


register(Provider("overhead", "pare", "patch_replace, as users call it", _overhead, family="ours", backend=backend))
register(
    Provider(
        "overhead", "pare-op", "torch.ops.pare_kernels.patch_replace", _overhead_raw, family="ours", backend=backend
    )
)
