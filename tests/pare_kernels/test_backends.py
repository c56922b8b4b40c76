"""The compiled operators against the definition on the CPU: many random cases, every option, dtype and layout."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from pare_kernels import _fallback, _library, reference
from pare_kernels._checks import GUMBEL, RANDOM, TOPK, accumulation_dtype
from pare_kernels._types import ChoiceScores
from tests.pare_kernels.cases import choose_again, normal, on_host, place
from tests.pare_kernels.conftest import DEVICES, INTERPRETED
from tests.tolerances import LEADING, RELAXED, SCORES, assert_gradient, assert_row

pytestmark = [
    pytest.mark.usefixtures("device"),
    pytest.mark.skipif(
        _library.EXTENSION_PROBLEM is not None and DEVICES == ["cpu"] and not INTERPRETED,
        reason="the C++ kernels are not in use",
    ),
]
cpp_alone = pytest.mark.parametrize("device", [] if INTERPRETED else ["cpu"], indirect=True)

ops = torch.ops.pare_kernels
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
LAYOUTS = ("contiguous", "transposed", "sliced", "strided", "expanded")


def spread(blocks, size, few=2 if INTERPRETED else 12):
    """Parametrizes a test by (device, seeds): `blocks` times `size` cases for C++; a few of the same for Triton, which compiles
    for each dtype, layout and block size that it meets."""
    table = []
    for device in DEVICES:
        if device == "cpu" and not INTERPRETED:
            table += [(device, range(block * size, (block + 1) * size)) for block in range(blocks)]
        else:
            table.append((device, range(1, few + 1)))
    ids = [f"{device}-{seeds[0]}" for device, seeds in table]
    return pytest.mark.parametrize(("device", "seeds"), table, indirect=["device"], ids=ids)


def draw(generator, *choices):
    return choices[int(torch.randint(len(choices), (), generator=generator, device="cpu"))]


def number(generator, low, high):
    return int(torch.randint(low, high + 1, (), generator=generator, device="cpu"))


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
        return normal(generator, patches, batch, features, dtype=dtype).transpose(0, 1)
    if layout == "sliced":
        whole = normal(generator, batch, 2 * patches + 1, features + 5, dtype=dtype)
        return whole[:, 1::2, 3 : features + 3]
    if layout == "strided":
        return normal(generator, batch, features, patches, dtype=dtype).transpose(1, 2)
    if layout == "expanded":
        return normal(generator, 1, patches, features, dtype=dtype).expand(shape)
    return normal(generator, *shape, dtype=dtype)


def random_case(seed):
    """The arguments of `patch_replace`, and tau and exact_steps among them."""
    generator = torch.Generator("cpu").manual_seed(seed)
    large = seed % 23 == 0
    batch = number(generator, 0, 2) if large else number(generator, 0, 20)
    num_target, num_source = (size(generator, 4096 if large else 150) for _ in range(2))
    features = size(generator, 1024 if seed % 7 == 0 else 96)
    dtype = draw(generator, *DTYPES)
    target, source = (
        tokens(generator, (batch, patches, features), dtype, draw(generator, *LAYOUTS))
        for patches in (num_target, num_source)
    )
    weight = normal(generator, features).mul(features**-0.5)
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
            normal(generator, batch, patches, dtype=accumulation_dtype(dtype)) for patches in (num_target, num_source)
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


def check_forward(arguments):
    dtype = arguments[0].dtype
    results = ops.patch_replace(*arguments)
    mixed, target_index, source_index, scores = on_host(results)
    arguments = on_host(arguments)
    target, source = arguments[:2]
    rtol, atol = SCORES[dtype]
    torch.testing.assert_close(scores, _fallback.patch_replace(*arguments)[3], rtol=4 * rtol, atol=4 * atol)
    slots, patches = choose_again(*ChoiceScores.split(scores, target, source)[:2], arguments[7], *arguments[11:13])
    assert torch.equal(target_index, slots)
    assert torch.equal(source_index, patches)
    assert torch.equal(mixed, place(target, source, slots, patches))
    return results


def gate_scale(actual, without_gate, weight):
    """The norm of dz, from the part of the token gradients that goes through the gate: dz w. dweight and dbias are sums over dz
    that nearly cancel (along a row ds adds up to 0), so their rounding is that of their terms."""
    w = weight.double().reshape(-1)
    dz = [(a - b).double() @ w / w.dot(w) for a, b in zip(actual[:2], without_gate[:2], strict=True)]
    return torch.stack([part.norm() for part in dz]).norm()


def assert_gradients(label, actual, expected, expected_without_gate, dtype, weight):
    actual, weight = on_host(actual), on_host(weight)
    for name, got, value in zip(("dtarget", "dsource"), actual[:2], expected[:2], strict=True):
        assert_gradient(f"{name}{label}", got, value, dtype)
    scale = gate_scale(expected, expected_without_gate, weight).reshape(1)
    for name, got, value in zip(("dweight", "dbias"), actual[2:], expected[2:], strict=True):
        got, value = (torch.cat([x.double().flatten(), scale]) for x in (got, value))
        assert_gradient(f"{name}{label}", got, value, accumulation_dtype(dtype))


def check_gradient(arguments, forward, seed):
    """Against the written-out float64 backward on the kernel's own choice."""
    target, source, weight, *_ = arguments
    _, *choice = forward
    tau, selection, highest, exact_steps = arguments[8], arguments[10], arguments[11], arguments[13]
    generator = torch.Generator("cpu").manual_seed(seed)
    y, y_source = (tokens(generator, x.shape, x.dtype) for x in (target, source))
    relax = selection == GUMBEL or (selection == TOPK and seed % 2 == 0)
    options = tau, exact_steps, highest, relax
    *indices, scores = on_host(choice)
    wide = [weight.cpu().double(), *indices, scores.double()]
    wide_rows = [x.cpu().double() for x in (y, target, source)]
    routing = tau, exact_steps, highest, False
    expected, routed = (
        _fallback.patch_replace_backward(*wide_rows, *wide, *words, True, True, True) for words in (options, routing)
    )
    actual = ops.patch_replace_backward(y, target, source, weight, *choice, *options, True, True, True)
    assert_gradients("", actual, expected, routed, target.dtype, weight)

    needs = [bool(seed >> bit & 1) for bit in range(3)]
    some = ops.patch_replace_backward(y, target, source, weight, *choice, *options, *needs)
    for got, whole, need in zip(some, actual, (*needs, needs[2]), strict=True):
        assert torch.equal(got, whole) if need else got.numel() == 0

    after_target, after_source = target.contiguous().clone(), source.contiguous().clone()
    ops.patch_swap_(after_target, after_source, *arguments[2:])
    swapped = ops.patch_swap_backward(
        y, y_source, after_target, after_source, weight, *choice, *options, True, True, True
    )
    wide_rows = [x.cpu().double() for x in (y, y_source, after_target, after_source)]
    expected, routed = (
        _fallback.patch_swap_backward(*wide_rows, *wide, *words, True, True, True) for words in (options, routing)
    )
    assert_gradients(" of the exchange", swapped, expected, routed, target.dtype, weight)
    # Where nothing depends on the source buffer, the exchange has the gradient of the replacement, to the bit.
    unused = ops.patch_swap_backward(y, None, after_target, after_source, weight, *choice, *options, True, True, True)
    for got, whole in zip(unused, actual, strict=True):
        assert torch.equal(got, whole)


@spread(20, 50)
def test_random_cases(seeds):
    for seed in seeds:
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


@spread(10, 50)
def test_same_choice_as_the_definition(seeds):
    """End to end, noise and scores included: the same seed, the same patches. float64, where no scores tie to rounding."""
    for seed in seeds:
        arguments = random_case(seed)
        double = [x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in arguments]
        actual, expected = ops.patch_replace(*double), _fallback.patch_replace(*on_host(double))
        for got, wanted in zip(actual[:3], expected[:3], strict=True):
            assert torch.equal(got.cpu(), wanted), f"case {seed}"


def assert_relaxed(actual, expected, dtype):
    rtol, atol = RELAXED[dtype]
    torch.testing.assert_close(actual.double(), expected, rtol=rtol, atol=atol)


@spread(10, 60)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_random_samplers(dtype, seeds):
    for seed in seeds:
        generator = torch.Generator("cpu").manual_seed(seed)
        batch, patches = number(generator, 0, 20), size(generator, 300)
        k, exact_steps = number(generator, 0, patches), draw(generator, -1, 0, 1, 8)
        scores = torch.rand(batch, patches, generator=generator, dtype=torch.float64, device="cpu").to(dtype)
        if seed % 4 == 0 and batch:  # one patch dominates
            scores[:, number(generator, 0, patches - 1)] += 8
        noise_seed = None if seed % 3 == 0 else torch.tensor(seed)
        call = scores.to(torch.get_default_device()), None, noise_seed, seed % 2, k, 0.9, 1.0, exact_steps
        results = ops.gumbel_topk(*call)
        mask, relaxed, noisy, indices = on_host(results)
        torch.testing.assert_close(noisy, _fallback.gumbel_topk(*on_host(call))[2], rtol=2e-6, atol=2e-6)
        assert torch.equal(indices, reference.mask_to_index(reference.topk_mask(noisy, k), k))
        assert torch.equal(mask, reference.topk_mask(noisy, k).to(dtype))
        steps = None if exact_steps < 0 else exact_steps
        assert_relaxed(relaxed, reference.relaxed_topk(noisy.double(), k, 0.9, steps), dtype)
        c = normal(generator, batch, patches, dtype=dtype)
        ds = on_host(ops.gumbel_topk_backward(c, results[2], k, 0.9, exact_steps))
        expected = reference.relaxed_topk_adjoint(c.cpu().double(), noisy.double(), k, 0.9, steps)
        for row in range(batch):
            assert_gradient(f"case {seed}, row {row}", ds[row], expected[row], dtype)


LEADS = (
    0,
    2,
    8,
    20,
    50,
    85,
    110,
    300,
    690,
    800,
    float("inf"),
)  # in units of tau; of more than 700 the others count as -inf


def leading_rows(num):
    """(label, scores (rows, num) in units of tau): one score leads, two do, each of twelve leads the next."""
    generator = torch.Generator("cpu").manual_seed(num)
    leads = (0, 20, 690) if INTERPRETED else LEADS  # the interpreter is slow
    for kind in (*leads, *(() if INTERPRETED else ("two", "two inf")), "chain"):
        rows = torch.rand(1 if INTERPRETED else 16, num, generator=generator, dtype=torch.float64, device="cpu") * 3
        for row in rows:
            best, second = torch.randperm(num, generator=generator, device="cpu")[:2]
            if kind == "chain":
                places = torch.randperm(num, generator=generator, device="cpu")[:12]
                row[places] = 30.0 * torch.arange(len(places), dtype=torch.float64, device="cpu")
            else:
                row[best] = row.max() + (kind if kind in leads else 110)
            if kind == "two":
                row[second] = row[best] - 0.7
            if kind == "two inf":
                row[best] = row[second] = float("inf")
        yield str(kind), rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("tau", "num", "k", "steps"),
    [
        (0.05, 12, 4, 8),
        (0.05, 40, 5, -1),
        (0.1, 6, 5, -1),  # h of equal scores hardly depends on them
        (0.1, 40, 12, 8),
        (0.3, 40, 6, -1),
        (0.5, 40, 10, 8),
        (0.9, 12, 4, 8),
        (0.9, 40, 5, 0),
        (2.0, 40, 20, 4),
        (5.0, 12, 11, 2),
        (5.0, 40, 1, 8),
        *([] if INTERPRETED else [(0.2, 150, 30, 8), (0.9, 150, 100, 8)]),
    ],
)
def test_leading_scores(tau, num, k, steps, dtype):
    exact_steps = None if steps < 0 else steps
    for label, rows in leading_rows(num):
        scores = (rows * tau).to(dtype)
        c = normal(torch.Generator("cpu").manual_seed(2), *scores.shape, dtype=dtype, device="cpu")
        expected_h = reference.relaxed_topk(scores.double(), k, tau, exact_steps)
        expected_ds = reference.relaxed_topk_adjoint(c.double(), scores.double(), k, tau, exact_steps)
        here = torch.get_default_device()
        _, h, noisy, _ = ops.gumbel_topk(scores.to(here), None, None, 0, k, tau, 1.0, steps)
        ds = ops.gumbel_topk_backward(c.to(here), noisy, k, tau, steps)
        for row in zip(on_host(h), on_host(ds), expected_h, expected_ds, strict=True):
            assert_row(f"{label}: h", row[0], row[2], dtype)
            assert_row(f"{label}: gradient", row[1], row[3], dtype)
            assert abs(row[0].double().sum().item() - k) <= LEADING[dtype] * k, label


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gate_scores(dtype, layout):
    generator = torch.Generator("cpu").manual_seed(1)
    acc = accumulation_dtype(dtype)
    for shape in ((0, 3, 4), (2, 1, 1), (3, 40, 33), (5, 7, 768)):
        x = tokens(generator, shape, dtype, layout if shape[0] else "contiguous")
        weight = normal(generator, shape[2], dtype=dtype)
        scores = ops.gate_scores(x, weight, None)
        expected = reference.gate_scores(x.cpu().double(), weight.cpu().double())
        rtol, atol = SCORES[dtype]
        assert scores.dtype == acc
        torch.testing.assert_close(scores.cpu().double(), expected, rtol=2 * rtol, atol=2 * atol)
        grad = normal(generator, *shape[:2], dtype=acc)
        actual = on_host(ops.gate_scores_backward(grad, scores, x, weight, True, True))
        wide = [tensor.cpu().double() for tensor in (grad, scores, x, weight)]
        wanted = _fallback.gate_scores_backward(*wide, True, True)
        for name, got, value in zip(("dtokens", "dweight", "dbias"), actual, wanted, strict=True):
            assert_gradient(name, got, value, dtype if name == "dtokens" else acc)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_ties_and_nan(dtype):
    """Quantised scores with NaN and infinities: the definition's ranking, whatever the pairing."""
    generator = torch.Generator("cpu").manual_seed(2)
    for _ in range(2 if INTERPRETED else 40):
        with torch.device("cpu"):
            noise = [torch.randint(-2, 3, (3, n), generator=generator).to(dtype) for n in (37, 21)]
            for values in noise:
                values[torch.rand(values.shape, generator=generator) < 0.2] = float("nan")
                values[torch.rand(values.shape, generator=generator) < 0.2] = -float("inf")
                values[values == 0] *= -1  # a signed zero ties with the other
        noise = [values.to(torch.get_default_device()) for values in noise]
        target, source = (tokens(generator, (3, n, 5), dtype) for n in (37, 21))
        for highest in (False, True):
            for by_score in (False, True):
                arguments = [target, source, torch.zeros(5, dtype=dtype), None, None, *noise, 13, 0.9, 1.0, RANDOM]
                arguments += [highest, by_score, 8, False]
                actual, expected = ops.patch_replace(*arguments), _fallback.patch_replace(*on_host(arguments))
                for got, wanted in zip(actual[:3], expected[:3], strict=True):
                    assert torch.equal(got.cpu(), wanted)


def test_tokens_that_are_not_finite_stay_in_their_row():
    generator = torch.Generator("cpu").manual_seed(3)
    target, source = (tokens(generator, (4, 30, 6), torch.float32) for _ in range(2))
    weight = normal(generator, 6, dtype=torch.float32)
    arguments = [target, source, weight, None, torch.tensor(4), None, None, 12, 0.9, 1.0, GUMBEL, False, False, 8, True]

    def forward():
        *tokens_and_index, scores = ops.patch_replace(*arguments)
        return *tokens_and_index, *ChoiceScores.split(scores, target, source), scores

    clean = forward()
    target[1, 3, 2], target[1, 4, 0], source[2, 5, 5] = float("nan"), float("inf"), float("-inf")
    spoilt = forward()
    for before, after in zip(clean[:-1], spoilt[:-1], strict=True):
        assert torch.equal(before[[0, 3]], after[[0, 3]])
    y = torch.ones_like(target)
    gradients = ops.patch_replace_backward(
        y, target, source, weight, *spoilt[1:3], spoilt[-1], 0.9, 8, False, True, True, True, False
    )
    assert all(gradient[[0, 3]].isfinite().all() for gradient in gradients[:2])


@cpp_alone
@pytest.mark.parametrize("shape", [(33, 64, 24), (5, 700, 8)], ids=str)
def test_any_number_of_threads_gives_the_same_bits(shape):
    generator = torch.Generator("cpu").manual_seed(5)
    target, source, y = (tokens(generator, shape, torch.float32) for _ in range(3))
    weight = normal(generator, shape[2], dtype=torch.float32)
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
                y, target, source, weight, *forward[1:], 0.9, exact_steps, False, True, True, True, True
            )
            gate = ChoiceScores.split(forward[3], target, source).gate_target
            sampler = ops.gumbel_topk(gate, None, torch.tensor(9), 0, shape[1] // 3, 0.9, 1.0, exact_steps)
            results.append([*forward, *backward, *sampler])
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@cpp_alone
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
    _, slots, patches, scores = ops.patch_replace(x, x.clone(), w, *rest, 2, *options)
    with pytest.raises(RuntimeError, match="target_index must name patches, from 0 to 5, got 6"):
        ops.patch_replace_backward(x, x, x, w, slots * 0 + 6, patches, scores, 0.9, 8, False, True, True, True, True)
    with pytest.raises(RuntimeError, match="scores must have 48 elements, got 24"):
        ops.patch_replace_backward(x, x, x, w, slots, patches, scores[:24], 0.9, 8, False, True, True, True, True)


@cpp_alone
@pytest.mark.skipif(sys.platform != "linux", reason="limits its own address space")
def test_out_of_memory_in_a_task_is_said():
    program = """
import mmap, resource, torch, pare_kernels
scores = torch.rand(3, 10**6, requires_grad=True)
relaxed = pare_kernels.gumbel_topk(scores, 400_000, exact_steps=None).relaxed
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + (150 << 20)
resource.setrlimit(resource.RLIMIT_AS, (size, size))
try:
    mmap.mmap(-1, 300 << 20)
    raise SystemExit("not limited")
except OSError:
    pass
for threads in (1, 2):
    torch.set_num_threads(threads)
    try:
        torch.autograd.grad(relaxed.sum(), scores, retain_graph=True)
    except RuntimeError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if done.stderr.strip().endswith("not limited"):
        pytest.skip("limits of the address space hold nothing back here, as under an emulator of a processor")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("out of memory: no room for the working space of 1 sample(s)") == 2


@cpp_alone
@pytest.mark.parametrize("name", ["baseline", "nonsense"])
def test_instruction_set_can_be_chosen(name):
    """PARE_KERNELS_CPU names one that this machine has; anything else leaves the best, and is said."""
    program = "import torch, pare_kernels; print(torch.ops.pare_kernels.cpu_capability())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PARE_KERNELS_CPU": name},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ("baseline" if name == "baseline" else ops.cpu_capability())
    assert ("PARE_KERNELS_CPU=nonsense is none of the instruction sets" in done.stderr) == (name == "nonsense")
