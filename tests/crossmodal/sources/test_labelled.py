import pytest

from crossmodal.sources.labelled import Labelled


@pytest.mark.parametrize(("per_class", "most"), [(15, 1), (None, 30)])
def test_sample_is_seeded_and_keeps_order_and_pairs(per_class, most):
    data = Labelled(tuple(range(100)), tuple("ab"[i % 2] for i in range(100)), ("a", "b"), "toy")
    chosen = data.sample(per_class, most, 0)
    assert len(chosen.items) == 30
    assert list(chosen.items) == sorted(chosen.items)
    assert all(label == "ab"[item % 2] for item, label in zip(chosen.items, chosen.labels, strict=True))
    assert chosen == data.sample(per_class, most, 0)
    assert chosen != data.sample(per_class, most, 1)
    assert data.sample(50, 1, 0) is data.sample(None, 100, 0) is data
    assert data.label_tensor().tolist() == [0, 1] * 50


@pytest.mark.parametrize(
    ("per_class", "most", "counts"),
    [
        (10, 1, [10, 10, 1, 2]),
        (1, 1, [1, 1, 1, 1]),
        (None, 10, [4, 4, 1, 1]),
        (None, 2, [1, 1, 1, 1]),
        (None, 70, [29, 29, 1, 2]),
    ],
)
def test_no_class_is_lost(per_class, most, counts):
    data = Labelled(tuple(range(61)), ("a",) * 29 + ("b",) * 29 + ("c", "d", "d"), ("a", "b", "c", "d"), "toy")
    chosen = data.sample(per_class, most, 0)
    assert [chosen.labels.count(name) for name in data.class_names] == counts
    assert chosen.class_names == data.class_names


def test_one_class_is_too_few():
    with pytest.raises(ValueError, match=r"toy: a source needs at least two classes, got \['a'\]"):
        Labelled((1, 2), ("a", "a"), ("a",), "toy")
