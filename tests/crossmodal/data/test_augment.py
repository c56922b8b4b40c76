from __future__ import annotations

import numpy as np
import pytest
import torch

from crossmodal.data.augment import augmentations, cutout, spec_augment
from crossmodal.errors import UserError


def test_spec_augment_blots_out_whole_bands_and_frames_of_half_of_the_samples():
    sample = torch.rand(1, 40, 50) + 1
    kept, bands, frames = 0, [], []
    for seed in range(200):
        changed = spec_augment(sample, np.random.default_rng(seed))[0]
        blotted = changed != sample[0]
        kept += not blotted.any()
        rows, columns = blotted.sum(1) >= 49, blotted.sum(0) >= 39  # the least value itself does not change
        assert torch.equal(blotted | (sample[0] == sample.min()), rows[:, None] | columns | (sample[0] == sample.min()))
        assert (changed[blotted] == sample.min()).all()
        bands.append(int(rows.sum()))
        frames.append(int(columns.sum()))
    assert 70 < kept < 130
    assert 6 <= max(bands) <= 12  # two masks of at most 15 % of 40 each
    assert 10 <= max(frames) <= 20


def test_cutout_blots_out_one_square_half_as_wide_that_may_reach_over_the_edge():
    sample, sizes = torch.ones(2, 8, 12), set()
    for seed in range(300):
        changed = cutout(sample, np.random.default_rng(seed))
        blotted = changed[0] == 0
        rows, columns = blotted.any(1), blotted.any(0)
        assert torch.equal(blotted, rows[:, None] & columns)
        assert torch.equal(changed[0], changed[1])
        for one in (rows, columns):  # in one piece
            assert int(one.int().diff().abs().sum()) + int(one[0]) + int(one[-1]) == 2
        sizes.add((int(rows.sum()), int(columns.sum())))
    assert {rows for rows, _ in sizes} == {2, 3, 4}
    assert {columns for _, columns in sizes} == {3, 4, 5, 6}


def test_names_of_augmentations():
    def double(sample, generator):
        return 2 * sample

    assert augmentations(("flip", "double"), 2, {"double": double})[1] is double
    with pytest.raises(UserError, match="augment: unknown name 'double'"):
        augmentations(("double",), 2)
    with pytest.raises(UserError, match="spec_augment is for images"):
        augmentations(("spec_augment",), 1)
