"""How far apart two labelled data sets lie: OTDD (Alvarez-Melis & Fusi, NeurIPS 2020), MMD, and the mean distance of their points.

The settings are those of ORCA (Shen et al., ICML 2023), which aligns data sets by them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from crossmodal.alignment.sinkhorn import EXACT, VALUE, Groups, plan, self_transport, transport

EPSILON = 0.1  # e of all transports


class Labelled:
    """Points with weights, each of which has a label.

    Which numbers stand for which label does not matter, nor need they be consecutive: a class is what has the same one.

    Args:
        points: (n, D).
        labels: whole numbers (n,).
        weights: (n,), of which only the proportions count (None: all alike); points of weight 0 are left out.
        apart: each class is a data set of its own, and a distance to it has a value for each.

    Attributes:
        points: float64 (n, D), sorted by label; gradients flow through them.
        classes: the classes as groups, in the order of their labels.
        parts: the data sets as groups: the classes, or all points as one.
        shares: float64 (parts,), what each part has of the whole weight.
    """

    def __init__(self, points: Tensor, labels: Tensor, weights: Tensor | None = None, *, apart: bool = False) -> None:
        weights = torch.ones(len(points)) if weights is None else weights
        weights = weights.to(points.device, torch.float64)
        order = labels.argsort(stable=True)
        order = order[weights[order] > 0]
        weights, sizes = weights[order], torch.unique_consecutive(labels[order], return_counts=True)[1].tolist()
        self.points = points.double()[order]
        sums = torch.stack([part.sum() for part in weights.split(sizes)])
        self.classes = Groups(sizes, torch.cat([part / part.sum() for part in weights.split(sizes)]))
        self.parts = self.classes if apart else Groups([len(order)], weights / weights.sum())
        self.shares = sums / sums.sum() if apart else sums.new_ones(1)

    @cached_property
    def squares(self) -> Tensor:
        """Squared distances between the points, float64 (n, n), without gradient."""
        return squared_distances(self.points.detach(), self.points.detach())

    @cached_property
    def classes_with_themselves(self) -> Tensor:
        """OT_e of each class with itself at squared distances, float64 (classes,)."""
        return self_transport(self.squares, self.classes, EPSILON)[0]

    @cached_property
    def cost(self) -> Tensor:
        """What OTDD pays between points of one part, float64 (n, n)."""
        if self.parts is self.classes:  # no pair of labels within any
            return self.squares / 2
        return _cost(self.squares, label_distances(self, self, self.squares), self, self)

    @cached_property
    def with_itself(self) -> tuple[Tensor, Tensor]:
        """OT_e of each part with itself at this cost, float64 (parts,), and the potential (n,)."""
        return self_transport(self.cost, self.parts, EPSILON)


Distance = Callable[[Labelled, Labelled], Tensor]


def otdd(source: Labelled, target: Labelled) -> Tensor:
    """Optimal transport dataset distance: the Sinkhorn divergence at e = 0.1 of the costs

        c((x, y), (x', y')) = |x - x'|^2 / 2 + W(y, y') / 2

    with W(y, y') the Sinkhorn divergence at e = 0.1, at costs |x - x'|^2, between the points of the two labels. It is taken on the
    points themselves, as in ORCA, not on Gaussians fitted to them: a class of few samples has no covariance of rank D.

    Args:
        source: one data set (not `apart`). What the distance needs of it alone is kept there, and computed once.
        target: one or several.

    Returns:
        float64, of each part of the target. Gradients reach the target's points by the envelope theorem, at the converged plan;
        label distances are constants, as in ORCA.
    """
    with torch.no_grad():
        squares = squared_distances(source.points, target.points)
        cost = _cost(squares, label_distances(source, target, squares), source, target)
        tolerance = EXACT if target.points.requires_grad else VALUE
        between, f, g = transport(cost, source.parts, target.parts, EPSILON, tolerance)
        value = between[0] - (source.with_itself[0] + target.with_itself[0]) / 2
    if not target.points.requires_grad:
        return value
    # What the plan moves to each point, less what the target's own plan does: what both pay for the point itself cancels.
    with torch.no_grad():
        own = target.with_itself[1][:, None].expand(-1, len(target.parts.sizes))
        own = plan(target.cost, own, own, target.parts, target.parts, EPSILON)
        own *= target.parts.index[:, None] == target.parts.index
        moved = plan(cost, f, g, source.parts, target.parts, EPSILON)
        gradient = own @ target.points - moved.T @ source.points
    along = torch.stack([part.sum() for part in (target.points * gradient).split(target.parts.sizes)])
    return value + along - along.detach()


def label_distances(one: Labelled, other: Labelled, squares: Tensor | None = None) -> Tensor:
    """W of `otdd` between every class of one and every class of the other, float64 (K, L), without gradient.

    squares: squared distances of their points, where they are known.
    """
    if squares is None:
        squares = squared_distances(one.points.detach(), other.points.detach())
    between, _, _ = transport(squares, one.classes, other.classes, EPSILON, VALUE)
    return between - one.classes_with_themselves[:, None] / 2 - other.classes_with_themselves / 2


def mmd(source: Labelled, target: Labelled) -> Tensor:
    """Squared maximum mean discrepancy (Gretton et al. 2012) for a sum of five Gaussian kernels exp(-|x - x'|^2 / s).

    s is the mean squared distance of all points, times 1/4, 1/2, 1, 2 and 4. Labels do not count.

    Returns:
        float64, of each part of the target; not negative, with gradients.
    """
    points = torch.cat([source.points, target.points])
    squares = squared_distances(points, points)
    scale = squares.detach().sum() / (len(points) * (len(points) - 1))
    exponents = -squares / scale.clamp_min(
        torch.finfo(torch.float64).tiny
    )  # all points in one place: all kernels are 1
    kernel = sum((exponents / 2.0**power).exp() for power in range(-2, 3))
    n, parts = len(source.points), target.parts
    own = source.parts.weights @ kernel[:n, :n] @ source.parts.weights
    within = [
        w @ block @ w for w, block in zip(parts.weights.split(parts.sizes), parts.blocks(kernel[n:, n:]), strict=True)
    ]
    between = parts.mean((source.parts.weights @ kernel[:n, n:])[:, None])[:, 0]
    return own + torch.stack(within) - 2 * between


def l2(source: Labelled, target: Labelled) -> Tensor:
    """Mean Euclidean distance between points of one and of the other, which ORCA estimates from random pairs. Labels do not count.

    Returns:
        float64, of each part of the target, with gradients.
    """
    # The root's gradient at 0, of points in one place, would be infinite.
    distances = (squared_distances(source.points, target.points) + torch.finfo(torch.float64).tiny).sqrt()
    return target.parts.mean((source.parts.weights @ distances)[:, None])[:, 0]


DISTANCES: dict[str, Distance] = {"otdd": otdd, "mmd": mmd, "l2": l2}


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2, float64 (n, m), of (n, D) and (m, D)."""
    middle = y.detach().mean(0)  # far from zero the products below would have few digits left
    x, y = x - middle, y - middle
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp_min(0)


def _cost(squares: Tensor, between_labels: Tensor, one: Labelled, other: Labelled) -> Tensor:
    """What moving a point to a point costs, (n, m): half their squared distance (n, m), half that of their classes (c, d)."""
    return squares.div(2).add_(between_labels[one.classes.index][:, other.classes.index], alpha=0.5)
