import numpy as np
import pytest

from crossmodal.errors import UserError
from crossmodal.tasks.targets import dense, encode, infer_kind, is_dense_shape, labels, multilabel, values

REAL = np.random.default_rng(0).normal
SERIES, IMAGE = (8,), (4, 6)


@pytest.mark.parametrize(
    ("y", "spatial", "kind", "words"),
    [
        (np.array([3, 1, 3]), SERIES, "classification", "whole numbers, one per sample; --kind"),
        (np.array([[3], [1]]), SERIES, "classification", "whole numbers"),
        (np.array([True, False]), SERIES, "classification", "whole numbers"),
        (np.array(["cat", "dog"]), SERIES, "classification", "strings"),
        (np.array([b"cat", b"dog"]), SERIES, "classification", "strings"),
        (np.array([[0, 1, 1], [0, 0, 0]]), SERIES, "multilabel", "zeros and ones in 3 columns; --kind"),
        (np.array([[0, 1], [1, 0]]), SERIES, "multilabel", "one-hot classes, take --kind classification"),
        (np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]), SERIES, "multilabel", "zeros and ones in 3 columns; --kind"),
        (np.array([[0.0, np.nan], [1.0, 1.0]]), SERIES, "regression", "2 per sample"),
        (np.array([[0.0], [1.0]]), SERIES, "regression", "all of them whole: if they are class labels"),
        (np.eye(8), SERIES, "dense", "zeros and ones: if they are labels, take --kind multilabel"),
        (np.eye(8, dtype=int), SERIES, "multilabel", "8 columns; .* if they are masks, take --kind dense"),
        (np.array([[0, 1, 2], [0, 0, 0]]), SERIES, "regression", "3 per sample"),
        (REAL(size=5), SERIES, "regression", "1 per sample."),
        (np.array([0.0, 1.0, 2.0]), SERIES, "regression", "all of them whole: if they are class labels"),
        (REAL(size=(5, 3)), SERIES, "regression", "3 per sample"),
        (REAL(size=(5, 8)), SERIES, "dense", r"spatial shape of the inputs, \(8,\); --kind"),
        (REAL(size=(5, 2, 8)), SERIES, "dense", "spatial shape"),
        (REAL(size=(5, 4, 6)), IMAGE, "dense", "spatial shape"),
        (np.ones((5, 3, 4, 6), dtype=int), IMAGE, "dense", "spatial shape"),
    ],
)
def test_infer_kind(y, spatial, kind, words):
    found, reason = infer_kind(y, spatial, "y_train")
    assert found == kind
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(reason)


@pytest.mark.parametrize("y", [REAL(size=(5, 2, 7)), np.array([1j]), np.array([["a", "b"]]), REAL(size=(5, 1, 1, 8))])
def test_infer_kind_gives_up_with_a_reason(y):
    with pytest.raises(ValueError, match="y_train: cannot tell the kind of target from dtype"):
        infer_kind(y, SERIES, "y_train")


def test_is_dense_shape():
    assert is_dense_shape((5, 8), SERIES)
    assert is_dense_shape((5, 3, 4, 6), IMAGE)
    assert not is_dense_shape((5, 6, 4), IMAGE)
    assert not is_dense_shape((8,), SERIES)


class TestClasses:
    @pytest.mark.parametrize(
        ("y", "expected"),
        [
            (np.array([5, -1, 5], dtype=np.int8), [5, -1, 5]),
            (np.array([[5], [2]], dtype=np.uint8), [5, 2]),
            (np.array([True, False]), [1, 0]),
            (np.array([2.0, 1.0]), [2, 1]),
            (np.array([2, 1], dtype=np.float16), [2, 1]),
            (np.array([2**63 - 1, 0], dtype=np.uint64), [2**63 - 1, 0]),
            (np.array([[0, 0, 1], [1, 0, 0]]), [2, 0]),
            (np.array(["b", "a"]), ["b", "a"]),
            (np.array([b"b", b"a"]), ["b", "a"]),
            (np.array(["é".encode(), b"a"]), ["é", "a"]),
        ],
    )
    def test_values(self, y, expected):
        assert labels(y, "y").tolist() == expected

    @pytest.mark.parametrize(
        ("y", "error", "message"),
        [
            (np.array([1.0, 2.5]), ValueError, "y: expected labels, whole numbers, but the value at index 1 is 2.5"),
            (
                np.array([0, 2**63], dtype=np.uint64),
                ValueError,
                "y: expected labels within int64, but the value at index 1 is 9223372036854775808",
            ),
            (np.array([1.0, -1e19]), ValueError, r"within int64, but the value at index 1 is -1e\+19"),
            (np.array([1.0, np.nan]), ValueError, "the value at index 1 is nan"),
            (np.array([[1, 0], [1, 1]]), ValueError, r"y: expected labels .* value at index 1 is \[1, 1\]"),
            (np.zeros((2, 3, 4)), ValueError, r"y: expected labels \(n,\), .*, got float64 of shape \(2, 3, 4\)"),
            (np.array([1j]), UserError, "y: expected labels .*, got complex128"),
            (np.array(["2020"], dtype="M8[Y]"), UserError, "y: expected labels .*, got datetime64"),
            (np.array([None, 1]), UserError, "y: expected labels .*, got object"),
            (np.array(["é".encode(), b"gr\xf6n"]), ValueError, r"y: b'gr\\xf6n' is not text in UTF-8; save"),
            (np.array(["cat", "dog", "cat "]), ValueError, "y: labels that differ in blanks alone: 'cat', 'cat '"),
        ],
    )
    def test_values_that_are_none(self, y, error, message):
        with pytest.raises(error, match=message):
            labels(y, "y")

    def test_encoding_follows_the_order_of_the_classes(self):
        assert encode(np.array(["b", "c", "a"]), np.array(["c", "a", "b"]), "y").tolist() == [2, 0, 1]
        assert encode(np.array([7, -2]), np.array([-2, 7]), "y").tolist() == [1, 0]

    def test_encoding_names_the_unknown_label(self):
        with pytest.raises(
            ValueError,
            match=r"y_test: label 4 at index 1 is not a class of the training part \(1, 2, 9\); .* take --kind regression",
        ):
            encode(np.array([2, 4]), np.array([1, 2, 9]), "y_test")
        with pytest.raises(ValueError, match=r"label 99 at index 0 .* \(0, 1, .*, 11, \.\.\. \(20 in all\)\)"):
            encode(np.array([99]), np.arange(20), "y_test")

    def test_encoding_does_not_mix_strings_and_numbers(self):
        with pytest.raises(ValueError, match="y_test: labels are <U1, but the classes of the training part are int64"):
            encode(np.array(["1"]), np.array([1, 2]), "y_test")


def test_multilabel():
    assert multilabel(np.array([[True, False]]), "y").tolist() == [[1, 0]]
    assert multilabel(np.array([[1.0, 0.0]]), "y").dtype == np.float32
    with pytest.raises(ValueError, match=r"y: expected zeros and ones, but the value at index \(1, 0\) is 2"):
        multilabel(np.array([[0, 1], [2, 1]]), "y")
    with pytest.raises(ValueError, match=r"y: expected zeros and ones of shape \(n, K\), got int64 of shape \(2,\)"):
        multilabel(np.array([0, 1]), "y")


def test_values():
    assert values(np.array([1, 2]), "y").tolist() == [[1], [2]]
    assert values(REAL(size=(4, 3)), "y").shape == (4, 3)
    with pytest.raises(
        ValueError, match=r"y: expected regression targets of shape \(n,\) or \(n, R\), got \(2, 2, 2\)"
    ):
        values(np.zeros((2, 2, 2)), "y")
    with pytest.raises(ValueError, match=r"y: value inf at index \(1,\)"):
        values(np.array([0, np.inf]), "y")


def test_dense():
    assert dense(REAL(size=(5, 8)), "y", SERIES).shape == (5, 1, 8)
    assert dense(REAL(size=(5, 2, 4, 6)), "y", IMAGE).shape == (5, 2, 4, 6)
    with pytest.raises(ValueError, match=r"y: expected a field with the spatial shape .*\(8,\).*, got \(5, 7\)"):
        dense(np.zeros((5, 7)), "y", SERIES)
    with pytest.raises(ValueError, match=r"y: value nan at index \(0, 1\)"):
        dense(np.array([[0, np.nan]]), "y", (2,))
