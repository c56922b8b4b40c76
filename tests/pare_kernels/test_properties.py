"""What must hold for every input: properties under hypothesis."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from pare_kernels import patch_replace, patch_swap_, reference
from tests.pare_kernels.cases import make_inputs, normal

pytestmark = pytest.mark.usefixtures("device")

settings.register_profile("operator", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("operator")

WORDS = {
    "selection": st.sampled_from(["gumbel", "topk", "random"]),
    "replace": st.sampled_from(["lowest", "highest"]),
    "pairing": st.sampled_from(["position", "score"]),
}


@st.composite
def problems(draw):
    """(inputs, options): a random shape, k and choice of words."""
    batch, dim = draw(st.integers(0, 3)), draw(st.integers(1, 9))
    num_target, num_source = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    options = {name: draw(words) for name, words in WORDS.items()}
    options["k"] = draw(st.integers(0, min(num_target, num_source)))
    options["exact_steps"] = draw(st.sampled_from([None, 0, 1, 8]))
    options["tau"] = draw(st.sampled_from([0.3, 0.9, 1.7]))
    options["noise_scale"] = draw(st.sampled_from([0.0, 0.1, 1.0, 3.0]))
    return make_inputs(batch, num_target, num_source, dim, seed=draw(st.integers(0, 999))), options


@given(problems(), st.integers(0, 2**64 - 1))
def test_rows_are_copied_and_slots_partition(problem, seed):
    (target, source, weight, bias), options = problem
    mixed, lam, slots, patches = patch_replace(target, source, weight, bias, seed=seed, **options)
    k, num_target = options["k"], target.shape[1]
    assert lam == k / num_target
    assert slots.shape == patches.shape == (target.shape[0], k)
    for row in range(target.shape[0]):
        free, placed = slots[row].tolist(), patches[row].tolist()
        assert free == sorted(set(free))
        assert len(set(placed)) == k  # every chosen source patch is placed once
        for slot in range(num_target):
            origin = source[row, placed[free.index(slot)]] if slot in free else target[row, slot]
            assert torch.equal(mixed[row, slot], origin)


@given(problems(), st.integers(0, 999))
def test_in_place_agrees_and_undoes_itself(problem, seed):
    (target, source, weight, bias), options = problem
    expected = patch_replace(target, source, weight, bias, seed=seed, **options)
    one, other = target.clone(), source.clone()
    pointers = one.data_ptr(), other.data_ptr()
    result = patch_swap_(one, other, weight, bias, seed=seed, **options)
    assert result.mixed is one
    assert pointers == (one.data_ptr(), other.data_ptr())
    for name in ("mixed", "target_index", "source_index"):
        assert torch.equal(getattr(result, name), getattr(expected, name))
    rows = torch.arange(target.shape[0]).unsqueeze(1)
    slots, patches = result.target_index, result.source_index
    one[rows, slots], other[rows, patches] = other[rows, patches], one[rows, slots]
    assert torch.equal(one, target)
    assert torch.equal(other, source)


@given(problems(), st.integers(0, 999), st.integers(0, 999))
def test_permuting_patches_and_noise_permutes_the_result(problem, seed, shuffle):
    (target, source, weight, bias), options = problem
    options["pairing"] = "score"  # by position the pairs depend on where the patches stand
    generator = torch.Generator("cpu").manual_seed(seed)
    noise = [normal(generator, *tokens.shape[:2]) for tokens in (target, source)]
    slots, patches = (
        torch.randperm(tokens.shape[1], generator=generator, device="cpu").to(tokens.device)
        for tokens in (target, source)
    )
    plain = patch_replace(target, source, weight, bias, noise=tuple(noise), **options)
    permuted = patch_replace(
        target[:, slots], source[:, patches], weight, bias, noise=(noise[0][:, slots], noise[1][:, patches]), **options
    )
    assert torch.equal(permuted.mixed, plain.mixed[:, slots])


@given(problems(), st.integers(0, 999))
def test_gradients_of_a_row_come_from_that_row_alone(problem, seed):
    (target, source, weight, bias), options = problem
    if target.shape[0] < 2:
        return
    noise = tuple(torch.randn(tokens.shape[:2], dtype=torch.float64) for tokens in (target, source))
    target, source = target.requires_grad_(), source.requires_grad_()
    mixed = patch_replace(target, source, weight, bias, noise=noise, **options).mixed
    dtarget, dsource = torch.autograd.grad(mixed[0].sin().sum(), (target, source))
    assert (dtarget[1:] == 0).all()
    assert (dsource[1:] == 0).all()
    assert dtarget.isfinite().all()
    assert dsource.isfinite().all()


@given(problems(), st.integers(0, 999))
def test_the_gates_bias_gradient_is_that_of_a_common_shift(problem, seed):
    """A shift of all scores changes no choice: with a flat sigmoid (g (1 - g) constant) the gate's bias has no gradient."""
    (target, source, weight, bias), options = problem
    weight, bias = torch.zeros_like(weight), bias.requires_grad_()
    mixed = patch_replace(target, source, weight, bias, seed=seed, **options).mixed
    (dbias,) = torch.autograd.grad(mixed.sin().sum(), bias, materialize_grads=True)
    assert dbias.abs().item() < 1e-9


@given(
    arrays("float64", st.tuples(st.integers(1, 3), st.integers(1, 25)), elements=st.floats(-10, 10, width=32)),
    st.data(),
)
def test_relaxation_of_any_scores(scores, data):
    scores = torch.from_numpy(scores)
    patches = scores.shape[1]
    n, tau = data.draw(st.integers(0, patches)), data.draw(st.sampled_from([0.9, 3.0]))
    steps = data.draw(st.sampled_from([None, 0, 1, 8]))
    h = reference.relaxed_topk(scores, n, tau, steps)
    c = normal(torch.Generator("cpu").manual_seed(patches), *scores.shape, device="cpu")
    ds = reference.relaxed_topk_adjoint(c, scores, n, tau, steps)
    assert (h >= 0).all()
    assert torch.allclose(h.sum(-1), torch.full_like(scores[:, 0], float(n)), rtol=1e-9)
    # Where one patch dominates its slope p / (1 - p) is large, and so is what has to cancel.
    assert (ds.sum(-1).abs() <= 1e-8 * (1 + ds.abs().amax(-1))).all()
    shifted = reference.relaxed_topk(scores + 1.5, n, tau, steps)
    assert torch.allclose(shifted, h, rtol=1e-6, atol=1e-12)
