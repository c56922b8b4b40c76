"""Physics-informed networks (Raissi et al., JCP 2019): a network of time and place for each sample, which is fitted to what is
known of the sample and to its equation, and then read off where a field is asked for."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from crossmodal.data.normalizer import Normalizer
from crossmodal.models.base import Model
from crossmodal.models.residuals import PHYSICS, Derivatives, Fields, boundary_errors
from crossmodal.pde.base import SolvedEquation

TOGETHER = 16  # samples that are fitted side by side
KNOWN = 10.0  # weight of the known frames: without them residuals are met by a constant
MOST_POINTS = 2**16  # of all samples, at which fields are read off at once


class PINN(Model, name="pinn"):
    """Fields (B, T * Cout, *grid) of samples (B, K * C, *grid), frame by frame at the T times asked for. `forward` fits a network
    to each sample, which takes minutes. What is saved are the weights from which they all start.

    A network is a perceptron with tanh; a place on a ring goes in as cosine and sine of its angle, so that the boundary is kept
    to. Each step of Adam sees new random points. The loss adds up mean squares: of each residual, of what the boundary is missed
    by, and with ten times the weight of what the known frames are. The learning rate falls to zero by half a cosine. Which
    samples are fitted side by side makes no difference but rounding.

    Args:
        equation: what the fields solve, as JSON values; see `pde.base.SolvedEquation`.
        scaling: what samples and targets are scaled by, `Normalizer.state`, as JSON values.
        depth, width: hidden layers, and values of each.
        steps: of Adam, for each sample.
        points: at each step, inside, on the known frames, and on the boundary of each axis.
        lr: the first learning rate.
        seed: of the points.
    """

    gives_every_frame = True

    def __init__(
        self,
        equation: dict[str, Any],
        scaling: dict[str, Any],
        depth: int,
        width: int,
        steps: int,
        points: int,
        lr: float,
        seed: int,
    ) -> None:
        super().__init__()
        told = SolvedEquation(**equation | {"points": tuple(map(np.array, equation["points"]))})
        self.equation, self.physics = told, PHYSICS[told.name]
        self.normalizer = Normalizer.from_state({key: torch.tensor(value) for key, value in scaling.items()})
        self.steps, self.points, self.lr, self.seed = steps, points, lr, seed
        space = []
        for (low, high), places in zip(told.domain, told.points, strict=True):
            beyond = 0.5 * (high - low) / len(places) if self.physics.ghosts else 0.0
            space.append((low - beyond, high + beyond))
        time = [(told.known[0], told.asked[-1])] if told.known else []
        self.first_axis = len(time)
        ends = torch.tensor([*time, *space])
        self.register_buffer("low", ends[:, 0], persistent=False)
        self.register_buffer("size", ends[:, 1] - ends[:, 0], persistent=False)
        grid = torch.stack(torch.meshgrid(*map(torch.from_numpy, told.points), indexing="ij"), dim=-1)
        self.register_buffer("grid", grid.flatten(0, -2).float(), persistent=False)
        self.scales = self._scales()
        self.on_ring = self.physics.boundary == "ring"
        sizes = [len(ends) + self.on_ring, *[width] * depth, len(self.physics.fields)]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for before, after in itertools.pairwise(sizes):
            self.weights.append(nn.init.xavier_normal_(torch.empty(before, after)))
            self.biases.append(nn.Parameter(torch.zeros(after)))

    def facts(self) -> dict[str, Any]:
        return {"fitted": f"one network per test sample, {self.steps} steps each"}

    def compile_body(self) -> None:
        """Nothing: a fit is no graph."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
            return torch.cat([self._solve(part.detach()) for part in x.split(TOGETHER)])

    def _scales(self) -> dict[str, tuple[float, float]]:
        """What each field is about, and what it varies by: of the targets, else of the samples."""
        told, scaling = self.equation, self.normalizer
        sizes = dict(self.physics.sizes)
        for names, mean, std in (
            (told.inputs, scaling.x_mean, scaling.x_std),
            (told.outputs, scaling.y_mean, scaling.y_std),
        ):
            for place, name in enumerate(names if mean is not None else ()):
                of_frames = slice(place, None, len(names))
                sizes[name] = mean[of_frames].mean().item(), std[of_frames].mean().item()
        return {name: sizes.get(name, (0.0, 1.0)) for name in self.physics.fields}

    def _solve(self, x: Tensor) -> Tensor:
        """Outputs for a few samples, each by a network of its own."""
        told, scaling = self.equation, self.normalizer
        raw = (x.cpu().double() * scaling.x_std + scaling.x_mean).float().to(x.device)
        known = raw.unflatten(1, (-1, len(told.inputs))).flatten(3)  # (B, K, C, G)
        parameters = [
            value.detach().expand(len(x), *value.shape).clone().requires_grad_()
            for pair in zip(self.weights, self.biases, strict=True)
            for value in pair
        ]
        optimizer = torch.optim.Adam(parameters, lr=self.lr)
        generator = torch.Generator().manual_seed(self.seed)
        for step in tqdm(range(self.steps), desc=f"{len(x)} networks", leave=False, disable=None):
            optimizer.param_groups[0]["lr"] = self.lr * 0.5 * (1 + math.cos(math.pi * step / self.steps))
            optimizer.zero_grad()
            # Of each sample: its gradient knows nothing of the others.
            self._loss(parameters, known, generator).sum().backward()
            optimizer.step()
        frames = []
        with torch.no_grad():
            for time in told.asked or (None,):
                at_once = max(1, MOST_POINTS // len(x))
                parts = [self._fields(parameters, self._at(time, places)) for places in self.grid.split(at_once)]
                frames += [torch.cat([part[name] for part in parts], dim=1) for name in told.outputs]
        values = torch.stack(frames, dim=1).unflatten(2, tuple(map(len, told.points)))
        return scaling.apply_y(values.cpu()).to(x.device)

    def _at(self, time: float | None, places: Tensor) -> Tensor:
        """Points (1, P, axes) at a time."""
        return (places if time is None else nn.functional.pad(places, (1, 0), value=time))[None]

    def _fields(self, parameters: list[Tensor], points: Tensor) -> Fields:
        """What the networks say at points (B or 1, P, axes)."""
        shares = (points - self.low) / self.size
        hidden = 2 * shares - 1
        if self.on_ring:
            angle = 2 * math.pi * shares[..., 1:]
            hidden = torch.cat([hidden[..., :1], angle.cos(), angle.sin()], dim=-1)
        hidden = hidden.expand(len(parameters[0]), -1, -1)
        for layer in range(0, len(parameters), 2):
            weight, bias = parameters[layer : layer + 2]
            hidden = torch.baddbmm(bias[:, None], hidden if layer == 0 else hidden.tanh(), weight)
        return {
            name: mean + std * values
            for (name, (mean, std)), values in zip(self.scales.items(), hidden.unbind(2), strict=True)
        }

    def _loss(self, parameters: list[Tensor], known: Tensor, generator: torch.Generator) -> Tensor:
        """What each network misses, (B,)."""
        told, physics, count = self.equation, self.physics, len(known)

        def at(points: Tensor) -> tuple[Fields, Derivatives]:
            points = points.expand(count, -1, -1).contiguous().requires_grad_()

            def derivatives(values: Tensor) -> tuple[Tensor, ...]:
                return torch.autograd.grad(values.sum(), points, create_graph=True)[0].unbind(2)

            return self._fields(parameters, points), derivatives

        def drawn() -> Tensor:
            shares = torch.rand(self.points, len(self.low), generator=generator).to(self.low.device)
            return self.low + shares * self.size

        def mean_square(errors: Tensor) -> Tensor:
            return errors.square().mean(1)

        inside = drawn()
        fields, derivatives = at(inside)
        if not told.known:
            fields["a"] = known[:, 0, 0, self._nearest(inside)]
        duration = self.size[0].item() if told.known else 1.0
        loss = sum(
            mean_square(residual * (duration / size))
            for residual, size in physics.residuals(fields, derivatives, told.parameters, self.scales)
        )
        for axis in () if self.on_ring else range(self.first_axis, len(self.low)):
            ends = []
            points = drawn()
            for end in (self.low[axis], self.low[axis] + self.size[axis]):
                points = points.clone()
                points[:, axis] = end
                ends.append(at(points))
            length = self.size[axis].item()
            for errors in boundary_errors(physics, *ends, axis, length, told.parameters, self.scales):
                loss = loss + mean_square(errors)
        if told.known:
            frame = torch.randint(len(told.known), (self.points,), generator=generator)
            place = torch.randint(len(self.grid), (self.points,), generator=generator)
            times = torch.tensor(told.known)[frame].to(self.grid.device)
            frame, place = frame.to(self.grid.device), place.to(self.grid.device)
            found = self._fields(parameters, torch.cat([times[:, None], self.grid[place]], dim=1)[None])
            for channel, name in enumerate(told.inputs):
                missed = (found[name] - known[:, frame, channel, place]) / self.scales[name][1]
                loss = loss + KNOWN * mean_square(missed)
            if physics.at_rest and told.known[0] == 0:
                found = self._fields(parameters, self._at(0.0, self.grid[place]))
                for name in physics.at_rest:
                    loss = loss + mean_square(found[name] / self.scales[name][1])
        return loss

    def _nearest(self, points: Tensor) -> Tensor:
        """Index of the value of a flattened field that is nearest to each point (P, axes)."""
        index = torch.zeros(len(points), dtype=torch.int64, device=points.device)
        for axis, places in enumerate(self.equation.points):
            middles = torch.from_numpy((places[1:] + places[:-1]) / 2).to(points)
            index = index * len(places) + torch.bucketize(points[:, axis].contiguous(), middles)
        return index
