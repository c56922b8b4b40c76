"""`patch_replace`, `patch_swap_`, `gumbel_topk` and `gate_scores` as a user calls them, against the definition on the CPU."""

import math

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

import pare_kernels
from pare_kernels import PatchReplace, gate_scores, gumbel_topk, patch_replace, patch_swap_, reference
from tests.pare_kernels.cases import OPTION_WORDS, make_inputs, on_host, raw_arguments, zeros_if_none
from tests.tolerances import SCORES, assert_gradient

pytestmark = pytest.mark.usefixtures("device")

SHAPES = [(2, 6, 5, 4), (1, 1, 1, 3), (3, 4, 9, 1), (2, 17, 12, 33), (1, 40, 40, 8)]


def gradients(operator, inputs, upstream, **options):
    """(result, gradients), on the CPU; the definition runs there, the operators where `inputs` are."""
    if operator is reference.patch_replace:
        inputs, upstream, options = on_host(inputs), upstream.cpu(), {name: on_host(v) for name, v in options.items()}
    with torch.device(upstream.device):
        inputs = [tensor.detach().clone().requires_grad_() for tensor in inputs]
        result = operator(*inputs, **options)
        return on_host((result, torch.autograd.grad(result.mixed, inputs, upstream, allow_unused=True)))


def assert_gradients(actual, expected, inputs, dtype=torch.float64):
    for name, a, e, like in zip(("target", "source", "weight", "bias"), actual, expected, inputs, strict=True):
        assert_gradient(name, zeros_if_none(a, like), zeros_if_none(e, like), dtype)


# --- hand-worked -----------------------------------------------------------------------------------------------------


def test_hand_worked_replacement():
    target = torch.tensor([[[-2.0], [1.0], [0.0], [3.0]]])
    source = torch.tensor([[[5.0], [-1.0], [7.0]]])
    weight = torch.tensor([1.0])

    def replaced(**options):
        result = patch_replace(target, source, weight, k=2, selection="topk", **options)
        assert result.lam == 0.5
        return result.mixed.flatten().tolist(), result.target_index.tolist()[0], result.source_index.tolist()[0]

    assert replaced() == ([5.0, 1.0, 7.0, 3.0], [0, 2], [0, 2])
    assert replaced(pairing="score") == ([7.0, 1.0, 5.0, 3.0], [0, 2], [2, 0])
    assert replaced(replace="highest") == ([-2.0, 5.0, 0.0, 7.0], [1, 3], [0, 2])


def test_hand_worked_gradient():
    """One of two target patches stays, one of one source patch comes: every step of the straight-through backward by hand."""
    target = torch.tensor([[[1.0], [0.0]]], dtype=torch.float64, requires_grad=True)
    source = torch.tensor([[[2.0]]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    noise = torch.zeros(1, 2, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    mixed = patch_replace(target, source, weight, k=1, tau=0.5, noise=noise).mixed
    assert mixed.flatten().tolist() == [1.0, 2.0]
    y = torch.tensor([[[3.0], [4.0]]], dtype=torch.float64)
    dtarget, dsource, dweight = torch.autograd.grad(mixed, (target, source, weight), y)

    g = 1 / (1 + math.exp(-2.0))  # the gate of the first target patch; the second has 1/2
    p = 1 / (1 + math.exp((0.5 - g) / 0.5))  # one step: softmax over two patches
    c = 3.0 * 1.0  # <y, token> of the patch that stays
    ds = c * p * (1 - p) / 0.5  # and minus that for the other; the source's single patch has none
    dz = ds * g * (1 - g), -ds * 0.25
    assert dtarget.flatten().tolist() == pytest.approx([3.0 + dz[0] * 2.0, dz[1] * 2.0])
    assert dsource.flatten().tolist() == pytest.approx([4.0])
    assert dweight.tolist() == pytest.approx([dz[0] * 1.0 + dz[1] * 0.0])


def test_gate_scores_is_a_sigmoid_of_a_dot_product():
    tokens = torch.tensor([[[1.0, 2.0], [0.0, -1.0]]])
    scores = gate_scores(tokens, torch.tensor([[0.5, -1.0]]), torch.tensor(0.25))
    assert torch.allclose(scores, torch.sigmoid(torch.tensor([[-1.25, 1.25]])))


# --- against the definition ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", OPTION_WORDS, ids=lambda words: "-".join(words.values()))
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "B{}-Nt{}-Ns{}-D{}".format(*shape))
def test_equals_the_reference_with_gradients(shape, words):
    inputs = make_inputs(*shape)
    for k in {0, 1, min(shape[1:3]) // 2, min(shape[1:3])}:
        for exact_steps in (None, 2):
            options = dict(words, k=k, exact_steps=exact_steps, seed=k + 11)
            upstream = torch.randn_like(inputs[0])
            expected, expected_gradients = gradients(reference.patch_replace, inputs, upstream, **options)
            actual, actual_gradients = gradients(patch_replace, inputs, upstream, **options)
            assert torch.equal(actual.mixed, expected.mixed)
            assert torch.equal(actual.target_index, expected.target_index)
            assert torch.equal(actual.source_index, expected.source_index)
            assert actual.lam == expected.lam
            assert_gradients(actual_gradients, expected_gradients, inputs)


@pytest.mark.parametrize("selection", ["gumbel", "topk"])
def test_straight_through_option(selection):
    inputs = make_inputs(2, 9, 7, 5)
    upstream = torch.randn_like(inputs[0])
    for straight_through in (True, False):
        options = {"k": 3, "selection": selection, "straight_through": straight_through, "seed": 4}
        _, expected = gradients(reference.patch_replace, inputs, upstream, **options)
        _, actual = gradients(patch_replace, inputs, upstream, **options)
        assert_gradients(actual, expected, inputs)
        assert bool(zeros_if_none(actual[2], inputs[2]).any()) is straight_through


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_every_dtype_against_float64(dtype):
    inputs = make_inputs(3, 24, 20, 16, dtype=dtype)
    upstream = torch.randn_like(inputs[0])
    noise = tuple(
        reference.gumbel_noise(torch.tensor(5), 3, patches, stream) for stream, patches in enumerate((24, 20))
    )
    expected, expected_gradients = gradients(
        reference.patch_replace, [tensor.double() for tensor in inputs], upstream.double(), k=9, noise=noise
    )
    actual, actual_gradients = gradients(patch_replace, inputs, upstream, k=9, noise=noise)
    assert actual.mixed.dtype == dtype
    assert torch.equal(actual.mixed.double(), expected.mixed)
    assert all(gradient.dtype == dtype for gradient in actual_gradients)
    assert_gradients(actual_gradients, expected_gradients, inputs, dtype)
    scores = gate_scores(*inputs[:1], *inputs[2:])
    assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    wide = reference.gate_scores(*(tensor.double() for tensor in on_host(inputs[:1] + inputs[2:])))
    torch.testing.assert_close(scores.cpu().double(), wide, rtol=SCORES[dtype][0], atol=SCORES[dtype][1])


def test_parameters_may_have_another_dtype_than_the_tokens():
    target, source, _, _ = make_inputs(2, 8, 8, 4, dtype=torch.bfloat16)
    _, _, weight, bias = make_inputs(2, 8, 8, 4, dtype=torch.float32, requires_grad=True)
    patch_replace(target, source, weight, bias, k=4).mixed.float().sin().sum().backward()
    assert weight.grad.dtype == torch.float32
    assert weight.grad.shape == (1, 4)
    assert bias.grad.shape == (1,)


def test_passes_gradcheck_in_the_tokens_where_the_choice_is_constant():
    """With `straight_through=False` the operator is a true function of the tokens: rows move, nothing else."""
    target, source, weight, bias = make_inputs(2, 5, 4, 3, requires_grad=True)
    noise = torch.randn(2, 5, dtype=torch.float64) * 100, torch.randn(2, 4, dtype=torch.float64) * 100
    assert torch.autograd.gradcheck(
        lambda t, s: patch_replace(t, s, weight.detach(), k=2, noise=noise, straight_through=False).mixed,
        (target, source),
    )
    assert torch.autograd.gradcheck(lambda t, w, b: gate_scores(t, w, b), (target, weight, bias))


# --- edges -----------------------------------------------------------------------------------------------------------


def test_k_zero_returns_the_target_unchanged():
    target, source, weight, bias = make_inputs(2, 5, 4, 3, requires_grad=True)
    result = patch_replace(target, source, weight, bias, k=0)
    assert torch.equal(result.mixed, target)
    assert result.lam == 0.0
    assert result.target_index.shape == result.source_index.shape == (2, 0)
    result.mixed.sum().backward()
    assert source.grad.abs().sum() == 0
    assert weight.grad is not None  # the gate stays in the graph


def test_empty_batch_and_no_patches():
    for batch, patches in ((0, 5), (2, 0), (0, 0)):
        target, source, weight, bias = make_inputs(batch, patches, patches, 3, requires_grad=True)
        result = patch_replace(target, source, weight, bias, k=min(patches, 2))
        assert result.mixed.shape == (batch, patches, 3)
        assert result.lam == (0.4 if patches else 0.0)
        result.mixed.sum().backward()
        assert target.grad.shape == target.shape
        assert torch.equal(weight.grad, torch.zeros_like(weight))


def test_equal_scores_take_the_lower_index():
    target, source = torch.zeros(1, 6, 2), torch.ones(1, 6, 2)
    result = patch_replace(target, source, torch.zeros(2), k=2, selection="topk")
    assert result.source_index.tolist() == [[0, 1]]  # the first ones are chosen
    assert result.target_index.tolist() == [[4, 5]]  # the first ones are kept


def test_non_finite_tokens_rank_last_and_stay_in_their_row():
    target, source, weight, bias = make_inputs(3, 8, 8, 4, dtype=torch.float32)
    clean, clean_gradients = gradients(
        patch_replace, (target, source, weight, bias), torch.ones_like(target), k=3, seed=1
    )
    source[1, 2] = math.nan
    target[1, 5, 0] = math.inf
    broken, broken_gradients = gradients(
        patch_replace, (target, source, weight, bias), torch.ones_like(target), k=3, seed=1
    )
    assert 2 not in broken.source_index[1].tolist()
    for row in (0, 2):
        assert torch.equal(broken.mixed[row], clean.mixed[row])
        for a, e in zip(broken_gradients[:2], clean_gradients[:2], strict=True):
            assert torch.equal(a[row], e[row])


@pytest.mark.parametrize(
    ("replace", "side", "taken"),
    [("lowest", "source", [0, 1, 4, 5]), ("lowest", "target", [2, 3]), ("highest", "target", [0, 1, 4, 5])],
)
def test_minus_infinity_as_noise_excludes_a_patch(replace, side, taken):
    """A source patch from being chosen; a target patch from being kept, or from being replaced where the highest are."""
    inputs = make_inputs(2, 6, 6, 4)
    noise = {name: torch.zeros(2, 6, dtype=torch.float64) for name in ("target", "source")}
    noise[side][:, 2:4] = -math.inf
    options = {"k": len(taken), "noise": tuple(noise.values()), "replace": replace}
    upstream = torch.randn_like(inputs[0])
    result, actual = gradients(patch_replace, inputs, upstream, **options)
    assert getattr(result, f"{side}_index").tolist() == [taken] * 2
    _, expected = gradients(reference.patch_replace, inputs, upstream, **options)
    assert_gradients(actual, expected, inputs)


def test_strided_expanded_and_transposed_inputs():
    target, source, weight, bias = make_inputs(4, 7, 6, 5)
    expected = patch_replace(target, source, weight, bias, k=3, seed=2).mixed
    strided = torch.zeros(4, 14, 10, dtype=torch.float64)[:, ::2, ::2].copy_(target)
    transposed = source.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(patch_replace(strided, transposed, weight, bias, k=3, seed=2).mixed, expected)
    row = source[:1].expand(4, -1, -1)
    upstream = torch.randn_like(target)
    wide = gradients(patch_replace, (target, row.contiguous(), weight, bias), upstream, k=3, seed=2)
    base = source[:1].clone().requires_grad_()
    result = patch_replace(target, base.expand(4, -1, -1), weight, bias, k=3, seed=2)
    assert torch.equal(result.mixed.cpu(), wide[0].mixed)
    (gradient,) = torch.autograd.grad(result.mixed, base, upstream)
    assert_gradient("source", gradient.cpu(), wide[1][1].sum(0, keepdim=True), torch.float64)
    (gradient,) = torch.autograd.grad(
        patch_replace(target, base.expand(4, -1, -1), weight, bias, k=3, seed=2).mixed.sum(), base
    )
    assert gradient.isfinite().all()  # the gradient of a sum is itself expanded


def test_only_needed_gradients_are_computed():
    for wanted in ((0,), (1,), (2,), (3,), (0, 2), (1, 2, 3)):
        inputs = make_inputs(2, 6, 5, 4)
        everything = [tensor.clone().requires_grad_() for tensor in inputs]
        some = [tensor.clone().requires_grad_(i in wanted) for i, tensor in enumerate(inputs)]
        for tensors in (everything, some):
            patch_replace(*tensors, k=2, seed=8).mixed.sin().sum().backward()
        for i in range(4):
            if i in wanted:
                assert_gradient(str(i), some[i].grad, everything[i].grad, torch.float64)
            else:
                assert some[i].grad is None


# --- in place --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", OPTION_WORDS, ids=lambda words: "-".join(words.values()))
def test_swap_has_the_gradient_of_replace_and_routes_the_displaced(words):
    inputs = make_inputs(2, 7, 6, 4)
    y_target, y_source = torch.randn_like(inputs[0]), torch.randn_like(inputs[1])
    _, expected = gradients(patch_replace, inputs, y_target, k=3, seed=3, **words)

    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    buffers = [leaf * 1 for leaf in leaves[:2]]
    result = patch_swap_(*buffers, *leaves[2:], k=3, seed=3, **words)
    assert buffers[0].grad_fn is not None
    actual = torch.autograd.grad(
        (buffers[0] * y_target).sum() + (buffers[1] * y_source).sum(), leaves, allow_unused=True
    )

    routed_target, routed_source = torch.zeros_like(inputs[0]), y_source.clone()
    for row in range(2):
        slots, patches = result.target_index[row], result.source_index[row]
        routed_target[row, slots] = y_source[row, patches]
        routed_source[row, patches] = 0
    extras = on_host((routed_target, routed_source, torch.zeros(()), torch.zeros(())))
    for a, e, like, extra in zip(on_host(actual), expected, inputs, extras, strict=True):
        assert_gradient("swap", zeros_if_none(a, like), zeros_if_none(e, like) + extra, torch.float64)


def test_swap_has_exactly_the_gradient_of_replace_where_the_source_buffer_is_not_used_again():
    inputs = make_inputs(2, 7, 6, 4)
    upstream = torch.randn_like(inputs[0])
    _, expected = gradients(patch_replace, inputs, upstream, k=3, seed=3)
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    mixed = patch_swap_(leaves[0] * 1, leaves[1] * 1, *leaves[2:], k=3, seed=3).mixed
    for one, other in zip(torch.autograd.grad(mixed, leaves, upstream), expected, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=0, atol=0)


def test_swap_works_on_views_of_any_strides():
    target, source, weight, bias = make_inputs(2, 6, 6, 4)
    expected = patch_replace(target, source, weight, bias, k=3, seed=1).mixed
    storage = torch.zeros(2, 6, 12, dtype=torch.float64)
    view = storage[:, :, 1::3].copy_(target)
    patch_swap_(view, source.transpose(1, 2).contiguous().transpose(1, 2), weight, bias, k=3, seed=1)
    assert torch.equal(view, expected)
    assert (storage[:, :, 0::3] == 0).all()


@pytest.mark.parametrize("array", [False, True], ids=["tensor", "array"])
@pytest.mark.parametrize(
    "parts",
    [(np.s_[:2], np.s_[2:]), (np.s_[:, :8], np.s_[:, 8:]), (np.s_[:, ::2], np.s_[:, 1::2])],
    ids=["samples", "halves", "in-turns"],
)
def test_swap_between_parts_of_one_buffer(parts, array):
    both = torch.randn(4, 16, 4, dtype=torch.float64, device="cpu" if array else None)
    target, source = (torch.from_numpy(both.numpy()[part]) if array else both[part] for part in parts)
    weight = torch.ones(4, dtype=torch.float64, device=both.device)
    expected = patch_replace(target, source, weight, k=2, seed=1).mixed
    assert torch.equal(patch_swap_(target, source, weight, k=2, seed=1).mixed, expected)
    assert torch.equal(both[parts[0]], expected)


def test_swap_refuses_what_cannot_be_changed_in_place():
    target, source, weight, _ = make_inputs(2, 6, 6, 4)
    both = torch.randn(2, 9, 8, dtype=torch.float64)
    for a, b in ((both[:, :6], both[:, 5:]), (both[..., :4], both[..., 2:6]), (both[..., ::2], both[..., 1::2])):
        with pytest.raises(ValueError, match="target and source must not share memory"):
            patch_swap_(a, b, torch.ones(4 if a.shape[2] == 4 else 8, dtype=torch.float64), k=1)
    with pytest.raises(ValueError, match="target must own each of its elements"):
        patch_swap_(both.as_strided((2, 3, 4), (8, 2, 1)), source[:, :3], weight, k=1)
    with pytest.raises(ValueError, match="target and source must not share memory"):
        patch_swap_(target, target, weight, k=1)
    with pytest.raises(ValueError, match="source must own each of its elements"):
        patch_swap_(target, source[:1].expand(2, -1, -1), weight, k=1)
    negated = torch.randn(2, 6, 4, dtype=torch.complex128).conj().imag
    with pytest.raises(
        ValueError, match="target must hold its own numbers to be changed in place, but is a negated view"
    ):
        patch_swap_(negated, source, weight, k=1)


@pytest.mark.parametrize("raw", [False, True])
def test_an_exchange_without_gradient_is_noticed_by_what_saved_the_buffers(raw):
    target, source, weight, bias = make_inputs(2, 6, 6, 4, requires_grad=False)
    gate = weight.clone().requires_grad_()
    loss = patch_replace(target, source, gate, bias, k=3, seed=1).mixed.square().sum()
    with torch.no_grad():
        if raw:
            torch.ops.pare_kernels.patch_swap_(*raw_arguments(target, source, weight, bias, k=3, seed=2))
        else:
            patch_swap_(target, source, weight, bias, k=3, seed=2)
    assert (target._version, source._version) == (1, 1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    with torch.inference_mode():  # where nothing counts versions
        patch_swap_(target.clone(), source.clone(), weight, bias, k=3, seed=2)


@pytest.mark.parametrize("viewed", [(True, False), (False, True), (True, True)])
def test_swap_of_views_has_the_gradient_of_the_swap(viewed):
    """Without a class token, say: views that need a gradient, which autograd functions cannot mark as changed."""
    inputs = make_inputs(2, 7, 6, 4)
    upstream = [torch.randn_like(tensor) for tensor in inputs[:2]]

    def swapped(*viewed):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        buffers = []
        for leaf, view in zip(leaves[:2], viewed, strict=True):
            padded = torch.cat([leaf[:, :1] * 0, leaf], 1)
            buffers.append(padded[:, 1:] if view else leaf * 1)
        result = patch_swap_(*buffers, *leaves[2:], k=3, seed=4)
        assert result.mixed is buffers[0]
        bases = [buffer._base[:, 1:] if view else buffer for buffer, view in zip(buffers, viewed, strict=True)]
        return [*buffers, *torch.autograd.grad(bases, leaves, upstream)]

    for one, other in zip(swapped(*viewed), swapped(False, False), strict=True):
        torch.testing.assert_close(one, other)


def test_swap_on_tensors_without_memory():
    from torch._subclasses.fake_tensor import FakeTensorMode

    def swap(device=None):
        both, weight = torch.randn(2, 20, 4, device=device), torch.randn(4, device=device)
        assert patch_swap_(both[:, :9], both[:, 9:], weight, k=3).target_index.shape == (2, 3)
        assert patch_swap_(both, both.clone(), weight, k=3).mixed is both
        with pytest.raises(ValueError, match="must not share memory"):
            patch_swap_(both[:, :9], both[:, 8:], weight, k=3)

    swap("meta")
    with FakeTensorMode():
        swap()


def test_swap_does_not_depend_on_the_default_device():
    with torch.device("cpu"):
        both, weight = torch.randn(2, 20, 4), torch.randn(4)
    with torch.device("meta"):
        patch_swap_(both[:, :9], both[:, 9:], weight, k=3, selection="topk")


@pytest.mark.parametrize("rows", [slice(0, 8), slice(4, 12), slice(7, 15), slice(0, 16, 2)], ids=str)
@pytest.mark.parametrize("parameter", [False, True])
def test_swap_refuses_two_tensors_over_one_array(rows, parameter):
    """Their storages differ, and begin at different addresses."""
    array = torch.randn(2, 16, 4, device="cpu").numpy()
    target, source = torch.from_numpy(array[:, :8]), torch.from_numpy(array[:, rows])
    if parameter:
        source = torch.nn.Parameter(source, requires_grad=False)
    before = array.copy()
    with pytest.raises(ValueError, match="target and source must not share memory"):
        patch_swap_(target, source, torch.randn(4, device="cpu"), k=3)
    assert (array == before).all()


@pytest.mark.parametrize("operand", ["gate_weight", "gate_bias", r"noise\[0\]", r"noise\[1\]"])
@pytest.mark.parametrize("of_target", [True, False])
def test_swap_refuses_what_it_reads_from_what_it_writes(operand, of_target):
    """The numbers of one sample would be read after those of another had moved."""
    target, source, weight, bias = make_inputs(2, 6, 6, 4)
    noise = [torch.randn(2, 6, dtype=torch.float64) for _ in range(2)]
    buffer = target if of_target else source
    part = {"gate_weight": buffer[1, 2], "gate_bias": buffer[1, 2, 3]}.get(operand, buffer[..., 1])
    values = {"gate_weight": weight, "gate_bias": bias, r"noise\[0\]": noise[0], r"noise\[1\]": noise[1], operand: part}
    weight, bias, *noise = values.values()
    before = target.clone(), source.clone()
    with pytest.raises(
        ValueError, match=f"{'target' if of_target else 'source'} and {operand}.* must not share memory"
    ):
        patch_swap_(target, source, weight, bias, k=3, noise=tuple(noise))
    assert torch.equal(target, before[0])
    assert torch.equal(source, before[1])


@pytest.mark.parametrize("name", ["target", "source"])
@pytest.mark.parametrize("kind", ["inference", "leaf", "view of a leaf"])
@pytest.mark.parametrize("trained", [False, True])
def test_swap_refuses_what_no_in_place_operation_may_change(name, kind, trained):
    target, source, weight, _ = make_inputs(2, 6, 6, 4)
    buffers = {"target": target, "source": source}
    with torch.inference_mode(kind == "inference"):
        buffers[name] = torch.cat([buffers[name]] * 2, 1)
    if kind != "inference":
        buffers[name].requires_grad_()
    if kind != "leaf":
        buffers[name] = buffers[name][:, 3:9]
    before = [buffer.detach().clone() for buffer in buffers.values()]
    with pytest.raises(
        RuntimeError, match="inference tensor" if kind == "inference" else "leaf Variable that requires grad"
    ):
        buffers[name].mul_(1)  # PyTorch's own
    message = (
        f"{name} is an inference tensor" if kind == "inference" else f"{name} is a leaf Variable that requires grad"
    )
    with pytest.raises(RuntimeError, match=message):
        patch_swap_(*buffers.values(), weight.requires_grad_(trained), k=3, seed=2)
    assert all(torch.equal(one, other) for one, other in zip(buffers.values(), before, strict=True))


def test_inference_tensors_are_exchanged_in_inference_mode_alone():
    with torch.inference_mode():
        target, source, weight, bias = make_inputs(2, 6, 6, 4)
        expected = patch_replace(target, source, weight, bias, k=3, seed=2).mixed
        assert torch.equal(patch_swap_(target, source, weight, bias, k=3, seed=2).mixed, expected)
    with pytest.raises(RuntimeError, match="target is an inference tensor"):
        torch.ops.pare_kernels.patch_swap_(*raw_arguments(target, source, weight, bias, k=3, seed=2))
    assert torch.equal(target, expected)


@pytest.mark.parametrize("selection", ["topk", "random"])
def test_without_a_relaxation_the_tokens_are_not_kept(selection):
    """The gradient only moves rows: no memory is held for it, and the tokens may be overwritten."""
    inputs = make_inputs(2, 7, 6, 4)
    upstream = torch.randn_like(inputs[0])
    words = {"k": 3, "selection": selection, "seed": 3}
    _, expected = gradients(patch_replace, inputs, upstream, **words)
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    target, source = (leaf * 1 for leaf in leaves[:2])
    mixed = patch_replace(target, source, *leaves[2:], **words).mixed
    kept = {tensor.untyped_storage().nbytes() for tensor in mixed.grad_fn.saved_tensors if tensor is not None}
    assert max(kept) < min(target.nbytes, source.nbytes)
    for tensor in (target, source):
        tensor.detach().fill_(math.nan)
    actual = torch.autograd.grad(mixed, leaves, upstream, allow_unused=True)
    for a, e, like in zip(actual, expected, inputs, strict=True):
        torch.testing.assert_close(zeros_if_none(a, like), zeros_if_none(e, like), rtol=0, atol=0)


def test_as_many_exact_steps_as_one_likes():
    inputs = make_inputs(2, 7, 6, 4)
    one, other = (patch_replace(*inputs, k=3, seed=1, exact_steps=steps).mixed for steps in (None, 2**70))
    assert torch.equal(one, other)


def test_a_buffer_changed_after_the_swap_is_noticed_by_backward():
    leaf = torch.randn(1, 4, 3, requires_grad=True)
    target, source = leaf * 1, torch.randn(1, 4, 3)
    patch_swap_(target, source, torch.ones(3, requires_grad=True), k=2)
    loss = target.sum()
    source.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# --- gumbel_topk -----------------------------------------------------------------------------------------------------


def test_gumbel_topk_shapes_mask_and_gradient():
    scores = torch.rand(2, 3, 10, dtype=torch.float64, requires_grad=True)
    indices, mask, relaxed = gumbel_topk(scores, 4, seed=5, exact_steps=2)
    assert indices.shape == (2, 3, 4)
    assert torch.equal(mask.detach().sum(-1), torch.full((2, 3), 4.0, dtype=torch.float64))
    assert torch.equal(mask.detach().gather(-1, indices), torch.ones(2, 3, 4, dtype=torch.float64))
    assert (indices.diff(dim=-1) > 0).all()
    c_mask, c_relaxed = torch.randn_like(scores), torch.randn_like(scores)
    (actual,) = torch.autograd.grad((mask * c_mask).sum() + (relaxed * c_relaxed).sum(), scores)
    actual, relaxed, scores, c_mask, c_relaxed = on_host([actual, relaxed.detach(), scores.detach(), c_mask, c_relaxed])
    noise = reference.gumbel_noise(torch.tensor(5, device="cpu"), 6, 10, 0)
    noisy = scores + noise.reshape(2, 3, 10)
    assert torch.allclose(relaxed, reference.relaxed_topk(noisy, 4, 0.9, 2))
    expected = reference.relaxed_topk_adjoint((c_mask + c_relaxed).reshape(6, 10), noisy.reshape(6, 10), 4, 0.9, 2)
    assert_gradient("scores", actual, expected.reshape(2, 3, 10), torch.float64)


def test_gumbel_topk_of_one_row_half_precision_and_plain():
    scores = torch.tensor([0.1, 0.9, 0.5, 0.7], dtype=torch.bfloat16, requires_grad=True)
    indices, mask, relaxed = gumbel_topk(scores, 2, noise_scale=0.0)
    assert indices.tolist() == [1, 3]
    assert mask.dtype == torch.bfloat16
    assert relaxed.dtype == torch.float32
    mask[1].backward()
    assert scores.grad.dtype == torch.bfloat16
    assert gumbel_topk(torch.rand(3, 4), 0).indices.shape == (3, 0)
    assert gumbel_topk(torch.rand(0, 4), 2).mask.shape == (0, 4)


def test_gumbel_topk_takes_noise_and_streams():
    scores = torch.zeros(2, 6)
    noise = torch.arange(12.0).reshape(2, 6)
    assert gumbel_topk(scores, 2, noise=noise).indices.tolist() == [[4, 5], [4, 5]]
    streams = [gumbel_topk(torch.zeros(4, 50), 10, seed=1, stream=stream).indices for stream in (0, 1)]
    assert not torch.equal(*streams)
    draws = gumbel_topk(torch.log(torch.tensor([0.7, 0.2, 0.1])).expand(20_000, 3), 1, seed=3).indices
    frequencies = torch.bincount(draws.flatten(), minlength=3) / 20_000
    assert torch.allclose(frequencies, torch.tensor([0.7, 0.2, 0.1]), atol=0.015)


# --- integers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "integer", [np.int64, np.int8, np.uint64, np.array, torch.tensor], ids=lambda kind: kind.__name__
)
def test_any_integer_is_an_int(integer):
    inputs = make_inputs(2, 6, 6, 4)
    three, module = integer(3), PatchReplace(integer(4)).to(inputs[0])
    calls = [
        lambda n: patch_replace(*inputs, k=n, seed=n, exact_steps=n),
        lambda n: reference.patch_replace(*on_host(inputs), k=n, seed=n, exact_steps=n),
        lambda n: patch_swap_(inputs[0].clone(), inputs[1].clone(), *inputs[2:], k=n, seed=n, exact_steps=n),
        lambda n: module(*inputs[:2], k=n, seed=n),
        lambda n: gumbel_topk(inputs[0][..., 0], n, seed=n, stream=n, exact_steps=n),
    ]
    for call in calls:
        for one, other in zip(call(three), call(3), strict=True):
            assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


# --- seeds -----------------------------------------------------------------------------------------------------------


def test_seeds():
    inputs = make_inputs(4, 40, 40, 8)

    def slots(**randomness):
        return patch_replace(*inputs, k=20, **randomness).target_index

    assert torch.equal(slots(seed=7), slots(seed=7))
    assert torch.equal(slots(seed=7), slots(seed=torch.tensor(7)))
    assert not torch.equal(slots(seed=7), slots(seed=8))
    assert not torch.equal(slots(seed=7), slots(seed=7 + 2**32))  # both halves of the key count
    assert torch.equal(slots(seed=-1), slots(seed=2**64 - 1))
    torch.manual_seed(3)
    first, second = slots(), slots()
    torch.manual_seed(3)
    assert torch.equal(first, slots())
    assert torch.equal(second, slots())
    assert not torch.equal(first, second)
    generator = torch.Generator().manual_seed(11)
    from_generator = slots(generator=generator)
    assert torch.equal(from_generator, slots(generator=torch.Generator().manual_seed(11)))
    assert not torch.equal(from_generator, slots(generator=generator))


@pytest.mark.parametrize(
    ("first", "words"),
    [  # rows on both sides of the counter's words
        (0, {}),
        (2**31 - 2, {"replace": "highest", "pairing": "score"}),
        (2**32 - 2, {"selection": "random"}),
        (2**62 - 4, {}),
    ],
)
def test_rows_have_the_noise_of_their_place_in_the_whole_batch(first, words):
    """The same patches and gradients of the tokens from a batch as a whole and from its parts."""
    inputs, cut = make_inputs(4, 11, 9, 6), 1
    upstream = torch.randn_like(inputs[0])
    result, whole = gradients(patch_replace, inputs, upstream, k=4, seed=5, first_row=first, **words)
    drawn = reference.gumbel_noise(torch.tensor(5, device="cpu"), 4, 11, 0, first_row=first)
    for rows, offset in ((slice(0, cut), 0), (slice(cut, None), cut)):
        options = {"k": 4, "seed": 5, "first_row": np.int64(first + offset), **words}
        part = [inputs[0][rows], inputs[1][rows], *inputs[2:]]
        found, parts = gradients(patch_replace, part, upstream[rows], **options)
        for name in ("mixed", "target_index", "source_index"):
            assert torch.equal(getattr(found, name), getattr(result, name)[rows])
        for a, b in zip(parts[:2], whole[:2], strict=True):
            torch.testing.assert_close(a, b[rows])
        defined = reference.patch_replace(*on_host(part), **options)
        assert torch.equal(found.mixed.cpu(), defined.mixed)
        buffers = [tensor.clone() for tensor in part[:2]]
        assert torch.equal(patch_swap_(*buffers, *part[2:], **options).mixed.cpu(), found.mixed.cpu())
        scores = part[0][..., 0]
        chosen = gumbel_topk(scores, 4, seed=5, first_row=first + offset)
        assert torch.equal(chosen.indices, gumbel_topk(scores, 4, noise=drawn[rows].to(scores)).indices)


def test_draw_seed():
    seed = pare_kernels.draw_seed(torch.Generator().manual_seed(1))
    assert seed.shape == ()
    assert seed.dtype == torch.int64
    assert seed == pare_kernels.draw_seed(torch.Generator().manual_seed(1), device="cpu")
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator or None, got int"):
        pare_kernels.draw_seed(5)


def test_checkpointing_repeats_the_choice():
    inputs = make_inputs(2, 30, 30, 4, requires_grad=True)

    def block(*tensors):
        return patch_replace(*tensors, k=15).mixed.sin()

    results = []
    for run in (block, lambda *tensors: checkpoint(block, *tensors, use_reentrant=False)):
        torch.manual_seed(5)
        out = run(*inputs)
        results.append((out.detach(), *torch.autograd.grad(out.sum(), inputs)))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_autocast_keeps_token_dtypes_and_scores_in_float32(device):
    target, source, weight, bias = make_inputs(2, 12, 12, 8, dtype=torch.float32)
    expected = patch_replace(target, source, weight, bias, k=5, seed=2)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        result = patch_replace(target, source, weight, bias, k=5, seed=2)
        assert gate_scores(target, weight, bias).dtype == torch.float32
    assert torch.equal(result.mixed, expected.mixed)
    assert result.mixed.dtype == torch.float32


@pytest.mark.parametrize("selection", ["topk", "random"])
def test_a_choice_without_gradient_leaves_the_gate_without_one(selection):
    """Zeros instead of None would let weight decay and momentum move a gate that nothing trains."""
    target, source, weight, bias = make_inputs(2, 6, 6, 4)
    weight, bias = weight.requires_grad_(), bias.requires_grad_()
    leaf = target.clone().requires_grad_()
    patch_replace(leaf, source, weight, bias, k=2, selection=selection, seed=1).mixed.sum().backward()
    assert leaf.grad is not None
    assert weight.grad is None
    assert bias.grad is None
