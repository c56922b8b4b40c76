import hashlib

import pytest
import torch

from crossmodal.sources.text import LabelledTexts, read_labelled_text, tokenize


def texts(*items):
    return LabelledTexts(items, ("a", "b") * (len(items) // 2) + ("a",) * (len(items) % 2), ("a", "b"), "toy")


@pytest.fixture
def write(tmp_path):
    def to_file(content, name="my.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to_file


class TestReading:
    def test_header_in_any_order_and_case(self, write):
        found = read_labelled_text(write('id,LABEL,Text\n1,b,"one, two"\n\n2,a,three\n3,b,"four\nfive"\n'))
        assert found.items == ("one, two", "three", "four\nfive")
        assert found.labels == ("b", "a", "b")
        assert found.class_names == ("a", "b")
        assert found.note == "columns named in the first line"

    def test_no_header(self, write):
        found = read_labelled_text(write("one,b\ntwo,a\n"))
        assert found.items == ("one", "two")
        assert found.labels == ("b", "a")
        assert found.note == "no line of names: the columns are text and label"

    def test_tabs_windows_line_ends_and_a_byte_order_mark(self, write):
        found = read_labelled_text(write("\ufefftext\tlabel\r\none, two\ta\r\nthree\tb\r\n", "my.TSV"))
        assert found.items == ("one, two", "three")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", ": no rows of cells"),
            ("text,label\n", ": no texts"),
            ("text\none\n", ", line 1: expected a text and a label, got 1 column"),
            ("text,label\none,a\n ,b\n", ", line 3: the text is empty"),
            ("text,label\none,a\ntwo,\n", ", line 3: the label is empty"),
            (
                "one,b,x\ntwo,a,y\n",
                r", line 1: expected a text and a label, got 3 column\(s\); with other columns beside",
            ),
            ("text,text,label\none,two,a\n", ", line 1: expected .*one of them text, and one label"),
            ("sentence,class\n" + 3 * "one,a\ntwo,b\n", ": the label 'class' of the first line occurs nowhere else"),
            ("one,a\ntwo, three,b\n", r", line 2: 3 columns, but 2 in the first row \(a cell with the delimiter"),
            ("one,a\ntwo\n", ", line 2: 1 columns, but 2 in the first row"),
            ('text,label\n"one"x,a\n', ", line 2: .*expected"),
            ('text,label\n"one,a\n', ", line 2: unexpected end of data"),
            (b"text,label\n\xff\xfe,a\n", ": not a text file in UTF-8"),
            ("text,label\none,a\ntwo,a\n", r": a source needs at least two classes, got \['a'\]"),
        ],
    )
    def test_errors_name_file_and_line(self, write, content, message):
        with pytest.raises(ValueError, match=r"my\.csv" + message):
            read_labelled_text(write(content))


def test_tokens_are_cut_or_repeated_and_never_padded(text_encoder):
    ids = tokenize(texts("the cat sat on the mat", "cat", "on mat"), text_encoder.tokenizer, 5)
    assert ids.dtype == torch.int64
    assert ids.tolist() == [[4, 5, 6, 7, 4], [5, 5, 5, 5, 5], [7, 8, 7, 8, 7]]


def test_a_text_without_token_is_named(text_encoder):
    with pytest.raises(ValueError, match=r"toy: text 1 has no token: '\\u2003'"):
        tokenize(texts("cat", "\u2003"), text_encoder.tokenizer, 5)


def test_hash_is_over_the_texts():
    assert texts("x", "y").sha256 == hashlib.sha256(b"x\0y").hexdigest()
    assert texts("x", "y").sha256 != texts("y", "x").sha256
