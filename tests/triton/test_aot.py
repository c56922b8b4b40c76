"""Every kernel compiled for every architecture without a GPU: nothing spills, shared memory fits, the series step is short."""

import csv
import itertools

import pytest

pytest.importorskip("triton")

from benchmarks import aot, predict
from pare_kernels._triton import nodes, row_kernels, selection, tokens

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def compiled():
    """All results by (variant, target); what Triton compiled before is in its cache."""
    return {(result.variant, result.target): result for result in aot.compile_all(list(aot.TARGETS))}


def test_every_kernel_is_compiled_for_every_target(compiled):
    kernels = {
        name for module in (nodes, row_kernels, selection, tokens) for name in vars(module) if name.endswith("_kernel")
    }
    for target in aot.TARGETS:
        assert {result.kernel for result in compiled.values() if result.target == target} == kernels


def test_nothing_spills(compiled):
    spilled = {key: result for key, result in compiled.items() if result.stack_bytes or result.local_instructions}
    assert not spilled


def test_shared_memory_fits_into_the_smallest_device(compiled):
    assert max(result.shared_bytes for result in compiled.values()) <= aot.SHARED_LIMIT


def test_tokens_move_in_wide_loads(compiled):
    for (name, target), result in compiled.items():
        if name.endswith(("-fp32", "-bf16")) and target.startswith("sm"):
            assert result.widest_load_bits == 128, (name, target)


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_the_series_step_is_short(target, compiled):
    result = compiled["relaxed-64", target]
    assert result.num_warps == 8
    assert result.registers <= 64
    assert result.series_loop is not None
    assert result.series_loop <= 150


def test_the_file_holds_every_result(compiled, tmp_path):
    path = tmp_path / "aot.csv"
    aot.write(list(compiled.values()), path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(compiled)
    assert {(row["variant"], row["target"]) for row in rows} == set(compiled)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_predictions_follow_from_the_machine_code(dtype):
    """Every launch of the operator is read; more bytes take longer, and never less than they need."""
    names = [row[0] for row in predict.kernel_rows(dtype)]
    assert names == [
        *("gate_scores", "select", "replace", "dots", "adjoint", "adjoint, second look", "gradient", "reduce")
    ]
    times = [predict.predicted(predict.case_of(batch, dtype), "H100") for batch in predict.BATCHES]
    assert all(0 < one["both"] < other["both"] for one, other in itertools.pairwise(times))
    assert all(time["least"] < time["passes"] < time["both"] and time["share"] < 1 for time in times)


def test_steps_by_nodes_and_sorting_in_registers_are_read():
    cycles = {row[0]: float(row[3]) for row in predict.step_rows()}
    assert cycles["forth and kept, nodes"] < cycles["forth and kept, full width"]
    digits, registers = predict.sort_rows()
    assert float(registers[3]) < float(digits[3])


def test_loops_are_found_and_counted():
    body = ["FFMA R1, R2, R3, R4"] * 8 + ["SHFL.BFLY PT, R1, R2, 0x1, 0x1f", "BAR.SYNC.DEFER_BLOCKING 0x0"]
    lines = ["/*0000*/ MOV R1, c[0x0][0x28] ;", ".L_x_1:"]
    lines += [f"/*{16 * index:04x}*/ {text} ;" for index, text in enumerate([*body, "@P0 BRA `(.L_x_1)"], 1)]
    instructions, labels = aot._instructions("\n".join(lines))
    assert labels == {".L_x_1": 1}
    assert aot._series_loop(instructions, labels) == len(body) + 1
    assert aot._series_loop(instructions[:-1], labels) is None


def test_numbers_are_never_specialized_on():
    """A compiled kernel serves every N, B and k: nothing but pointers and constants is part of what it is compiled for."""
    seen = 0
    for module in (nodes, row_kernels, selection, tokens):
        for name, function in vars(module).items():
            if name.endswith("_kernel"):
                seen += 1
                for parameter in function.params:
                    plain = not parameter.is_constexpr and not parameter.name.endswith("_ptr")
                    assert parameter.do_not_specialize == plain, (name, parameter.name)
    assert seen == 13
