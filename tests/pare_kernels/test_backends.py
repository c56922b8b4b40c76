"""The compiled operators against the definition: many random cases, every option, dtype and layout."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from pare_kernels import _fallback, _library, reference
from pare_kernels._checks import accumulation_dtype
from tests.tolerances import RELAXED, SCORES, assert_gradient

pytestmark = pytest.mark.skipif(_library.EXTENSION_PROBLEM is not None, reason="the C++ kernels are not in use")

ops = torch.ops.pare_kernels
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
GUMBEL, TOPK, RANDOM = range(3)
LAYOUTS = ("contiguous", "transposed", "sliced", "strided", "expanded")


def draw(generator, *choices):
    return choices[int(torch.randint(len(choices), (), generator=generator))]


def number(generator, low, high):
    return int(torch.randint(low, high + 1, (), generator=generator))


def size(generator, most):
    """Small, next to a power of two, or anything."""
    kind = number(generator, 0, 2)
    if kind == 0:
        return number(generator, 1, 5)
    near = 2 ** number(generator, 2, 9) + number(generator, -1, 1)
    return min(most, near) if kind == 1 else number(generator, 1, most)


def tokens(generator, shape, dtype, layout="contiguous"):
    batch, patches, features = shape
    if layout == "transposed":
        whole = torch.randn(patches, batch, features, generator=generator, dtype=torch.float64)
        return whole.to(dtype).transpose(0, 1)
    if layout == "sliced":
        whole = torch.randn(batch, 2 * patches + 1, features + 5, generator=generator, dtype=torch.float64)
        return whole.to(dtype)[:, 1::2, 3 : features + 3]
    if layout == "strided":
        whole = torch.randn(batch, features, patches, generator=generator, dtype=torch.float64)
        return whole.to(dtype).transpose(1, 2)
    if layout == "expanded":
        return torch.randn(1, patches, features, generator=generator, dtype=torch.float64).to(dtype).expand(shape)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def random_case(seed):
    """The arguments of `patch_replace`, and tau and exact_steps among them."""
    generator = torch.Generator().manual_seed(seed)
    large = seed % 23 == 0
    batch = number(generator, 0, 2) if large else number(generator, 0, 20)
    num_target, num_source = (size(generator, 4096 if large else 150) for _ in range(2))
    features = size(generator, 1024 if seed % 7 == 0 else 96)
    dtype = draw(generator, *DTYPES)
    target, source = (
        tokens(generator, (batch, patches, features), dtype, draw(generator, *LAYOUTS))
        for patches in (num_target, num_source)
    )
    weight = torch.randn(features, generator=generator, dtype=torch.float64).mul(features**-0.5)
    weight = weight.to(draw(generator, dtype, accumulation_dtype(dtype)))
    weight = draw(generator, weight, weight.unsqueeze(0))
    bias = draw(generator, None, torch.full((), 0.3).to(weight.dtype))
    limit = min(num_target, num_source)
    k = draw(generator, 0, limit, number(generator, 0, limit))
    selection = draw(generator, GUMBEL, GUMBEL, TOPK, RANDOM)
    noise_seed, noise = torch.tensor(seed * 0x9E3779B97F4A7C15 % 2**63), (None, None)
    if selection == TOPK:
        noise_seed = None
    elif seed % 5 == 0:
        noise_seed = None
        noise = tuple(
            torch.randn(batch, patches, generator=generator, dtype=torch.float64).to(accumulation_dtype(dtype))
            for patches in (num_target, num_source)
        )
    exact_steps = draw(generator, -1, 0, 1, 8)
    if large and exact_steps == -1 and k > 100:
        exact_steps = 8  # the definition takes all steps one by one
    highest, by_score = draw(generator, False, True), draw(generator, False, True)
    arguments = [
        target,
        source,
        weight,
        bias,
        noise_seed,
        *noise,
        k,
        0.9,
        draw(generator, 1.0, 0.1),
        selection,
        highest,
    ]
    return [*arguments, by_score, exact_steps, selection == GUMBEL]


def clone(tensor):
    return tensor.clone() if isinstance(tensor, torch.Tensor) else tensor


def redo_choice(arguments, noisy_target, noisy_source):
    """The definition's choice on the kernel's own scores, so that rounding cannot make a difference."""
    return reference.choose_patches(
        noisy_target,
        noisy_source,
        arguments[7],
        replace="highest" if arguments[11] else "lowest",
        pairing="score" if arguments[12] else "position",
    )


def check_forward(arguments):
    target, source, dtype = arguments[0], arguments[1], arguments[0].dtype
    mixed, target_index, source_index, *scores = ops.patch_replace(*arguments)
    gate_target, gate_source, noisy_target, noisy_source = scores
    for actual, expected in zip(scores, _fallback.patch_replace(*arguments)[3:], strict=True):
        rtol, atol = SCORES[dtype]
        torch.testing.assert_close(actual, expected, rtol=4 * rtol, atol=4 * atol)
    slots, patches = redo_choice(arguments, noisy_target, noisy_source)
    assert torch.equal(target_index, slots)
    assert torch.equal(source_index, patches)
    rows = (index.unsqueeze(-1).expand(-1, -1, target.shape[2]) for index in (slots, patches))
    slot_rows, patch_rows = rows
    assert torch.equal(mixed, target.contiguous().scatter(1, slot_rows, source.gather(1, patch_rows)))
    return mixed, target_index, source_index, gate_target, gate_source, noisy_target, noisy_source


def gate_scale(actual, without_gate, weight):
    """The norm of dz, from the part of the token gradients that goes through the gate: dz w. dweight and dbias are sums over dz
    that nearly cancel (along a row ds adds up to 0), so their rounding is that of their terms."""
    w = weight.double().reshape(-1)
    dz = [(a - b).double() @ w / w.dot(w) for a, b in zip(actual[:2], without_gate[:2], strict=True)]
    return torch.stack([part.norm() for part in dz]).norm()


def assert_gradients(label, actual, expected, expected_without_gate, dtype, weight):
    for name, got, value in zip(("dtarget", "dsource"), actual[:2], expected[:2], strict=True):
        assert_gradient(f"{name}{label}", got, value, dtype)
    scale = gate_scale(expected, expected_without_gate, weight).reshape(1)
    for name, got, value in zip(("dweight", "dbias"), actual[2:], expected[2:], strict=True):
        got, value = (torch.cat([x.double().flatten(), scale]) for x in (got, value))
        assert_gradient(f"{name}{label}", got, value, accumulation_dtype(dtype))


def check_gradient(arguments, forward, seed):
    """Against the written-out float64 backward on the kernel's own choice."""
    target, source, weight, *_ = arguments
    _, target_index, source_index, *scores = forward
    tau, selection, highest, exact_steps = arguments[8], arguments[10], arguments[11], arguments[13]
    generator = torch.Generator().manual_seed(seed)
    y, y_source = (tokens(generator, x.shape, x.dtype) for x in (target, source))
    relax = selection == GUMBEL or (selection == TOPK and seed % 2 == 0)
    options = tau, exact_steps, highest, relax
    wide = [x.double() for x in (weight, *scores)]
    indices = target_index, source_index
    wide_rows = y.double(), target.double(), source.double()
    routing = tau, exact_steps, highest, False
    expected, routed = (
        _fallback.patch_replace_backward(*wide_rows, *wide, *indices, *choice, True, True, True)
        for choice in (options, routing)
    )
    actual = ops.patch_replace_backward(y, target, source, weight, *scores, *indices, *options, True, True, True)
    assert_gradients("", actual, expected, routed, target.dtype, weight)

    needs = [bool(seed >> bit & 1) for bit in range(3)]
    some = ops.patch_replace_backward(y, target, source, weight, *scores, *indices, *options, *needs)
    for got, whole, need in zip(some, actual, (*needs, needs[2]), strict=True):
        assert torch.equal(got, whole) if need else got.numel() == 0

    after_target, after_source = target.contiguous().clone(), source.contiguous().clone()
    ops.patch_swap_(after_target, after_source, *arguments[2:])
    swapped = ops.patch_swap_backward(
        y, y_source, after_target, after_source, weight, *scores, *indices, *options, True, True, True
    )
    wide_rows = y.double(), y_source.double(), after_target.double(), after_source.double()
    expected, routed = (
        _fallback.patch_swap_backward(*wide_rows, *wide, *indices, *choice, True, True, True)
        for choice in (options, routing)
    )
    assert_gradients(" of the exchange", swapped, expected, routed, target.dtype, weight)
    # Where nothing depends on the source buffer, the exchange has the gradient of the replacement, to the bit.
    unused = ops.patch_swap_backward(
        y, None, after_target, after_source, weight, *scores, *indices, *options, True, True, True
    )
    for got, whole in zip(unused, actual, strict=True):
        assert torch.equal(got, whole)


@pytest.mark.parametrize("block", range(20))
def test_random_cases(block):
    for seed in range(block * 50, block * 50 + 50):
        arguments = random_case(seed)
        before = [clone(argument) for argument in arguments]
        try:
            forward = check_forward(arguments)
            check_gradient(arguments, forward, seed)
        except AssertionError as error:
            raise AssertionError(f"case {seed}: {error}") from error
        for argument, copy in zip(arguments, before, strict=True):
            assert not isinstance(argument, torch.Tensor) or torch.equal(argument, copy), (
                f"case {seed}: an input was changed"
            )


@pytest.mark.parametrize("block", range(10))
def test_same_choice_as_the_definition(block):
    """End to end, noise and scores included: the same seed, the same patches. float64, where no scores tie to rounding."""
    for seed in range(block * 50, block * 50 + 50):
        arguments = random_case(seed)
        double = [x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in arguments]
        actual, expected = ops.patch_replace(*double), _fallback.patch_replace(*double)
        for got, wanted in zip(actual[:3], expected[:3], strict=True):
            assert torch.equal(got, wanted), f"case {seed}"


def assert_relaxed(actual, expected, dtype):
    rtol, atol = RELAXED[dtype]
    torch.testing.assert_close(actual.double(), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("block", range(10))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_random_samplers(block, dtype):
    for seed in range(block * 60, block * 60 + 60):
        generator = torch.Generator().manual_seed(seed)
        batch, patches = number(generator, 0, 20), size(generator, 300)
        k, exact_steps = number(generator, 0, patches), draw(generator, -1, 0, 1, 8)
        scores = torch.rand(batch, patches, generator=generator, dtype=torch.float64).to(dtype)
        if seed % 4 == 0 and batch:  # one item dominates
            scores[:, number(generator, 0, patches - 1)] += 8
        noise_seed = None if seed % 3 == 0 else torch.tensor(seed)
        mask, relaxed, noisy, indices = ops.gumbel_topk(scores, None, noise_seed, seed % 2, k, 0.9, 1.0, exact_steps)
        torch.testing.assert_close(
            noisy,
            _fallback.gumbel_topk(scores, None, noise_seed, seed % 2, k, 0.9, 1.0, exact_steps)[2],
            rtol=2e-6,
            atol=2e-6,
        )
        assert torch.equal(indices, reference.mask_to_index(reference.topk_mask(noisy, k), k))
        assert torch.equal(mask, reference.topk_mask(noisy, k).to(dtype))
        steps = None if exact_steps < 0 else exact_steps
        assert_relaxed(relaxed, reference.relaxed_topk(noisy.double(), k, 0.9, steps), dtype)
        c = torch.randn(batch, patches, generator=generator, dtype=torch.float64).to(dtype)
        ds = ops.gumbel_topk_backward(c, noisy, k, 0.9, exact_steps)
        expected = reference.relaxed_topk_adjoint(c.double(), noisy.double(), k, 0.9, steps)
        for row in range(batch):
            assert_gradient(f"case {seed}, row {row}", ds[row], expected[row], dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gate_scores(dtype, layout):
    generator = torch.Generator().manual_seed(1)
    acc = accumulation_dtype(dtype)
    for shape in ((0, 3, 4), (2, 1, 1), (3, 40, 33), (5, 7, 768)):
        x = tokens(generator, shape, dtype, layout if shape[0] else "contiguous")
        weight = torch.randn(shape[2], generator=generator).to(dtype)
        scores = ops.gate_scores(x, weight, None)
        expected = reference.gate_scores(x.double(), weight.double())
        rtol, atol = SCORES[dtype]
        assert scores.dtype == acc
        torch.testing.assert_close(scores.double(), expected, rtol=2 * rtol, atol=2 * atol)
        grad = torch.randn(shape[:2], generator=generator).to(acc)
        actual = ops.gate_scores_backward(grad, scores, x, weight, True, True)
        wanted = _fallback.gate_scores_backward(grad.double(), scores.double(), x.double(), weight.double(), True, True)
        for name, got, value in zip(("dtokens", "dweight", "dbias"), actual, wanted, strict=True):
            assert_gradient(name, got, value, dtype if name == "dtokens" else acc)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_ties_and_nan(dtype):
    """Quantised scores with NaN and infinities: the definition's ranking, whatever the pairing."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(40):
        noise = [torch.randint(-2, 3, (3, n), generator=generator).to(dtype) for n in (37, 21)]
        for values in noise:
            values[torch.rand(values.shape, generator=generator) < 0.2] = float("nan")
            values[torch.rand(values.shape, generator=generator) < 0.2] = -float("inf")
            values[values == 0] *= -1  # a signed zero ties with the other
        target, source = (tokens(generator, (3, n, 5), dtype) for n in (37, 21))
        for highest in (False, True):
            for by_score in (False, True):
                arguments = [target, source, torch.zeros(5, dtype=dtype), None, None, *noise, 13, 0.9, 1.0, RANDOM]
                arguments += [highest, by_score, 8, False]
                actual, expected = ops.patch_replace(*arguments), _fallback.patch_replace(*arguments)
                for got, wanted in zip(actual[:3], expected[:3], strict=True):
                    assert torch.equal(got, wanted)


def test_tokens_that_are_not_finite_stay_in_their_row():
    generator = torch.Generator().manual_seed(3)
    target, source = (tokens(generator, (4, 30, 6), torch.float32) for _ in range(2))
    weight = torch.randn(6, generator=generator)
    arguments = [target, source, weight, None, torch.tensor(4), None, None, 12, 0.9, 1.0, GUMBEL, False, False, 8, True]
    clean = ops.patch_replace(*arguments)
    target[1, 3, 2], target[1, 4, 0], source[2, 5, 5] = float("nan"), float("inf"), float("-inf")
    spoilt = ops.patch_replace(*arguments)
    for before, after in zip(clean, spoilt, strict=True):
        assert torch.equal(before[[0, 3]], after[[0, 3]])
    y = torch.ones_like(target)
    gradients = ops.patch_replace_backward(
        y, target, source, weight, *spoilt[3:], *spoilt[1:3], 0.9, 8, False, True, True, True, False
    )
    assert all(gradient[[0, 3]].isfinite().all() for gradient in gradients[:2])


@pytest.mark.parametrize("shape", [(33, 64, 24), (5, 700, 8)], ids=str)
def test_any_number_of_threads_gives_the_same_bits(shape):
    generator = torch.Generator().manual_seed(5)
    target, source, y = (tokens(generator, shape, torch.float32) for _ in range(3))
    weight = torch.randn(shape[2], generator=generator)
    for exact_steps in (-1, 8):
        arguments = [
            target,
            source,
            weight,
            None,
            torch.tensor(4),
            None,
            None,
            shape[1] // 3,
            0.9,
            1.0,
            GUMBEL,
            False,
            True,
        ]
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            forward = ops.patch_replace(*arguments, exact_steps, True)
            backward = ops.patch_replace_backward(
                y, target, source, weight, *forward[3:], *forward[1:3], 0.9, exact_steps, False, True, True, True, True
            )
            sampler = ops.gumbel_topk(forward[3], None, torch.tensor(9), 0, shape[1] // 3, 0.9, 1.0, exact_steps)
            results.append([*forward, *backward, *sampler])
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.clean_empty
def test_raw_operators_refuse_what_would_reach_outside_memory():
    """The public functions check more and say it better; these are what keeps a direct call safe."""
    x, w = torch.randn(2, 6, 4), torch.randn(4)
    rest = [None, torch.tensor(0), None, None]
    options = [0.9, 1.0, GUMBEL, False, False, 8, True]
    with pytest.raises(RuntimeError, match="k must be between 0 and 6, got 7"):
        ops.patch_replace(x, x.clone(), w, *rest, 7, *options)
    with pytest.raises(RuntimeError, match="gate_weight must have 4 elements, got 5"):
        ops.patch_replace(x, x.clone(), torch.randn(5), *rest, 2, *options)
    with pytest.raises(RuntimeError, match="source must have the batch and features"):
        ops.patch_replace(x, torch.randn(3, 6, 4), w, *rest, 2, *options)
    with pytest.raises(RuntimeError, match="source must have the dtype of target"):
        ops.patch_replace(x, x.double(), w, *rest, 2, *options)
    with pytest.raises(RuntimeError, match="target must be float32"):
        ops.patch_replace(x.int(), x.int(), w, *rest, 2, *options)
    with pytest.raises(RuntimeError, match="target must not be expanded"):
        ops.patch_swap_(torch.randn(1, 6, 4).expand(2, 6, 4), x, w, *rest, 2, *options)
    with pytest.raises(RuntimeError, match="needs a seed or noise"):
        ops.patch_replace(x, x.clone(), w, None, None, None, None, 2, 0.9, 1.0, RANDOM, False, False, 8, False)
    _, slots, patches, *scores = ops.patch_replace(x, x.clone(), w, *rest, 2, *options)
    with pytest.raises(RuntimeError, match="target_index must name patches, from 0 to 5, got 6"):
        ops.patch_replace_backward(x, x, x, w, *scores, slots * 0 + 6, patches, 0.9, 8, False, True, True, True, True)


@pytest.mark.parametrize("name", ["baseline", "nonsense"])
def test_instruction_set_can_be_chosen(name):
    """PARE_KERNELS_CPU names one that this machine has; anything else leaves the best."""
    program = "import torch, pare_kernels; print(torch.ops.pare_kernels.cpu_capability())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PARE_KERNELS_CPU": name},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ("baseline" if name == "baseline" else ops.cpu_capability())
