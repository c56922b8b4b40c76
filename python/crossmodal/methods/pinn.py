"""Physics-informed networks (Raissi et al., JCP 2019), which know the equation and nothing of other samples: to be compared with
what learns from samples."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

from crossmodal.kinds import POINT_KINDS
from crossmodal.methods.base import Method, register
from crossmodal.values import Count, Positive

if TYPE_CHECKING:
    from crossmodal.models.pinn import PINN
    from crossmodal.training.objective import Objective

SAMPLES = 10  # PDEBench's


@dataclass
class Options:
    """The networks and how they are fitted. PDEBench's have the same size, 15,000 steps, 1000 points inside and on the boundary and
    5000 on the first frame.

    Args:
        steps: of Adam, for each sample.
        points: random ones at each step: so many inside, so many on the known frames, and so many on the boundary of each axis.
        lr: the first learning rate; it falls to zero.
        depth: hidden layers.
        width: values of each.
    """

    steps: Count = 3000
    points: Count = 256
    lr: Positive = 3e-3
    depth: Count = 6
    width: Count = 40


@register
class PhysicsInformed(Method):
    """A network for each test sample, fitted to its known frames and the equation; no training sample is looked at, but for the
    scale of the fields. So it is measured on few test samples (`--split.test_limit`), and predicting takes as long as fitting.
    The settings of training and encoder are not used.
    """

    name = "pinn"
    description = "physics-informed networks, one fitted to each test sample (fields of a known equation)"
    uses_encoder = False
    Options = Options
    unsuited: ClassVar = dict.fromkeys(POINT_KINDS, "it solves an equation for a field; take linear")
    defaults: ClassVar = {"split.test_limit": SAMPLES}

    def refuses(self, task) -> str | None:
        from crossmodal.models.residuals import PHYSICS

        if task.equation is None:
            return "it needs the equation of the fields, which this task does not name; take fno"
        if task.equation.name not in PHYSICS:
            return f"it knows the equations {', '.join(PHYSICS)}; take fno"
        if task.protocol == "step":
            return "its samples start where their equation does, not at any frame; take another protocol"
        return None

    def build(self, task, config) -> PINN:
        from crossmodal.models.pinn import PINN

        equation = asdict(task.equation) | {"points": [places.tolist() for places in task.equation.points]}
        scaling = {key: value.tolist() for key, value in task.normalizer.state().items()}
        options = config.options
        return PINN(
            equation,
            scaling,
            options.depth,
            options.width,
            options.steps,
            options.points,
            options.lr,
            config.seed,
        )

    def objective(self, task, model, config) -> Objective:
        objective = super().objective(task, model, config)
        objective.description = (
            f"pinn: {len(task.test)} test samples, a network of {model.count_parameters()} parameters fitted to each in "
            f"{config.options.steps} steps; of the equation it knows all, of the {len(task.train)} training samples the scale "
            "alone."
        )
        return objective

    def fit(self, run) -> PINN:
        return run.model
