"""DASH: a network whose kernels' lengths and dilations are searched for, task by task (Shen et al., NeurIPS 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from crossmodal.methods.base import Method, register
from crossmodal.values import Count, Factor

if TYPE_CHECKING:
    from crossmodal.models.base import Model
    from crossmodal.training.objective import Objective

LENGTHS = {1: (3, 7, 11, 15, 19), 2: (3, 5, 7, 9)}
DILATIONS = (1, 3, 7, 15)
NARROW, NARROW_LENGTHS, NARROW_DILATIONS = 16, (3, 5, 7), (1, 3, 7)  # of images with such a side, as NinaPro's are
SEARCHED = 100  # epochs of the search for 200 of training, and of one trial
TRIED, TRAINED = 80, 200
# Of an epoch's batches so many are used in the search, and in a trial where there are so many batches or more.
SEARCH_SHARE, TRIAL_SHARES, MANY = 0.2, ((500, 0.01), (100, 0.05), (50, 0.1)), 50
GRADIENT_SCALES = {"cifar100": 5000.0, "cosmic": 1000.0, "spherical": 500.0, "deepsea": 10.0}  # else 100
FELL = {1: (30, 60, 90, 120, 160), 2: (60, 120, 160)}  # epochs after which the learning rate falls to a fifth


@dataclass
class Options:
    """The budget, and how the search computes.

    Args:
        budget: part of the paper's search and tuning that is done: factor on their epochs and on the 24 sets of hyperparameters.
            The paper is `--dash.budget 1 --epochs 200`.
        width: factor on the channels of the network for images that is trained in the end; the search has 1.
        form: of a mixture of kernels: `plain` adds up convolutions, `fft` does one by Fourier transforms.
    """

    budget: Factor = 0.25
    width: Count = 4
    form: Literal["plain", "fft"] = "plain"


@register
class DASH(Method):
    """Three stages. In the search each convolution of a WRN-16-1 (of series, of the residual network of Wang et al.) is a mixture
    of kernels, whose shares are learned with them. Of each the kernel with the greatest share is kept, and WRN-16-4 (of series, the
    same network) with these kernels is tuned: learning rates from high to low, each with dropout, weight decay and momentum, until
    a lower one is no better. The best is trained from scratch for `epochs`.

    The search lasts half as many epochs as the training and a trial two fifths, times the budget; of 50 batches and more the search
    takes a fifth and a trial a tenth or less, as in the paper, which is done by as many fewer epochs. Images of at most 16 pixels
    in height or width have the shorter kernels of NinaPro. Networks for dense targets keep the grid of the input.

    Optimizer and learning rate of the settings are not used, and `batch_size` is the task's. Large dense targets are learned from
    windows. In the paper the epoch is chosen by test samples, and identity shortcuts are missing from the network for series;
    neither is so here.
    """

    name = "dash"
    description = (
        "convolutional network whose kernels are searched for (DASH), tuned and trained from scratch (three stages)"
    )
    uses_encoder = False
    slides = True
    Options = Options
    # Epochs of the tasks' files were measured with a pretrained encoder.
    defaults: ClassVar = {"epochs": None, "accumulate": 1}

    def needs_validation(self, task, config) -> bool:
        return True

    def build(self, task, config) -> Model:
        from crossmodal.training.sharding import require_one_process

        require_one_process(self.name)
        return network(task, config.options.width)

    def objective(self, task, model, config) -> Objective:
        from crossmodal.methods._windows import Windows

        return Windows(task)

    def fit(self, run) -> Model:
        from crossmodal.methods._kernel_search import KernelSearch
        from crossmodal.methods._trials import Trials, seeded
        from crossmodal.models.dash import Supernet

        config, task, objective, options = run.config, run.task, run.objective, run.config.options
        batches = -(-len(task.train) // config.batch_size)

        def epochs(of_training: float) -> int:
            return max(1, round(config.epochs * options.budget * of_training / TRAINED))

        seeded(config, "search")
        supernet = Supernet(network(task, 1), choices(task), options.form)
        slow = task.kind == "dense"
        supernet = run.train(
            supernet,
            KernelSearch(task, supernet, GRADIENT_SCALES.get(task.name, 100.0)),
            stage="search",
            epochs=epochs(SEARCHED * (SEARCH_SHARE if batches >= MANY else 1)),
            schedule=_steps((60,), SEARCHED),
            lr=5e-3 if slow else 0.05,
            new_lr=1e-2 if slow else 0.1,
            **_sgd(0.9, 5e-4),
            clip=1.0,
        )
        kernels = supernet.kernels()
        shown = ", ".join(f"{length}/{dilation}" for length, dilation in kernels)
        run.accelerator.print(f"kernels (length/dilation) of each convolution: {shown}")

        def train(choice: dict[str, Any], stage: str, epochs: int, of: int) -> Model:
            seeded(config, "initialisation")  # each trial and the training start from the same weights
            model = network(task, options.width, choice["dropout"], kernels)
            if config.compile:
                model.compile_body()
            return run.train(
                model,
                objective,
                stage=stage,
                epochs=epochs,
                schedule=_steps(FELL[task.ndim], of),
                new_lr=choice["lr"],
                **_sgd(choice["momentum"], choice["weight_decay"]),
                clip=0.0,
            )

        share = next((share for many, share in TRIAL_SHARES if batches >= many), 1.0)
        trials = Trials(run)
        for group in grid(task.name, options.budget):
            best = trials.best
            for choice in group:
                stage = f"trial-{len(trials.tried) + 1}"
                trials.attempt(choice, partial(train, choice, stage, epochs(TRIED * share), TRIED))
            if best is not None and trials.best is best:
                break  # a lower learning rate was no better
        run.accelerator.print(trials.said)
        model = train(trials.best, "train", config.epochs, TRAINED)
        model.chosen = {"kernels": kernels, **trials.facts}
        return model


def network(task, width: int, dropout: float = 0.0, kernels: list[list[int]] | None = None) -> Model:
    """The network with kernels of these lengths and dilations; `width` is that of images, for series the paper has a formula."""
    from crossmodal.models.series_resnet import SeriesResNet
    from crossmodal.models.wide_resnet import WideResNet

    cls, dense = WideResNet, task.kind == "dense"
    if task.ndim == 1:
        cls, width = SeriesResNet, min(4 ** (task.num_outputs // 10 + 1), 64)
    return cls(task.input_shape, task.num_outputs, dense, width, dropout, kernels)


def choices(task) -> list[tuple[int, int]]:
    """Length and dilation of the kernels of a mixture."""
    lengths, dilations = LENGTHS[task.ndim], DILATIONS
    if task.ndim == 2 and min(task.input_shape[1:]) <= NARROW:
        lengths, dilations = NARROW_LENGTHS, NARROW_DILATIONS
    return [(length, dilation) for length in lengths for dilation in dilations]


def grid(task: str, budget: float) -> list[list[dict[str, float]]]:
    """Sets of hyperparameters to try, of one learning rate after the other."""
    if task in ("psicov", "cosmic", "fsd50k"):
        rates, dropouts, decays, momenta = (1e-2, 1e-3, 1e-4), (0.0,), (5e-5,), (0.99,)
    else:
        rates, dropouts, decays, momenta = (0.1, 1e-2, 1e-3), (0.0, 0.05), (5e-4, 5e-6), (0.9, 0.99)
    groups = [
        [
            {"lr": rate, "dropout": dropout, "weight_decay": decay, "momentum": momentum}
            for dropout in dropouts
            for decay in decays
            for momentum in momenta
        ]
        for rate in rates
    ]
    return [group[: max(1, round(budget * len(group)))] for group in groups]


def _sgd(momentum: float, weight_decay: float) -> dict[str, Any]:
    return {"name": "sgd", "nesterov": True, "momentum": momentum, "weight_decay": weight_decay}


def _steps(fell: tuple[int, ...], epochs: int) -> dict[str, Any]:
    milestones = tuple(epoch / epochs for epoch in fell if epoch < epochs)
    return {"kind": "step", "warmup": 0.0, "milestones": milestones, "gamma": 0.2}
