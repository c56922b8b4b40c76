"""Clock, memory, limits, and what a measured plan reports."""

import time

import pytest
import torch

from benchmarks import agreement, clock, measure
from benchmarks.bandwidth import Limit, buffer, native, read_and_copy_gbs
from benchmarks.cases import CASES, GROWTH, SUITES, Case, Plan
from benchmarks.clock import BACKWARD, FORWARD, Candidate, Quantiles, Sample, Timing, interleave
from benchmarks.measure import LIMIT, TooSlow, fill_ratios, honest_ms, time_limit
from benchmarks.memory import MIB, available_bytes, peak_mib
from benchmarks.operations import OPERATIONS
from benchmarks.providers import PROVIDERS
from benchmarks.providers.base import DEFAULT, EXACT, Provider
from benchmarks.records import FAILED, OK, REFUSED, SKIPPED, Row

CPU = torch.device("cpu")


def measured(case, operation="replace", providers=(), **options):
    rows = measure.measure(Plan(case, operation, providers, **options), CPU, seconds=0.001)
    return {row.provider: row for row in rows}


@pytest.fixture
def temporary_provider(monkeypatch):
    """Registers a provider for one test."""

    def add(provider: Provider) -> None:
        monkeypatch.setitem(PROVIDERS, (provider.operation, provider.name), provider)

    return add


def test_a_plan_reports_everything(case):
    rows = measured(case, providers=("pare", "pare-inplace", "paper", "eager-closed-manual"))
    assert set(rows) == {"pare", "pare-inplace", "paper", "eager-closed-manual", LIMIT}
    ours = rows["pare"]
    assert ours.status == OK
    assert (ours.case, ours.batch, ours.num_target, ours.num_source, ours.dim, ours.k) == ("small", 3, 12, 10, 8, 4)
    assert ours.forward_p20_ms <= ours.forward_ms <= ours.forward_p80_ms
    assert ours.both_ms >= ours.forward_ms
    assert ours.forward_cpu_ms > 0
    assert ours.samples >= 3
    # Forward: target and source in, target out. Backward: gradient, target and source in, two gradients out.
    target, source = 3 * 12 * 8 * 4, 3 * 10 * 8 * 4
    assert (ours.forward_bytes, ours.backward_bytes) == (2 * target + source, 3 * target + 2 * source)
    assert ours.forward_gbs == pytest.approx(ours.forward_bytes / ours.forward_cpu_ms / 1e6)
    assert ours.forward_of_limit == pytest.approx(rows[LIMIT].forward_cpu_ms / ours.forward_cpu_ms)
    assert ours.over_paper == pytest.approx(honest_ms(rows["paper"]) / honest_ms(ours))
    assert ours.best_rival in ("paper", "eager-closed-manual")
    assert rows["paper"].over_paper == 1
    assert rows["paper"].over_best_rival is None


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "overhead"])
def test_every_operation_is_measured(operation, case):
    rows = measured(case, operation, tuple(n for o, n in PROVIDERS if o == operation and not PROVIDERS[o, n].compiled))
    assert {row.status for row in rows.values()} == {OK}


def test_overhead_is_the_time_of_one_call(monkeypatch):
    monkeypatch.setattr(measure, "OVERHEAD_CALLS", 5)
    rows = measured(CASES["tiny"], "overhead")
    assert rows["pare"].both_ms is None
    assert rows["pare"].over_best_rival == pytest.approx(
        rows["fused_adam"].forward_cpu_ms / rows["pare"].forward_cpu_ms
    )


def test_wrong_provider_gets_a_reason_and_no_time(case, temporary_provider):
    def build(case, device):
        right = PROVIDERS["replace", "eager-closed"].build(case, device)
        return lambda workload, noise: 1.5 * right(workload, noise)

    temporary_provider(Provider("replace", "wrong", "1.5 times what is right", build, estimator=DEFAULT))
    row = measured(case, providers=("pare", "wrong"))["wrong"]
    assert row.status == REFUSED
    assert "output differs in" in row.note
    assert row.forward_ms is row.both_ms is row.peak_mib is row.over_paper is None


def test_provider_that_fails_or_does_not_fit_is_named(case, temporary_provider):
    def fail(case, device):
        raise RuntimeError("no kernel here\nand a long explanation")

    temporary_provider(Provider("replace", "fails", "", fail))
    temporary_provider(Provider("replace", "huge", "", fail, memory=lambda case: 2**60))
    rows = measured(case, providers=("pare", "fails", "huge"))
    assert (rows["fails"].status, rows["fails"].note) == (FAILED, "RuntimeError: no kernel here")
    assert rows["huge"].status == SKIPPED
    assert rows["huge"].note.startswith("needs about 1073741824.0 GiB")
    assert rows["pare"].status == OK


def test_compilation_is_timed_and_bounded(case, temporary_provider, monkeypatch):
    right = PROVIDERS["replace", "eager-closed"]
    temporary_provider(Provider("replace", "quick", "", right.build, estimator=DEFAULT, compiled=True))

    def slow(case, device):
        time.sleep(5)

    temporary_provider(Provider("replace", "slow", "", slow, compiled=True))
    monkeypatch.setattr(measure, "COMPILE_SECONDS", 0.5)
    rows = measured(case, providers=("quick", "slow"))
    assert rows["quick"].compile_s > 0
    assert (rows["slow"].status, rows["slow"].note) == (SKIPPED, "given up after 0.5 s of compilation")


def test_time_limit_sees_through_wrapped_errors():
    def wrapped():
        try:
            time.sleep(5)
        except Exception as error:
            raise RuntimeError("the compiler failed") from error

    with pytest.raises(TooSlow, match=r"0\.05 s"), time_limit(0.05):
        wrapped()
    with pytest.raises(RuntimeError, match="its own"), time_limit(5):
        raise RuntimeError("its own")
    with time_limit(None):
        pass


def test_threads_are_set_and_restored(case):
    before = torch.get_num_threads()
    rows = measured(case, providers=("pare",), threads=2)
    assert rows["pare"].threads == 2
    assert torch.get_num_threads() == before


def test_ratios_use_comparable_rivals_and_cpu_time():
    def row(provider, family, ms, estimator=DEFAULT, **more):
        return Row(provider=provider, family=family, both_ms=ms, estimator=estimator, threads=1, **more)

    rows = [
        row("pare", "ours", 2.0, both_cpu_ms=1.0),
        row("paper", "paper", 300.0, EXACT),
        row("fast", "rival", 0.5, "sigmoid"),
        row("good", "rival", 3.0),
        row("red", "rival", 0.1, status=REFUSED),
    ]
    fill_ratios(rows)
    assert (rows[0].over_paper, rows[0].over_best_rival, rows[0].best_rival) == (300.0, 3.0, "good")
    assert rows[2].over_paper == 600.0
    assert rows[4].over_paper is None


def test_quantiles():
    q = Quantiles.of([5.0, 1.0, 2.0, 3.0, 4.0, 6.0])
    assert (q.low, q.median, q.high) == (2.0, 3.5, 5.0)
    timing = Timing([Sample({FORWARD: 1.0, BACKWARD: 2.0}), Sample({FORWARD: 3.0, BACKWARD: 4.0})])
    assert timing.wall["both"].median == 5.0


def test_candidates_are_interleaved_and_slow_ones_measured_less(monkeypatch):
    order, now = [], [0.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])

    def step(name, seconds):
        def run():
            order.append(name)
            now[0] += seconds
            return Sample({FORWARD: seconds})

        return run

    fast, slow = Candidate(step("fast", 1.0)), Candidate(step("slow", 20.0))
    interleave([fast, slow], seconds=12.5, least=3, most=100)
    assert len(fast.timing.samples) == 12
    assert len(slow.timing.samples) == 3, "its first step is one of them"
    timed = order[2:]  # after the first step of each
    first, second = (position for position, name in enumerate(timed) if name == "slow")
    assert first in (5, 6), "spread over the rounds"
    assert second in (12, 13), "spread over the rounds"
    order.clear()
    pair = Candidate(step("fast", 1.0)), Candidate(step("other", 1.0))
    interleave(pair, seconds=12.5)
    rounds = {tuple(order[start : start + 2]) for start in range(2, len(order), 2)}
    assert rounds == {("fast", "other"), ("other", "fast")}, "in another order each round"
    interleave([hasty := Candidate(step("hasty", 1e-9))], seconds=1.0, most=5)
    assert len(hasty.timing.samples) == 5


def test_peak_memory_counts_what_a_step_takes_and_frees():
    def step():
        block = torch.ones(16 * MIB // 4)
        return torch.ones(8 * MIB // 4) + block[: 8 * MIB // 4]

    step()
    peak = peak_mib(step, CPU)
    if peak is None:
        pytest.skip("this system does not tell a process its peak of memory")
    assert 30 <= peak <= 36
    assert peak_mib(lambda: None, CPU) <= 2
    assert available_bytes() > 0


@pytest.mark.parametrize("compiler", [True, False])
def test_limit_moves_the_bytes(compiler, monkeypatch):
    if not compiler:
        monkeypatch.setattr("benchmarks.bandwidth.native", lambda: None)
    read, copy = read_and_copy_gbs(CPU, size=2**20, repeats=2)
    assert read > 0
    assert copy > 0
    limit = Limit({FORWARD: (3 * 2**16, 2**16), BACKWARD: (2**16, 2**17)}, CPU)
    assert set(limit.step().wall) == {FORWARD, BACKWARD}


@pytest.mark.skipif(native() is None, reason="no C compiler")
def test_native_copy_and_sum_are_right():
    library = native()
    source, to = buffer(4096, CPU), buffer(4096, CPU)
    source.copy_(torch.randn(source.shape))
    library.stream_copy(to.data_ptr(), source.data_ptr(), 4096, 1)
    assert torch.equal(to, source)
    words = source.view(torch.int64)
    total = library.read_words(source.data_ptr(), words.numel(), 2)
    assert total == int(sum(map(int, words)) % 2**64)


def test_buffers_are_aligned_and_whole():
    for size in (0, 1, 64, 1000):
        data = buffer(size, CPU)
        assert data.data_ptr() % 64 == 0
        assert data.numel() * 4 >= max(size, 64)
        assert data.numel() * 4 % 64 == 0


@pytest.mark.parametrize("suite", SUITES)
def test_suites_name_providers_that_exist(suite):
    plans = SUITES[suite]()
    assert plans
    for plan in plans:
        assert plan.operation in OPERATIONS
        for name in plan.providers:
            assert (plan.operation, name) in PROVIDERS, f"{plan.operation}: {name}"
    keys = [(plan.case.name, plan.case.dtype, plan.operation, plan.threads, plan.heap) for plan in plans]
    assert len(keys) == len(set(keys))


def test_cases_are_checked():
    assert {"swin-2000", "swin-500", "ecg", "satellite", "deepsea", "advection", "vit", "long"} <= set(CASES)
    assert set(GROWTH) == {"N", "k", "B", "D"}
    with pytest.raises(ValueError, match="k must be between"):
        Case("bad", "", 1, 4, 3, 2, 4)
    with pytest.raises(ValueError, match="float32, bfloat16, float16"):
        Case("bad", "", 1, 4, 4, 2, 2, dtype="int8")


def test_inputs_are_the_same_each_time(case):
    first, second = (OPERATIONS["replace"].make(case, CPU) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.leaves, second.leaves, strict=True))
    assert agreement.relative_error(first.noise[0], second.noise[0].double()) == 0.0
