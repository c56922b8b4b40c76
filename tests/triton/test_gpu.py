"""The operators as a user meets them on a GPU: dispatch, autograd, torch.compile, CUDA graphs, streams, a second device."""

import pytest
import torch

import pare_kernels
from pare_kernels import _fallback
from pare_kernels._checks import ReplaceOptions
from pare_kernels._types import ChoiceScores
from tests.pare_kernels.cases import OPTION_WORDS, choose_again, make_inputs, on_host, place, zeros_if_none
from tests.tolerances import SCORES, assert_gradient

pytestmark = pytest.mark.gpu
SHAPE, K = (3, 70, 61, 48), 23


def inputs_on(device, dtype=torch.float32, shape=SHAPE, requires_grad=True):
    return make_inputs(*shape, dtype, device=device, requires_grad=requires_grad)


def step(inputs, operator=pare_kernels.patch_replace, upstream=None, **options):
    options = {"k": K, "seed": 11} | options
    result = operator(*inputs, **options)
    upstream = torch.ones_like(result.mixed) if upstream is None else upstream
    return result, torch.autograd.grad((result.mixed * upstream).sum(), inputs, allow_unused=True)


def assert_as_on_the_cpu(inputs, k=K, with_gradients=True, **words):
    """Choice and gradients of the public operator against the definition on the CPU, in float64: on the kernels' own scores, of
    which two may lie within rounding of each other."""
    upstream = torch.randn(inputs[0].shape)
    actual, gradients = step(inputs, upstream=upstream.cuda(), k=k, **words)
    target, source, weight, bias = (tensor.detach() for tensor in inputs)
    options = ReplaceOptions(**words)
    seed = None if options.selection == "topk" else torch.tensor(11, device="cuda")
    call = target, source, weight, bias, seed, None, None, k, *options.flat
    scores = torch.ops.pare_kernels.patch_replace(*call)[3].cpu()
    *call, target, source = on_host((*call, target, source))
    rtol, atol = SCORES[target.dtype]
    torch.testing.assert_close(scores, _fallback.patch_replace(*call)[3], rtol=4 * rtol, atol=4 * atol)
    noisy = ChoiceScores.split(scores, target, source)[:2]
    slots, patches = choose_again(*noisy, k, options.replace == "highest", options.pairing == "score")
    assert torch.equal(actual.target_index.cpu(), slots)
    assert torch.equal(actual.source_index.cpu(), patches)
    assert torch.equal(actual.mixed.cpu(), place(target, source, slots, patches))
    if not with_gradients:
        return
    wide = [tensor.double() for tensor in (upstream, target, source, weight.cpu())]
    *_, relax = options.flat
    rest = options.tau, options.exact_steps, options.replace == "highest", relax, True, True, relax
    exact = _fallback.patch_replace_backward(*wide, slots, patches, scores.double(), *rest)
    exact = exact if relax else (*exact[:2], None, None)
    for name, one, other, like in zip(("target", "source", "weight", "bias"), gradients, exact, inputs, strict=True):
        assert_gradient(name, zeros_if_none(one, like), zeros_if_none(other, like), target.dtype)


@pytest.mark.parametrize("words", OPTION_WORDS, ids=lambda words: "-".join(words.values()))
def test_same_choice_and_gradients_as_on_the_cpu(words):
    assert_as_on_the_cpu(inputs_on("cuda"), **words)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num", [9000, 65536])
def test_long_rows(num, dtype):
    inputs = inputs_on("cuda", dtype, shape=(1, num, num // 2, 8))
    # Of 65536 noisy scores the first leads so far that float32 keeps five digits of its gradient.
    with_gradients = dtype == torch.float64 or num < 10000
    assert_as_on_the_cpu(inputs, num // 3, with_gradients, **OPTION_WORDS[0])


@pytest.mark.parametrize("operator", ["patch_replace", "gumbel_topk", "gate_scores", "patch_swap_"])
def test_opcheck(operator):
    target, source, weight, bias = inputs_on("cuda", requires_grad=operator != "patch_swap_")
    seed = torch.tensor(3, device="cuda")
    arguments = {
        "gate_scores": (target, weight, bias),
        "gumbel_topk": (target[..., 0].detach().requires_grad_(), None, seed, 0, 9, 0.9, 1.0, 8),
        "patch_replace": (target, source, weight, bias, seed, None, None, K, 0.9, 1.0, 0, False, False, 8, True),
        "patch_swap_": (target, source, weight, bias, seed, None, None, K, 0.9, 1.0, 0, False, False, 8, True),
    }[operator]
    torch.library.opcheck(getattr(torch.ops.pare_kernels, operator).default, arguments)


def test_torch_compile_keeps_one_graph_and_the_result():
    inputs = inputs_on("cuda")
    compiled = torch.compile(lambda *tensors: pare_kernels.patch_replace(*tensors, k=K, seed=11).mixed, fullgraph=True)
    mixed = compiled(*inputs)
    expected, gradients = step(inputs)
    assert torch.equal(mixed, expected.mixed)
    for one, other in zip(torch.autograd.grad(mixed.sum(), inputs), gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", ["number", "cpu", "cuda"])
def test_cuda_graph_replays_with_new_tokens_and_a_seed_of_the_device(kind):
    """A seed from the CPU is kept by the graph."""
    inputs = inputs_on("cuda")
    seed = 5 if kind == "number" else torch.tensor(5, device=kind)

    def both():
        result = pare_kernels.patch_replace(*inputs, k=K, seed=seed)
        gradients = torch.autograd.grad(result.mixed.square().sum(), inputs)
        return (
            result.mixed.detach(),
            gradients,
        )  # a graph kept alive would tie the gradients of later calls to this one's stream

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        both()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        mixed, gradients = both()
    for value in (5, 6):
        if kind == "cuda":
            seed.fill_(value)
        with torch.no_grad():
            inputs[0].mul_(-1)
        graph.replay()
        expected, exact = both()
        assert torch.equal(mixed, expected)
        for one, other in zip(gradients, exact, strict=True):
            assert torch.equal(one, other)


def test_results_repeat_to_the_bit():
    inputs = inputs_on("cuda", shape=(16, 300, 300, 96))
    first, gradients = step(inputs, k=150)
    for _ in range(5):
        again, other = step(inputs, k=150)
        assert torch.equal(first.mixed, again.mixed)
        assert all(torch.equal(a, b) for a, b in zip(gradients, other, strict=True))


def test_work_goes_to_the_current_stream():
    inputs = inputs_on("cuda")
    expected, _ = step(inputs)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        actual, _ = step(inputs)
        assert not side.query()  # behind the sleep, and nothing has waited for it
    side.synchronize()
    assert torch.equal(actual.mixed, expected.mixed)


def test_no_call_waits_for_the_device():
    inputs = inputs_on("cuda")
    seed = torch.tensor(1, device="cuda")
    step(inputs, seed=seed)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(inputs, seed=seed)
        step(inputs, seed=seed, exact_steps=None, pairing="score")
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
def test_the_tensors_own_device_is_used():
    first, second = (inputs_on(f"cuda:{index}") for index in range(2))
    expected, gradients = step(first)
    actual, other = step(second)  # while cuda:0 is current
    assert actual.mixed.device.index == 1
    assert torch.equal(actual.mixed.cpu(), expected.mixed.cpu())
    for one, two in zip(gradients, other, strict=True):
        torch.testing.assert_close(one.cpu(), two.cpu())


def test_exchange_in_place_with_autograd():
    inputs = inputs_on("cuda")
    expected, gradients = step(inputs)
    target, source = inputs[0] * 1, inputs[1] * 1
    result = pare_kernels.patch_swap_(target, source, *inputs[2:], k=K, seed=11)
    assert torch.equal(result.mixed, expected.mixed)
    for one, other in zip(torch.autograd.grad(result.mixed.sum(), inputs), gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_one_compilation_serves_every_size_of_a_bucket():
    from pare_kernels._triton import tokens

    def compiled():
        return sum(len(cache[0]) for cache in tokens.replace_kernel.device_caches.values())

    step(inputs_on("cuda", shape=(2, 65, 65, 64)), k=11)
    before = compiled()
    for batch, num, k in ((1, 66, 1), (3, 80, 16), (16, 128, 127)):
        step(inputs_on("cuda", shape=(batch, num, num, 64)), k=k)
    assert compiled() == before
