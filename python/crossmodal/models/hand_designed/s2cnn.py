"""Convolutions on the sphere and on the group of rotations (Cohen et al., ICLR 2018), in spherical and Wigner harmonics.

A signal of bandwidth b on SO(3) is known at 2b x 2b x 2b Euler angles (zyz; Kostelec and Rockmore, 2008)

    beta_j = pi (2j + 1) / 4b,   alpha_k = gamma_k = 2 pi k / 2b,

and is, with the Wigner functions D^l_mn(alpha, beta, gamma) = exp(-i m alpha) d^l_mn(beta) exp(-i n gamma), the sum over l < b of

    f(R) = sum_l (2l + 1) sum_mn F^l_mn D^l_mn(R).

A signal on the sphere is one that does not depend on gamma: n = 0. A filter has weights w_p at rotations g_p near the identity, and
what comes out is h(R) = sum_p w_p f(R g_p): it sees the signal in the neighbourhood of R, and a rotation of f rotates h. In
harmonics, since D^l is a representation, H^l_mk = sum_n F^l_mn sum_p w_p D^l_kn(g_p).
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossmodal.errors import UserError
from crossmodal.models.base import Model
from crossmodal.models.convolutions import BatchNorm

AROUND = 6  # points of a filter around the identity, and turns at each of them
WIDTHS = (8, 16, 16, 24, 24, 32, 64)
SHRINKS = (1, 2, 2, 4, 4, 8, 8)  # by which the bandwidth of the input is divided
# How far from the identity the points of each filter lie, in radians.
REACH = tuple(math.pi / part for part in (16, 16, 8, 8, 4, 4, 2))


class S2CNN(Model, name="s2cnn"):
    """Outputs (B, K) of images on the sphere (B, C, 2b, 2b), rows from pole to pole, columns around: they do not change with a
    rotation of the sphere, but for what ReLU adds beyond the bandwidth.

    A convolution on the sphere and six on the rotations, with ReLU; the mean over the rotations; three linear maps with batch
    norm before each.

    Args:
        input_shape: (C, 2b, 2b).
        num_outputs: K.

    Raises:
        UserError: the images are of another shape.
    """

    def __init__(self, input_shape: tuple[int, int, int], num_outputs: int) -> None:
        super().__init__()
        channels, height, width = input_shape
        if height != width or height % 2:
            raise UserError(
                "s2cnn: expected images on a sphere, of as many columns as rows and an even number of them, "
                f"got {tuple(input_shape)}"
            )
        before = height // 2
        self.convolutions = nn.ModuleList()
        for number, (features, shrink, reach) in enumerate(zip(WIDTHS, SHRINKS, REACH, strict=True)):
            after = max(1, height // 2 // shrink)
            self.convolutions.append(Convolution(channels, features, before, after, reach, on_sphere=number == 0))
            channels, before = features, after
        self.register_buffer("share", torch.tensor(quadrature(before), dtype=torch.float32), persistent=False)
        self.head = nn.Sequential(
            BatchNorm(64), nn.Linear(64, 64), nn.ReLU(),
            BatchNorm(64), nn.Linear(64, 32), nn.ReLU(),
            BatchNorm(32), nn.Linear(32, num_outputs),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            for convolution in self.convolutions:
                x = F.relu(convolution(x))
            x = x.mean((3, 4)) @ self.share / 2  # the integral over all rotations
        return self.head(x)


class Convolution(nn.Module):
    """Signals (B, before, 2b, 2b) on the sphere, or (B, before, 2b, 2b, 2b) on SO(3), axes beta, alpha, gamma, to signals (B,
    after, 2c, 2c, 2c) on SO(3).

    Args:
        before, after: channels.
        b, c: bandwidths.
        reach: angle beta of the filter's points.
        on_sphere: whether the input is a signal on the sphere.
    """

    def __init__(self, before: int, after: int, b: int, c: int, reach: float, on_sphere: bool) -> None:
        super().__init__()
        self.b, self.c, self.on_sphere = b, c, on_sphere
        degrees = min(b, c)
        points = near_identity(reach, 1 if on_sphere else AROUND)
        self.weight = nn.Parameter(torch.randn(len(points), before, after) * math.sqrt(2 / (before * len(points))))
        self.bias = nn.Parameter(torch.zeros(after))
        filters = wigner(degrees, points)  # (l, m, n, points)
        analysis = wigner_d(degrees, angles(b)) * quadrature(b) / 2  # (l, m, n, 2b)
        if on_sphere:
            filters, analysis = filters[:, :, degrees - 1 : degrees], analysis[:, :, degrees - 1 : degrees]
        orders = 2 * np.arange(degrees) + 1.0
        tables = {
            # Their two parts: a complex table would not survive `Module.to(dtype)`.
            "filters": torch.view_as_real(torch.tensor(filters.transpose(0, 2, 1, 3))).float(),
            "analysis": torch.tensor(analysis, dtype=torch.float32),
            "synthesis": torch.tensor(wigner_d(degrees, angles(c)) * orders[:, None, None, None], dtype=torch.float32),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)
        self.register_buffer("orders", torch.arange(1 - degrees, degrees), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.orders % (2 * self.b), self.orders % (2 * self.c)
        if self.on_sphere:
            spectrum = torch.fft.ifft(x, dim=3)[..., rows, None]
        else:
            spectrum = torch.fft.ifft2(x)[..., rows, :][..., rows]
        found = _real_sum("bijmnr,lmnj->lbmnir", spectrum, self.analysis)  # (l, B, m, n, in)
        filters = torch.view_as_complex(torch.einsum("lnkpr,pio->lnikor", self.filters, self.weight).contiguous())
        degrees, batch, size, inner, channels = found.shape
        left = found.reshape(degrees, batch * size, inner * channels)
        right = filters.reshape(degrees, inner * channels, -1)
        mapped = (left @ right).reshape(degrees, batch, size, size, -1)  # (l, B, m, k, out)
        fields = _real_sum("lbmkor,lmkj->bojmkr", mapped, self.synthesis)
        spectrum = fields.new_zeros(*fields.shape[:3], 2 * self.c, 2 * self.c)
        spectrum[..., columns[:, None], columns] = fields
        return torch.fft.fft2(spectrum).real + self.bias[:, None, None, None]


def _real_sum(equation: str, values: Tensor, table: Tensor) -> Tensor:
    """An einsum of a complex tensor, whose last letter `r` stands for its two parts, and a real one."""
    return torch.view_as_complex(torch.einsum(equation, torch.view_as_real(values), table).contiguous())


def near_identity(reach: float, turns: int) -> np.ndarray:
    """Euler angles (points, 3) of rotations: six at an angle `reach` from the north pole, each with so many turns about its own
    axis."""
    alpha = 2 * np.pi * np.arange(AROUND) / AROUND
    turn = np.linspace(-2 * np.pi, 2 * np.pi, turns) if turns > 1 else np.zeros(1)
    around, turned = np.meshgrid(alpha, turn, indexing="ij")
    return np.stack([around, np.full_like(around, reach), turned - around if turns > 1 else turned], axis=-1).reshape(
        -1, 3
    )


def angles(b: int) -> np.ndarray:
    """beta_j, (2b,)."""
    return np.pi * (2 * np.arange(2 * b) + 1) / (4 * b)


@functools.cache
def quadrature(b: int) -> np.ndarray:
    """Weights (2b,) by which a sum over beta_j is the integral of f(beta) sin(beta), exactly for polynomials in cos(beta) of
    degree below 2b (Driscoll and Healy, 1994)."""
    odd = 2 * np.arange(b) + 1
    return 2 / b * np.sin(angles(b)) * (np.sin(np.outer(angles(b), odd)) / odd).sum(1)


@functools.lru_cache(maxsize=32)
def _rotations(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvectors and eigenvalues of J_y for l = degree, m from -l to l."""
    m = np.arange(-degree, degree)
    up = np.sqrt(degree * (degree + 1) - m * (m + 1)) / 2
    j_y = np.diag(1j * up, 1) - np.diag(1j * up, -1)
    values, vectors = np.linalg.eigh(j_y)
    return vectors, np.round(values)


def wigner_d(degrees: int, beta: np.ndarray) -> np.ndarray:
    """d^l_mn(beta) of all l < degrees, (l, m, n, angles), orders from 1 - degrees on, zero where |m| or |n| is above l.

    exp(-i beta J_y) by the eigenvectors of J_y: exact to rounding for any l.
    """
    table = np.zeros((degrees, 2 * degrees - 1, 2 * degrees - 1, len(beta)))
    for degree in range(degrees):
        vectors, values = _rotations(degree)
        turned = np.exp(-1j * np.outer(values, beta))
        inner = slice(degrees - 1 - degree, degrees + degree)
        table[degree, inner, inner] = np.einsum("mv,vj,nv->mnj", vectors, turned, vectors.conj(), optimize=True).real
    return table


def wigner(degrees: int, rotations: np.ndarray) -> np.ndarray:
    """D^l_mn of Euler angles (points, 3), complex, (l, m, n, points); see `wigner_d`."""
    alpha, beta, gamma = rotations.T
    orders = np.arange(1 - degrees, degrees)
    before, after = np.exp(-1j * np.outer(orders, alpha)), np.exp(-1j * np.outer(orders, gamma))
    return before[:, None] * wigner_d(degrees, beta) * after
