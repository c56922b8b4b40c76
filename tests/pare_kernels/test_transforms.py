"""torch.func and forward-mode derivatives: right, or refused with a message; never a silent zero."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad, jacrev, jvp, vmap

import pare_kernels

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


@pytest.mark.parametrize("operation", OPERATIONS)
def test_second_derivatives_are_refused(operation):
    inputs = arguments()
    inner = lambda *inputs: grad(of_gate(operation), argnums=2)(*inputs).sum()  # noqa: E731
    with pytest.raises(RuntimeError, match="has first derivatives only"):
        grad(inner, argnums=2)(*inputs)


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
