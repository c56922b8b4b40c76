import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from crossmodal.data import numeric
from crossmodal.data.normalizer import Normalizer
from crossmodal.errors import UserError

RNG = np.random.default_rng(0)


def test_inputs_get_mean_zero_and_deviation_one_per_channel():
    x = RNG.normal([[5.0], [-3.0]], [[2.0], [0.1]], (50, 2, 7))
    z = Normalizer.fit(x).apply_x(torch.from_numpy(x))
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.mean((0, 2)), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(z.std((0, 2), correction=0), torch.ones(2))


def test_inputs_per_position():
    x = RNG.normal(np.arange(6.0), np.arange(1, 7.0), (80, 1, 6))
    z = Normalizer.fit(x, per_x="position").apply_x(torch.from_numpy(x))
    torch.testing.assert_close(z.mean(0), torch.zeros(1, 6), atol=1e-6, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(1, 6))


@pytest.mark.parametrize("limit", [1, 100, 10**6])
@pytest.mark.parametrize(("per", "axes"), [("channel", (0, 2)), ("position", 0)])
@pytest.mark.parametrize("dtype", ["f4", "f8", "u1"])
def test_the_size_of_the_pieces_does_not_matter(monkeypatch, limit, per, axes, dtype):
    monkeypatch.setattr(numeric, "CHUNK_VALUES", limit)
    x, rows = (1000 + 40 * RNG.normal(size=(50, 2, 7))).astype(dtype), np.arange(1, 50, 3)
    normalizer = Normalizer.fit(x, per_x=per, rows=rows)
    mean, std = (getattr(x[rows], name)(axis=axes, dtype=np.float64, keepdims=True)[0] for name in ("mean", "std"))
    rounding = 1e-13 if limit < 10**6 else 0  # in one piece: numpy's own numbers, bit for bit
    np.testing.assert_allclose(normalizer.x_mean.expand(mean.shape), mean, rtol=rounding)
    np.testing.assert_allclose(normalizer.x_std.expand(std.shape), std, rtol=rounding)
    expected = ((x[rows] - normalizer.x_mean.numpy()) / normalizer.x_std.numpy()).astype(np.float32)
    assert np.array_equal(normalizer.apply_x(x, rows).numpy(), expected)
    assert torch.equal(normalizer.apply_x(torch.from_numpy(x))[rows], normalizer.apply_x(x, rows))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 + 0.1])
def test_constant_channels_become_zero(value):
    x = np.full((9, 2, 5), value)
    x[:, 1] = RNG.normal(size=(9, 5))
    z = Normalizer.fit(x).apply_x(torch.from_numpy(x))
    assert (z[:, 0] == 0).all()
    assert (z[:, 1] != 0).all()


def test_large_offsets_keep_their_digits():
    x = 1.7e9 + RNG.normal(size=(40, 1, 10))
    z = Normalizer.fit(x).apply_x(torch.from_numpy(x))
    np.testing.assert_allclose(z.numpy(), (x - x.mean()) / x.std(), atol=1e-5)


@pytest.mark.parametrize("shape", [(3,), (2, 6), (2, 4, 4)], ids=["values", "dense 1D", "dense 2D"])
@pytest.mark.parametrize(("per_y", "mean"), [("channel", 10), ("none", 10), ("channel", -4e9)])
def test_targets_go_there_and_back(shape, per_y, mean):
    y = RNG.normal(mean, 4, (30, *shape))
    normalizer = Normalizer.fit(RNG.normal(size=(30, 1, 4)), y, per_y=per_y)
    z = normalizer.apply_y(torch.from_numpy(y))
    assert z.dtype == torch.float32
    if per_y == "channel":
        others = [0, *range(2, y.ndim)]
        torch.testing.assert_close(z.mean(others), torch.zeros(shape[0]), atol=1e-6, rtol=0)
    np.testing.assert_allclose(normalizer.inverse_y(z).numpy(), y, rtol=0, atol=4e-6)


def test_targets_that_were_not_scaled_stay_as_they_are():
    """Those of classes and labels, for which `fit` gets none."""
    normalizer, labels = Normalizer.fit(RNG.normal(5, 2, (4, 1, 3))), torch.tensor([0, 2, 1, 1])
    assert normalizer.inverse_y(labels) is normalizer.decode(labels) is labels


def test_no_scaling_leaves_inputs_as_they_are():
    x = RNG.normal(size=(4, 2, 3, 3)).astype(np.float32)
    assert torch.equal(Normalizer.fit(x, per_x="none").apply_x(torch.from_numpy(x)), torch.from_numpy(x))


def test_overflow_is_refused():
    with pytest.raises(ValueError, match="so large that their mean or deviation overflows"):
        Normalizer.fit(np.array([[[1e308, -1e308, 1e308]]]))


@pytest.mark.parametrize("with_targets", [True, False])
def test_state_survives_safetensors(with_targets):
    x, y = RNG.normal(size=(5, 2, 4)), RNG.normal(size=(5, 1))
    old = Normalizer.fit(x, y if with_targets else None, resample=True, fill_missing=with_targets)
    new = Normalizer.from_state(load(save(old.state())))
    assert (new.input_shape, new.resample, new.fill_missing) == ((2, 4), True, with_targets)
    assert torch.equal(new.apply_x(torch.from_numpy(x)), old.apply_x(torch.from_numpy(x)))
    z = torch.ones(3, 1)
    assert torch.equal(new.inverse_y(z), old.inverse_y(z))


@pytest.mark.parametrize("logits", [True, False])
def test_logits_are_remembered(logits):
    old = Normalizer.fit(np.zeros((2, 1, 4)), logits=logits)
    assert Normalizer.from_state(load(save(old.state()))).logits == logits


def test_state_with_a_hole_is_refused():
    with pytest.raises(ValueError, match=r"state: missing entries \['x_mean', 'x_std', 'logits'\]"):
        Normalizer.from_state({name: torch.zeros(1) for name in ("input_shape", "resample", "fill_missing")})


class TestPrepare:
    one_channel = Normalizer.fit(np.zeros((1, 1, 4)))
    two_channels = Normalizer.fit(np.zeros((1, 2, 4)))
    image = Normalizer.fit(np.zeros((1, 2, 3, 4)))
    ragged = Normalizer.fit(np.zeros((1, 2, 4)), resample=True, fill_missing=True)

    def test_adds_the_channel_axis(self):
        assert self.one_channel.prepare(np.zeros((5, 4))).shape == (5, 1, 4)

    @pytest.mark.parametrize("kind", [np.asarray, torch.tensor, list], ids=["numpy", "torch", "list"])
    def test_takes_arrays_tensors_and_lists(self, kind):
        values = np.arange(16, dtype=np.int32).reshape(2, 2, 4)
        result = self.two_channels.prepare(kind(values))
        assert result.tolist() == values.tolist()

    def test_resamples_and_fills_where_the_task_did(self):
        result = self.ragged.prepare([np.array([[0, 3], [1, 1]]), np.array([[0, np.nan, 2, 3, 4, 5, 6], [7] * 7])])
        np.testing.assert_allclose(result, [[[0, 1, 2, 3], [1] * 4], [[0, 2, 4, 6], [7] * 4]])
        assert self.ragged.prepare(np.zeros((3, 2, 9), dtype=np.float32)).shape == (3, 2, 4)

    @pytest.mark.parametrize("shape", [(5, 3), (5, 2, 4), (5, 1, 1, 4), (4,)])
    def test_refuses_other_shapes(self, shape):
        with pytest.raises(ValueError, match=r"inputs: expected samples of shape \(1, 4\), got"):
            self.one_channel.prepare(np.zeros(shape))

    def test_refuses_a_table_for_several_channels_and_a_flat_image(self):
        with pytest.raises(ValueError, match=r"x: expected samples of shape \(2, 4\), got \(4,\)"):
            self.two_channels.prepare(np.zeros((5, 4)), "x")
        with pytest.raises(ValueError, match=r"expected samples of shape \(2, 3, 4\), got \(3, 4\)"):
            self.image.prepare(np.zeros((5, 3, 4)))

    def test_names_the_series_that_does_not_fit(self):
        with pytest.raises(
            ValueError, match=r"inputs\[1\]: expected samples of shape \(2, 4\) \(of any length\), got \(3, 9\)"
        ):
            self.ragged.prepare([np.zeros((2, 9)), np.zeros((3, 9))])

    @pytest.mark.parametrize("raw", [[], np.zeros((0, 4))], ids=["list", "array"])
    def test_refuses_no_samples(self, raw):
        with pytest.raises(ValueError, match="inputs: no samples"):
            self.one_channel.prepare(raw)

    def test_refuses_values_that_are_not_finite(self):
        x = np.zeros((3, 4))
        x[2, 1] = np.nan
        with pytest.raises(ValueError, match=r"inputs: value nan at index \(2, 0, 1\)"):
            self.one_channel.prepare(x)
        with pytest.raises(ValueError, match=r"inputs: value inf at index \(0, 1, 0\)"):
            self.ragged.prepare(np.array([[[0, np.nan], [np.inf, 0]]]))
        with pytest.raises(ValueError, match="inputs: sample 0: channel 1 has no value"):
            self.ragged.prepare(np.array([[[0, 1], [np.nan, np.nan]]]))

    def test_refuses_what_is_not_numbers(self):
        with pytest.raises(UserError, match="inputs: expected real numbers, got dtype"):
            self.one_channel.prepare(np.full((2, 4), "a"))


def test_what_is_missing_becomes_the_median_of_the_rows_that_count():
    x = np.array([[[1.0, np.nan]], [[np.nan, np.nan]], [[3.0, np.nan]], [[8.0, np.nan]], [[1e9, 7.0]]])
    fitted = Normalizer.fit(x, rows=np.arange(4), per_x="position", impute=True)
    assert fitted.x_fill.tolist() == [[3.0, 0.0]]  # nothing is known of the other
    assert fitted.x_mean.tolist() == [[3.75, 0.0]]
    scaled = fitted.apply_x(fitted.prepare(x))
    assert torch.equal(scaled[1], scaled[2])
    again = Normalizer.from_state(fitted.state())
    assert torch.equal(again.apply_x(x), scaled)


def test_channels_can_be_scaled_each_in_its_own_way():
    x = np.random.default_rng(0).normal(3, 2, (50, 3, 4, 4))
    z = Normalizer.fit(x, per_x=("position", "none", (1.0, 4.0))).apply_x(x).double().numpy()
    assert z[:, 0].mean(0) == pytest.approx(np.zeros((4, 4)), abs=1e-6)
    assert z[:, 0].std(0) == pytest.approx(np.ones((4, 4)), abs=1e-6)
    assert z[:, 1] == pytest.approx(x[:, 1], abs=1e-6)
    assert z[:, 2] == pytest.approx((x[:, 2] - 1) / 4, abs=1e-6)
