"""Searched networks: of each task of NAS-Bench-360 (Tu et al., NeurIPS 2022) the search that won, or the network that it found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from crossmodal.errors import UserError
from crossmodal.methods._published_networks import FOUND
from crossmodal.methods.base import Method, register
from crossmodal.values import Factor

if TYPE_CHECKING:
    from crossmodal.models.base import Model
    from crossmodal.training.objective import Objective

WINNERS = {
    "cifar100": "wide_resnet",
    "ninapro": "wide_resnet",
    "spherical": "cells",
    "darcy_flow": "cells",
    "psicov": "cells",
    "cosmic": "cells",
    "ecg": "cells",
    "satellite": "cells",
    "fsd50k": "blocks",
    "deepsea": "controller",
}


@dataclass
class Options:
    """What is searched, and how long.

    Args:
        search: `published` trains the network that NAS-Bench-360 found for the task, `search` looks for one (null: what is
            published, where that is; of other data, search).
        space: `wide_resnet`: hyperparameters of WRN-16-4 by successive halving (`pip install 'pare-kernels[nas]'`); `cells`:
            PC-DARTS by GAEA; `blocks`: random search among chains of residual blocks (DenseNAS); `controller`: a recurrent
            controller (ENAS, AMBER). Null: what won on the task; on other data of the same kind and shape: `wide_resnet` for
            images, but `blocks` for those with several labels; `cells` for series, but `controller` for those with several
            labels; `cells` for dense targets.
        budget: part of the published search that is done: of 128 trials (ninapro: 28; the first has the usual hyperparameters), of
            an epoch of search for three of training (`cells`), of 30 networks (`blocks`), of as many epochs of search as of
            training (`controller`); at least one of each (null: 0.05, 1, 0.1 and 0.25).
        size: of the network of `cells` that is trained: 20 cells of 36 channels as `published`, or `small`, 8 of 16, as the search
            has.
    """

    search: Literal["published", "search"] | None = None
    space: Literal["wide_resnet", "cells", "blocks", "controller"] | None = None
    budget: Factor | None = None
    size: Literal["small", "published"] = "small"


@register
class SearchedNetworks(Method):
    """The search, where there is one, and the training of what it found, from scratch, for `epochs`; each a stage or several.

    What is searched: hyperparameters of WRN-16-4 (Zagoruyko and Komodakis, BMVC 2016) by successive halving (ASHA, Li et al., MLSys
    2020); cells (PC-DARTS, Xu et al., ICLR 2020) by GAEA (Li et al., ICLR 2021); chains of blocks (DenseNAS, Fang et al., CVPR
    2020) at random; layers of AMBER (Zhang et al., Nature Machine Intelligence 2021) by a recurrent controller (ENAS, Pham et al.,
    ICML 2018).

    The published recipe is `--nas.budget 1 --nas.size published` with 200 epochs for `wide_resnet`, 150 for `cells` and 240 for
    `blocks`. Optimizer and learning rate of the settings are not used, and `batch_size` is the task's; published learning rates are
    for batches of 128 samples (`wide_resnet`) and 512 (`blocks`), and go down with their number. Networks for dense targets keep
    the grid of the input, and learn from windows of it where it is 256 or more along each axis.
    """

    name = "nas"
    description = (
        "searched networks: the winners of NAS-Bench-360's searches, found here or as published, trained from scratch"
    )
    uses_encoder = False
    slides = True
    Options = Options
    # Epochs of the tasks' files were measured with a pretrained encoder.
    defaults: ClassVar = {"epochs": None, "accumulate": 1}

    def needs_validation(self, task, config) -> bool:
        return published(task, config.options) is None

    def build(self, task, config) -> Model:
        from crossmodal.methods._searches import SEARCHES
        from crossmodal.training.sharding import require_one_process

        require_one_process(self.name)
        return SEARCHES[space(task, config.options)](task, config).first(published(task, config.options))

    def objective(self, task, model, config) -> Objective:
        from crossmodal.methods._windows import Windows

        return Windows(task)

    def fit(self, run) -> Model:
        from crossmodal.methods._searches import SEARCHES

        task, options = run.task, run.config.options
        chosen, known = space(task, options), published(task, options)
        search, objective = SEARCHES[chosen](task, run.config), run.objective
        facts = {"space": chosen, "published": known is not None}
        if known is None:
            known, found = search.search(run)
            facts |= found
        model = search.train(run, objective, known)
        model.chosen = facts | search.facts(known)
        return model


def space(task, options: Options) -> str:
    """What is searched for a task: what won on it, or on those like it."""
    if options.space is not None or task.name in WINNERS:
        return options.space or WINNERS[task.name]
    if task.kind == "dense":
        return "cells"
    several = task.kind == "multilabel"
    return ("controller" if several else "cells") if task.ndim == 1 else ("blocks" if several else "wide_resnet")


def published(task, options: Options):
    """What is published for a task, where the settings ask for it; None: search.

    Raises:
        UserError: they ask for it, and nothing is published.
    """
    chosen = space(task, options)
    if options.search == "published" and task.name not in FOUND[chosen]:
        known = ", ".join(FOUND[chosen]) or "no task"
        raise UserError(
            f"nas.search: no network of {chosen!r} is published for {task.title}; it is for {known}. Take --nas.search search"
        )
    return None if options.search == "search" else FOUND[chosen].get(task.name)
