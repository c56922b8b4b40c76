"""A launch goes to what Triton compiled for such arguments before, with what Triton itself would hand on; shown without a GPU."""

from unittest import mock

import pytest
import torch

triton = pytest.importorskip("triton")
import triton.language as tl  # noqa: E402
from triton import knobs  # noqa: E402
from triton.runtime import driver  # noqa: E402

from benchmarks.host import NoDriver  # noqa: E402
from pare_kernels._triton._launch import kernel, launch  # noqa: E402


@kernel
def add_kernel(out_ptr, scores_ptr, number, factor, BLOCK: tl.constexpr, NEGATIVE: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    value = tl.load(scores_ptr + lanes) * factor + number
    tl.store(out_ptr + lanes, -value if NEGATIVE else value)


@pytest.fixture
def handed_on():
    """What reaches the driver, launch by launch."""
    seen = []

    class Recorder(NoDriver):
        def launcher_cls(self, source, metadata):
            def run(*arguments):
                *grid, stream, function, packed, _, _, _ = arguments[:9]
                seen.append(
                    (metadata.hash, grid, stream, function, packed, [str(argument) for argument in arguments[9:]])
                )

            return run

    driver.set_active(Recorder())
    add_kernel.launchable.clear()
    yield seen
    driver._active = None  # `reset_active` asks for a GPU


def cases():
    """Tensors and numbers that ask for compilations of their own, but for the second, whose number alone is another."""
    memory = torch.zeros(64)
    numbers = {"number": 3, "factor": 0.5, "BLOCK": 16, "NEGATIVE": False, "num_warps": 1}
    usual = {"out": memory[:32], "scores": memory[32:], **numbers}
    changes = [
        {},
        {"number": -(2**31)},
        {"number": 2**31},
        {"number": 2**63},
        {"out": memory[1:32]},
        {"scores": memory[33:]},
        {"out": memory[:32].double()},
        {"scores": memory[32:].half()},
        {"BLOCK": 32},
        {"NEGATIVE": True},
        {"num_warps": 2},
    ]
    return [usual | change for change in changes]


def run(out, scores, number, factor, **constants):
    launch(add_kernel, 5, out, scores, number, factor, device=out.device, **constants)


def test_the_second_launch_asks_triton_for_nothing_and_hands_on_the_same(handed_on):
    for case in cases():
        run(**case)
    first = list(handed_on)
    handed_on.clear()
    with mock.patch.object(type(add_kernel), "run", side_effect=AssertionError("asked again")):
        for case in cases():
            run(**case)
    assert handed_on == first
    usual, other_number, wide, unsigned, unaligned_out, unaligned_scores, *others = [entry[0] for entry in first]
    assert usual == other_number == unaligned_scores  # the least of 32 bits; scores have no alignment to rely on
    assert len({usual, wide, unsigned, unaligned_out, *others}) == 4 + len(others)


def test_profilers_see_every_launch(handed_on):
    hook = mock.Mock()
    run(**cases()[0])
    knobs.runtime.launch_enter_hook.add(hook)
    try:
        with mock.patch.object(type(add_kernel), "run") as asked:
            run(**cases()[0])
        assert asked.call_count == 1
    finally:
        knobs.runtime.launch_enter_hook.remove(hook)
