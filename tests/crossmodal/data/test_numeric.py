import numpy as np
import pytest

from crossmodal.data import numeric
from crossmodal.data.numeric import real_array, require_finite
from crossmodal.errors import UserError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("f4", "f4"),
        ("f8", "f8"),
        (">f4", "f4"),
        (">i2", "f4"),
        ("u1", "f4"),
        ("?", "f4"),
        ("f2", "f4"),
        ("i4", "f8"),
        ("i8", "f8"),
    ],
)
def test_real_array_loses_nothing(given, expected):
    values = np.array([0, 1, 1], dtype=given)
    assert real_array(values, "x").dtype == np.dtype(expected)
    assert real_array(values, "x").tolist() == [0, 1, 1]


@pytest.mark.parametrize("rows", [None, np.array([5, 0, 3])])
@pytest.mark.parametrize("limit", [1, 12, 10**6])
def test_chunks_are_the_samples_in_order(monkeypatch, rows, limit):
    monkeypatch.setattr(numeric, "CHUNK_VALUES", limit)
    values = np.arange(42).reshape(7, 2, 3)
    parts = list(numeric.chunks(values, rows))
    assert np.array_equal(np.concatenate(parts), values if rows is None else values[rows])
    assert all(len(part) <= max(limit // 6, 1) for part in parts)


@pytest.mark.parametrize(
    "values", [np.array([1j]), np.array(["a"]), np.array([None]), np.array(["2020"], dtype="M8[Y]")]
)
def test_real_array_refuses_what_is_not_real(values):
    with pytest.raises(UserError, match="x: expected real numbers, got dtype"):
        real_array(values, "x")


@pytest.mark.parametrize("limit", [1, 10**6])
def test_require_finite_names_place_value_and_number(monkeypatch, limit):
    monkeypatch.setattr(numeric, "CHUNK_VALUES", limit)
    values = np.zeros((4, 2, 3))
    require_finite(values, "x")
    values[1, 0, 2], values[1, 1, 1], values[3, 0, 0] = np.nan, np.inf, -np.inf
    with pytest.raises(ValueError, match=r"x: value nan at index \(1, 0, 2\) \(2 sample\(s\) with NaN or infinity\)"):
        require_finite(values, "x")
