import numpy as np
import pytest

from crossmodal.data.series import fill_missing, resample, stack_series

NAN = np.nan


def test_fill_missing_interpolates_within_and_repeats_at_the_ends():
    filled = fill_missing(np.array([[NAN, 1.0, NAN, NAN, 4.0, NAN], [0, 1, 2, 3, 4, 5]]), "x")
    assert filled.tolist() == [[1, 1, 2, 3, 4, 4], [0, 1, 2, 3, 4, 5]]


def test_fill_missing_leaves_its_argument_alone():
    series = np.array([[1.0, NAN, 3.0]])
    fill_missing(series, "x")
    assert np.isnan(series[0, 1])


def test_fill_missing_needs_one_value():
    with pytest.raises(ValueError, match="x: channel 1 has no value, all 2 are missing"):
        fill_missing(np.array([[1.0, 2.0], [NAN, NAN]]), "x")


@pytest.mark.parametrize(
    ("length", "expected"),
    [(3, [0, 2, 4]), (5, [0, 1, 2, 3, 4]), (9, np.arange(9) / 2), (1, [0])],
)
def test_resample_is_linear_and_keeps_both_ends(length, expected):
    np.testing.assert_allclose(resample(np.arange(5.0)[None], length), [expected])


def test_resample_of_a_single_value_repeats_it():
    assert resample(np.array([[7.0]]), 3).tolist() == [[7, 7, 7]]


def test_stack_series_fills_before_it_resamples():
    stacked = stack_series([np.array([[0.0, NAN, 2.0]]), np.array([[5.0, 6.0, 7.0, 8.0, 9.0]])], 5, "x")
    np.testing.assert_allclose(stacked, [[[0, 0.5, 1, 1.5, 2]], [[5, 6, 7, 8, 9]]])
