import numpy as np
import pytest

from pare_kernels import ReplaceSchedule


@pytest.mark.parametrize(
    ("schedule", "patches", "expected"),
    [  # k at progress 0, 1/4, 1/2, 3/4, 1
        (ReplaceSchedule("constant", 7), 10, [7, 7, 7, 7, 7]),
        (ReplaceSchedule("linear", 2000, 500), 3136, [2000, 1625, 1250, 875, 500]),
        (ReplaceSchedule("linear", 1.0, 0.0), 12, [12, 9, 6, 3, 0]),
        (ReplaceSchedule("linear", 0.5, 0), 50, [25, 18, 12, 6, 0]),
        (ReplaceSchedule("linear", 0, 8), 8, [0, 2, 4, 6, 8]),
        (ReplaceSchedule("exponential", 16, 1), 100, [16, 8, 4, 2, 1]),
        (ReplaceSchedule("exponential", 16, 0), 100, [16, 8, 4, 2, 0]),
        (ReplaceSchedule("exponential", 0, 0), 100, [0, 0, 0, 0, 0]),
        (ReplaceSchedule("exponential", 0.0, 8), 100, [0, 0, 0, 0, 8]),
        (ReplaceSchedule("piecewise", 30, 0), 100, [30, 20, 10, 0, 0]),
        (ReplaceSchedule("piecewise", 1.0, 0.0, steps=2), 9, [9, 9, 0, 0, 0]),
        (ReplaceSchedule("linear", 64, 0), 20, [20, 20, 20, 16, 0]),  # at most the patches at hand
        (ReplaceSchedule("constant", 0), 5, [0, 0, 0, 0, 0]),
        (ReplaceSchedule(), 0, [0, 0, 0, 0, 0]),
        (ReplaceSchedule("linear", np.int8(100), np.float32(0.5)), np.int16(200), [100, 100, 100, 100, 100]),
        (ReplaceSchedule("piecewise", np.int64(30), 0, steps=np.int64(4)), np.uint8(100), [30, 20, 10, 0, 0]),
    ],
    ids=lambda value: f"{value.kind}-{value.start}-{value.end}" if isinstance(value, ReplaceSchedule) else "",
)
def test_k_over_progress(schedule, patches, expected):
    assert [schedule(progress, patches) for progress in (0.0, 0.25, 0.5, 0.75, 1.0)] == expected
    assert type(schedule(np.float32(0.5), patches)) is int


@pytest.mark.parametrize(
    ("begin", "decrease", "epochs"), [(2000, 1500, 60), (1000, 500, 100), (32, 32, 15), (32, 32, 60), (500, 500, 60)]
)
def test_linear_gives_the_papers_numbers_epoch_by_epoch(begin, decrease, epochs):
    """k = int(begin - decrease * epoch / epochs), without the rounding of binary fractions getting in the way."""
    schedule = ReplaceSchedule("linear", begin, begin - decrease)
    assert [schedule(epoch / epochs, 3136) for epoch in range(epochs)] == [
        (begin * epochs - decrease * epoch) // epochs for epoch in range(epochs)
    ]


@pytest.mark.parametrize("kind", ["linear", "exponential", "piecewise"])
def test_k_never_rises_on_the_way_down(kind):
    schedule = ReplaceSchedule(kind, 1.0, 0, steps=7)
    values = [schedule(step / 200, 77) for step in range(201)]
    assert values == sorted(values, reverse=True)
    assert (values[0], values[-1]) == (77, 0)
