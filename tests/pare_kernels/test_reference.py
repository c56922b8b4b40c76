"""The definition itself: published random words, hand-worked numbers, the paper's loop, written-out gradients."""

import math

import mpmath
import pytest
import torch
from scipy import stats

from pare_kernels import reference
from tests.tolerances import assert_row

FLOAT64 = {"dtype": torch.float64}


def naive_relaxed_topk(scores, n, tau):
    """The sampler as Xie and Ermon write it: s += log(1 - p), softmax again, add up; differentiated by autograd through n steps."""
    h, p = torch.zeros_like(scores), torch.zeros_like(scores)
    for _ in range(n):
        scores = scores + torch.log(torch.clamp(1 - p, min=1e-38))
        p = torch.softmax(scores / tau, dim=-1)
        h = h + p
    return h


def gumbel_scores(rows, patches, seed=0):
    """Gate scores plus Gumbel noise, as in training."""
    generator = torch.Generator().manual_seed(seed)
    gate = torch.rand(rows, patches, generator=generator, **FLOAT64)
    return gate + reference.gumbel_noise(torch.tensor(seed), rows, patches, 0)


# --- noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known-answer vectors of Random123 (Salmon et al.)
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, expected):
    words = reference.philox_4x32(tuple(torch.tensor(c) for c in counter), tuple(torch.tensor(k) for k in key))
    assert tuple(int(word) for word in words) == expected


def test_philox_counters_are_patch_row_and_stream():
    seed = torch.tensor(-3_000_000_000_000_000_001)  # both key words in use
    bits = reference.philox_bits(seed, 3, 5, stream=1)
    key = torch.tensor(int(seed) & 0xFFFFFFFF), torch.tensor((int(seed) >> 32) & 0xFFFFFFFF)
    word = reference.philox_4x32(tuple(torch.tensor(c) for c in (4, 2, 0, 1)), key)[0]
    assert int(bits[2, 4]) == int(word) >> 8


def test_noise_is_gumbel_distributed_and_streams_are_independent():
    seed = torch.tensor(123)
    target = reference.gumbel_noise(seed, 200, 500, reference.TARGET_STREAM)
    source = reference.gumbel_noise(seed, 200, 500, reference.SOURCE_STREAM)
    assert stats.kstest(target.flatten().numpy(), "gumbel_r").pvalue > 1e-3
    assert abs(torch.corrcoef(torch.stack([target.flatten(), source.flatten()]))[0, 1]) < 0.02
    assert abs(torch.corrcoef(torch.stack([target[:-1].flatten(), target[1:].flatten()]))[0, 1]) < 0.02


def test_noise_is_finite_at_both_ends_of_the_unit_interval(monkeypatch):
    monkeypatch.setattr(reference, "philox_bits", lambda *args: torch.tensor([[0, 2**24 - 1]]))
    noise = reference.gumbel_noise(torch.tensor(0), 1, 2, 0, torch.float32)
    assert noise[0].tolist() == pytest.approx([-math.log(25 * math.log(2)), 25 * math.log(2)], rel=1e-6)


# --- the hard choice -------------------------------------------------------------------------------------------------


def test_ranking_breaks_ties_by_index_and_puts_nan_last():
    nan, inf = math.nan, math.inf
    scores = torch.tensor([[1.0, nan, 2.0, 1.0, -inf, nan, -0.0, 0.0, inf]])
    assert reference.ranking(scores).tolist() == [[8, 2, 0, 3, 6, 7, 4, 1, 5]]


def test_choice_by_position_and_by_score():
    target, source = torch.tensor([[-2.0, 1.0, 0.0, 3.0]]), torch.tensor([[5.0, -1.0, 7.0]])

    def choose(**options):
        slots, patches = reference.choose_patches(target, source, 2, **options)
        return slots.tolist()[0], patches.tolist()[0]

    assert choose(replace="lowest", pairing="position") == ([0, 2], [0, 2])
    assert choose(replace="lowest", pairing="score") == ([0, 2], [2, 0])  # the worst slot takes the best patch
    assert choose(replace="highest", pairing="position") == ([1, 3], [0, 2])
    assert choose(replace="highest", pairing="score") == ([1, 3], [2, 0])


def test_ties_in_pairing_by_score():
    """The lower index ranks higher: of tied source patches it comes first, of tied slots it comes last."""
    target, source = torch.tensor([[0.0, 1.0, 0.0, 0.0]]), torch.tensor([[7.0, 9.0, 7.0]])
    slots, patches = reference.choose_patches(target, source, 3, replace="lowest", pairing="score")
    assert slots.tolist() == [[0, 2, 3]]
    assert patches.tolist() == [[2, 0, 1]]  # slot 3 takes the best patch, then slot 2 the lower of the tied patches


# --- the relaxation --------------------------------------------------------------------------------------------------


def test_one_step_is_a_softmax_and_equal_scores_share_equally():
    scores = torch.tensor([[0.3, -1.0, 2.0]], **FLOAT64)
    assert torch.allclose(reference.relaxed_topk(scores, 1, 0.9, None), torch.softmax(scores / 0.9, -1))
    for steps in (None, 0, 1, 2):
        assert torch.allclose(
            reference.relaxed_topk(torch.zeros(1, 8, **FLOAT64), 6, 0.9, steps), torch.full((1, 8), 0.75, **FLOAT64)
        )


def test_two_steps_by_hand():
    a, tau = 0.8, 0.5
    scores = tau * torch.log(torch.tensor([[a, 1 - a]], **FLOAT64))
    weights = torch.tensor([a * (1 - a) ** 2, (1 - a) * a**2], **FLOAT64)  # p (1 - p)^(1/tau)
    expected = torch.tensor([a, 1 - a], **FLOAT64) + weights / weights.sum()
    assert torch.allclose(reference.relaxed_topk(scores, 2, tau, None)[0], expected)


def test_closed_form_solves_its_equation():
    scores = gumbel_scores(4, 50)
    h = reference.relaxed_topk(scores, 20, 0.9, exact_steps=0)
    p = torch.softmax(scores / 0.9, -1)
    time = 0.9 / p * torch.expm1(h / 0.9)  # the T of each entry: the same along a row
    assert torch.allclose(time, time[:, :1].expand_as(time))
    assert torch.allclose(h.sum(-1), torch.full((4,), 20.0, **FLOAT64))


@pytest.mark.parametrize("tau", [0.3, 0.9, 2.0])
@pytest.mark.parametrize(("patches", "n"), [(1, 1), (2, 1), (5, 5), (16, 3), (40, 30)])
def test_exact_form_equals_the_papers_loop_with_its_autograd_gradient(patches, n, tau):
    scores = (gumbel_scores(6, patches, seed=n) * (0.3 if tau < 0.5 else 1.0)).requires_grad_()
    naive = naive_relaxed_topk(scores, n, tau)
    assert torch.allclose(reference.relaxed_topk(scores.detach(), n, tau, None), naive, rtol=1e-9, atol=1e-12)
    c = torch.randn(6, patches, **FLOAT64)
    (expected,) = torch.autograd.grad(naive, scores, c)
    actual = reference.relaxed_topk_adjoint(c, scores.detach(), n, tau, None)
    assert torch.allclose(actual, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("tau", [0.3, 0.9])
@pytest.mark.parametrize("seed", [0, 3])
def test_gradient_keeps_its_digits_where_one_patch_after_the_other_dominates(seed, tau):
    """Against differences of the n-step form in 80 digits."""
    patches, n = 24, 16
    scores = gumbel_scores(1, patches, seed)[0] * 10
    c = torch.randn(patches, generator=torch.Generator().manual_seed(seed), **FLOAT64)

    def objective(i, difference):
        s = [mpmath.mpf(value) for value in scores.tolist()]
        s[i] += difference
        weights, total = [mpmath.exp(value / mpmath.mpf(tau)) for value in s], mpmath.mpf(0)
        for _ in range(n):
            all_of_them = mpmath.fsum(weights)
            p = [weight / all_of_them for weight in weights]
            total += mpmath.fdot(c.tolist(), p)
            weights = [value * (1 - value) ** (1 / mpmath.mpf(tau)) for value in p]
        return total

    with mpmath.workdps(80):
        h = mpmath.mpf(10) ** -30
        expected = [float((objective(i, h) - objective(i, -h)) / (2 * h)) for i in range(patches)]
    expected = torch.tensor(expected, **FLOAT64)
    actual = reference.relaxed_topk_adjoint(c.unsqueeze(0), scores.unsqueeze(0), n, tau, None)[0]
    assert (actual - expected).abs().max() < 1e-10 * expected.abs().max()  # a rounding of s / tau moves it by 1e-11


@pytest.mark.parametrize("exact_steps", [None, 0, 1, 3, 8])
@pytest.mark.parametrize(("patches", "n"), [(3, 2), (9, 9), (12, 5), (20, 17)])
def test_written_out_gradient_passes_gradcheck(patches, n, exact_steps):
    scores = gumbel_scores(2, patches, seed=patches).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: reference.RelaxedTopK.apply(s, n, 0.9, exact_steps), (scores,))


@pytest.mark.parametrize("exact_steps", [None, 0, 1, 8])
def test_relaxed_rows_sum_to_n_and_gradients_to_zero(exact_steps):
    scores = gumbel_scores(8, 64)
    for n in (1, 8, 33, 63, 64):
        h = reference.relaxed_topk(scores, n, 0.9, exact_steps)
        assert torch.allclose(h.sum(-1), torch.full((8,), float(n), **FLOAT64))
        ds = reference.relaxed_topk_adjoint(torch.randn(8, 64, **FLOAT64), scores, n, 0.9, exact_steps)
        assert ds.sum(-1).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("patches", "n", "bars"),
    [  # worst row's cosine of ds against the exact form for m = 0, 1, 4, 8, 16 exact steps
        (1024, 600, (0.99, 0.9990, 0.9999, 0.99995, 0.99999)),
        (196, 100, (0.94, 0.9950, 0.9990, 0.9998, 0.9999)),
        (64, 32, (0.80, 0.9800, 0.9950, 0.9995, 0.9999)),
        (64, 8, (-1.0, 0.9700, 0.9990, 0.99999, 0.99999)),
    ],
)
def test_closed_form_tail_has_the_exact_gradients_direction(patches, n, bars):
    scores = gumbel_scores(32, patches, seed=7)
    c = torch.randn(32, patches, **FLOAT64) * reference.topk_mask(scores, n)
    exact = reference.relaxed_topk_adjoint(c, scores, n, 0.9, None)
    cosines = []
    for steps, bar in zip((0, 1, 4, 8, 16), bars, strict=True):
        ds = reference.relaxed_topk_adjoint(c, scores, n, 0.9, steps)
        cosines.append(torch.nn.functional.cosine_similarity(ds, exact, dim=-1).min().item())
        assert cosines[-1] >= bar, f"{steps} exact steps: cosine {cosines[-1]}"
    assert cosines[3] > cosines[0]


@pytest.mark.parametrize("patches", [3, 8, 64])
def test_hard_choice_is_the_topk_of_the_relaxed_one(patches):
    scores = gumbel_scores(500, patches, seed=3)
    for n in {1, patches // 2, patches - 1}:
        for tau in (0.3, 0.9):
            h = reference.relaxed_topk(scores, n, tau, None)
            assert torch.equal(reference.topk_mask(h, n), reference.topk_mask(scores, n))


@pytest.mark.parametrize("exact_steps", [None, 0, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_where_one_patch_dominates_stay_finite(exact_steps, dtype):
    scores = torch.randn(4, 32, dtype=dtype)
    scores[0, 5] += 30.0
    scores[1] *= 50.0
    scores[2, :] = -math.inf
    scores[2, 7] = 0.0
    scores[3, ::2] = math.nan
    for n in (1, 4, 20, 32):
        h = reference.relaxed_topk(scores, n, 0.9, exact_steps)
        ds = reference.relaxed_topk_adjoint(torch.randn(4, 32, dtype=dtype), scores, n, 0.9, exact_steps)
        assert h.isfinite().all()
        assert ds.isfinite().all()
        assert (h[3, ::2] == 0).all()
        assert (ds[3, ::2] == 0).all()


def test_rows_without_any_patch_left_are_zero():
    scores = torch.full((2, 4), -math.inf)
    scores[1] = math.nan
    for steps in (None, 0, 2):
        assert (reference.relaxed_topk(scores, 3, 0.9, steps) == 0).all()
        assert (reference.relaxed_topk_adjoint(torch.ones(2, 4), scores, 3, 0.9, steps) == 0).all()


def test_float32_relaxation_is_accurate_where_one_patch_dominates():
    scores = gumbel_scores(64, 64, seed=11)
    scores[:, 0] += 9.0  # p near 1: 1 - p taken from float32 p would lose four digits
    exact = reference.relaxed_topk(scores, 32, 0.9, None)
    single = reference.relaxed_topk(scores.float(), 32, 0.9, None)
    rounded = reference.relaxed_topk(scores.float().double(), 32, 0.9, None)
    assert ((single - rounded) / rounded).abs().max() < 1e-5
    assert torch.allclose(exact, rounded, rtol=1e-4)


@pytest.mark.parametrize("steps", [None, 0, 1])
@pytest.mark.parametrize("tau", [0.05, 0.9, 5.0])
def test_rows_with_infinite_or_far_scores_sum_to_k(tau, steps):
    """Beyond 700 tau the others count as -inf: what is left shares all k, and nothing has a gradient."""
    inf = math.inf
    scores = torch.tensor([[inf, 1.0, inf, -inf], [inf, 2.0, 1.0, 0.0], [701 * tau, 0.0, 0.5 * tau, -inf]], **FLOAT64)
    shares = torch.tensor([[1.0, 0, 1, 0], [2, 0, 0, 0], [2, 0, 0, 0]], **FLOAT64)
    torch.testing.assert_close(reference.relaxed_topk(scores, 2, tau, steps), shares)
    c = torch.tensor([[1.0, 2, 1, 3]], **FLOAT64).expand(3, 4)
    assert (reference.relaxed_topk_adjoint(c, scores, 2, tau, steps).abs() < 1e-15).all()


def exact_relaxation(c, scores, n, tau, exact_steps):
    """h and ds = J^T c of one row in 800 digits, by the formulas as they stand: e^690 cancels and enough digits are left."""
    with mpmath.workdps(800):
        tau, c, s = mpmath.mpf(tau), [mpmath.mpf(x) for x in c], [mpmath.mpf(x) for x in scores]
        weights = [mpmath.exp((x - max(s)) / tau) for x in s]
        steps, path = n if exact_steps is None else min(exact_steps, n), []
        for _ in range(steps + 1):
            total = mpmath.fsum(weights)
            path.append([w / total for w in weights])
            weights = [p * (1 - p) ** (1 / tau) for p in path[-1]]
        h, a, last = (
            [mpmath.fsum(column[:-1]) for column in zip(*path, strict=True)],
            [mpmath.mpf(0)] * len(s),
            path[-1],
        )
        if n > steps:
            # Newton from above for log T, less the logarithm of the largest p; the sum is convex and increasing.
            x, step = mpmath.log(tau) + n / tau, 1
            while abs(step) > mpmath.mpf(10) ** -300:
                z = [mpmath.exp(x) * p / max(last) / tau for p in last]
                q = [y / (1 + y) for y in z]
                parts = [tau * mpmath.log1p(y) for y in z]
                step = (mpmath.fsum(parts) - (n - steps)) / (tau * mpmath.fsum(q))
                x -= step
            h = [x + part for x, part in zip(h, parts, strict=True)]
            mean = mpmath.fdot(q, c) / mpmath.fsum(q)
            a = [tau * x * (y - mean) for x, y in zip(q, c, strict=True)]
        for i in reversed(range(steps)):
            total = mpmath.fsum(a)
            projected = [x - p * total for x, p in zip(a, path[i + 1], strict=True)]
            a = [y * p + x * (1 - p / (tau * (1 - p))) for x, y, p in zip(projected, c, path[i], strict=True)]
        total = mpmath.fsum(a)
        ds = [(x - p * total) / tau for x, p in zip(a, path[0], strict=True)]
        return [torch.tensor([float(x) for x in row], **FLOAT64) for row in (h, ds)]


@pytest.mark.parametrize("steps", [None, 0, 2])
@pytest.mark.parametrize("tau", [0.05, 0.9, 5.0])
def test_leading_scores_against_800_digits(tau, steps):
    """One score leads by up to 690 tau, two do, each leads the next."""
    c = [0.3, -1.2, 0.7, 2.0, -0.4]
    rows = [[0.0, lead, -0.5, 0.6, -2.0] for lead in (8.0, 85.0, 690.0)]
    rows += [[0.0, 100.7, 100.0, -0.5, 0.6], [0.0, 40.0, 120.0, 80.0, 160.0]]
    for row in rows:
        for dtype in (torch.float32, torch.float64):
            scores, upstream = torch.tensor([row]).double().mul(tau).to(dtype), torch.tensor([c], dtype=dtype)
            h, ds = exact_relaxation(upstream[0].tolist(), scores[0].tolist(), 3, tau, steps)
            assert_row(f"h of {row}", reference.relaxed_topk(scores, 3, tau, steps)[0], h, dtype)
            assert_row(f"ds of {row}", reference.relaxed_topk_adjoint(upstream, scores, 3, tau, steps)[0], ds, dtype)


@pytest.mark.parametrize("tau", [0.02, 0.05, 0.1])
def test_float32_gradients_stay_finite_at_small_temperatures(tau):
    """1 - p below the smallest normal number: the slope 1 - p / (tau (1 - p)) must not overflow."""
    scores = torch.rand(40, 50, generator=torch.Generator().manual_seed(0)) * 10
    scores[0, :3] = torch.tensor([9.0, 0.0, -0.1]) + 10
    c = torch.randn(40, 50, generator=torch.Generator().manual_seed(1))
    for n in (2, 25):
        assert reference.relaxed_topk_adjoint(c, scores, n, tau, 8).isfinite().all()
    assert (
        reference.relaxed_topk_adjoint(torch.tensor([[1.0, 2, 3]]), torch.tensor([[9.0, 0, -0.1]]), 2, 0.1, 8)
        .isfinite()
        .all()
    )
