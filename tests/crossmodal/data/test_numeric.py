import numpy as np
import pytest

from crossmodal.data import numeric
from crossmodal.data.numeric import parse_number, require_finite, require_numbers
from crossmodal.errors import UserError


@pytest.mark.parametrize("rows", [None, np.array([5, 0, 3])])
@pytest.mark.parametrize("limit", [1, 12, 10**6])
def test_chunks_are_the_samples_in_order(monkeypatch, rows, limit):
    monkeypatch.setattr(numeric, "CHUNK_VALUES", limit)
    values = np.arange(42).reshape(7, 2, 3)
    parts = list(numeric.chunks(values, rows))
    assert np.array_equal(np.concatenate(parts), values if rows is None else values[rows])
    assert all(len(part) <= max(limit // 6, 1) for part in parts)


@pytest.mark.parametrize(
    "values",
    [
        np.array([1j]),
        np.array(["a"]),
        np.array([None]),
        np.array(["2020"], dtype="M8[Y]"),
        np.array([5], dtype="m8[s]"),
        np.zeros(2, dtype=[("a", "f4")]),
        np.ma.array([1.0, 2.0], mask=[False, True]),
    ],
)
def test_what_is_no_real_number_is_refused(values):
    with pytest.raises(UserError, match=r"x: (expected real numbers, got dtype|holds masked values)"):
        require_numbers(values, "x")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4e1", 40),
        (" -0.5", -0.5),
        ("-inf", -np.inf),
        ("1e-400", 0),
        ("0.30000000000000000001", 0.3),
        ("90071992547409920", 90071992547409920),
        ("1_000", None),
        ("1e400", None),
        ("9007199254740993", None),
        ("", None),
        ("0x10", None),
    ],
)
def test_numbers_in_text_are_read_as_they_stand(text, value):
    if value is None:
        with pytest.raises(ValueError, match=r"float64|not a number"):
            parse_number(text)
    else:
        assert parse_number(text) == value


@pytest.mark.parametrize("limit", [1, 10**6])
def test_require_finite_names_place_value_and_number(monkeypatch, limit):
    monkeypatch.setattr(numeric, "CHUNK_VALUES", limit)
    values = np.zeros((4, 2, 3))
    require_finite(values, "x")
    values[1, 0, 2], values[1, 1, 1], values[3, 0, 0] = np.nan, np.inf, -np.inf
    with pytest.raises(ValueError, match=r"x: value nan at index \(1, 0, 2\) \(2 sample\(s\) with NaN or infinity\)"):
        require_finite(values, "x")
    with pytest.raises(ValueError, match=r"x: value inf at index \(1, 1, 1\) \(2 sample"):
        require_finite(values, "x", missing=True)
