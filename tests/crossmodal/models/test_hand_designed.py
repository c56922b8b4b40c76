"""Networks that were designed by hand: their published sizes, their shapes, and what each of them promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from crossmodal.errors import UserError
from crossmodal.models import base
from crossmodal.models.hand_designed import (
    S2CNN,
    VGG,
    AttentionNetwork,
    DeepCR,
    DeepSEA,
    DenseNet,
    PDNet,
    ResNet1D,
    s2cnn,
)
from crossmodal.models.perceiver import PerceiverIO


@pytest.mark.parametrize(
    ("network", "shape", "outputs", "more", "parameters"),
    [
        (DenseNet, (3, 32, 32), 100, {}, 3_082_156),
        (PDNet, (57, 512, 512), 1, {"distances": True}, 599_235),
        (DeepCR, (1, 128, 128), 1, {}, 101_217),
        (AttentionNetwork, (1, 16, 52), 18, {}, 1_366_362),
        (VGG, (1, 96, 102), 200, {}, 348_040),
        (ResNet1D, (1, 1000), 4, {}, 16_512_388),
        (DeepSEA, (4, 1000), 36, {}, 60_902_740),
        (PerceiverIO, (3, 32, 32), 100, {"dense": False, "variant": "paper"}, 516_846),
        (PerceiverIO, (1, 1000), 4, {"dense": False, "variant": "paper"}, 503_946),
        (PerceiverIO, (3, 85, 85), 1, {"dense": True, "variant": "paper"}, 507_877),
        # Three rounds, of which the last two share their weights; for a field 7225 outputs of one query.
        (PerceiverIO, (3, 32, 32), 100, {"dense": False, "variant": "nb360"}, 916_728),
        (PerceiverIO, (3, 85, 85), 1, {"dense": True, "variant": "nb360"}, 1_835_853),
    ],
)
def test_networks_have_their_published_sizes(network, shape, outputs, more, parameters):
    with torch.device("meta"):
        assert network(shape, outputs, **more).count_parameters() == parameters


def test_the_network_on_the_sphere_has_its_published_size():
    """Tables are made with numpy, which has no meta device."""
    assert S2CNN((3, 60, 60), 100).count_parameters() == 159_948


SMALL = [
    (DenseNet, (2, 7, 5), 3, {"depth": 10, "growth": 4}, (3,)),
    (VGG, (2, 34, 40), 3, {}, (3,)),
    (DeepCR, (2, 9, 7), 2, {"width": 4}, (2, 9, 7)),
    (PDNet, (3, 9, 9), 1, {"blocks": 4, "width": 4}, (1, 9, 9)),
    (AttentionNetwork, (2, 16), 3, {}, (3,)),
    (AttentionNetwork, (2, 4, 16), 3, {}, (3,)),
    (ResNet1D, (2, 5), 3, {"width": 32, "blocks": 14}, (3,)),
    (DeepSEA, (2, 9), 3, {}, (3,)),
    (S2CNN, (2, 8, 8), 3, {}, (3,)),
    (PerceiverIO, (2, 16), 3, {"dense": False, "variant": "paper"}, (3,)),
    (PerceiverIO, (2, 16), 2, {"dense": True, "variant": "paper"}, (2, 16)),
    (PerceiverIO, (2, 6, 5), 2, {"dense": True, "variant": "paper"}, (2, 6, 5)),
    (PerceiverIO, (2, 16), 2, {"dense": True, "variant": "nb360"}, (2, 16)),
    (PerceiverIO, (2, 6, 5), 2, {"dense": True, "variant": "nb360"}, (2, 6, 5)),
]


@pytest.mark.parametrize(("network", "shape", "outputs", "more", "expected"), SMALL)
def test_a_network_is_rebuilt_from_its_file_and_learns_with_all_its_weights(
    tmp_path, network, shape, outputs, more, expected
):
    torch.manual_seed(0)
    model, x = network(shape, outputs, **more), torch.randn(3, *shape)
    model(x).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    model.constrain()
    assert model(x[:1]).shape == (1, *expected)  # as the last batch of an epoch may be
    model.save(tmp_path)
    again = base.load(tmp_path)
    assert torch.equal(again(x), model.eval()(x))


@pytest.mark.parametrize(
    ("network", "shape", "said"),
    [
        (DenseNet, (3, 3, 8), r"at least 4 x 4, got \(3, 3, 8\)"),
        (VGG, (1, 33, 96), "at least 34 x 34"),
        (S2CNN, (3, 8, 10), "as many columns as rows"),
        (S2CNN, (3, 9, 9), "an even number of them"),
    ],
)
def test_shapes_that_do_not_suit_are_named(network, shape, said):
    with pytest.raises(UserError, match=said):
        network(shape, 2)


def test_weights_of_deepsea_are_at_most_so_long():
    model = DeepSEA((4, 64), 3)
    with torch.no_grad():
        model.head.weight.mul_(30)
        model.convolutions[1].weight.mul_(0.01)
    before = model.convolutions[1].weight.clone()
    direction = model.head.weight / model.head.weight.norm(dim=1, keepdim=True)
    model.constrain()
    torch.testing.assert_close(model.head.weight, 0.9 * direction)
    torch.testing.assert_close(model.convolutions[1].weight, before)
    assert model.convolutions[0].weight.norm(dim=2).max() <= 0.9 + 1e-6  # for each pair of channels


def test_distances_are_those_of_pairs():
    model, x = PDNet((3, 8, 8), 1, distances=True, blocks=3, width=4).eval(), torch.randn(2, 3, 8, 8)
    found = model(x)
    torch.testing.assert_close(found, found.mT)
    assert found.min() >= 0
    plain = PDNet((3, 8, 8), 1, blocks=3, width=4).eval()
    plain.load_state_dict(model.state_dict())
    assert not torch.allclose(plain(x), plain(x).mT)


def test_attention_over_the_channels_has_weights_of_one():
    model = AttentionNetwork((3, 8), 2).eval()
    found = []
    model.head.register_forward_hook(lambda module, given, out: found.append(given[0]))
    with torch.no_grad():
        model.weights.weight.zero_()
        model.weights.bias.zero_()
        x = torch.randn(2, 3, 8)
        model(x)
    torch.testing.assert_close(found[0], model.features(model.norm(x)).mean(1))


# ----- on the sphere ------------------------------------------------------------------------------------------------


def test_the_quadrature_is_exact_for_polynomials():
    basis = np.polynomial.legendre.Legendre.basis
    found = [s2cnn.quadrature(6) @ basis(degree)(np.cos(s2cnn.angles(6))) for degree in range(12)]
    assert np.allclose(found, [2, *[0] * 11], atol=1e-14)


def test_wigner_functions_by_hand_and_as_a_representation():
    """d^1_mn in closed form; and D(R) D(S) = D(R S) for two rotations about one axis, D(R)* D(R) = 1."""
    beta = 0.7
    cosine, sine = np.cos(beta), np.sin(beta)
    by_hand = [
        [(1 + cosine) / 2, sine / 2**0.5, (1 - cosine) / 2],
        [-sine / 2**0.5, cosine, sine / 2**0.5],
        [(1 - cosine) / 2, -sine / 2**0.5, (1 + cosine) / 2],
    ]
    table = s2cnn.wigner_d(4, np.array([beta, 0.4, beta + 0.4]))
    assert np.allclose(table[1, 2:5, 2:5, 0], by_hand)
    for degree in range(4):
        assert np.allclose(table[degree, ..., 0] @ table[degree, ..., 1], table[degree, ..., 2])
    whole = s2cnn.wigner(4, np.array([[0.3, beta, -1.1]]))[3, ..., 0]
    assert np.allclose(whole @ whole.conj().T, np.eye(7))


DEGREES = 4  # of the test signals


def sphere(coefficients: np.ndarray, b: int) -> torch.Tensor:
    """A signal (1, 1, 2b, 2b) of its harmonics (l, m)."""
    around = np.exp(-2j * np.pi * np.outer(np.arange(1 - DEGREES, DEGREES), np.arange(2 * b)) / (2 * b))
    down = s2cnn.wigner_d(DEGREES, s2cnn.angles(b))[:, :, DEGREES - 1]
    orders = 2 * np.arange(DEGREES) + 1
    return torch.tensor(np.einsum("lm,l,lmj,mk->jk", coefficients, orders, down, around).real)[None, None].float()


@pytest.fixture
def harmonics():
    """Of a real signal: F_l,-m = (-1)^m conj(F_lm)."""
    rng = np.random.default_rng(0)
    found = np.zeros((DEGREES, 2 * DEGREES - 1), complex)
    for degree in range(DEGREES):
        found[degree, DEGREES - 1] = rng.normal()
        for order in range(1, degree + 1):
            value = complex(*rng.normal(size=2))
            found[degree, DEGREES - 1 + order] = value
            found[degree, DEGREES - 1 - order] = (-1) ** order * value.conjugate()
    return found


def rotated(harmonics: np.ndarray, rotation: tuple[float, float, float]) -> np.ndarray:
    """f(R^-1 x): its harmonics are sum_k conj(D_mk(R)) F_k."""
    return np.einsum("lmk,lk->lm", s2cnn.wigner(DEGREES, np.array([rotation]))[..., 0].conj(), harmonics)


def test_a_convolution_turns_with_its_input(harmonics):
    """About the axis by whole steps of the grid, where what comes out is the same signal elsewhere; and about any axis by what
    does not depend on the place: mean and mean square over all rotations."""
    torch.manual_seed(0)
    b, c = 8, 6
    convolution = s2cnn.Convolution(1, 3, b, c, 0.6, on_sphere=True)
    plain = sphere(harmonics, b)
    quarter = convolution(plain.roll(b // 2, dims=3))
    torch.testing.assert_close(quarter, convolution(plain).roll(c // 2, dims=3), rtol=1e-4, atol=1e-4)
    weights = torch.tensor(s2cnn.quadrature(c)).float() / 2

    def means(x: torch.Tensor) -> torch.Tensor:
        out = convolution(x)
        return torch.stack([out, out.square()]).mean((4, 5)) @ weights

    turned = sphere(rotated(harmonics, (0.7, 1.1, -0.4)), b)
    assert (turned - plain).abs().max() > 1
    torch.testing.assert_close(means(turned), means(plain), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(means(plain.flip(2) * plain), means(plain), rtol=1e-1)


@pytest.mark.parametrize("on_sphere", [True, False])
def test_what_is_convolved_is_the_signal_at_the_points_of_the_filter(on_sphere):
    """h(R) = sum_p w_p f(R g_p), by matrices, of polynomials in the entries of R; on the sphere in those of its last column."""
    torch.manual_seed(0)
    b, c, axes = 4, 3, "ZYZ"
    convolution = s2cnn.Convolution(2, 1, b, c, 0.5, on_sphere)

    def grid(b: int) -> np.ndarray:
        around = np.pi * np.arange(2 * b) / b
        alpha, beta, gamma = (one.ravel() for one in np.meshgrid(around, s2cnn.angles(b), around, indexing="xy"))
        return Rotation.from_euler(axes, np.stack([alpha, beta, gamma], axis=1)).as_matrix()

    def signal(matrices: np.ndarray) -> np.ndarray:
        x, y, z = matrices[..., 2].T
        other = 0 if on_sphere else matrices[..., 0, 1] * matrices[..., 2, 0] - matrices[..., 1, 1]
        return np.stack([x * y + 0.5 * z - x**2 + other, y * z + 1 + other])

    given = torch.tensor(signal(grid(b)), dtype=torch.float32).view(1, 2, 2 * b, 2 * b, 2 * b)
    found = convolution(given[..., 0] if on_sphere else given)
    turns = Rotation.from_euler(axes, s2cnn.near_identity(0.5, 1 if on_sphere else 6)).as_matrix()
    weights = convolution.weight.detach().numpy()[..., 0]
    by_hand = sum(weight @ signal(grid(c) @ turn) for weight, turn in zip(weights, turns, strict=True))
    expected = torch.tensor(by_hand, dtype=torch.float32).view(1, 1, 2 * c, 2 * c, 2 * c)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rotation", [(0.7, 1.1, -0.4), (2.0, 2.7, 0.3)])
def test_the_network_does_not_see_rotations_within_the_error_of_its_grid(harmonics, rotation):
    """What goes into the head; measured: 0.3 % at the published bandwidth of 30, 1.5 % at 16."""
    torch.manual_seed(0)
    model = S2CNN((1, 32, 32), 5).eval()
    model.head = torch.nn.Identity()
    signal, other = sphere(harmonics, 16), sphere(rotated(harmonics, rotation), 16)
    with torch.no_grad():
        plain, turned, moved = model(signal), model(other), model(signal.roll(9, dims=2))
    assert (turned - plain).norm() < 0.02 * plain.norm()
    assert (moved - plain).norm() > 0.1 * plain.norm()
