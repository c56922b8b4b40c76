"""The searches of NAS-Bench-360's winners: what each looks for, how, and how what it found is trained."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np

from crossmodal import seeds
from crossmodal.errors import MissingPackage
from crossmodal.methods._architecture_search import CellSearching, ControllerSearching, Halving
from crossmodal.methods._published_networks import BLOCKS, USUAL
from crossmodal.methods._trials import Trials, seeded
from crossmodal.models.base import Model
from crossmodal.models.block_chain import BlockChain
from crossmodal.models.cells import CellNetwork, CellSearch
from crossmodal.models.layered import LAYERS, LayeredNetwork, LayeredSearch
from crossmodal.models.wide_resnet import WideResNet
from crossmodal.scoring import metrics
from crossmodal.training.objective import Objective
from crossmodal.training.run import Run

COSINE = {"kind": "cosine", "warmup": 0.0, "floor": 0.0}


class Search:
    """A search.

    Attributes:
        budget: part of the published search that is done where the settings name none.
        schedule: of the learning rate of a training.
    """

    budget: ClassVar[float]
    schedule: ClassVar[dict[str, Any]] = COSINE

    def __init__(self, task, config) -> None:
        self.task, self.config = task, config
        self.share = config.options.budget or self.budget
        self.shape = task.input_shape, task.num_outputs, task.kind == "dense"

    def first(self, known: Any | None) -> Model:
        """A network of the size that is trained in the end, or about so."""
        raise NotImplementedError

    def search(self, run: Run) -> tuple[Any, dict[str, Any]]:
        """What is to be trained, and what results.json says of how it was found."""
        raise NotImplementedError

    def network(self, found: Any) -> Model:
        """The network of what was found."""
        raise NotImplementedError

    def optimizer(self, found: Any) -> dict[str, Any]:
        """Settings of the optimizer that it is trained by."""
        raise NotImplementedError

    def facts(self, found: Any) -> dict[str, Any]:
        """What was found, for results.json."""
        raise NotImplementedError

    def train(
        self, run: Run, objective: Objective, found: Any, stage: str = "train", epochs: int | None = None
    ) -> Model:
        """The network, trained from scratch."""
        seeded(self.config, "initialisation", stage)
        model = self.network(found)
        if self.config.compile:
            model.compile_body()
        return run.train(model, objective, stage=stage, epochs=epochs, schedule=self.schedule, **self.optimizer(found))

    def count(self, whole: float) -> int:
        """The part of the published number that the budget allows."""
        return max(1, round(self.share * whole))


class WideResNets(Search):
    """Hyperparameters of WRN-16-4 by successive halving: a trial goes on after 1/256, 1/64, 1/16 and 1/4 of the epochs while it is
    in the best quarter of those that came as far (ASHA, Li et al., MLSys 2020). The first trial has the usual ones: random
    learning rates are from three decades, and where a budget allows few, all of them may be too small to learn by."""

    budget = 0.05
    schedule: ClassVar = {"kind": "step", "warmup": 0.0, "milestones": (0.3, 0.6, 0.8), "gamma": 0.2}

    def first(self, known: Any | None) -> Model:
        return WideResNet(*self.shape, 4)

    def search(self, run: Run) -> tuple[Any, dict[str, Any]]:
        try:
            import optuna
        except ImportError as error:
            raise MissingPackage("nas.space: wide_resnet", "optuna", "nas") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        config, task = self.config, self.task
        study = optuna.create_study(
            direction="maximize" if metrics.get(task.metric).higher_is_better else "minimize",
            sampler=optuna.samplers.RandomSampler(seeds.derive(config.seed, "trials") % 2**32),
            pruner=optuna.pruners.SuccessiveHalvingPruner(max(1, config.epochs // 4**4), reduction_factor=4),
        )
        trials = Trials(run)
        for number in range(1, self.count(28 if task.name == "ninapro" else 128) + 1):
            trial = study.ask()
            choice = dict(USUAL) if number == 1 else self.drawn(trial)
            objective, stage = Halving(task, trial), f"trial-{number}"
            trials.attempt(choice, partial(self.train, run, objective, choice, stage))
            # A stage that was done before an interruption tells the study now what it would have told then.
            objective.ends([record for record in run.history if record["stage"] == stage])
            trials.tried[-1]["epochs"] = objective.told
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)  # its values are in what it reported
        run.accelerator.print(trials.said)
        return trials.best, {"trials": trials.tried}

    def drawn(self, trial: Any) -> dict[str, float]:
        """Hyperparameters of a trial of optuna's, from the published ranges: for CIFAR-100 seven values of each."""

        def draw(name: str, low: float, high: float) -> float:
            if self.task.name != "cifar100":
                return trial.suggest_float(name, low, high, log=True)
            return trial.suggest_categorical(name, np.geomspace(low, high, 7).tolist())

        return {
            "lr": draw("lr", 1e-4, 1e-1),
            "dropout": trial.suggest_categorical("dropout", [0.0, 0.3, 0.6]),
            "weight_decay": draw("weight_decay", 1e-5, 1e-2),
            "momentum": trial.suggest_categorical("momentum", [0.0, 0.3, 0.6, 0.9]),
        }

    def network(self, found: Any) -> Model:
        return WideResNet(*self.shape, 4, found["dropout"])

    def optimizer(self, found: Any) -> dict[str, Any]:
        return {
            "name": "sgd",
            "nesterov": True,
            # A published rate is that of batches of so many samples.
            "new_lr": found["lr"] * self.config.batch_size / found.get("batch_size", self.config.batch_size),
            "momentum": found["momentum"],
            "weight_decay": found["weight_decay"],
            "clip": 0.0,
        }

    def facts(self, found: Any) -> dict[str, Any]:
        return {"chosen": found}


class Cells(Search):
    """The cells of DARTS by PC-DARTS with GAEA's update."""

    budget = 1.0

    def first(self, known: Any | None) -> Model:
        cell = [("sep_conv_3", 0), ("sep_conv_3", 1)] * 4
        return self.network(known or {"normal": cell, "reduce": cell})

    def search(self, run: Run) -> tuple[Any, dict[str, Any]]:
        seeded(self.config, "search")
        objective = CellSearching(self.task, self.config.seed)
        run.task = objective.halved
        model = run.train(
            CellSearch(*self.shape, 8, 16),
            objective,
            stage="search",
            epochs=self.count(self.config.epochs / 3),
            schedule=COSINE,
            lr=0.0,  # of what the objective updates itself
            new_lr=0.1,
            **_sgd(3e-4, clip=5.0),
        )
        run.task = self.task
        found = model.genotype()
        for kind, cell in found.items():
            shown = ", ".join(f"{name} of {start}" for name, start in cell)
            run.accelerator.print(f"{kind} cell: {shown}")
        return found, {}

    def network(self, found: Any) -> Model:
        if self.config.options.size == "published":
            return CellNetwork(*self.shape, 20, 36, found, dropped=0.3)
        return CellNetwork(*self.shape, 8, 16, found)

    def optimizer(self, found: Any) -> dict[str, Any]:
        return {"new_lr": 0.025, **_sgd(3e-4, clip=5.0)}

    def facts(self, found: Any) -> dict[str, Any]:
        return {"genotype": found}


class Blocks(Search):
    """The best of random chains of residual blocks, of about the size of the published one."""

    budget = 0.1
    # Channels that a block may have, and at which level of the grid, each half of the one above.
    OFFERED: ClassVar = ((1, (48, 56, 64)), (2, (72, 96, 112)), (3, (128, 144, 160, 176)), (3, (192, 208)), (3, (224,)))
    LARGER = 1_000_000  # parameters more than the published network that one may have

    def first(self, known: Any | None) -> Model:
        return self.network(known or BLOCKS["fsd50k"])

    def search(self, run: Run) -> tuple[Any, dict[str, Any]]:
        rng = np.random.default_rng(seeds.derive(self.config.seed, "trials"))
        most = self.network(BLOCKS["fsd50k"]).count_parameters() + self.LARGER
        trials, objective = Trials(run), run.objective
        for number in range(1, self.count(30) + 1):
            found = self.drawn(rng)
            while self.network(found).count_parameters() > most:
                found = self.drawn(rng)
            epochs = max(1, round(self.config.epochs * 10 / 240))
            trials.attempt({"blocks": found}, partial(self.train, run, objective, found, f"trial-{number}", epochs))
        return trials.best["blocks"], {"trials": trials.tried}

    def drawn(self, rng: np.random.Generator) -> list[tuple[int, int, int]]:
        """A random chain: of each level some of the channels that are offered, in order; one to three layers each."""
        chain, level = [], 0
        for at, offered in self.OFFERED:
            least = 1 if at > level else 0  # no level is left out
            for channels in sorted(rng.choice(offered, rng.integers(least, len(offered) + 1), replace=False).tolist()):
                more = 0 if at == 1 else 1 if at == 2 or channels == 224 else 2
                chain.append((channels, 1 + int(rng.integers(0, more + 1)), 2 if at > level else 1))
                level = at
        if chain[-1][0] != 224:
            chain.append((224, 1 + int(rng.integers(0, 2)), 1))
        return chain

    def network(self, found: Any) -> Model:
        return BlockChain(*self.shape, found)

    def optimizer(self, found: Any) -> dict[str, Any]:
        return {"new_lr": 0.2 * self.config.batch_size / 512, **_sgd(4e-5, clip=0.0)}

    def facts(self, found: Any) -> dict[str, Any]:
        return {"blocks": found}


class Controlled(Search):
    """Operations and connections of twelve layers, by a recurrent controller on shared weights; of ten that it draws in the end the
    best on validation is trained."""

    budget = 0.25
    DRAWN = 10

    def first(self, known: Any | None) -> Model:
        return self.network([[0] * (1 + layer) for layer in range(LAYERS)])

    def search(self, run: Run) -> tuple[Any, dict[str, Any]]:
        seeded(self.config, "search")
        objective = ControllerSearching(self.task, self.config.seed)
        run.task = objective.halved
        model = run.train(
            LayeredSearch(*self.shape),
            objective,
            stage="search",
            epochs=self.count(self.config.epochs),
            schedule=COSINE,
            lr=1e-3,
            **self.optimizer(None),
        )
        run.task = self.task
        trials = Trials(run)
        for number in range(self.DRAWN):
            objective.draw(model, seeds.derive(self.config.seed, "drawn", number))
            found = run.evaluate(self.task.validation)
            trials.add({"architecture": model.architecture}, found.metric, found.loss)
        return trials.best["architecture"], {"trials": trials.tried}

    def network(self, found: Any) -> Model:
        return LayeredNetwork(*self.shape, found)

    def optimizer(self, found: Any) -> dict[str, Any]:
        return {"name": "adam", "new_lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.0, "clip": 1.0}

    def facts(self, found: Any) -> dict[str, Any]:
        return {"architecture": found}


def _sgd(weight_decay: float, clip: float) -> dict[str, Any]:
    return {"name": "sgd", "momentum": 0.9, "weight_decay": weight_decay, "clip": clip}


SEARCHES: dict[str, type[Search]] = {
    "wide_resnet": WideResNets,
    "cells": Cells,
    "blocks": Blocks,
    "controller": Controlled,
}
