import pytest

from crossmodal.sources.labelled import Labelled


def test_sample_is_seeded_and_keeps_order_and_pairs():
    data = Labelled(tuple(range(100)), tuple("ab"[i % 2] for i in range(100)), ("a", "b"), "toy")
    chosen = data.sample(30, 0)
    assert len(chosen.items) == 30
    assert list(chosen.items) == sorted(chosen.items)
    assert all(label == "ab"[item % 2] for item, label in zip(chosen.items, chosen.labels, strict=True))
    assert chosen == data.sample(30, 0)
    assert chosen != data.sample(30, 1)
    assert data.sample(100, 0) is data
    assert data.label_tensor().tolist() == [0, 1] * 50


def test_classes_without_sample_are_dropped():
    data = Labelled(tuple(range(60)), ("a",) * 29 + ("b",) * 29 + ("c", "d"), ("a", "b", "c", "d"), "toy")
    chosen = data.sample(10, 0)
    assert set(chosen.class_names) == set(chosen.labels) < {"a", "b", "c", "d"}


def test_one_class_is_too_few():
    with pytest.raises(ValueError, match=r"toy: a source needs at least two classes, got \['a'\]"):
        Labelled((1, 2), ("a", "a"), ("a",), "toy")
