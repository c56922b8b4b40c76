"""torch.func and forward-mode derivatives: right, or refused with a message; never a silent zero."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad, jacrev, jvp, vmap

import pare_kernels
from tests.pare_kernels.cases import raw_arguments

pytestmark = [pytest.mark.usefixtures("device"), pytest.mark.filterwarnings("ignore:There is a performance drop")]


def swapped(target, source, *gate, **options):
    target, source = target.clone(), source.clone()
    pare_kernels.patch_swap_(target, source, *gate, **options)
    return target


def of_gate(operation):
    """A scalar function of (target, source, weight, bias) through one of the operations."""

    def loss(target, source, weight, bias):
        if operation == "gate_scores":
            return pare_kernels.gate_scores(target, weight, bias).square().sum()
        if operation == "gumbel_topk":
            scores = pare_kernels.gate_scores(target, weight, bias)
            return (pare_kernels.gumbel_topk(scores, 3, seed=5).mask * target.sum(-1)).sum()
        run = pare_kernels.patch_replace if operation == "patch_replace" else swapped
        mixed = run(target, source, weight, bias, k=3, seed=5)
        return (mixed if operation == "patch_swap_" else mixed.mixed).square().sum()

    return loss


OPERATIONS = ("gate_scores", "gumbel_topk", "patch_replace", "patch_swap_")


def arguments():
    return torch.randn(4, 7, 6), torch.randn(4, 7, 6), torch.randn(6), torch.randn(1)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_grad_is_that_of_backward(operation):
    inputs = arguments()
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    expected = torch.autograd.grad(of_gate(operation)(*leaves), leaves, materialize_grads=True)
    for actual, wanted in zip(grad(of_gate(operation), argnums=(0, 1, 2, 3))(*inputs), expected, strict=True):
        assert torch.equal(actual, wanted)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_gradients_per_sample(operation):
    target, source, *gate = arguments()
    one = lambda t, s, *gate: of_gate(operation)(t.unsqueeze(0), s.unsqueeze(0), *gate)  # noqa: E731
    together = vmap(grad(one, argnums=2), in_dims=(0, 0, None, None))(target, source, *gate)
    for sample, actual in enumerate(together):
        assert torch.allclose(actual, grad(one, argnums=2)(target[sample], source[sample], *gate), atol=1e-6)


def test_jacobian_by_rows():
    target, _, weight, bias = arguments()
    score = lambda weight: pare_kernels.gate_scores(target, weight, bias)  # noqa: E731
    g = score(weight)
    assert torch.allclose(jacrev(score)(weight), (g * (1 - g)).unsqueeze(-1) * target, atol=1e-6)


def outputs(target, source, weight):
    """One output of each operator, public and raw, and of the definition, that a gradient flows through."""
    scores, seed = target.mean(-1) * weight.sum(), torch.tensor(5)
    raw = raw_arguments(target, source, weight, None, k=3, seed=5)
    ops = torch.ops.pare_kernels
    return {
        "gate_scores": lambda: pare_kernels.gate_scores(target, weight),
        "gumbel_topk": lambda: pare_kernels.gumbel_topk(scores, 3, seed=5).mask,
        "gumbel_topk relaxed": lambda: pare_kernels.gumbel_topk(scores, 3, seed=5).relaxed,
        "patch_replace": lambda: pare_kernels.patch_replace(target, source, weight, k=3, seed=5).mixed,
        "patch_swap_": lambda: swapped(target, source, weight, k=3, seed=5),
        "patch_swap": lambda: pare_kernels.patch_swap_((target * weight)[:, 1:], source.clone(), weight, k=3).mixed,
        "raw gate_scores": lambda: ops.gate_scores(target, weight, None),
        "raw gumbel_topk": lambda: ops.gumbel_topk(scores, None, seed, 0, 3, 0.9, 1.0, 8)[0],
        "raw patch_replace": lambda: ops.patch_replace(*raw)[0],
        "raw patch_swap": lambda: ops.patch_swap(*raw)[0],
        "reference.patch_replace": lambda: (
            pare_kernels.reference.patch_replace(target, source, weight, k=3, seed=5).mixed
        ),
    }


@pytest.mark.parametrize("power", [1, 2], ids=["linear", "square"])
@pytest.mark.parametrize("name", outputs(*arguments()[:3]))
def test_create_graph_is_refused(name, power):
    """Also of a loss that is linear in the output, where the incoming gradient is a constant."""
    target, source, weight, _ = arguments()
    weight.requires_grad_()
    output = outputs(target, source, weight)[name]()
    loss = (output * torch.randn_like(output)).pow(power).sum()
    operator = name.removeprefix("raw ").removesuffix(" relaxed")
    with pytest.raises(RuntimeError, match=rf"^pare_kernels\W+{operator} has first derivatives only"):
        torch.autograd.grad(loss, weight, create_graph=True)


@pytest.mark.parametrize("power", [1, 2], ids=["linear", "square"])
@pytest.mark.parametrize("name", ["gate_scores", "gumbel_topk", "gumbel_topk relaxed", "patch_replace", "patch_swap_"])
def test_second_derivatives_are_refused(name, power):
    target, source, weight, _ = arguments()

    def loss(weight):
        output = outputs(target, source, weight)[name]().flatten()
        return (output * torch.linspace(-1, 1, len(output))).pow(power).sum()

    with pytest.raises(RuntimeError, match="has first derivatives only"):
        grad(lambda weight: grad(loss)(weight).square().sum())(weight)
    weight.requires_grad_()
    with pytest.raises(RuntimeError, match="has first derivatives only"):
        grad(loss)(weight).sum().backward()


def test_torch_func_in_a_traced_graph_is_an_error_and_no_zero():
    fast = torch.compile(grad(of_gate("patch_swap_"), argnums=2), backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="setup_context"):
        fast(*arguments())


@pytest.mark.parametrize("operation", OPERATIONS)
def test_forward_mode_is_refused(operation):
    inputs = arguments()
    with pytest.raises(NotImplementedError, match="has no forward-mode derivative"):
        jvp(of_gate(operation), inputs, inputs)
    with forward_ad.dual_level():
        assert of_gate(operation)(*inputs).isfinite(), "no tangent, no error"
        target, source, weight, bias = inputs
        with pytest.raises(NotImplementedError, match="has no forward-mode derivative"):
            of_gate(operation)(forward_ad.make_dual(target, target), source, weight, bias)
