import collections
import json

import pytest
import scipy

from crossmodal.errors import UserError
from crossmodal.sources import scipy_docs
from crossmodal.sources.scipy_docs import prose

DOCSTRING = r"""
    solve(a, b, lower=False) -> x

    Solve a *linear* system, see `lu` [1]_ and :func:`scipy.linalg.inv`.

    Longer :ref:`words <target>` about :math:`a < b`, where 2*n*m is kept::

        x = solve(a, b)

    and text afterwards.

    .. math::

        A x = b

    .. versionadded:: 1.0

    Parameters
    ----------
    a : array
        Not wanted.

    Notes
    -----
    The algorithm is **robust**.

    >>> solve(1, 2)
    2

    It ends here.

    **Array API Standard Support**

    Boilerplate.

    References
    ----------
    .. [1] A book.
    """


def test_prose_is_summary_and_notes():
    assert prose(DOCSTRING) == (
        "Solve a linear system, see lu and scipy.linalg.inv. Longer words about a < b, where 2*n*m is kept: "
        "and text afterwards. The algorithm is robust. It ends here."
    )


@pytest.mark.parametrize("empty", ["", "Parameters\n----------\nx : int\n", "y = f(x[, n])"])
def test_prose_may_be_nothing(empty):
    assert prose(empty) == ""


@pytest.fixture(scope="module")
def extracted():
    return scipy_docs.extract()


def test_ten_classes_of_up_to_120_texts(extracted):
    counts = collections.Counter(extracted.labels)
    assert tuple(counts) == extracted.class_names == tuple(scipy_docs.MODULES)
    assert len(counts) == 10
    assert max(counts.values()) == 120
    assert min(counts.values()) >= 15
    assert len(extracted.items) > 600


def test_texts_are_prose_and_occur_once(extracted):
    assert len(set(extracted.items)) == len(extracted.items)
    for text in extracted.items:
        assert len(text) >= scipy_docs.MIN_CHARACTERS
        assert not any(mark in text for mark in (">>>", "`", "::", ":math:", "]_", "----", "===="))
    assert any("Butterworth" in text for text in extracted.items)


def test_the_order_is_fixed(extracted):
    assert scipy_docs.extract() == extracted


def test_the_cache_saves_the_work(monkeypatch, cache_dir, extracted):
    monkeypatch.setattr(scipy_docs, "extract", lambda: extracted)
    assert scipy_docs.load() == extracted
    (file,) = cache_dir.iterdir()
    assert file.name == f"scipy_docs-{scipy.__version__}-{scipy_docs.RULES_VERSION}.json"
    monkeypatch.setattr(scipy_docs, "extract", lambda: pytest.fail("extracted again"))
    cached = scipy_docs.load()
    assert cached == extracted
    assert cached.sha256 == extracted.sha256


@pytest.mark.parametrize("damage", ["half", "text", "label", "type", "key"])
def test_a_damaged_cache_is_made_anew(monkeypatch, cache_dir, extracted, damage):
    monkeypatch.setattr(scipy_docs, "extract", lambda: extracted)
    scipy_docs.load()
    (file,) = cache_dir.iterdir()
    whole = file.read_text()
    content = json.loads(whole)
    if damage == "text":
        content["texts"][3] = "forged"
    elif damage == "label":
        content["labels"][3] = "forged"
    elif damage == "type":
        content["texts"] = 7
    elif damage == "key":
        del content["sha256"]
    file.write_text(whole[: len(whole) // 2] if damage == "half" else json.dumps(content))
    assert scipy_docs.load() == extracted
    assert file.read_text() == whole


def test_without_docstrings_the_error_says_why(monkeypatch):
    monkeypatch.setattr(scipy_docs, "_texts", lambda module: iter(()))
    with pytest.raises(UserError, match=r"scipy\.fft has no docstrings; .* -OO"):
        scipy_docs.extract()
