"""Every provider computes what it is timed for; a wrong one is refused."""

from dataclasses import replace

import pytest
import torch

from benchmarks.agreement import TOLERANCE, Disagreement, Judge, relative_error, run
from benchmarks.cases import Case
from benchmarks.operations import OPERATIONS
from benchmarks.providers import PROVIDERS, providers_of, register
from benchmarks.providers.base import DEFAULT, Provider
from benchmarks.providers.relaxations import LapSum, SigmoidThreshold, closed_form, closed_form_adjoint, log_steps
from pare_kernels import reference

CPU = torch.device("cpu")
EAGER = [provider for provider in PROVIDERS.values() if not provider.compiled]
COMPILED = [provider for provider in PROVIDERS.values() if provider.compiled]
CASES = [
    Case("uneven", "a test", 3, 12, 10, 8, 4),
    Case("even", "a test", 2, 33, 33, 5, 17),
    Case("one", "a test", 1, 9, 9, 3, 1),
]


def name_of(provider: Provider) -> str:
    return f"{provider.operation}-{provider.name}"


def judge(operation: str, case: Case) -> Judge:
    return Judge(OPERATIONS[operation], OPERATIONS[operation].make(case, CPU))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("provider", EAGER, ids=name_of)
def test_agrees_with_the_definition(provider, case):
    error = judge(provider.operation, case).check(provider, provider.build(case, CPU))
    assert error <= TOLERANCE["float32"]


@pytest.mark.parametrize("provider", [p for p in EAGER if p.operation in ("replace", "swap", "scores")], ids=name_of)
def test_agrees_in_half_precision(provider):
    case = CASES[1].with_(dtype="bfloat16")
    assert judge(provider.operation, case).check(provider, provider.build(case, CPU)) <= TOLERANCE["bfloat16"]


@pytest.mark.parametrize("provider", COMPILED, ids=name_of)
def test_compiled_providers_agree_uncompiled(provider, monkeypatch):
    """The functions that are compiled, without the minutes that the compiler takes."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    for case in (CASES[1], CASES[1].with_(num_target=80, num_source=70)):
        judge(provider.operation, case).check(provider, provider.build(case, CPU))


def wrong(output=lambda x: x, grad=lambda g: g, estimator=DEFAULT) -> Provider:
    """The definition with its output, or the gradient of its target, tampered with."""

    class Tamper(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, y):
            return grad(y)

    def build(case, device):
        def call(workload, noise):
            randomness = {"noise": noise} if noise is not None else {"seed": workload.seed}
            leaves = Tamper.apply(workload.leaves[0]), *workload.leaves[1:]
            return output(reference.patch_replace(*leaves, k=case.k, tau=case.tau, exact_steps=8, **randomness).mixed)

        return call

    return Provider("replace", "wrong", "a deliberately wrong one", build, estimator=estimator)


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        (wrong(output=lambda x: x + (torch.arange(12) == 3).view(1, -1, 1) * 1e-3), "output differs in 3 of 36 rows"),
        (wrong(output=lambda x: x[:, :-1]), "output of shape"),
        (wrong(grad=lambda g: 1.01 * g), "gradient of input 0"),
        (wrong(grad=lambda g: g * torch.nan), "not finite"),
        (replace(PROVIDERS["replace", "sigmoid"], estimator=DEFAULT), "gradient of"),  # under a false name
        (wrong(output=lambda x: x * torch.nan, estimator="another"), "output differs"),
    ],
    ids=["row", "shape", "gradient", "nan", "estimator", "hard choice"],
)
def test_wrong_provider_is_refused(provider, message, case):
    with pytest.raises(Disagreement, match=message):
        judge("replace", case).check(provider, provider.build(case, CPU))


def test_other_estimator_is_held_to_the_hard_choice_alone(case):
    provider = wrong(grad=lambda g: 2 * g, estimator="another")
    assert judge("replace", case).check(provider, provider.build(case, CPU)) == 0.0


def test_own_noise_must_choose_k(case):
    def build(case, device):
        def call(workload, noise):
            k = case.k if noise is not None else case.k - 1
            noise = noise or workload.noise
            return reference.patch_replace(*workload.leaves, k=k, tau=case.tau, noise=noise).mixed

        return call

    provider = Provider("replace", "short of one", "", build, estimator=DEFAULT)
    with pytest.raises(Disagreement, match="3 to 3 of 4 patches"):
        judge("replace", case).check(provider, build(case, CPU))


def test_own_seed_path_is_checked(case):
    def build(case, device):
        def call(workload, noise):
            randomness = {"noise": noise} if noise is not None else {"seed": workload.seed + 1}
            return reference.patch_replace(*workload.leaves, k=case.k, tau=case.tau, **randomness).mixed

        return call

    provider = Provider("replace", "wrong seed", "", build, estimator=DEFAULT, seeded=True)
    with pytest.raises(Disagreement, match="with its own noise"):
        judge("replace", case).check(provider, build(case, CPU))


def test_in_place_providers_leave_the_workload_as_it_is(case):
    (provider,) = providers_of("replace", ("pare-inplace",))
    workload = OPERATIONS["replace"].make(case, CPU)
    before = [leaf.detach().clone() for leaf in workload.leaves]
    run(provider, provider.build(case, CPU), workload, None)
    assert all(torch.equal(leaf, old) for leaf, old in zip(workload.leaves, before, strict=True))


def test_registry_names_what_it_has():
    with pytest.raises(ValueError, match="no provider 'nobody'; it has pare, topk"):
        providers_of("select", ("nobody",))
    with pytest.raises(ValueError, match="registered already"):
        register(next(iter(PROVIDERS.values())))


@pytest.mark.parametrize("n", [1, 20, 39])
def test_relaxations_sum_to_n(n):
    scores = 3 * torch.randn(5, 40)
    for h in (
        SigmoidThreshold.apply(scores, n, 0.9),
        LapSum.apply(scores, n, 0.9),
        log_steps(scores, n, 0.9),
        closed_form(scores, n, 0.9, 2),
    ):
        torch.testing.assert_close(h.sum(1), torch.full((5,), float(n)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("relaxation", [SigmoidThreshold, LapSum])
@pytest.mark.parametrize("n", [1, 7, 11])
def test_gradients_of_other_estimators(relaxation, n):
    scores = torch.randn(2, 12, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda s: relaxation.apply(s, n, 0.9), scores)


@pytest.mark.parametrize(("n", "exact"), [(7, 0), (7, 3), (3, 3), (2, 8)])
def test_gradient_of_the_closed_form(n, exact):
    scores = torch.randn(2, 12, dtype=torch.float64, requires_grad=True)
    c = torch.randn(2, 12, dtype=torch.float64)
    (by_autograd,) = torch.autograd.grad(closed_form(scores, n, 0.9, exact), scores, c)
    torch.testing.assert_close(
        closed_form_adjoint(c, scores.detach(), n, 0.9, exact), by_autograd, rtol=1e-7, atol=1e-9
    )


def test_relative_error_of_nothing():
    assert relative_error(torch.empty(0), torch.empty(0)) == 0.0
