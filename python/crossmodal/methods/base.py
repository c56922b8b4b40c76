"""What a method is, and the registry of methods.

A method is a class in a file of this package:

    @register
    class NaiveFineTuning(Method):
        name = "nft"
        description = "one line for --list"
        Options = ...             # a dataclass: its section of the settings, `--nft.KEY`

        def build(self, task, config): ...            # the model; weights as they are before training
        def objective(self, task, model, config): ... # what one step minimises (default: the task's loss)
        def fit(self, run): ...                       # the stages of training (default: one)

It says what it can do with which task (`unsuited`, `refuses`), draws pictures of its own if it wants to, and nothing else knows
its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from crossmodal.naming import Registry


@dataclass
class NoOptions:
    """A method without settings of its own."""


class Method:
    """A way to learn a task.

    Attributes:
        name: as in `--method`.
        description: one line.
        Options: dataclass of its settings, documented in its docstring; they are `config.options` of a run.
        unsuited: kinds of target ("classification", "multilabel", "regression", "dense") and shapes of input ("1d", "2d") that it
            cannot do, each with the reason.
        pictures: file names of what `draw` writes.
        seeded: whether runs of different seeds differ.
        uses_encoder: whether it starts from the encoder of the settings.
        pretrained: whether with the encoder's pretrained weights; False draws all weights anew.
        slides: whether it looks at neighbouring values together, as convolutions do, which the columns of a table are not.
        learns_validation: whether it learns from the validation samples too, as it chooses no epoch.
        defaults: settings that stand in the place of those of a task's file, which were measured with a text encoder; see `suited`.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    Options: ClassVar[type] = NoOptions
    unsuited: ClassVar[dict[str, str]] = {}
    pictures: ClassVar[tuple[str, ...]] = ()
    seeded: ClassVar[bool] = True
    uses_encoder: ClassVar[bool] = True
    pretrained: ClassVar[bool] = True
    slides: ClassVar[bool] = False
    learns_validation: ClassVar[bool] = False
    defaults: ClassVar[dict[str, Any]] = {}

    def suited(self, told: dict[str, Any]) -> dict[str, Any]:
        """Settings that stand in the place of those of a task's file: `defaults`, where they do not depend on the task or on
        options.

        Args:
            told: what files and the command line say, by dotted name; what nobody says is not in it.
        """
        return self.defaults

    def refuses(self, task: Any) -> str | None:
        """Why it cannot do this task, beside what `unsuited` says of tasks of a kind."""
        return None

    def needs_validation(self, task: Any, config: Any) -> bool:
        """Whether it chooses more than the epoch by the validation split, so that it cannot do without."""
        return False

    def arranged(self, task: Any, config: Any) -> Any:
        """The task as the method learns it: another training part, say. The usual one is what its files hold."""
        return task

    def build(self, task: Any, config: Any) -> Any:
        """The model, `models.base.Model`, with the weights that training starts from.

        Args:
            task: `tasks.Task`.
            config: `settings.Config` of the run.

        Raises:
            UserError: settings that do not fit the task.
        """
        raise NotImplementedError

    def objective(self, task: Any, model: Any, config: Any) -> Any:
        """What one step minimises, `training.objective.Objective`; by default the task's loss."""
        from crossmodal.training.objective import Objective

        return Objective(task)

    def fit(self, run: Any) -> Any:
        """Trains `run.model` and returns it, by default in one stage; see `training.run.Run.train`."""
        return run.train(run.model, run.objective)

    def draw(self, run: Any) -> dict[str, Any]:
        """Pictures of the method's own, matplotlib figures by file name."""
        return {}


METHODS: Registry[Method] = Registry("method")


def register(cls: type[Method]) -> type[Method]:
    """Decorator that makes a method known."""
    METHODS.add(cls.name, cls())
    return cls


def get(name: str) -> Method:
    """The method of that name.

    Raises:
        UserError: there is none; the nearest name is given.
    """
    return METHODS.find(name)


def reason_against(name: str, task: Any) -> str | None:
    """Why a method cannot do a task; None where it can."""
    method = get(name)
    return method.unsuited.get(task.kind) or method.unsuited.get(f"{task.ndim}d") or method.refuses(task)
