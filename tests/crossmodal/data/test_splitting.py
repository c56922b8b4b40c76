import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossmodal.data.splitting import multilabel_sample, plain_sample, stratified_sample


def rng(seed=0):
    return np.random.default_rng(seed)


def test_plain_sample_is_seeded_ascending_and_without_repetition():
    chosen = plain_sample(100, 30, rng())
    assert len(set(chosen.tolist())) == 30
    assert (np.diff(chosen) > 0).all()
    assert (chosen == plain_sample(100, 30, rng())).all()
    assert (chosen != plain_sample(100, 30, rng(1))).any()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.data())
def test_stratified_sample_takes_each_class_by_its_share(labels, data):
    labels = np.array(labels)
    classes, counts = np.unique(labels, return_counts=True)
    size = data.draw(st.integers(len(classes), len(labels)))
    chosen = stratified_sample(labels, size, rng())
    assert len(set(chosen.tolist())) == len(chosen) == size
    taken = np.array([(labels[chosen] == label).sum() for label in classes])
    assert (taken >= 1).all()
    quota = size * counts / len(labels)
    assert (taken <= np.maximum(np.ceil(quota), 1)).all()
    if (quota >= 1).all():
        assert (taken >= np.floor(quota)).all()


def test_stratified_sample_rounds_by_the_largest_remainder():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    assert np.bincount(labels[stratified_sample(labels, 9, rng())]).tolist() == [4, 3, 2]  # quotas 4.5, 2.7, 1.8


def test_stratified_sample_keeps_singletons():
    labels = np.array([0] * 97 + [1, 2, 3])
    assert np.bincount(labels[stratified_sample(labels, 4, rng())]).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("size", [1, 5])
def test_stratified_sample_refuses_sizes_that_cannot_be(size):
    with pytest.raises(ValueError, match="size: expected 2 to 4"):
        stratified_sample(np.array([0, 0, 1, 1]), size, rng())


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 40), st.integers(1, 5), st.floats(0.02, 0.98), st.integers(0, 1000), st.data())
def test_multilabel_sample_has_the_size_asked_for(n, k, density, seed, data):
    labels = rng(seed).random((n, k)) < density
    size = data.draw(st.integers(1, n))
    chosen = multilabel_sample(labels, size, rng())
    assert len(chosen) == size
    assert (np.diff(chosen) > 0).all()
    assert (chosen == multilabel_sample(labels, size, rng())).all()


@pytest.mark.parametrize("seed", range(5))
def test_multilabel_sample_leaves_every_label_on_both_sides(seed):
    """12 labels, the rare ones with 2 of 200 positives, the common ones with 2 negatives; of singles there is one side."""
    counts = [1, 2, 2, 2, 3, 5, 20, 60, 100, 150, 198, 198]
    labels = np.zeros((200, len(counts)))
    for column, count in enumerate(counts):
        labels[rng((seed, column)).permutation(200)[:count], column] = 1
    kept = multilabel_sample(labels, 160, rng(seed))
    rest = np.setdiff1d(np.arange(200), kept)
    for part in (labels[kept], labels[rest]):
        assert (part[:, 1:].max(axis=0) == 1).all()
        assert (part.min(axis=0) == 0).all()
    assert labels[kept, 0].sum() == 1
    np.testing.assert_allclose(labels[kept].mean(axis=0), labels.mean(axis=0), atol=0.03)


def test_multilabel_sample_is_random():
    labels = np.eye(4)[np.arange(40) % 4]
    assert not np.array_equal(multilabel_sample(labels, 30, rng(0)), multilabel_sample(labels, 30, rng(1)))
