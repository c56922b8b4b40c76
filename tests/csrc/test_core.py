"""The C++ core without torch: each numerical part of each instruction set against float64 restatements."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest

from tests.csrc import restatement
from tests.csrc.build import build_core, compiler, load_core, sanitizer_runtime

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")

SETS = ("baseline", "avx2", "avx512")
ROUTES = {"automatic": 0, "lanes_float": 1, "row_float": 2, "lanes_double": 3, "row_double": 4, "nodes": 5}


@pytest.fixture(scope="module")
def core():
    return load_core(build_core())


@pytest.fixture(params=SETS)
def isa(request, core):
    if request.param not in core.instruction_sets():
        pytest.skip(f"this CPU does not run {request.param}")
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def gumbel_scores(rng, rows, patches, dtype=np.float32, scale=1.0):
    return (rng.random((rows, patches)) + scale * rng.gumbel(size=(rows, patches))).astype(dtype)


# --- noise -----------------------------------------------------------------------------------------------------------


def test_philox_gives_the_published_words(core, isa):
    """Known answers of the Random123 distribution (kat_vectors): all zeros, all ones, digits of pi."""
    ones = 2**64 - 1
    assert core.philox(isa, 0, 0, 0, 0, 1)[0] == 0x6627E8D5
    assert core.philox(isa, ones, 2**32 - 1, ones, 2**32 - 1, 1)[0] == 0x408F276D
    pi = core.philox(isa, 0x299F31D0A4093822, 0x03707344, 0x13198A2E85A308D3, 0x243F6A88, 1)[0]
    assert pi == 0xD16CFE09


@pytest.mark.parametrize("patches", [1, 63, 64, 65, 1000])
def test_gumbel_noise(core, isa, patches):
    words = core.philox(isa, 2**63 + 12345, 1, 2**32 + 7, 0, patches)
    u = ((words >> 8).astype(np.float64) + 0.5) * 2.0**-24
    expected = -np.log(-np.log(u))
    np.testing.assert_allclose(core.gumbel(isa, True, 2**63 + 12345, 1, 2**32 + 7, patches), expected, 1e-12, 1e-13)
    np.testing.assert_allclose(core.gumbel(isa, False, 2**63 + 12345, 1, 2**32 + 7, patches), expected, 4e-7, 2e-7)


@pytest.mark.parametrize(("dtype", "tolerance", "lowest"), [(np.float32, 3e-7, -87), (np.float64, 6e-16, -708)])
def test_exp_and_log1p(core, isa, rng, dtype, tolerance, lowest):
    x = np.concatenate([rng.uniform(lowest, 0, 4001), -(10.0 ** rng.uniform(-12, 0, 500)), [0.0]]).astype(dtype)
    np.testing.assert_allclose(core.exp(isa, x), np.exp(x.astype(np.longdouble)).astype(np.float64), tolerance)
    assert (core.exp(isa, np.array([-np.inf, lowest * 1.1], dtype)) == 0).all()
    x = np.concatenate([10.0 ** rng.uniform(-20, 30, 4001), -rng.uniform(0, 0.5, 500), [0.0]]).astype(dtype)
    np.testing.assert_allclose(core.log1p(isa, x), np.log1p(x.astype(np.longdouble)).astype(np.float64), tolerance)


def test_half_types_convert_exactly(core, isa):
    every = np.arange(2**16, dtype=np.uint16)
    for half, values in (
        ("f16", every.view(np.float16).astype(np.float32)),
        ("bf16", (every.astype(np.uint32) << 16).view(np.float32)),
    ):
        for bits in (every, every[:3], every[::-1].copy()[:37]):  # vectors alone, no vector, both
            value = values[bits.astype(int)]
            widened, back = core.convert(isa, bits, half)
            np.testing.assert_array_equal(widened, value)
            number = ~np.isnan(value)
            np.testing.assert_array_equal(back[number], bits[number])
            assert ((back[~number] & 0x7FFF) > (0x7C00 if half == "f16" else 0x7F80)).all()


# --- the hard choice -------------------------------------------------------------------------------------------------


def awkward_scores(rng, patches, dtype):
    """Ties, signed zeros, infinities and NaN among ordinary numbers."""
    scores = rng.normal(size=patches).astype(dtype)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, np.finfo(dtype).tiny / 4], dtype)
    where = rng.random(patches) < rng.random()
    return np.where(where, rng.choice(special, patches), scores)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("patches", [1, 2, 7, 33, 200, 1000])
def test_split_takes_the_best_in_ascending_order(core, isa, rng, patches, dtype):
    for case in range(12):
        scores = awkward_scores(rng, patches, dtype) if case % 2 else rng.gumbel(size=patches).astype(dtype)
        for n in {0, 1, patches // 3, patches - 1, patches}:
            for negate in (False, True):
                chosen, rest = core.split(isa, scores, n, negate)
                expected = restatement.best(-scores if negate else scores, n)
                np.testing.assert_array_equal(chosen, expected)
                np.testing.assert_array_equal(rest, np.setdiff1d(np.arange(patches), expected))


# --- the relaxation --------------------------------------------------------------------------------------------------


def assert_relaxation(core, isa, scores, n, tau, exact_steps, rng, route="automatic", negate=False, tolerance=5e-6):
    upstream = np.where(rng.random(scores.shape) < n / scores.shape[1], rng.normal(size=scores.shape), 0).astype(
        scores.dtype
    )
    sign = -1 if negate else 1
    h = core.relax(isa, scores, n, tau, exact_steps, negate=negate, route=ROUTES[route])
    ds = core.relax(isa, scores, n, tau, exact_steps, negate=negate, route=ROUTES[route], upstream=upstream)
    for row in range(len(scores)):
        expected = restatement.relaxed(sign * scores[row].astype(np.float64), n, tau, exact_steps)
        np.testing.assert_allclose(h[row], expected, tolerance, 1e-30)
        np.testing.assert_allclose(h[row].astype(np.float64).sum(), n, tolerance)
        gradient = sign * restatement.relaxed_adjoint(
            upstream[row], sign * scores[row].astype(np.float64), n, tau, exact_steps
        )
        np.testing.assert_allclose(ds[row], gradient, 0, tolerance * max(abs(gradient).max(), 1e-6))


SHAPES = [(1, 1), (2, 1), (3, 3), (8, 4), (33, 20), (64, 63), (130, 50), (257, 129), (300, 300)]


@pytest.mark.parametrize("exact_steps", [0, 1, 8, -1])
@pytest.mark.parametrize(("patches", "n"), SHAPES, ids=str)
def test_relaxation(core, isa, rng, patches, n, exact_steps):
    for rows in (1, 19):
        assert_relaxation(core, isa, gumbel_scores(rng, rows, patches), n, 0.9, exact_steps, rng, negate=rows == 1)


@pytest.mark.parametrize("exact_steps", [0, 8, -1])
@pytest.mark.parametrize(("patches", "n"), [(1, 1), (3, 2), (64, 32), (300, 120)], ids=str)
def test_relaxation_in_double(core, isa, rng, patches, n, exact_steps):
    for tau in (0.3, 0.9, 2.0):
        scores = gumbel_scores(rng, 5, patches, np.float64)
        assert_relaxation(core, isa, scores, n, tau, exact_steps, rng, tolerance=1e-9)


@pytest.mark.parametrize("route", [name for name in ROUTES if name != "automatic"])
def test_every_route_gives_the_same_relaxation(core, isa, rng, route):
    scores = gumbel_scores(rng, 9, 400)
    for n in (60, 200, 399):
        assert_relaxation(core, isa, scores, n, 0.9, -1, rng, route=route)


@pytest.mark.parametrize("tau", [0.1, 0.3, 0.5, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 4.0])
def test_relaxation_at_any_temperature_and_spread(core, isa, rng, tau, scale):
    """What node compression cannot do is done at full width, what float cannot hold in double."""
    for patches, n, exact_steps in ((64, 20, 8), (400, 150, -1), (400, 150, 8)):
        scores = gumbel_scores(rng, 2, patches, scale=scale)
        assert_relaxation(core, isa, scores, n, tau, exact_steps, rng)


def test_long_rows(core, isa, rng):
    for n in (2000, 3135):
        assert_relaxation(core, isa, gumbel_scores(rng, 1, 3136), n, 0.9, -1, rng)
        assert_relaxation(core, isa, gumbel_scores(rng, 1, 3136), n, 0.9, 8, rng)


@pytest.mark.parametrize("lead", [4.0, 8.0, 12.0])
@pytest.mark.parametrize("exact_steps", [0, 1, 8, -1])
def test_relaxation_with_a_dominant_patch(core, isa, rng, lead, exact_steps):
    for patches, n in ((16, 6), (64, 20), (400, 150)):
        scores = gumbel_scores(rng, 3, patches)
        scores[:, 3] += np.float32(lead)
        assert_relaxation(core, isa, scores, n, 0.9, exact_steps, rng)


@pytest.mark.parametrize("lead", [20.0, 35.0])
def test_a_patch_that_takes_nearly_everything(core, isa, lead):
    """1 - p down to 1e-17, where float64 formulas lose the gradient too: against finite differences in 80 digits."""
    mpmath.mp.dps = 80
    tau, n = mpmath.mpf(9) / 10, 3
    scores, c = (
        np.array([[lead, 0.5, 0.25, -1.0, 0.75]], np.float32),
        np.array([[1.5, -0.5, 0.75, 0.25, 0.0]], np.float32),
    )

    def loss(s):
        top = max(s)
        p = [mpmath.exp((x - top) / tau) for x in s]
        total = mpmath.mpf(0)
        for _ in range(n):
            norm = sum(p)
            p = [x / norm for x in p]
            total += sum(mpmath.mpf(float(w)) * x for w, x in zip(c[0], p, strict=True))
            p = [x * (1 - x) ** (1 / tau) for x in p]
        return total

    s = [mpmath.mpf(float(x)) for x in scores[0]]
    step = mpmath.mpf(10) ** -30
    expected = []
    for i in range(len(s)):
        up, down = list(s), list(s)
        up[i] += step
        down[i] -= step
        expected.append(float((loss(up) - loss(down)) / (2 * step)))
    # The sampler's tau is the double next to 0.9: that moves the derivative by 1e-16 only.
    for dtype, tolerance in ((np.float32, 5e-6), (np.float64, 1e-12)):
        ds = core.relax(isa, scores.astype(dtype), n, 0.9, -1, upstream=c.astype(dtype))
        np.testing.assert_allclose(ds[0], expected, 0, tolerance * np.abs(expected).max())


@pytest.mark.parametrize("exact_steps", [0, 2, -1])
def test_excluded_patches_and_rows(core, isa, rng, exact_steps):
    for patches in (9, 300):
        scores = gumbel_scores(rng, 11, patches)
        scores[:, ::3] = -np.inf
        scores[:, 1] = np.nan
        scores[4] = -np.inf
        scores[5] = np.nan
        h = core.relax(isa, scores, 3, 0.9, exact_steps)
        ds = core.relax(isa, scores, 3, 0.9, exact_steps, upstream=rng.normal(size=scores.shape).astype(np.float32))
        assert np.isfinite(h).all()
        assert np.isfinite(ds).all()
        assert (h[~(scores > -np.inf)] == 0).all()
        assert (ds[~(scores > -np.inf)] == 0).all()
        assert (h[[4, 5]] == 0).all()
        assert (ds[[4, 5]] == 0).all()
        others = np.delete(np.arange(11), [4, 5])
        np.testing.assert_allclose(h[others].sum(-1), 3, 1e-5)
        np.testing.assert_allclose(h[0], restatement.relaxed(scores[0], 3, 0.9, exact_steps), 5e-6)


def test_a_patch_that_is_alone_keeps_all_of_every_step(core, isa):
    """One patch and nothing else: it has all that is given out, and there is nothing for a gradient to move."""
    scores = np.full((1, 4), -np.inf, np.float32)
    scores[0, 2] = 1.0
    np.testing.assert_array_equal(core.relax(isa, scores, 3, 0.9, -1), [[0, 0, 3, 0]])
    np.testing.assert_array_equal(
        core.relax(isa, scores, 3, 0.9, -1, upstream=np.ones((1, 4), np.float32)), np.zeros((1, 4))
    )


def test_no_steps(core, isa, rng):
    scores = gumbel_scores(rng, 3, 20)
    assert (core.relax(isa, scores, 0, 0.9, 8) == 0).all()
    assert (core.relax(isa, scores, 0, 0.9, 8, upstream=scores) == 0).all()


def test_tail_of_a_dominated_row_beyond_float_range(core, isa):
    """T = e^(n / tau) and more: only the log domain holds it."""
    scores = np.full((1, 300), -40.0, np.float32)
    scores[0, 7] = 40.0
    h = core.relax(isa, scores, 280, 0.9, 0)
    np.testing.assert_allclose(h[0], restatement.relaxed(scores[0], 280, 0.9, 0), 5e-6)
    c = np.linspace(-1, 1, 300, dtype=np.float32)[None]
    ds = core.relax(isa, scores, 280, 0.9, 0, upstream=c)
    expected = restatement.relaxed_adjoint(c[0], scores[0], 280, 0.9, 0)
    np.testing.assert_allclose(ds[0], expected, 0, 5e-6 * abs(expected).max())


def test_tail_that_is_large_but_within_float_range(core, isa, rng):
    """Products of several 1 + T p / tau would overflow where each of them does not."""
    for patches, n in ((5, 4), (12, 8), (20, 15), (40, 30), (300, 200)):
        for lead in (6.0, 12.0):
            scores = gumbel_scores(rng, 2, patches)
            scores[:, : patches // 3] += np.float32(lead)
            assert_relaxation(core, isa, scores, n, 0.2, 0, rng)


# --- whole samples -----------------------------------------------------------------------------------------------------


def run_replace(
    core,
    isa,
    target,
    source,
    weight,
    bias=0.0,
    k=0,
    seed=1,
    noise=(None, None),
    noise_scale=1.0,
    selection=0,
    highest=False,
    by_score=False,
    in_place=False,
    streaming=False,
    half="f16",
):
    return core.patch_replace(
        isa,
        target,
        source,
        half,
        weight,
        bias,
        seed,
        *noise,
        k,
        noise_scale,
        selection,
        highest,
        by_score,
        in_place,
        streaming,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("features", [1, 3, 8, 67, 128])
def test_gate_scores(core, isa, rng, dtype, features):
    tokens = rng.normal(size=(3, 21, features)).astype(dtype)
    weight = rng.normal(size=features).astype(dtype)
    expected = 1 / (1 + np.exp(-(tokens.astype(np.float64) @ weight.astype(np.float64) + 0.25)))
    tolerance = 3e-6 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(core.gate_scores(isa, tokens, "", weight, 0.25), expected, tolerance)
    wide = np.repeat(tokens, 2, axis=2)[:, :, ::2]  # features two apart
    np.testing.assert_array_equal(
        core.gate_scores(isa, wide, "", weight, 0.25), core.gate_scores(isa, tokens, "", weight, 0.25)
    )
    extreme = np.array([[[np.inf], [-np.inf], [np.nan], [1e30], [-1e30]]], dtype)
    np.testing.assert_array_equal(core.gate_scores(isa, extreme, "", np.ones(1, dtype), 0.0), [[1, 0, np.nan, 1, 0]])


@pytest.mark.parametrize("selection", [0, 1, 2])
@pytest.mark.parametrize("by_score", [False, True])
@pytest.mark.parametrize("highest", [False, True])
def test_replace_chooses_pairs_and_copies(core, isa, rng, selection, highest, by_score):
    for targets, sources, features, k in ((7, 9, 5, 4), (70, 33, 16, 33), (5, 5, 1, 0), (300, 300, 3, 200)):
        target = rng.normal(size=(2, targets, features)).astype(np.float32)
        source = rng.normal(size=(2, sources, features)).astype(np.float32)
        target[0, 2] = target[0, 3]  # equal scores without noise
        target[1, 1, 0] = np.nan
        weight = rng.normal(size=features).astype(np.float32)
        options = {
            "k": k,
            "selection": selection,
            "highest": highest,
            "by_score": by_score,
            "seed": None if selection == 1 else 5,
        }
        result = run_replace(core, isa, target, source, weight, streaming=targets > 100, **options)
        swapped_target, swapped_source = target.copy(), source.copy()
        in_place = run_replace(core, isa, swapped_target, swapped_source, weight, in_place=True, **options)
        for b in range(2):
            slots, patches = restatement.choose(
                result["noisy_target"][b], result["noisy_source"][b], k, highest, by_score
            )
            assert (result["target_index"][b].tolist(), result["source_index"][b].tolist()) == (slots, patches)
            mixed, displaced = target[b].copy(), source[b].copy()
            mixed[slots], displaced[patches] = source[b][patches], target[b][slots]
            np.testing.assert_array_equal(result["mixed"][b], mixed)
            np.testing.assert_array_equal(swapped_target[b], mixed)
            np.testing.assert_array_equal(swapped_source[b], displaced)
        for name in ("target_index", "source_index", "noisy_target", "noisy_source"):
            np.testing.assert_array_equal(in_place[name], result[name])
        noise = core.gumbel(isa, False, 5, 1, 1, sources)
        expected = {0: result["gate_source"][1] + noise, 1: result["gate_source"][1], 2: noise}[selection]
        np.testing.assert_allclose(result["noisy_source"][1], expected, 1e-6, 1e-6)


def test_exchange_with_any_strides(core, isa, rng):
    buffer = rng.normal(size=(11, 2, 2 * 6)).astype(np.float64)
    target, source = buffer.transpose(1, 0, 2)[:, :6, ::2], buffer.transpose(1, 0, 2)[:, 6:, 1::2]
    expected = run_replace(core, isa, target.copy(), source.copy(), np.ones(6), k=3)
    run_replace(core, isa, target, source, np.ones(6), k=3, in_place=True)
    np.testing.assert_array_equal(target, expected["mixed"])


@pytest.mark.parametrize("highest", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 5e-6), (np.float64, 1e-11)])
def test_gradient(core, isa, rng, dtype, tolerance, highest):
    for batch, targets, sources, features, k, exact_steps in (
        (1, 6, 4, 3, 2, 8), (19, 40, 33, 5, 12, -1), (2, 300, 210, 67, 150, 8), (1, 5, 5, 130, 5, 2), (1, 210, 5, 1, 0, -1)
    ):  # fmt: skip
        target = rng.normal(size=(batch, targets, features)).astype(dtype)
        source = rng.normal(size=(batch, sources, features)).astype(dtype)
        weight = (rng.normal(size=features) / features**0.5).astype(dtype)
        y = rng.normal(size=target.shape).astype(dtype)
        forward = run_replace(core, isa, target, source, weight, k=k, highest=highest, bias=0.1)
        arguments = (forward, 0.9, exact_steps, highest, True)
        expected = restatement.replace_gradient(y, target, source, weight, forward, 0.9, exact_steps, highest)
        got = core.patch_replace_backward(
            isa, y, None, target, source, "", weight, *arguments, True, True, True, targets > 100
        )
        for name, value, reference in zip(("dtarget", "dsource", "dweight", "dbias"), got, expected, strict=True):
            error = np.abs(np.asarray(value) - reference).max()
            assert error <= tolerance * max(np.abs(reference).max(), 1e-3), (name, error)

        # What nobody needs changes nothing of the rest; the routing alone is exact.
        alone = core.patch_replace_backward(
            isa, y, None, target, source, "", weight, *arguments, False, True, False, False
        )
        np.testing.assert_array_equal(alone[1], got[1])
        routed = core.patch_replace_backward(
            isa, y, None, target, source, "", weight, *arguments[:-1], False, True, True, True, False
        )
        for b in range(batch):
            slots, patches = forward["target_index"][b], forward["source_index"][b]
            kept = y[b].copy()
            kept[slots] = 0
            np.testing.assert_array_equal(routed[0][b], kept)
            placed = np.zeros_like(source[b])
            placed[patches] = y[b][slots]
            np.testing.assert_array_equal(routed[1][b], placed)
        assert not np.any(routed[2])
        assert routed[3] == 0

        # After an exchange: the same through the mixed target, and the source buffer's gradient goes back where it came from.
        target_after, source_after = target.copy(), source.copy()
        run_replace(core, isa, target_after, source_after, weight, k=k, highest=highest, bias=0.1, in_place=True)
        y_source = rng.normal(size=source.shape).astype(dtype)
        swapped = core.patch_replace_backward(
            isa, y, y_source, target_after, source_after, "", weight, *arguments, True, True, True, False
        )
        for b in range(batch):
            slots, patches = forward["target_index"][b], forward["source_index"][b]
            back, stayed = np.zeros_like(target[b]), y_source[b].copy()
            back[slots] = y_source[b][patches]
            stayed[patches] = 0
            for value, plain, extra in ((swapped[0], expected[0], back), (swapped[1], expected[1], stayed)):
                scale = max(np.abs(plain[b]).max(), 1)
                np.testing.assert_allclose(value[b], plain[b] + extra, 0, tolerance * scale)
        np.testing.assert_allclose(swapped[2], got[2], 1e-5, 1e-5)


@pytest.mark.parametrize("half", ["f16", "bf16"])
def test_half_precision_tokens(core, isa, rng, half):
    """Scores as of the widened tokens, rows bit for bit, gradients rounded once."""

    def narrow(x):
        bits = x.astype(np.float16).view(np.uint16) if half == "f16" else (x.view(np.uint32) >> 16).astype(np.uint16)
        wide = (
            bits.view(np.float16).astype(np.float32)
            if half == "f16"
            else (bits.astype(np.uint32) << 16).view(np.float32)
        )
        return bits, wide

    target, wide_target = narrow(rng.normal(size=(2, 20, 37)).astype(np.float32))
    source, wide_source = narrow(rng.normal(size=(2, 15, 37)).astype(np.float32))
    y, wide_y = narrow(rng.normal(size=(2, 20, 37)).astype(np.float32))
    weight = rng.normal(size=37).astype(np.float32)
    forward = run_replace(core, isa, target, source, weight, k=6, half=half)
    wide = run_replace(core, isa, wide_target, wide_source, weight, k=6)
    for name in ("target_index", "source_index"):
        np.testing.assert_array_equal(forward[name], wide[name])
    np.testing.assert_allclose(forward["gate_target"], wide["gate_target"], 1e-6)
    np.testing.assert_array_equal(narrow(wide["mixed"])[0], forward["mixed"])
    arguments = (0.9, 8, False, True, True, True, True, False)
    got = core.patch_replace_backward(isa, y, None, target, source, half, weight, forward, *arguments)
    expected = core.patch_replace_backward(isa, wide_y, None, wide_target, wide_source, "", weight, wide, *arguments)
    unit = 2.0**-11 if half == "f16" else 2.0**-8
    for i in (0, 1):
        value = got[i].view(np.float16) if half == "f16" else (got[i].astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_allclose(value.astype(np.float32), expected[i], 1.01 * unit, 1e-6)
    np.testing.assert_allclose(got[2], expected[2], 1e-4, 1e-5)


def test_results_do_not_depend_on_how_the_batch_is_laid_out(core, isa, rng):
    """Expanded, transposed and sliced tokens give what their copies give, bit for bit."""
    whole = rng.normal(size=(40, 3, 24)).astype(np.float32)
    target = whole.transpose(1, 0, 2)[:, ::2, 4:20]
    source = np.broadcast_to(whole[:9, :1, :16].transpose(1, 0, 2), (3, 9, 16))
    weight = rng.normal(size=16).astype(np.float32)
    views, copies = (
        run_replace(core, isa, t, s, weight, k=5) for t, s in ((target, source), (target.copy(), source.copy()))
    )
    for name, value in copies.items():
        np.testing.assert_array_equal(views[name], value, err_msg=name)


# --- sanitizers ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(sanitizer_runtime() is None, reason="the compiler has no address sanitizer")
def test_clean_under_sanitizers():
    fuzz = Path(__file__).with_name("fuzz.py")
    done = subprocess.run(
        [sys.executable, fuzz, "--cases", "60", "--seed", "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
