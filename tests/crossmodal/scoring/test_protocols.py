from __future__ import annotations

import numpy as np
import pytest
import torch

from crossmodal.data.normalizer import Normalizer
from crossmodal.scoring import protocols


@pytest.mark.parametrize("per", ["channel", "position", "none"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_roll_out_feeds_a_model_its_own_outputs_in_units_of_its_inputs(channels, per):
    """A model that doubles a field, whose outputs are scaled otherwise than its inputs: after t steps the field is 2^t times
    what it was, in the data's own units."""
    rng = np.random.default_rng(0)
    scale = np.array([1.0, 30.0])[:channels, None]
    start = scale * (rng.standard_normal((9, channels, 6)) + 5)
    normalizer = Normalizer.fit(start, 2 * start, per_x=per, per_y=per)

    def double(x):
        return normalizer.apply_y(2 * (x.double() * normalizer.x_std + normalizer.x_mean))

    x = normalizer.apply_x(start)
    frames = protocols.predict(double, x, 3, normalizer)
    expected = np.concatenate([2 * start, 4 * start, 8 * start], axis=1)
    torch.testing.assert_close(normalizer.decode(frames).double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(normalizer.apply_y(expected), frames, rtol=1e-4, atol=1e-4)
    assert protocols.predict(double, x, 0, normalizer).equal(double(x))


def test_a_roll_out_from_several_frames_forgets_the_oldest():
    """Each frame is the sum of the three before it, in the data's own units; every place of a frame has a scale of its own."""
    rng = np.random.default_rng(0)
    frames = [rng.standard_normal((9, 2, 6)) + 5 for _ in range(3)]
    for _ in range(4):
        frames.append(frames[-1] + frames[-2] + frames[-3])
    known = np.concatenate(frames[:3], axis=1)
    normalizer = Normalizer.fit(known, frames[3])

    def add(x):
        values = (x.double() * normalizer.x_std + normalizer.x_mean).unflatten(1, (3, 2))
        return normalizer.apply_y(values.sum(1))

    found = normalizer.decode(protocols.predict(add, normalizer.apply_x(known), 4, normalizer))
    torch.testing.assert_close(found, torch.from_numpy(np.concatenate(frames[3:], axis=1)), rtol=1e-4, atol=1e-3)
