"""The relaxation and its adjoint, in registers and in blocks, against the definition in float64."""

import pytest
import torch

from pare_kernels import _fallback, reference
from pare_kernels._triton import launchers, operators
from tests.tolerances import GRADIENTS, LEADING, RELAXED, assert_row

INF, NAN = float("inf"), float("nan")
STEPS = [0, 1, 8, -1]


def noisy_rows(dtype, num, device, batch=2):
    generator = torch.Generator().manual_seed(num)
    gate = torch.rand(batch, num, generator=generator, dtype=torch.float64)
    uniform = torch.rand(batch, num, generator=generator, dtype=torch.float64)
    return (gate - (-(uniform.clamp_min(1e-9)).log()).log()).to(device, dtype)


def assert_relaxed(scores, k, tau, steps):
    exact = reference.relaxed_topk(scores.double(), k, tau, None if steps < 0 else steps)
    h = launchers.relaxed(scores, k, tau, steps)
    rtol, atol = RELAXED[scores.dtype]
    torch.testing.assert_close(h.double(), exact, rtol=rtol, atol=atol)


def assert_adjoint(scores, k, tau, steps):
    upstream = torch.randn(scores.shape, generator=torch.Generator().manual_seed(k), dtype=torch.float64).to(scores)
    exact = reference.relaxed_topk_adjoint(upstream.double(), scores.double(), k, tau, None if steps < 0 else steps)
    error = (operators.gumbel_topk_backward(upstream, scores, k, tau, steps).double() - exact).abs().max()
    assert error <= GRADIENTS[scores.dtype] * exact.abs().max().clamp_min(1e-6)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_registers(dtype, steps, device):
    scores = noisy_rows(dtype, 14 if dtype == torch.float64 else 33, device)
    assert_relaxed(scores, 9, 0.9, steps)
    assert_adjoint(scores, 9, 0.9, steps)


@pytest.mark.parametrize("steps", STEPS)
def test_in_blocks(steps, short_blocks, device):
    scores = noisy_rows(torch.float32, 37, device, batch=1)
    assert_relaxed(scores, 11, 0.9, steps)
    assert_adjoint(scores, 11, 0.9, steps)


@pytest.mark.parametrize("long", [False, True])
def test_segments_are_run_again_from_their_starts(long, device, request):
    """40 exact steps: more than are kept, in segments of 7, the last one shorter."""
    if long:
        request.getfixturevalue("short_blocks")
    assert launchers.plan_steps(50, 40) == (40, 10, 7, 12)
    assert_adjoint(noisy_rows(torch.float32, 64 if not long else 55, device, batch=1), 50, 0.9, 40)


def test_series_steps_are_taken_and_exact(device, monkeypatch):
    """Rows of equal scores have p = 1/N: below the limit from the first step on at N = 60, above it with a lower limit."""
    scores = torch.zeros(1, 60, device=device)
    scores[0, ::7] = 0.3
    assert launchers.series_limit(0.9, torch.float32) > 1 / 45
    assert_relaxed(scores, 30, 0.9, -1)
    assert_adjoint(scores, 30, 0.9, -1)
    monkeypatch.setattr(launchers, "series_limit", lambda tau, dtype: 0.0)
    assert_relaxed(scores, 30, 0.9, -1)
    assert_adjoint(scores, 30, 0.9, -1)


@pytest.mark.parametrize("tau", [0.1, 0.5, 3.0])
def test_temperatures(tau, device):
    scores = noisy_rows(torch.float64, 12, device)
    assert_relaxed(scores, 5, tau, 3)
    assert_adjoint(scores, 5, tau, 3)


@pytest.mark.parametrize("k", [0, 1, 12])
def test_ends_of_k(k, device):
    """In doubles, as short rows of single scores are."""
    scores = noisy_rows(torch.float32, 12, device)
    assert_relaxed(scores, k, 0.9, 8)
    assert_adjoint(scores, k, 0.9, 8)


@pytest.mark.parametrize("long", [False, True])
def test_rows_of_non_finite_scores(long, device, request):
    """NaN and -inf have no weight; a row of nothing else is zero; +inf share a row; no row touches another."""
    if long:
        request.getfixturevalue("short_blocks")
    scores = noisy_rows(torch.float64, 20 if long else 8, device, batch=6)
    scores[1], scores[2, 0], scores[3, :] = NAN, -INF, -INF
    scores[3, 2] = 1.0
    scores[4, 3], scores[5, 1], scores[5, 4] = INF, INF, INF
    for steps in (0, 2):
        assert_relaxed(scores, 3, 0.9, steps)
        assert_adjoint(scores, 3, 0.9, steps)


def test_one_item_that_dominates(device):
    """p_1 rounds to one: 1 - p is the sum of the others, and the tail is solved on a logarithmic scale."""
    scores = torch.zeros(2, 9, dtype=torch.float32, device=device)
    scores[0, 3], scores[1, 0], scores[1, 1] = 17.0, 60.0, 40.0
    for steps in (0, 1, 4):
        assert_relaxed(scores, 6, 0.9, steps)
    scores = scores.double()
    for steps in (0, 1, 4):
        assert_relaxed(scores, 6, 0.9, steps)
        assert_adjoint(scores, 6, 0.9, steps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("tau", "steps"), [(0.05, 3), (0.3, 8), (0.9, 0), (0.9, 3), (5.0, 2)])
def test_leading_scores_in_blocks(tau, steps, dtype, short_blocks, device):
    """In singles, and in doubles where they spread too far."""
    scores = tau * noisy_rows(torch.float64, 37, device, batch=3)
    for row, lead in zip(scores, (0, 20, 690), strict=True):
        row[5] = row.max() + lead * tau
    scores = scores.to(dtype)
    c = scores.flip(-1).contiguous()
    h, ds = launchers.relaxed(scores, 9, tau, steps), operators.gumbel_topk_backward(c, scores, 9, tau, steps)
    expected_h = reference.relaxed_topk(scores.double(), 9, tau, steps)
    expected_ds = reference.relaxed_topk_adjoint(c.double(), scores.double(), 9, tau, steps)
    for row in zip(h, ds, expected_h, expected_ds, strict=True):
        assert_row("h", row[0], row[2], dtype)
        assert_row("ds", row[1], row[3], dtype)
        assert abs(row[0].double().sum().item() - 9) <= 9 * LEADING[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whole_operator(dtype, device):
    scores = torch.rand(2, 9, dtype=dtype, device=device)
    seed = torch.tensor(77, device=device)
    for call in ((scores, None, seed, 5, 4, 0.9, 0.5, 8), (scores, scores.flip(0), None, 0, 4, 0.9, 0.5, 2)):
        mask, relaxed, noisy, indices = operators.gumbel_topk(*call)
        expected = _fallback.gumbel_topk(*call)
        torch.testing.assert_close(noisy, expected[2], rtol=2e-6, atol=1e-6)
        chosen = reference.topk_mask(noisy, 4)
        assert torch.equal(mask, chosen.to(dtype))
        assert torch.equal(indices, reference.mask_to_index(chosen, 4))
        rtol, atol = RELAXED[dtype]
        torch.testing.assert_close(relaxed, expected[1], rtol=rtol, atol=1e3 * atol)


@pytest.mark.parametrize("tau", [0.5, 0.9, 2.0])
def test_steps_by_logarithms_and_by_the_long_series_are_exact(tau, device):
    """Rows whose largest p begins where only logarithms serve, and falls to where the long series does."""
    scores = noisy_rows(torch.float32, 60, device, batch=4)
    scores[:, 7] += tau * torch.tensor([0.0, 3.0, 5.0, 7.0], device=device)
    largest, p = [], torch.softmax(scores.double() / tau, -1)
    for _ in range(20):
        largest.append(p.amax(-1))
        p = p * (1 - p) ** (1 / tau)
        p = p / p.sum(-1, keepdim=True)
    largest = torch.stack(largest)
    short = launchers.series_limit(tau, torch.float32)
    assert (largest > 0.6).any()
    assert ((largest > short) & (largest < 0.2)).any()
    assert_adjoint(scores, 40, tau, 20)


@pytest.fixture
def by_nodes(monkeypatch):
    """Rows of more than 40 patches and 10 steps are carried by nodes; which rows these left, launch by launch."""
    monkeypatch.setattr(launchers, "NODES_FROM", (40, 10))
    left, run = [], launchers._by_nodes

    def note(*arguments, **options):
        result = run(*arguments, **options)
        left.append(None if result is None else result.tolist())
        return result

    monkeypatch.setattr(launchers, "_by_nodes", note)
    return left


@pytest.mark.parametrize(("num", "k", "tau"), [(60, 25, 0.9), (70, 60, 0.5), (60, 20, 3.0)])
def test_by_nodes(num, k, tau, by_nodes, device, monkeypatch):
    monkeypatch.setattr(launchers, "LONG_BLOCK", 16 if tau == 0.9 else 2048)
    scores = noisy_rows(torch.float32, num, device)
    assert_relaxed(scores, k, tau, -1)
    assert_adjoint(scores, k, tau, -1)
    assert by_nodes == [[0, 0], [0, 0]]
    assert_adjoint(scores, k, tau, 3)  # with a tail
    assert_adjoint(scores.double(), k, tau, -1)
    assert by_nodes[2:] == [None]


def test_corners_by_nodes(by_nodes, device):
    """What nodes serve, and what they leave to the full width; no row touches another."""
    usual = noisy_rows(torch.float64, 50, device, batch=1)[0]
    rows = {name: usual.clone() for name in ("usual", "ties", "few", "NaN", "ahead", "far ahead", "+inf")}
    rows["ties"] = (4 * usual).round() / 4
    rows["equal"] = torch.full_like(usual, 0.5)
    rows["saturated"] = (usual > usual.median()).double()
    rows["ahead"][7], rows["far ahead"][7], rows["+inf"][7] = usual.max() + 10, usual.max() + 30, INF
    rows["NaN"][::9], rows["NaN"][4] = NAN, -INF
    rows["few"][10:] = -INF
    rows["none"] = torch.full_like(usual, NAN)
    assert_rows(rows, {"few", "far ahead", "+inf", "none"}, 12, by_nodes)


def test_a_head_that_is_used_up(by_nodes, device):
    """At small tau the 16 best scores fall so far in a step that the next one has 0.4 of the row: no node carries that."""
    scores = (
        torch.cat([torch.linspace(0, 26, 16), torch.tensor([-3.0]), -torch.linspace(8, 15, 33)]).double().to(device)
    )
    assert_rows({"used up": 0.02 * scores}, {"used up"}, 20, by_nodes, tau=0.02)


def assert_rows(rows, left, k, by_nodes, tau=0.9):
    scores = torch.stack(list(rows.values())).float()
    c = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1)).to(scores)
    h, ds = launchers.relaxed(scores, k, tau, -1), operators.gumbel_topk_backward(c, scores, k, tau, -1)
    expected_h = reference.relaxed_topk(scores.double(), k, tau, None)
    expected_ds = reference.relaxed_topk_adjoint(c.double(), scores.double(), k, tau, None)
    assert by_nodes == [[int(name in left) for name in rows]] * 2
    for row, name in enumerate(rows):
        if name in left:
            assert_row(f"h, {name}", h[row], expected_h[row], torch.float32)
            assert_row(f"ds, {name}", ds[row], expected_ds[row], torch.float32)
        else:
            rtol, atol = RELAXED[torch.float32]
            torch.testing.assert_close(h[row].double(), expected_h[row], rtol=rtol, atol=atol)
            error = (ds[row].double() - expected_ds[row]).abs().max()
            assert error <= GRADIENTS[torch.float32] * expected_ds[row].abs().max(), name
