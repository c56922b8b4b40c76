"""Learning a roll-out: by single steps, as its training samples are, or by whole trajectories that a model predicts from their
first frames on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from crossmodal.methods.base import Method
from crossmodal.values import Count

if TYPE_CHECKING:
    from crossmodal.methods._unrolled_objective import UnrolledObjective


@dataclass
class Unrolling:
    """How a roll-out is learned.

    Args:
        learn: `steps`: each frame from the known ones before it; `rollout`: a trajectory from its first frames on, where the model
            is fed its own predictions. Where the task is no roll-out there is nothing to choose.
        unroll: of `rollout`: the last so many frames are scored, and the gradient goes back through these alone, so that the model
            learns from its own errors (null: all frames).
    """

    learn: Literal["steps", "rollout"] = "steps"
    unroll: Count | None = None


class UnrolledMethod(Method):
    """A network for fields whose options are :class:`Unrolling`.

    Attributes:
        summed: whether the loss of a roll-out is the sum over its frames, not their mean.
    """

    summed: ClassVar = False

    def arranged(self, task, config) -> Any:
        if not task.steps or config.options.learn == "steps":
            return task
        from crossmodal.methods._unrolled_objective import Trajectories

        return replace(task, train=Trajectories(task.train, task))

    def objective(self, task, model, config) -> UnrolledObjective:
        from crossmodal.methods._unrolled_objective import UnrolledObjective

        return UnrolledObjective(task, config.options, self.summed)
