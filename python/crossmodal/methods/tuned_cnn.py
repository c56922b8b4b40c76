"""A small convolutional network from scratch whose hyperparameters are chosen on validation, within a budget of trials.

What an engineer would do without a pretrained encoder. On small scientific data sets it was found to match foundation models (Xu et
al., ICLR 2025).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from crossmodal.methods.base import Method, register
from crossmodal.values import Count

if TYPE_CHECKING:
    from crossmodal.models.residual import ResidualNetwork

FIRST = {"lr": 3e-3, "weight_decay": 1e-2, "width": 32, "depth": 3, "kernel": 5, "augment": ()}


@dataclass
class Options:
    """The budget.

    Args:
        trials: sets of hyperparameters that are tried: a usual one, then random ones.
        trial_epochs: epochs of each (null: a third of `epochs`).
    """

    trials: Count = 8
    trial_epochs: Count | None = None


@register
class TunedCNN(Method):
    """A residual network, for dense targets a U-Net.

    Learning rate, weight decay, width, depth, length of the kernels and augmentation (where `augment` is not set) are drawn
    `trials` times. Each trial is a stage of training; the validation metric chooses (in a tie the loss), and a network with these
    hyperparameters is trained from scratch for `epochs`. The learning rate and weight decay of the settings are not used.
    """

    name = "tuned_cnn"
    description = "small residual network or U-Net from scratch, hyperparameters chosen on validation in a few trials"
    uses_encoder = False
    slides = True
    Options = Options
    # Epochs of the tasks' files were measured with a pretrained encoder.
    defaults: ClassVar = {"epochs": None}

    def needs_validation(self, task, config) -> bool:
        return True

    def build(self, task, config) -> ResidualNetwork:
        return _network(task, FIRST)

    def fit(self, run) -> ResidualNetwork:
        from crossmodal.data.augment import augmentations
        from crossmodal.methods._trials import Trials, seeded

        config, task, objective = run.config, run.task, run.objective
        options = config.options

        def train(choice: dict[str, Any], stage: str, epochs: int) -> ResidualNetwork:
            if choice["augment"]:
                train = task.train.augmented(augmentations(choice["augment"], task.ndim))
                run.task = replace(task, train=train)
            else:
                run.task = task
            seeded(config, "initialisation", stage)
            model = _network(task, choice)
            if config.compile:
                model.compile_body()
            rates = {"new_lr": choice["lr"], "weight_decay": choice["weight_decay"]}
            return run.train(model, objective, stage=stage, epochs=epochs, **rates)

        trials = Trials(run)
        for number, choice in enumerate(_choices(task, config), 1):
            epochs = options.trial_epochs or -(-config.epochs // 3)
            trials.attempt(choice, partial(train, choice, f"trial-{number}", epochs))
        run.accelerator.print(trials.said)
        model = train(trials.best, "train", config.epochs)
        model.chosen = trials.facts
        return model


def _network(task, choice: dict[str, Any]) -> ResidualNetwork:
    from crossmodal.models.residual import ResidualNetwork

    sizes = {key: choice[key] for key in ("width", "depth", "kernel")}
    return ResidualNetwork(task.input_shape, task.num_outputs, task.kind == "dense", **sizes)


def _choices(task, config) -> list[dict[str, Any]]:
    """Hyperparameters of every trial."""
    import numpy as np

    from crossmodal import seeds

    rng = np.random.default_rng(seeds.derive(config.seed, "trials"))
    # An augmentation that moves a sample would have to move its dense target as well.
    augment = [(), ("noise",)] if task.kind == "dense" else [(), ("noise",), ("shift",), ("shift", "noise")]

    def draw() -> dict[str, Any]:
        return {
            "lr": float(10 ** rng.uniform(-3.5, -2)),
            "weight_decay": float(10 ** rng.uniform(-4, -1)),
            "width": int(rng.choice([16, 32])),
            "depth": int(rng.choice([2, 3, 4])),
            "kernel": int(rng.choice([3, 5, 9] if task.ndim == 1 else [3, 5])),
            "augment": () if config.augment else augment[rng.integers(len(augment))],
        }

    return [FIRST, *(draw() for _ in range(config.options.trials - 1))]
