import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossmodal.data.readers.ts import read_ts

HEADER = "@problemName Toy\n@timeStamps false\n@univariate false\n@classLabel true a b\n@data\n"


def test_reads_channels_labels_comments_and_missing_values(write_ts):
    path = write_ts(
        "# a comment\n\n@problemName Toy\n@TIMESTAMPS FALSE\n@missing true\n@univariate false\n@dimensions 2\n"
        "@equalLength false\n@serieslength 0\n@unheardOf 3\n@classLabel true yes no\n@data\n"
        "1,2.5,?:4,5,6:yes\n\n# another\n-1e3, 2 :NaN,7: no \n"
    )
    file = read_ts(path)
    np.testing.assert_array_equal(file.series[0], [[1, 2.5, np.nan], [4, 5, 6]])
    np.testing.assert_array_equal(file.series[1], [[-1000, 2], [np.nan, 7]])
    assert file.labels == ["yes", "no"]
    assert file.class_names == ("yes", "no")
    assert (file.kind, file.lengths, file.lines, file.has_missing) == ("classification", [3, 2], [13, 16], True)


def test_reads_regression_targets_windows_line_ends_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "x.ts"
    path.write_bytes("\ufeff@targetLabel true\r\n@data\r\n1,2:0.5\r\n3,4:-2\r\n".encode())
    file = read_ts(path)
    assert (file.kind, file.labels) == ("regression", ["0.5", "-2"])
    assert not file.has_missing


def test_reads_series_without_labels(write_ts):
    file = read_ts(write_ts("@classLabel false\n@data\n1,2\n3,4\n"))
    assert (file.kind, file.labels) == (None, [])
    assert file.series[1].tolist() == [[3, 4]]


values = st.floats(allow_nan=False, allow_infinity=False) | st.just(float("nan"))


@st.composite
def cases(draw):
    """Series of one number of channels and any lengths, with holes but no empty channel, each with a label."""
    channels = draw(st.integers(1, 3))
    series = []
    for length in draw(st.lists(st.integers(1, 6), min_size=1, max_size=5)):
        case = np.array(draw(st.lists(values, min_size=channels * length, max_size=channels * length)))
        case = case.reshape(channels, length)
        case[np.isnan(case).all(axis=1), 0] = 1.0
        series.append(case)
    return series, draw(st.lists(st.sampled_from("ab"), min_size=len(series), max_size=len(series)))


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases())
def test_what_is_written_is_what_is_read(write_ts, written):
    series, labels = written
    lines = [
        ":".join(",".join("?" if np.isnan(v) else repr(float(v)) for v in channel) for channel in case) + f":{label}"
        for case, label in zip(series, labels, strict=True)
    ]
    file = read_ts(write_ts(HEADER + "\n".join(lines) + "\n"))
    assert file.labels == labels
    assert len(file.series) == len(series)
    for read, case in zip(file.series, series, strict=True):
        np.testing.assert_array_equal(read, case)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no cases after a line @data"),
        ("@data\n", "no cases after a line @data"),
        ("hello\n", r"line 1: expected a header line that starts with '@' before @data, got 'hello'"),
        ("@\n@univariate\n", r"line 2: @univariate must be true or false, got ''"),
        ("@missing maybe\n", r"line 1: @missing must be true or false, got 'maybe'"),
        ("@dimensions two\n", r"line 1: @dimensions must be a whole number, got 'two'"),
        ("@seriesLength\n", r"line 1: @serieslength must be a whole number, got ''"),
        ("#\n@timeStamps true\n", r"line 2: series with time stamps \(@timeStamps true\) are not supported"),
        (
            "@data\n(0,1),(1,2):a\n",
            r"line 2, channel 0, value 0: expected a finite number or '\?' \(and no time stamps\), got '\(0'",
        ),
        ("@classLabel true a a\n", r"line 1: .*a class is listed twice"),
        ("@classLabel true a\n@targetLabel true\n@data\n", r"line 2: @classLabel and @targetLabel are both true"),
        (HEADER + "1,2\n", r"line 6: expected values, ':' and a label, one of a b, got '1,2'"),
        (HEADER + "1,2:\n", r"line 6: expected values, ':' and a label, one of a b, got '1,2:'"),
        (HEADER + "1,2:c\n", r"line 6: expected values, ':' and a label, one of a b, got '1,2:c'"),
        (HEADER + "1,2:3,4:a\n1,2:b\n", r"line 7: 1 channel\(s\), expected 2"),
        (HEADER + "1,2:3:a\n", r"line 6: channels of one case differ in length: \[2, 1\]"),
        (HEADER + "1,x:a\n", r"line 6, channel 0, value 1: expected a finite number or '\?' .*, got 'x'"),
        (HEADER + "1,2:3,:a\n", r"line 6, channel 1, value 1: expected a finite number or '\?' .*, got ''"),
        (HEADER + "1,-inf:a\n", r"line 6, channel 0, value 1: expected a finite number"),
        ("@univariate true\n@data\n1:2\n", r"line 3: 2 channel\(s\), expected 1 by @univariate"),
        ("@dimensions 3\n@data\n1:2\n", r"line 3: 2 channel\(s\), expected 3 by @dimensions"),
        ("@equalLength true\n@data\n1,2\n1\n", r"line 4: 1 values, expected 2 by @equalLength"),
        ("@equalLength true\n@seriesLength 3\n@data\n1,2\n", r"line 4: 2 values, expected 3 by @seriesLength"),
        ("@missing false\n@data\n1,?\n", r"line 3: 1 missing value\(s\), expected 0 by @missing"),
    ],
)
def test_errors_name_file_and_line(write_ts, text, message):
    with pytest.raises(ValueError, match=r"Toy_TRAIN\.ts(: |, )" + message):
        read_ts(write_ts(text))


def test_binary_files_are_refused(tmp_path):
    path = tmp_path / "x.ts"
    path.write_bytes(b"@data\n\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"x\.ts: not a text file in UTF-8"):
        read_ts(path)


def test_missing_files_are_missed(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_ts(tmp_path / "none.ts")
