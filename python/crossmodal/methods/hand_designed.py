"""Networks that experts designed for one kind of data each, as NAS-Bench-360 takes them for its tasks (Tu et al., NeurIPS 2022)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from crossmodal.errors import UserError
from crossmodal.kinds import POINT_KINDS
from crossmodal.methods import rocket
from crossmodal.methods.base import Method, register

if TYPE_CHECKING:
    from crossmodal.models.base import Model

LONG = 256  # values, from which on a series is taken for a recording like an ECG
WIDE = 34  # pixels, of which the VGG-like network needs so many
PLAIN = {
    "steps": None,
    "accumulate": 1,
    "optimizer.name": "adam",
    "optimizer.betas": (0.9, 0.999),
    "optimizer.weight_decay": 0.0,
    "optimizer.clip": 0.0,
    "lr_schedule.kind": "constant",
    "lr_schedule.warmup": 0.0,
}


def _steps(*milestones: float, gamma: float) -> dict[str, Any]:
    return {"lr_schedule.kind": "step", "lr_schedule.milestones": milestones, "lr_schedule.gamma": gamma}


@dataclass(frozen=True)
class Network:
    """A specialist.

    task: of NAS-Bench-360, which it is for. kinds, ndim: of what it can do. settings: how it is trained, where it was asked for
    by name or by its task. own: settings that suit its task alone.
    """

    task: str
    kinds: tuple[str, ...]
    ndim: tuple[int, ...]
    settings: dict[str, Any]
    own: dict[str, Any] = field(default_factory=dict)


NETWORKS = {
    "densenet": Network(
        "cifar100",
        POINT_KINDS,
        (2,),
        {
            "epochs": 300,
            "batch_size": 64,
            "optimizer.name": "sgd",
            "optimizer.nesterov": True,
            "optimizer.new_lr": 0.1,
            "optimizer.momentum": 0.9,
            "optimizer.weight_decay": 1e-4,
            **_steps(0.5, 0.75, gamma=0.1),
        },
        {"augment": "crop,flip,cutout"},
    ),
    "s2cnn": Network("spherical", POINT_KINDS, (2,), {"epochs": 100, "batch_size": 32, "optimizer.new_lr": 5e-3}),
    "fno": Network(
        "darcy_flow",
        ("dense",),
        (1, 2),
        {
            "epochs": 500,
            "batch_size": 20,
            "optimizer.new_lr": 1e-3,
            "optimizer.weight_decay": 1e-4,
            **_steps(0.2, 0.4, 0.6, 0.8, gamma=0.5),
        },
    ),
    "pdnet": Network(
        "psicov",
        ("dense",),
        (2,),
        {
            "epochs": 64,
            "batch_size": 2,
            "optimizer.name": "rmsprop",
            "optimizer.new_lr": 1e-3,
            "optimizer.betas": (0.9, 0.9),
        },
        {"loss": "log_cosh"},
    ),
    # deepCR's own program divides the rate by ten whenever the loss stands still, for which there is half a cosine here.
    "deepcr": Network(
        "cosmic",
        ("dense",),
        (2,),
        {
            "epochs": 50,
            "batch_size": 16,
            "optimizer.new_lr": 5e-3,
            "lr_schedule.kind": "cosine",
            "lr_schedule.floor": 0.0,
        },
    ),
    "attention": Network(
        "ninapro",
        POINT_KINDS,
        (1, 2),
        {
            "epochs": 205,
            "batch_size": 128,
            "optimizer.name": "ranger",
            "optimizer.new_lr": 1e-3,
            "lr_schedule.kind": "cosine",
            # 5 of 205 epochs; they rise to the peak, at which the public code begins.
            "lr_schedule.warmup": 0.0244,
            "lr_schedule.floor": 0.01,
        },
        {"loss": "focal"},
    ),
    "vgg": Network("fsd50k", POINT_KINDS, (2,), {"epochs": 100, "batch_size": 256, "optimizer.new_lr": 1e-3}),
    "resnet1d": Network(
        "ecg",
        POINT_KINDS,
        (1,),
        {
            "epochs": 50,
            "batch_size": 32,
            "optimizer.new_lr": 1e-4,
            "optimizer.weight_decay": 5e-4,
            # The public code tells its ReduceLROnPlateau the number of the epoch, which never gets better: every eleventh.
            **_steps(0.22, 0.44, 0.66, 0.88, gamma=0.1),
        },
    ),
    "rocket": Network("satellite", POINT_KINDS, (1,), rocket.RandomKernels.defaults),
    "deepsea": Network(
        "deepsea",
        POINT_KINDS,
        (1,),
        {
            "epochs": 60,
            "batch_size": 64,
            "patience": 5,
            "select": "loss",
            "optimizer.name": "sgd",
            "optimizer.new_lr": 0.01,
            "optimizer.momentum": 0.9,
            "optimizer.weight_decay": 1e-6,  # the square of a weight counts 5e-7, so that its slope is twice that
        },
        {"loss": "bce_with_logits"},
    ),
}
OF_TASK = {network.task: name for name, network in NETWORKS.items()}


@dataclass
class Options:
    """The network.

    Args:
        network: `auto` takes that of the task, of NAS-Bench-360's ten; for other data one by their kind: `rocket` for series of
            fewer than 256 values, of longer ones `deepsea` for several labels, else `resnet1d`; of images `vgg` for several
            labels, else `densenet`; `deepcr` for masks, `fno` for other fields. A network that is asked for by name, or by its
            task, is trained as its authors (or the benchmark) did, unless settings say otherwise; one that `auto` took for other
            data by the usual settings.
    """

    network: Literal[
        "auto", "densenet", "s2cnn", "fno", "pdnet", "deepcr", "attention", "vgg", "resnet1d", "rocket", "deepsea"
    ] = "auto"


@register
class HandDesigned(Method):
    """The ten, each with its task:

    - `densenet`, DenseNet-BC (Huang et al., CVPR 2017): `cifar100`, with Cutout
    - `s2cnn`, convolutions on the sphere (Cohen et al., ICLR 2018): `spherical`
    - `fno`, a Fourier neural operator (Li et al., ICLR 2021): `darcy_flow`
    - `pdnet`, PDNET (Adhikari, Scientific Reports 2020): `psicov`
    - `deepcr`, deepCR (Zhang and Bloom, ApJ 2020): `cosmic`
    - `attention`, an attention network for muscle signals (Josephs et al., ML4H 2020): `ninapro`
    - `vgg`, the VGG-like network of FSD50K's paper (Fonseca et al., 2022): `fsd50k`
    - `resnet1d`, a residual network for ECG (Hong et al., 2020): `ecg`
    - `rocket`, random convolutional kernels (Dempster et al., DMKD 2020): `satellite`
    - `deepsea`, DeepSEA (Zhou and Troyanskaya, Nature Methods 2015): `deepsea`

    All weights are new: `optimizer.new_lr` is their learning rate. The settings of the encoder are not used.
    """

    name = "hand_designed"
    description = "the network that experts designed for a task of NAS-Bench-360, or one of them for data of your own"
    uses_encoder = False
    slides = True
    Options = Options
    # Epochs of the tasks' files were measured with a pretrained encoder.
    defaults: ClassVar = {"epochs": None}

    def suited(self, told: dict[str, Any]) -> dict[str, Any]:
        task, asked = told.get("task", ""), told.get(f"{self.name}.network", "auto")
        name = OF_TASK.get(task) if asked == "auto" else asked
        if name is None:
            return self.defaults
        network = NETWORKS[name]
        settings = self.defaults | PLAIN | network.settings | (network.own if network.task == task else {})
        if told.get("select") == "last":  # with which there is no patience
            settings.pop("patience", None)
        return settings

    def build(self, task, config) -> Model:
        from crossmodal.models import hand_designed as models
        from crossmodal.models.convolutions import has_batch_norm
        from crossmodal.training import sharding

        name = chosen(task, config)
        if name == "rocket":
            return rocket.RandomKernels().build(task, replace(config, options=rocket.Options()))
        shape, outputs = task.input_shape, task.num_outputs
        if name == "fno":
            from crossmodal.models.fno import FNO

            # 9 cells of zeros on one side, in the paper; the medium of Darcy flow brings its coordinates.
            own = task.name == NETWORKS["fno"].task
            return FNO(shape, outputs, modes=12, width=32, layers=4, padding=5, positions=not own)
        network = {
            "densenet": models.DenseNet,
            "pdnet": partial(models.PDNet, distances=task.name == NETWORKS["pdnet"].task),
            "s2cnn": models.S2CNN,
            "deepcr": models.DeepCR,
            "attention": models.AttentionNetwork,
            "vgg": models.VGG,
            "resnet1d": models.ResNet1D,
            "deepsea": models.DeepSEA,
        }[name]
        model = network(shape, outputs)
        if sharding.started() > 1 and has_batch_norm(model):
            raise UserError(
                f"{self.name}.network: {name} has batch norm, which sees the samples of its own process only; train it with one"
            )
        return model

    def objective(self, task, model, config) -> Any:
        from crossmodal.methods._hand_designed_objective import Sparse
        from crossmodal.methods._windows import Windows

        special = {"pdnet": Windows, "deepsea": Sparse}.get(chosen(task, config))
        return super().objective(task, model, config) if special is None else special(task)

    def fit(self, run) -> Model:
        name = chosen(run.task, run.config)
        run.accelerator.print(f"network: {name}")
        return rocket.RandomKernels().fit(run) if name == "rocket" else run.train(run.model, run.objective)


def chosen(task, config) -> str:
    """The network of a run.

    Raises:
        UserError: the one that was asked for is for other data.
    """
    asked = config.options.network
    if asked == "auto":
        return OF_TASK.get(task.name) or _by_kind(task)
    network = NETWORKS[asked]
    if task.kind not in network.kinds or task.ndim not in network.ndim:
        can = [name for name, one in NETWORKS.items() if task.kind in one.kinds and task.ndim in one.ndim]
        raise UserError(
            f"hand_designed.network: {asked} is for {' and '.join(f'{n}-D' for n in network.ndim)} data with targets of kind "
            f"{', '.join(network.kinds)}; for {task.title} ({task.ndim}-D, {task.kind}) take {', '.join(can)}"
        )
    return asked


def _by_kind(task) -> str:
    if task.kind == "dense":
        masks = task.loss == "bce_with_logits"
        return "deepcr" if masks and task.ndim == 2 else "fno"
    if task.ndim == 1:
        long = "deepsea" if task.kind == "multilabel" else "resnet1d"
        return long if task.input_shape[-1] >= LONG else "rocket"
    return "vgg" if task.kind == "multilabel" and min(task.input_shape[1:]) >= WIDE else "densenet"
