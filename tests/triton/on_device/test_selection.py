"""Noise, ranks, index lists and the forward pass, against the definition."""

import pytest
import torch
import triton.language as tl

from pare_kernels import _fallback, reference
from pare_kernels._checks import ReplaceOptions
from pare_kernels._triton import launchers, operators
from pare_kernels._triton._launch import kernel, launch
from pare_kernels._triton._math import gumbel, lower_bound, philox_bits
from pare_kernels._types import ChoiceScores
from tests.pare_kernels.cases import OPTION_WORDS, choose_again, make_inputs, place
from tests.tolerances import SCORES

INF, NAN = float("inf"), float("nan")


@kernel
def bits_kernel(seed_ptr, out_ptr, row_high, row_low, stream, BLOCK: tl.constexpr):
    patches = tl.arange(0, BLOCK)
    row = (row_high.to(tl.int64) << 32) + row_low
    tl.store(out_ptr + patches, philox_bits(tl.load(seed_ptr), patches, row, stream))


@kernel
def gumbel_kernel(bits_ptr, out_ptr, BLOCK: tl.constexpr):
    patches = tl.arange(0, BLOCK)
    tl.store(out_ptr + patches, gumbel(tl.load(bits_ptr + patches), out_ptr.dtype.element_ty))


@kernel
def lower_bound_kernel(list_ptr, out_ptr, length, value):
    tl.store(out_ptr, lower_bound(list_ptr, length, value, 4))


def run(kernel, *arguments, device, **constants):
    launch(kernel, 1, *arguments, device=device, num_warps=1, **constants)


@pytest.mark.parametrize("seed", [0, 1, -1, 0x123456789ABCDEF, -(2**63)])
@pytest.mark.parametrize(("high", "low", "stream"), [(0, 0, 0), (0, 7, 1), (3, 5, 1)])
def test_random_bits_are_those_of_the_definition(seed, high, low, stream, device):
    out = torch.empty(64, dtype=torch.int32, device=device)
    run(bits_kernel, torch.tensor(seed, device=device), out, high, low, stream, device=device, BLOCK=64)
    words = torch.tensor([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF])
    patch = torch.arange(64)
    counter = patch, torch.full_like(patch, low), torch.full_like(patch, high), torch.full_like(patch, stream)
    word, *_ = reference.philox_4x32(counter, (words[0], words[1]))
    assert torch.equal(out.cpu().long(), word >> 8)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-7), (torch.float64, 1e-14)])
def test_gumbel_values_are_exact_to_rounding_at_both_ends(dtype, tolerance, device):
    ends = torch.tensor([0, 1, 2, 2**23 - 2, 2**23 - 1, 2**23, 2**23 + 1, 2**24 - 3, 2**24 - 2, 2**24 - 1])
    bits = torch.cat([ends, torch.randint(0, 2**24, (246,))])
    out = torch.empty(256, dtype=dtype, device=device)
    run(gumbel_kernel, bits.int().to(device), out, device=device, BLOCK=256)
    exact = -torch.log(-torch.log((bits.double() + 0.5) * 2.0**-24))
    # The second logarithm turns relative errors of the first into absolute ones.
    torch.testing.assert_close(out.cpu().double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 16, 17, 61])
def test_lower_bound(length, device):
    entries = 2 * torch.arange(length, device=device) + 1
    out = torch.empty((), dtype=torch.int32, device=device)
    for value in (0, 1, 2, length, 2 * length, 2 * length + 3):
        run(lower_bound_kernel, entries, out, length, value, device=device)
        assert out.item() == torch.searchsorted(entries, value).item()


ROWS = torch.tensor(
    [
        [3.0, 1.0, 2.0, 5.0, 4.0, 0.5, -1.0, -2.0],
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        [0.0, -0.0, 0.0, -0.0, 1.0, -1.0, 0.0, -0.0],
        [NAN, -INF, 2.0, NAN, INF, -INF, 1.0, NAN],
        [NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN],
        [-INF, NAN, -INF, -INF, NAN, -INF, -INF, -INF],
        [1e-45, -1e-45, 0.0, 3e38, -3e38, 1e-38, 2.0, 2.0],
    ]
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [0, 1, 3, 7, 8])
def test_hard_choice_with_ties_and_non_finite_scores(k, dtype, device):
    rows = ROWS.to(device, dtype)
    noisy, mask, indices = launchers.select_rows(rows, None, None, 0, k, 1.0)
    expected = reference.topk_mask(rows, k)
    assert torch.equal(mask.bool(), expected)
    assert torch.equal(indices, reference.mask_to_index(expected, k))
    torch.testing.assert_close(noisy, rows, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("negated", [False, True])
def test_long_rows_are_read_in_blocks(negated, short_blocks, device):
    scores = torch.randn(2, 61, device=device).round(decimals=1)
    scores[0, 5] = NAN
    gates = scores, scores.flip(0)
    noisy = [torch.empty_like(gate) for gate in gates]
    words = {"replace": "highest" if negated else "lowest", "pairing": "position"}
    slots, patches = launchers.select(noisy, gates, None, None, 23, ReplaceOptions(**words))
    expected = reference.choose_patches(*gates, 23, **words)
    assert torch.equal(slots, expected[0])
    assert torch.equal(patches, expected[1])


@pytest.mark.parametrize("long", [False, True])
def test_pairing_by_score_sorts_ties_and_nan_as_the_definition(long, device, request):
    """In registers, and digit by digit where a list does not fit into a block."""
    if long:
        request.getfixturevalue("short_blocks")
    noisy_target = torch.randint(-3, 3, (2, 37), device=device).float()
    noisy_source = torch.randint(-3, 3, (2, 29), device=device).float()
    noisy_target[0, 3:9], noisy_source[1, 5:25], noisy_source[1, 1] = NAN, NAN, -INF
    gates = noisy_target, noisy_source
    noisy = [torch.empty_like(gate) for gate in gates]
    words = {"replace": "highest", "pairing": "score"}
    slots, patches = launchers.select(noisy, gates, None, None, 19, ReplaceOptions(**words))
    expected = reference.choose_patches(noisy_target, noisy_source, 19, **words)
    assert torch.equal(slots, expected[0])
    assert torch.equal(patches, expected[1])


def arguments(inputs, k, *, words=OPTION_WORDS[0], seed=12345, noise=(None, None)):
    selections = ("gumbel", "topk", "random")
    selection = selections.index(words["selection"])
    seed = torch.tensor(seed, device=inputs[0].device) if noise[0] is None and selection != 1 else None
    flags = words["replace"] == "highest", words["pairing"] == "score"
    return (*inputs, seed, *noise, k, 0.9, 1.0, selection, *flags, 8, selection == 0)


def assert_choice(actual, call):
    """Scores as in the definition to rounding, its own choice on these very scores, and rows where that choice says."""
    target, source, k, flags = *call[:2], call[7], call[11:13]
    mixed, *index, scores = actual
    rtol, atol = SCORES[target.dtype]
    torch.testing.assert_close(scores, _fallback.patch_replace(*call)[3], rtol=rtol, atol=atol, equal_nan=True)
    expected = choose_again(*ChoiceScores.split(scores, target, source)[:2], k, *flags)
    assert torch.equal(index[0], expected[0])
    assert torch.equal(index[1], expected[1])
    torch.testing.assert_close(mixed, place(target, source, *expected), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("words", OPTION_WORDS, ids=lambda words: "-".join(words.values()))
def test_every_option(words, device):
    inputs = make_inputs(1, 7, 5, 3, torch.float32, device=device)
    call = arguments(inputs, 3, words=words)
    assert_choice(operators.patch_replace(*call), call)


SHAPES = [
    (2, 6, 9, 4, 2),
    (1, 1, 1, 3, 1),
    (2, 5, 8, 1, 0),
    (1, 6, 6, 33, 6),
    (0, 4, 4, 2, 2),
    (1, 17, 5, 8, 5),
    (1, 4, 4, 0, 2),
]


@pytest.mark.parametrize(("batch", "num_target", "num_source", "dim", "k"), SHAPES)
def test_shapes(batch, num_target, num_source, dim, k, device):
    inputs = make_inputs(batch, num_target, num_source, dim, torch.float64, device=device)
    call = arguments(inputs, k)
    assert_choice(operators.patch_replace(*call), call)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_scored_in_float32(dtype, device):
    inputs = make_inputs(2, 9, 6, 16, dtype, device=device)
    call = arguments(inputs, 4)
    assert_choice(operators.patch_replace(*call), call)


def test_noise_of_the_caller_and_strides(device):
    target, source, weight, _ = make_inputs(2, 9, 6, 5, torch.float32, device=device)
    target = target.transpose(0, 1).contiguous().transpose(0, 1)  # patches outermost
    source = source.transpose(1, 2).contiguous().transpose(1, 2)  # features outermost
    noise = torch.randn(2, 9, device=device), torch.randn(2, 6, device=device)
    noise[0][0, :3], noise[1][1, 2:] = -INF, -INF
    call = arguments((target, source, weight, None), 2, noise=noise)
    assert_choice(operators.patch_replace(*call), call)


@pytest.mark.parametrize("strided", [False, True])
def test_exchange_in_place(strided, device):
    target, source, *gate = make_inputs(2, 8, 6, 8, torch.float32, device=device)
    if strided:
        target = torch.stack([target, -target], -1)[..., 0]
        source = source.expand(2, *source.shape).clone()[1]
    twin = target.clone(), source.clone()
    index = operators.patch_swap_(*arguments((target, source, *gate), 4))
    assert_choice((target, *index), arguments((*twin, *gate), 4))
    assert torch.equal(source, place(*twin[::-1], *index[1::-1]))


@pytest.mark.parametrize("bias", [True, False])
def test_gate_scores_alone(bias, device):
    tokens, _, weight, offset = make_inputs(3, 5, 1, 300, torch.float32, device=device)
    offset = offset if bias else None
    exact = reference.gate_scores(tokens.double(), weight.double(), offset.double() if bias else None)
    for view in (tokens, tokens.transpose(0, 1).contiguous().transpose(0, 1)):
        scores = operators.gate_scores(view, weight, offset)
        rtol, atol = SCORES[torch.float32]
        torch.testing.assert_close(scores.double(), exact, rtol=rtol, atol=atol)


def test_non_finite_tokens_stay_in_their_rows(device):
    target, source, *gate = make_inputs(2, 5, 5, 4, torch.float32, device=device)
    target[0, 1, 2], source[1, 0, 0], source[1, 1, 1] = NAN, INF, -INF
    call = arguments((target, source, *gate), 2)
    assert_choice(operators.patch_replace(*call), call)
