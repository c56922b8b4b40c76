"""The backward operators against the fallback in float64 and their launches."""

import numpy as np
import pytest
import torch

from pare_kernels import _fallback
from pare_kernels._triton import launchers, operators
from pare_kernels._triton._launch import MAX_PROGRAMS, alignment, launch, split_number
from tests.pare_kernels.cases import make_inputs
from tests.tolerances import assert_gradient

NAMES = "dtarget", "dsource", "dweight", "dbias"


def chosen(inputs, k, highest=False):
    """The index lists and scores of a forward pass."""
    seed = torch.tensor(5, device=inputs[0].device)
    return _fallback.patch_replace(*inputs, seed, None, None, k, 0.9, 1.0, 0, highest, False, 8, True)[1:]


def assert_backward(
    operator, grads, inputs, k, *, steps=8, highest=False, relax=True, need=(True, True, True), by=None
):
    slots, patches, scores = chosen(inputs, k, highest)
    if by is not None:
        patches = patches[:, by].contiguous()
    rest = 0.9, steps, highest, relax, *need
    actual = getattr(operators, operator)(*grads, *inputs[:3], slots, patches, scores, *rest)
    wide = [tensor.double() for tensor in (*grads, *inputs[:3])]
    expected = getattr(_fallback, operator)(*wide, slots, patches, scores.double(), *rest)
    for name, one, other in zip(NAMES, actual, expected, strict=True):
        assert one.shape == other.shape, name
        assert_gradient(name, one, other, inputs[0].dtype)
    return actual


def upstream(inputs, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor) for tensor in inputs[:2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("operator", ["patch_replace_backward", "patch_swap_backward"])
def test_dtypes(operator, dtype, device):
    """Rows in doubles, which short ones are, in singles, and one modality in each."""
    nums = {torch.float32: (33, 7), torch.bfloat16: (36, 33)}.get(dtype, (9, 7))
    inputs = make_inputs(2, *nums, 16, dtype, device=device)
    grads = upstream(inputs)
    assert_backward(operator, grads[: 1 + ("swap" in operator)], inputs, 4)


@pytest.mark.parametrize("operator", ["patch_replace_backward", "patch_swap_backward"])
def test_highest_and_pairs_in_any_order(operator, device):
    inputs = make_inputs(1, 8, 9, 5, torch.float64, device=device)
    grads = upstream(inputs)[: 1 + ("swap" in operator)]
    assert_backward(operator, grads, inputs, 5, highest=True, steps=2, by=torch.tensor([3, 0, 4, 1, 2], device=device))


@pytest.mark.parametrize("operator", ["patch_replace_backward", "patch_swap_backward"])
def test_without_a_relaxation_rows_are_routed(operator, device):
    inputs = make_inputs(2, 6, 7, 3, torch.float64, device=device)
    grads = upstream(inputs)[: 1 + ("swap" in operator)]
    *_, dweight, dbias = assert_backward(operator, grads, inputs, 3, relax=False)
    assert not dweight.any()
    assert not dbias.any()


@pytest.mark.parametrize("relax", [True, False])
@pytest.mark.parametrize(
    "need", [(True, False, False), (False, True, False), (False, False, True), (False, False, False)]
)
def test_only_what_is_needed(need, relax, device):
    inputs = make_inputs(1, 6, 5, 3, torch.float64, device=device)
    assert_backward("patch_replace_backward", upstream(inputs)[:1], inputs, 2, steps=1, relax=relax, need=need)


SHAPES = [(0, 4, 4, 3, 2), (1, 1, 1, 2, 1), (2, 5, 3, 1, 0), (1, 4, 4, 3, 4), (1, 5, 4, 300, 2), (1, 3, 3, 0, 1)]


@pytest.mark.parametrize(("batch", "num_target", "num_source", "dim", "k"), SHAPES)
def test_shapes(batch, num_target, num_source, dim, k, device):
    inputs = make_inputs(batch, num_target, num_source, dim, torch.float64, device=device)
    assert_backward("patch_replace_backward", upstream(inputs)[:1], inputs, k, steps=1)


def test_strides(device):
    target, source, weight, bias = make_inputs(2, 6, 5, 4, torch.float64, device=device)
    grad = upstream((target, source))[0].transpose(1, 2).contiguous().transpose(1, 2)
    target = target.transpose(0, 1).contiguous().transpose(0, 1)
    source = source.transpose(1, 2).contiguous().transpose(1, 2)
    assert_backward("patch_replace_backward", [grad], (target, source, weight, bias), 3, steps=1)


def test_long_rows(short_blocks, device):
    inputs = make_inputs(1, 35, 19, 4, torch.float32, device=device)
    assert_backward("patch_replace_backward", upstream(inputs)[:1], inputs, 8, steps=3)


def test_programs_that_take_several_blocks_of_rows(device, monkeypatch):
    monkeypatch.setattr(launchers, "GRADIENT_PROGRAMS", 2)
    inputs = make_inputs(2, 40, 37, 4, torch.float32, device=device)
    assert_backward("patch_replace_backward", upstream(inputs)[:1], inputs, 20, steps=0)


@pytest.mark.parametrize("highest", [False, True])
def test_all_steps_by_nodes(highest, device, monkeypatch):
    """Both modalities, of which the second is too short for nodes alone."""
    monkeypatch.setattr(launchers, "NODES_FROM", (40, 10))
    inputs = make_inputs(2, 52, 38, 4, torch.float32, device=device)
    assert_backward("patch_replace_backward", upstream(inputs)[:1], inputs, 26, steps=-1, highest=highest)


@pytest.mark.parametrize("need", [(True, True), (True, False), (False, True), (False, False)])
def test_gate_scores_backward(need, device):
    tokens, _, weight, bias = make_inputs(2, 5, 1, 20, torch.float32, device=device)
    scores = _fallback.gate_scores(tokens, weight, bias)
    grad = torch.randn_like(scores)
    actual = operators.gate_scores_backward(grad, scores, tokens, weight, *need)
    expected = _fallback.gate_scores_backward(grad.double(), scores.double(), tokens.double(), weight.double(), *need)
    for name, one, other in zip(("dtokens", "dweight", "dbias"), actual, expected, strict=True):
        assert one.shape == other.shape
        assert_gradient(name, one, other, torch.float32)


# --- launches ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def launches(monkeypatch):
    """Collects (kernel's name, programs) of launches without running them: shapes of any size, on the meta device."""
    collected = []

    def collect(kernel, programs, *arguments, **options):
        if programs:
            collected.append((kernel.__name__, programs))

    monkeypatch.setattr(launchers, "launch", collect)
    return collected


def meta(shape, k):
    """The operator's forward and backward arguments at a shape, without storage."""
    batch, num_target, num_source, dim = shape
    with torch.device("meta"):
        target, source = torch.empty(batch, num_target, dim), torch.empty(batch, num_source, dim)
        weight, bias, seed = torch.empty(1, dim), torch.empty(1), torch.empty((), dtype=torch.int64)
    forward = target, source, weight, bias, seed, None, None, k, 0.9, 1.0, 0, False, False, 8, True
    return target, source, weight, forward


@pytest.mark.parametrize("shape", [(32, 3136, 3136, 128), (64, 196, 196, 768)])
@pytest.mark.parametrize(
    ("operator", "source_grad"), [("patch_replace", False), ("patch_swap", True), ("patch_swap", False)]
)
def test_launches_of_the_default_operator(operator, source_grad, shape, launches):
    target, source, weight, forward = meta(shape, shape[1] * 2 // 3)
    in_place = operator == "patch_swap"
    choice = getattr(operators, operator + "_" * in_place)(*forward)[-3:]
    assert [name for name, _ in launches] == [
        "gate_scores_kernel",
        "select_kernel",
        "swap_kernel" if in_place else "replace_kernel",
    ]

    launches.clear()
    grads = (target, source if source_grad else None) if in_place else (target,)
    arguments = (*grads, target, source, weight, *choice, 0.9, 8, False, True, True, True, True)
    getattr(operators, f"{operator}_backward")(*arguments)
    names = "dots_kernel", "adjoint_kernel", "adjoint_kernel", "gradient_kernel", "reduce_kernel"
    assert tuple(name for name, _ in launches) == names


@pytest.mark.parametrize("steps", [0, 8, -1])
@pytest.mark.parametrize(("dtype", "times"), [(torch.float32, 2), (torch.float64, 1)])
def test_launches_of_top_k(dtype, times, steps, launches):
    """In float32 the relaxation is launched once more, in doubles, for the rows that need it."""
    scores = torch.empty(64, 3136, device="meta", dtype=dtype)
    seed = torch.empty((), dtype=torch.int64, device="meta")
    _, _, noisy, _ = operators.gumbel_topk(scores, None, seed, 0, 2000, 0.9, 1.0, steps)
    operators.gumbel_topk_backward(scores, noisy, 2000, 0.9, steps)
    nodes = ["compress_kernel", "flow_kernel", "spread_kernel"] * (steps == -1 and dtype == torch.float32)
    names = ["select_kernel", *nodes, *["relaxed_kernel"] * times, *nodes, *["adjoint_kernel"] * times]
    assert [name for name, _ in launches] == names


def test_the_longest_rows_have_a_plan(launches):
    for steps in (8, -1):
        operators.patch_replace(*meta((2, 65536, 65536, 8), 30000)[3])
        plan = launchers.plan_steps(30000, steps)
        assert plan.exact + plan.remaining == 30000
        assert plan.saved <= 2 * 174
        assert plan.segment * (plan.saved - plan.segment + 1) >= plan.exact
    assert {programs for name, programs in launches if name == "select_kernel"} == {4}


def test_too_many_programs_are_refused():
    with pytest.raises(ValueError, match="programs, more than"):
        launch(launchers.tokens.reduce_kernel, MAX_PROGRAMS + 1, device=torch.device("cpu"), num_warps=1)


def test_numbers_keep_double_precision_and_stay_on_the_host():
    for value in (0.9, 1.0, 1 / 3, 1e-3):
        with torch.device("meta"):  # tensors made without a device would have no value to read
            high, low = split_number(value)
        assert torch.tensor(high, dtype=torch.float32).item() == high
        assert abs(high + float(torch.tensor(low, dtype=torch.float32)) - value) <= 1e-14 * value


def test_alignment_is_what_all_row_starts_share():
    tokens = torch.empty(2, 3, 16)
    assert alignment(tokens) == 4
    assert alignment(tokens.bfloat16()) == 8
    assert alignment(tokens, torch.empty(2, 3, 10)) == 1
    assert alignment(tokens.transpose(1, 2)) == 1
    assert alignment(torch.empty(2, 3, 18)[..., :16]) == 1
    assert alignment(torch.empty(1, 1, 18)[..., :16]) == 4


def test_addresses_beyond_32_bits(device):
    """Items more than 2^31 elements apart, and rows more than 2^30: every product of the kernels' addresses is 64 bits wide."""
    step, row = 2**31 + 512, 2**30 + 8
    # numpy takes pages only when they are touched; torch's fill of new memory would touch them all.
    store = torch.from_numpy(np.empty(step + 2 * row + 16, dtype=np.int16)) if device.type == "cpu" else None
    if store is None:
        store = torch.empty(step + 2 * row + 16, dtype=torch.int16, device=device)
    small = make_inputs(2, 3, 3, 16, torch.bfloat16, device=device)
    target, source = (
        store[first:].view(torch.bfloat16).as_strided((2, 3, 8), (step, row, 1)).copy_(tensor[..., :8])
        for first, tensor in ((0, small[0]), (8, small[1]))
    )
    far = target, source, small[2][:, :8].contiguous(), small[3]
    near = [tensor.contiguous() for tensor in far]
    call = torch.tensor(5, device=device), None, None, 2, 0.9, 1.0, 0, False, False, 8, True
    results = [operators.patch_replace(*inputs, *call) for inputs in (far, near)]
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    mixed, *choice = results[0]
    rest = (*choice, 0.9, 8, False, True, True, True, True)
    results = [operators.patch_replace_backward(mixed, *inputs[:3], *rest) for inputs in (far, near)]
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
    operators.patch_swap_(*far, *call)
    operators.patch_swap_(*near, *call)
    assert torch.equal(far[0], near[0])
    assert torch.equal(far[1], near[1])
