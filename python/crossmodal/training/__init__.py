"""Training: a run of one or several stages, each any model and any objective, on any number of processes."""

from crossmodal.training.objective import Objective, Position
from crossmodal.training.run import Run
from crossmodal.training.trainer import Trainer

__all__ = ["Objective", "Position", "Run", "Trainer"]
