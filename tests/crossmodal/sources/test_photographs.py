import importlib.util
import sys

import numpy as np
import pytest

from crossmodal.errors import UserError
from crossmodal.sources import photographs

pytestmark = pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="scikit-image is not installed")


def test_crops_are_squares_of_each_photograph_and_always_the_same():
    images, again = photographs.load(), photographs.load()
    assert "skimage" not in sys.modules
    assert len(images.class_names) == len(photographs.FILES) == 11
    assert [images.labels.count(name) for name in images.class_names] == [photographs.CROPS] * 11
    sides = {item.shape[0] for item in images.items}
    assert all(item.shape == (item.shape[0],) * 2 + (3,) and item.dtype == np.uint8 for item in images.items)
    assert min(sides) >= 75  # a quarter of 300
    assert len(sides) > 100
    assert all(np.array_equal(one, other) for one, other in zip(images.items, again.items, strict=True))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"'photographs' needs the files .*: pip install --no-deps scikit-image"):
        photographs.load()
