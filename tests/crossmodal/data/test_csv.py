import numpy as np
import pytest

from crossmodal.data.readers.csv import _is_odd, read_csv

VALUES = np.random.default_rng(0).normal(size=(4, 6))
NAMES = {
    "wavelengths": [str(400 + 10 * i) for i in range(6)],
    "irregular wavelengths": ["400", "412", "433", "440", "470", "500"],
    "ppm": ["9.9975", "9.9916", "9.9858", "9.9799", "9.9741", "9.9682"],
    "counted from 1": list("123456"),
    "numbers in no order": ["1007", "1053", "117", "1294", "1316", "1405"],
    "Raman shifts": ["200.3", "203.9", "207.4", "210.2", "215.8", "219.9"],
}


@pytest.fixture
def write(tmp_path):
    """Write rows of cells; returns the path."""

    def to_file(*rows):
        path = tmp_path / "in.csv"
        path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
        return path

    return to_file


def test_names_and_their_absence_are_said(write):
    values, said = read_csv(write(list("abcdef"), *VALUES), 6)
    assert np.array_equal(values, VALUES)
    assert (
        "in.csv: 4 samples of 6 values; the first line is taken for names of columns (a, b, c, d, ...), no row na"
        in said
    )
    values, said = read_csv(write(*VALUES))
    assert np.array_equal(values, VALUES)
    assert "4 samples of 6 values; no line of names, no row names" in said
    values, said = read_csv(write(range(6), *VALUES))  # as pandas numbers columns
    assert np.array_equal(values, VALUES)
    assert "names of columns (0, 1, 2, 3, ...)" in said


@pytest.mark.parametrize("scale", [1, 100])
@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_names_that_are_numbers_are_asked_for(write, names, samples, scale):
    values = np.abs(VALUES[:samples] * scale)
    path = write(names, *values)
    with pytest.raises(
        ValueError, match=rf"in\.csv, line 1: {names[0]}, .*, \.\.\.: names of columns, or .* --header yes or"
    ):
        read_csv(path, 6)
    assert np.array_equal(read_csv(path, 6, header=True)[0], values)
    assert read_csv(path, 6, header=False)[0].tolist()[0] == [float(name) for name in names]


def test_names_over_whole_numbers_are_asked_for(write):
    counts = np.random.default_rng(1).integers(0, 300, (5, 8))
    for names in (range(400, 480, 10), range(1, 9), (1007, 1294, 1053, 1017, 1316, 1405, 1431, 1438)):
        with pytest.raises(ValueError, match="names of columns, or a sample"):
            read_csv(write(names, *counts), 8)


RAMPS = np.arange(1, 6)[:, None] * np.linspace(-1, 1, 9)
TIME = np.linspace(0, 1, 50)
LEGITIMATE = {
    "noise": np.random.default_rng(2).normal(size=(200, 4)),
    "counts": np.random.default_rng(3).integers(0, 9, (200, 5)),
    "ramps": RAMPS,
    "ramps and waves": np.concatenate([RAMPS[:3], np.sin(RAMPS)[:2] ** 2]),
    "growth": np.cumsum(np.random.default_rng(4).random((6, 30)), axis=1),
    "decays": np.exp(-TIME * np.arange(1, 5)[:, None]),
    "offsets": np.random.default_rng(5).normal(size=(8, 12)) + 100 * np.random.default_rng(6).normal(size=(8, 1)),
    "zeros first": np.concatenate([np.zeros((1, 5)), VALUES[:, :5]]),
    "one sample": VALUES[:1],
    "two numbers": np.array([[1, 2], [3, 4], [2, 1]]),
}


@pytest.mark.parametrize("values", LEGITIMATE.values(), ids=LEGITIMATE)
def test_first_samples_are_samples(write, values):
    found, said = read_csv(write(*values.tolist()), values.shape[1])
    assert found.tolist() == values.tolist()
    assert "no line of names, no row names" in said


@pytest.mark.parametrize(("width", "share"), [(2, 0.01), (3, 0.05), (4, 0.01), (6, 0.01), (20, 0.001)])
def test_noise_seldom_looks_like_names(width, share):
    rng = np.random.default_rng(width)
    odd = [_is_odd(values[0], values[1:]) for values in rng.normal(size=(1000, 10, width))]
    assert np.mean(odd) <= share


ROW_NAMES = {
    "text": ["s1", "s2", "s3", "s4"],
    "counted": [0, 1, 2, 3],
    "counted from 1": [1, 2, 3, 4],
    "a part of many": [17, 18, 19, 20],
}


@pytest.mark.parametrize("names", ROW_NAMES.values(), ids=ROW_NAMES)
@pytest.mark.parametrize("corner", ["", "id", None])
@pytest.mark.parametrize("columns", [list("abcdef"), NAMES["wavelengths"]], ids=["text", "numbers"])
def test_row_names_are_no_values(write, names, corner, columns):
    head = columns if corner is None else [corner, *columns]  # R leaves the corner out
    path = write(head, *([name, *row] for name, row in zip(names, VALUES, strict=True)))
    if corner == "id" and columns[0] == "400" and names[0] == "s1":  # a sample of the name "id"?
        with pytest.raises(ValueError, match=r"line 1: 400, 410, 420, 430, .*: names of columns, or a sample"):
            read_csv(path, 6)
        return
    values, said = read_csv(path, 6)
    assert np.array_equal(values, VALUES)
    assert "the first line is taken for names of columns" in said
    assert "the first column for names of rows" in said


@pytest.mark.parametrize("names", ROW_NAMES.values(), ids=ROW_NAMES)
def test_row_names_without_a_line_of_names(write, names):
    path = write(*([name, *row] for name, row in zip(names, VALUES, strict=True)))
    values, said = read_csv(path, 6)
    assert np.array_equal(values, VALUES)
    assert "no line of names, the first column for names of rows" in said
    if names[0] != "s1":
        assert read_csv(path, 7)[0].shape == (4, 7)  # so many values the run takes
        with pytest.raises(ValueError, match="the first column counts the rows: take it out"):
            read_csv(path)


def test_a_nameless_column_is_none_of_the_values_the_run_takes(write):
    path = write(["", *"abcdef"], *([i, *row] for i, row in enumerate(VALUES)))
    with pytest.raises(ValueError, match=r"line 1: a column without a name .* leaves 6 values, and the run takes 7"):
        read_csv(path, 7)
    assert np.array_equal(read_csv(path)[0], VALUES)
    path = write(["", *NAMES["ppm"]], *([i / 10, *row] for i, row in enumerate(VALUES)))
    assert np.array_equal(read_csv(path, 6)[0], VALUES)
    with pytest.raises(ValueError, match=r"line 1: a column without a name holds row names, which leaves 6 values$"):
        read_csv(path)  # row names, or a first value that is missing


def test_missing_values_stay_missing(write):
    assert np.isnan(read_csv(write([1, 2], [3, "nan"]), 2)[0]).tolist() == [[False, False], [False, True]]
