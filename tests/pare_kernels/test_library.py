"""The registered operators: schema, fake kernel, autograd registration, torch.compile."""

import dataclasses
import inspect
import os
import subprocess
import sys
import types

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from pare_kernels import PatchReplace, _library, gate_scores, gumbel_topk, patch_replace, patch_swap_
from pare_kernels._checks import ReplaceArguments, ReplaceOptions
from tests.pare_kernels.cases import OPTION_WORDS, make_inputs, raw_arguments

ops = torch.ops.pare_kernels
pytestmark = [pytest.mark.clean_empty, pytest.mark.usefixtures("device")]


def forward_arguments(selection="gumbel", dtype=torch.float32, requires_grad=True, **options):
    inputs = make_inputs(2, 6, 5, 4, dtype=dtype, requires_grad=requires_grad)
    seed = None if selection == "topk" else 5
    return raw_arguments(*inputs, k=3, seed=seed, selection=selection, pairing="score", **options)


def backward_arguments(needs=(True, True, True)):
    arguments = forward_arguments(requires_grad=False)
    mixed, *choice = ops.patch_replace(*arguments)
    return (torch.randn_like(mixed), *arguments[:3], *choice, 0.9, 8, False, True, *needs)


NEEDS = [(True, True, True), (True, False, False), (False, True, True)]


def samples(name):
    """Arguments of one operator for `opcheck`, on the default device."""
    scores, seed = torch.rand(3, 7), torch.tensor(5)
    match name:
        case "gate_scores":
            return [(*make_inputs(2, 6, 5, 4, requires_grad=True)[0::2], None)]
        case "gate_scores_backward":
            tensors = torch.rand(2, 6), torch.rand(2, 6), torch.rand(2, 6, 4), torch.rand(4)
            return [(*tensors, *needs) for needs in ((True, True), (True, False), (False, True))]
        case "gumbel_topk":
            return [
                (scores.clone().requires_grad_(), None, seed, 0, 3, 0.9, 1.0, 8, 2),
                (scores.clone().requires_grad_(), torch.rand(3, 7), None, 0, 3, 0.9, 1.0, -1),
                (scores, None, None, 0, 0, 0.9, 1.0, 8),
            ]
        case "gumbel_topk_backward":
            return [(torch.rand(3, 7), scores, 3, 0.9, 8), (torch.rand(3, 7), scores, 3, 0.9, -1)]
        case "patch_replace":
            return [
                forward_arguments(first_row=3),
                forward_arguments(exact_steps=None, dtype=torch.float64),
                forward_arguments(selection="topk", dtype=torch.bfloat16),
                forward_arguments(selection="random"),
            ]
        case "patch_replace_backward":
            return [backward_arguments(needs) for needs in NEEDS]
        case "patch_swap":
            return [forward_arguments(first_row=3)]
        case "patch_swap_":
            return [forward_arguments(requires_grad=False), forward_arguments(selection="random", requires_grad=False)]
        case "patch_swap_backward":
            grads = torch.randn(2, 5, 4), None
            return [(torch.randn(2, 6, 4), grad_source, *backward_arguments()[1:]) for grad_source in grads]


@pytest.mark.parametrize("name", _library.SCHEMAS)
def test_opcheck(name):
    cases = samples(name)
    assert cases, f"{name} has no samples for opcheck"
    for arguments in cases:
        torch.library.opcheck(getattr(ops, name).default, tuple(arguments))


def test_arguments_are_declared_alike():
    """For users, as options, and in the schemas: the same names, order and defaults."""
    of_users = inspect.signature(patch_replace)
    assert inspect.signature(patch_swap_) == of_users
    for option in dataclasses.fields(ReplaceOptions):
        assert not option.init or of_users.parameters[option.name].default == option.default
    for name in ("patch_replace", "patch_swap_", "patch_swap"):
        schema = getattr(ops, name).default._schema
        assert tuple(argument.name for argument in schema.arguments) == ReplaceArguments._fields


def compiled(function):
    """`function` under torch.compile, whole graph, and a count of its compilations."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    return torch.compile(function, fullgraph=True, backend=counter), counter


def test_compile_follows_k_seed_and_shapes_without_recompiling_each_time():
    def step(target, source, weight, bias, k, seed):
        result = patch_replace(target, source, weight, bias, k=k, seed=seed, first_row=3 * seed)
        return result.mixed.square().sum() * (1 - result.lam)

    fast, counter = compiled(step)
    for k, seed, batch, patches in [
        (3, 1, 2, 9),
        (4, 2, 2, 9),
        (5, 3, 2, 9),
        (7, 4, 3, 12),
        (2, 5, 4, 30),
        (9, 6, 5, 17),
        (8, 7, 2, 40),
    ]:
        inputs = make_inputs(batch, patches, patches, 8, dtype=torch.float32, requires_grad=True)
        losses = [function(*inputs, k, seed) for function in (step, fast)]
        torch.testing.assert_close(*losses)
        for a, b in zip(*(torch.autograd.grad(loss, inputs) for loss in losses), strict=True):
            torch.testing.assert_close(a, b)
    assert counter.frame_count <= 3  # static once, dynamic in k and seed, dynamic in the shapes


def test_compile_with_inductor_draws_its_own_seed_and_repeats():
    torch._dynamo.reset()
    fast = torch.compile(lambda *tensors: patch_replace(*tensors, k=4).mixed, fullgraph=True)
    inputs = make_inputs(2, 9, 9, 4, dtype=torch.float32, requires_grad=True)
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(fast(*inputs))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    outputs[0].sin().sum().backward()
    assert inputs[2].grad.isfinite().all()


@pytest.mark.parametrize("words", OPTION_WORDS[:2], ids=lambda words: "-".join(words.values()))
@pytest.mark.parametrize("grad", [True, False])
def test_compile_of_the_in_place_operator(words, grad):
    def step(target, source, weight, bias):
        target, source = target * 1, source * 1
        patch_swap_(target, source, weight, bias, k=3, seed=2, **words)
        return target.sin().sum() + source.cos().sum()

    fast, _ = compiled(step)
    inputs = make_inputs(2, 7, 6, 4, requires_grad=grad)
    values = [function(*inputs) for function in (step, fast)]
    torch.testing.assert_close(*values)
    if grad:
        for a, b in zip(*(torch.autograd.grad(value, inputs) for value in values), strict=True):
            torch.testing.assert_close(a, b)


def test_compile_follows_an_annealed_temperature():
    def step(target, source, weight, bias, tau, noise_scale):
        result = patch_replace(target, source, weight, bias, k=3, seed=1, tau=tau, noise_scale=noise_scale)
        _, mask, _ = gumbel_topk(target[..., 0], 3, seed=1, tau=tau, noise_scale=noise_scale)
        return result.mixed.square().sum() + (mask * target[..., 1]).sum()

    fast, _ = compiled(step)
    inputs = make_inputs(2, 9, 8, 4, requires_grad=True)
    for tau, noise_scale in ((0.9, 1.0), (0.8, 0.7), (0.7, 0.5), (0.6, 0.2)):
        values = [function(*inputs, tau, noise_scale) for function in (step, fast)]
        torch.testing.assert_close(*values)
        for a, b in zip(*(torch.autograd.grad(value, inputs) for value in values), strict=True):
            torch.testing.assert_close(a, b)
    with pytest.raises(Exception, match=r"(tau|\{\}) must be finite"):  # Dynamo of torch 2.11 does not fill in the text
        fast(*inputs, -1.0, 1.0)


def test_compile_of_the_module_with_everything_dynamic():
    module = PatchReplace(4)

    def mixed(target, source, k):
        return module(target, source, k=k, seed=5).mixed

    torch._dynamo.reset()
    fast = torch.compile(mixed, fullgraph=True, dynamic=True)
    for patches, k in ((9, 3), (12, 4)):
        target, source, *_ = make_inputs(2, patches, 8, 4, dtype=torch.float32)
        assert torch.equal(fast(target, source, k), mixed(target, source, k))


def test_compile_of_the_parts():
    def step(tokens, weight, k):
        scores = gate_scores(tokens, weight)
        _, mask, relaxed = gumbel_topk(scores, k, seed=3, exact_steps=None)
        return (mask * scores).sum() + relaxed.square().sum()

    fast, counter = compiled(step)
    tokens, _, weight, _ = make_inputs(2, 9, 9, 4, requires_grad=True)
    for k in (2, 3, 4, 5):
        values = [function(tokens, weight, k) for function in (step, fast)]
        torch.testing.assert_close(*values)
        for a, b in zip(*(torch.autograd.grad(value, (tokens, weight)) for value in values), strict=True):
            torch.testing.assert_close(a, b)
    assert counter.frame_count <= 2


def test_compile_gives_clear_errors_too():
    fast, _ = compiled(lambda target, weight: patch_replace(target, target, weight, k=99).mixed)
    with pytest.raises(Exception, match="k must be an int between 0 and 5"):
        fast(torch.randn(1, 5, 3), torch.randn(3))


def test_raw_in_place_operator_changes_only_what_it_says():
    target, source, *rest = forward_arguments(requires_grad=False)
    before = [tensor.clone() for tensor in rest[:2]]
    ops.patch_swap_(target, source, *rest)
    assert all(torch.equal(a, b) for a, b in zip(before, rest[:2], strict=True))


def run_python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_import_needs_torch_alone():
    """No triton, no numpy, no transformers, no driver."""
    code = """
import sys
before = set(sys.modules)
import torch
with_torch = set(sys.modules)
import pare_kernels
new = {name.split('.')[0] for name in set(sys.modules) - with_torch} - {'pare_kernels'}
print(sorted(new & {'triton', 'transformers', 'scipy', 'sklearn', 'crossmodal', 'accelerate'}))
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_extension_can_be_switched_off_quietly():
    code = """
import torch, pare_kernels
print(pare_kernels._library.EXTENSION_PROBLEM)
print(pare_kernels.patch_replace(torch.randn(1, 4, 2), torch.randn(1, 4, 2), torch.ones(2), k=2).mixed.shape)
"""
    result = run_python(code, PARE_KERNELS_NO_EXT="1")
    assert result.stdout.splitlines() == ["switched off by PARE_KERNELS_NO_EXT=1", "torch.Size([1, 4, 2])"], (
        result.stderr
    )
    assert "UserWarning" not in result.stderr


@pytest.mark.skipif(_library.EXTENSION_PROBLEM is not None, reason="the C++ kernels are not in use")
@pytest.mark.parametrize("change", ["another type", "one argument less", "an operator less", "no signatures"])
def test_kernels_built_from_other_sources_are_refused(change, monkeypatch):
    built = torch.ops.pare_kernels.signatures()
    assert "gumbel_topk_backward ttifi\n" in built
    other = {
        "another type": built.replace("topk_backward ttifi", "topk_backward ttiff"),
        "one argument less": built.replace("topk_backward ttifi", "topk_backward ttif"),
        "an operator less": built.replace("gumbel_topk_backward ttifi\n", ""),
    }
    known = {name: getattr(torch.ops.pare_kernels, name) for name in _library._triton.OPERATORS}
    if change in other:
        known["signatures"] = lambda: other[change]
    monkeypatch.setattr(_library, "ops", types.SimpleNamespace(**known))
    with pytest.raises(
        ImportError, match=r"other sources .*gumbel_topk_backward.* differ\. Build them again, with `pip install"
    ):
        _library._check_signatures()
