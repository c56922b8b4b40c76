"""No operator reads a device value on the host, and no number is part of what a kernel is compiled for; shown without a GPU."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

triton = pytest.importorskip("triton")

from pare_kernels import _fallback, _library, _triton  # noqa: E402
from pare_kernels._triton import launchers, operators  # noqa: E402
from tests.pare_kernels.cases import OPTION_WORDS  # noqa: E402

K = 20


@pytest.fixture
def compiled_for(monkeypatch):
    """Stands in for the launcher: collects what Triton would look up a compiled kernel by, the signature and the constants.

    Numbers and alignments as Triton's own launcher sees them (`native_specialize_impl` of its jit), with the addresses that
    torch's allocators give: multiples of 16 unless a view starts elsewhere.
    """
    keys = []

    def collect(kernel, programs, *arguments, device, num_warps, **constants):
        assert isinstance(programs, int)
        types = []
        for parameter, argument in zip(kernel.params, arguments, strict=False):
            if isinstance(argument, torch.Tensor):
                aligned = argument.storage_offset() * argument.element_size() % 16 == 0
                types.append((str(argument.dtype), aligned and not parameter.do_not_specialize_on_alignment))
            else:
                assert parameter.do_not_specialize, (
                    f"{kernel.__name__} would be compiled for the value of {parameter.name}"
                )
                assert isinstance(argument, (int, float)), f"{parameter.name} is no plain number: {argument!r}"
                wide = isinstance(argument, int) and not -(2**31) <= argument < 2**31
                types.append("i64" if wide else type(argument).__name__)
        assert len(arguments) == sum(not parameter.is_constexpr for parameter in kernel.params)
        keys.append((kernel.__name__, tuple(types), num_warps, tuple(sorted(constants.items()))))

    monkeypatch.setattr(launchers, "launch", collect)
    return keys


def run_everything(batch, num_target, num_source, dim, k, words, dtype=torch.float32, steps=8):
    """Every operator forward and backward on fake CUDA tensors, which have no values to read."""
    selection = ("gumbel", "topk", "random").index(words["selection"])
    flags = words["replace"] == "highest", words["pairing"] == "score"
    make = {"device": "cuda", "dtype": dtype}
    target, source = torch.empty(batch, num_target, dim, **make), torch.empty(batch, num_source, dim, **make)
    weight, bias = torch.empty(1, dim, **make), torch.empty(1, **make)
    seed = torch.empty((), dtype=torch.int64, device="cuda") if selection != 1 else None
    call = (target, source, weight, bias, seed, None, None, k, 0.9, 1.0, selection, *flags, steps, selection == 0)
    options = 0.9, steps, flags[0], selection == 0, True, True, True
    mixed, *choice = operators.patch_replace(*call)
    results = [(mixed, *choice)]
    results.append(operators.patch_replace_backward(mixed, target, source, weight, *choice, *options))
    operators.patch_swap_(*call)
    results.append(operators.patch_swap_backward(mixed, source, target, source, weight, *choice, *options))
    gate = operators.gate_scores(target, weight, bias)
    operators.gate_scores_backward(gate, gate, target, weight, True, True)
    mask, _, noisy, _ = operators.gumbel_topk(gate, None, seed, 0, k, 0.9, 1.0, steps)
    operators.gumbel_topk_backward(mask, noisy, k, 0.9, steps)
    return results


@pytest.mark.parametrize("words", OPTION_WORDS, ids=lambda words: "-".join(words.values()))
@pytest.mark.parametrize("steps", [8, -1])
def test_no_operator_reads_a_value_of_the_device(words, steps, compiled_for):
    with FakeTensorMode():
        for shape in ((3, 70, 61, 48), (1, 9000, 5000, 8)):
            forward, *_ = run_everything(*shape, K, words, steps=steps)
            assert forward[0].shape == (shape[0], shape[1], shape[3])
            assert all(tensor.device.type == "cuda" for tensor in forward)
    assert len(compiled_for) > 20


def test_a_read_would_be_noticed(compiled_for, monkeypatch):
    choose = operators._choose

    def reads(*arguments):
        *index, scores = choose(*arguments)
        index[0].sum().item()
        return *index, scores

    monkeypatch.setattr(operators, "_choose", reads)
    with FakeTensorMode(), pytest.raises(Exception, match="_local_scalar_dense"):
        run_everything(3, 70, 61, 48, K, OPTION_WORDS[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_compilation_serves_every_size_of_a_bucket(dtype, compiled_for):
    """N within a power of two, any k and batch, odd and even, with divisors of 16 and 1 among them."""
    keys = {}
    with FakeTensorMode():
        for batch, num, k in ((2, 65, 1), (1, 128, 16), (3, 100, 0), (16, 96, 96), (257, 127, 64), (1, 66, 65)):
            compiled_for.clear()
            run_everything(batch, num, num, 64, k, OPTION_WORDS[0], dtype=dtype)
            for key in compiled_for:
                keys.setdefault(key[0], set()).add(key)
    for name, found in keys.items():
        # The modes of a kernel (with and without a gradient of the source, ...) are compiled apart, the sizes are not.
        compiled_for.clear()
        with FakeTensorMode():
            run_everything(2, 80, 80, 64, 33, OPTION_WORDS[0], dtype=dtype)
        assert found == {key for key in compiled_for if key[0] == name}, name


def test_sizes_beyond_32_bits_change_no_type(compiled_for):
    """B N D > 2^31 elements: steps between rows and samples are passed in numbers that stay below 2^31."""
    with FakeTensorMode():
        run_everything(2, 80, 80, 64, 33, OPTION_WORDS[0])
        small = {key[:2] for key in compiled_for}
        compiled_for.clear()
        run_everything(400, 60000, 60000, 128, 333, OPTION_WORDS[0])
        large = {key[:2] for key in compiled_for}
    assert not any("i64" in types for _, types in large)
    assert {name for name, _ in small} == {name for name, _ in large}


def test_an_empty_batch_launches_nothing():
    """A launch would fail: no compiled kernel reads memory of the CPU."""
    inputs = torch.empty(0, 4, 3), torch.empty(0, 4, 3), torch.empty(3), None
    operators.patch_replace(*inputs, torch.tensor(1), None, None, 2, 0.9, 1.0, 0, False, False, 8, True)


def test_every_operator_has_both_implementations():
    assert set(_library.SCHEMAS) <= set(vars(_fallback))
    assert set(_triton.OPERATORS) <= set(vars(operators))
