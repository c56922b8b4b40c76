import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossmodal.tasks.splitting import plain_sample, stratified_sample


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
