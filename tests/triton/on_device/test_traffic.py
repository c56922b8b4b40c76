"""What the launchers say they move, against the loads and stores that the kernels really make: counted in the interpreter."""

import contextlib

import numpy as np
import pytest
import torch

from pare_kernels._triton import launchers, operators
from tests.pare_kernels.cases import make_inputs
from tests.triton.on_device.conftest import INTERPRETED

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="counted in Triton's interpreter")
SHAPES = [(2, 64, 64, 64, 40), (1, 96, 64, 128, 20)]


@pytest.fixture
def counted(monkeypatch):
    """A context that collects (kernel, said bytes, touched bytes) of every launch made inside it.

    Touched: per launch, the bytes of distinct addresses that are read, and of those that are written. What a program reads
    again (an index list searched, a weight vector) counts once, as it comes out of the cache.
    """
    from triton.runtime import interpreter

    accesses = []
    memory = interpreter._interpreter

    class Counting:
        def __getattr__(self, name):
            return getattr(memory, name)

        def load(self, pointers, mask, other, dtype):
            accesses.append(("read", pointers[mask.astype(bool)].ravel(), np.dtype(dtype).itemsize))
            return memory.load(pointers, mask, other, dtype)

        def store(self, pointers, value, mask):
            accesses.append(("write", pointers[mask.astype(bool)].ravel(), value.dtype.itemsize))
            return memory.store(pointers, value, mask)

    monkeypatch.setattr(interpreter, "_interpreter", Counting())
    launch = launchers.launch

    @contextlib.contextmanager
    def count():
        table = []

        def counting(kernel, programs, *arguments, **options):
            accesses.clear()
            launch(kernel, programs, *arguments, **options)
            touched = 0
            for kind in ("read", "write"):
                for size in {size for how, _, size in accesses if how == kind}:
                    addresses = [where for how, where, other in accesses if (how, other) == (kind, size)]
                    touched += size * len(np.unique(np.concatenate(addresses)))
            table.append((kernel.__name__, options["traffic"], touched))

        with monkeypatch.context() as patch:
            patch.setattr(launchers, "launch", counting)
            yield table

    return count


def assert_true(table, slack):
    """Every launcher says what is touched, but for the few per cent (`slack`) that its docstring leaves to the cache."""
    for name, said, touched in table:
        assert abs(said - touched) <= slack * touched, f"{name}: said {said} bytes, touched {touched}"


@pytest.mark.parametrize(("batch", "num_target", "num_source", "dim", "k"), SHAPES)
@pytest.mark.parametrize(
    ("operator", "source_grad"), [("patch_replace", False), ("patch_swap", True), ("patch_swap", False)]
)
def test_launchers_say_what_the_kernels_touch(operator, source_grad, batch, num_target, num_source, dim, k, counted):
    inputs = make_inputs(batch, num_target, num_source, dim, torch.float32)
    seed = torch.tensor(3)
    with counted() as table:
        call = (*inputs, seed, None, None, k, 0.9, 1.0, 0, False, False, 8, True)
        if operator == "patch_swap":
            choice = operators.patch_swap_(*call)
        else:
            _, *choice = operators.patch_replace(*call)
        grads = [torch.randn_like(tensor) for tensor in inputs[: 1 + source_grad]]
        grads += [None] * (operator == "patch_swap" and not source_grad)
        rest = (*inputs[:3], *choice, 0.9, 8, False, True, True, True, True)
        getattr(operators, f"{operator}_backward")(*grads, *rest)
    assert len(table) == 7
    assert_true([row for row in table if row[0] != "adjoint_kernel"], 0.03)
    # The adjoint reads its own partners and steps again; those stay in the cache and are counted as if they did not.
    assert_true([row for row in table if row[0] == "adjoint_kernel"], 0.1)
    said, touched = (sum(row[column] for row in table) for column in (1, 2))
    assert abs(said - touched) <= 0.03 * touched


def test_every_other_launcher_too(counted):
    scores, noise = torch.rand(2, 64), torch.randn(2, 64)
    tokens, source, weight, bias = make_inputs(2, 64, 64, 64, torch.float32)
    with counted() as table:
        noisy = launchers.select_rows(scores, noise, None, 0, 20, 1.0)[0]
        launchers.relaxed(noisy, 20, 0.9, 8)
        launchers.topk_adjoint(scores, noisy, 20, 0.9, 8)
        gate = operators.gate_scores(tokens, weight, bias)
        operators.gate_scores_backward(torch.rand_like(gate), gate, tokens, weight, True, True)
        index = torch.arange(20).expand(2, 20).contiguous()
        launchers.partners((index, index.clone()), (64, 64))
        launchers.replace(tokens, source, index, index.clone())
    assert [row[0] for row in table].count("gradient_kernel") == 1
    assert len(table) == 8
    assert_true(table, 0.06)


def test_a_wrong_formula_is_noticed(counted, monkeypatch):
    """The count is independent: a launcher that leaves out what it writes does not pass."""
    monkeypatch.setattr(launchers, "_bytes", lambda *tensors: sum(t.nbytes for t in tensors[:1] if t is not None))
    tokens, source, weight, bias = make_inputs(2, 64, 64, 64, torch.float32)
    with counted() as table:
        launchers.gate_scores((tokens, source), weight, bias, [torch.empty(2, 64) for _ in range(2)])
    with pytest.raises(AssertionError, match="gate_scores_kernel: said"):
        assert_true(table, 0.1)
