"""What a run is made of: typed settings. How they are read is in `crossmodal.parsing`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from crossmodal.errors import UserError

# Defaults and the files of the tasks were measured with a text encoder. Image encoders cut patches of their own size, and
# unlearn what they know at the learning rate of a text encoder; at a lower one small sets need more epochs.
LEAST_EPOCHS, LEAST_STEPS = 30, 500  # where `epochs` is null
IMAGE_ENCODERS = {"epochs": None, "model.layers": None, "model.patch_size": None, "optimizer.lr": 3e-5}


def require(condition: bool, key: str, value: Any, expected: str) -> None:
    """Raises UserError, with key, value and expectation, unless the condition holds."""
    if not condition:
        raise UserError(f"{key}: expected {expected}, got {value!r}")


def _fraction(key: str, value: float) -> None:
    require(0.0 <= value <= 1.0, key, value, "a number from 0 to 1")


@dataclass
class SplitConfig:
    """Which samples are learned from.

    Args:
        validation_fraction: part of the training samples held out to choose the epoch; not used where the data bring a
            validation split of their own.
        seed: seed of that hold-out, of `split.train_size` and of `source.limit`; kept apart from the run's seed, so that runs
            differ in training alone.
        train_size: learn from a subset of this many samples (drawn with `split.seed`) instead of all.
    """

    validation_fraction: float = 0.2
    seed: int = 0
    train_size: int | None = None

    def __post_init__(self) -> None:
        require(self.seed >= 0, "split.seed", self.seed, "a number >= 0")
        require(
            0.0 < self.validation_fraction < 1.0,
            "split.validation_fraction",
            self.validation_fraction,
            "0 < fraction < 1",
        )
        require(
            self.train_size is None or self.train_size > 0, "split.train_size", self.train_size, "a positive number"
        )


@dataclass
class ModelConfig:
    """How the pretrained encoder is used.

    Args:
        layers: keep the first so many transformer layers (null: all).
        patch_size: samples (1-D) or pixels (2-D) per token (null: the encoder's own choice for the input).
        image_size: side of the square an image encoder works at (null: its own).
        dropout: dropout inside the encoder.
        activation_checkpointing: recompute activations in the backward pass; less memory, about a third more time.
    """

    layers: int | None = None
    patch_size: int | None = None
    image_size: int | None = None
    dropout: float = 0.0
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        for key in ("layers", "patch_size", "image_size"):
            value = getattr(self, key)
            require(value is None or value > 0, f"model.{key}", value, "a positive number or null")
        require(0.0 <= self.dropout < 1.0, "model.dropout", self.dropout, "0 <= dropout < 1")


@dataclass
class SourceConfig:
    """Labelled data of the pretraining modality, from which source patches come.

    Args:
        name: a built-in source, or a path: CSV or TSV with text and label, or a folder with one folder of images per
            class (null: the encoder's default, `scipy_docs` for text and `photographs` for images).
        limit: at most so many samples per class, drawn with `split.seed` (null: at most 5000 in all, in which the classes
            keep their shares).
    """

    name: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        require(self.limit is None or self.limit > 0, "source.limit", self.limit, "a positive number or null")


@dataclass
class OptimizerConfig:
    """The optimizer.

    Args:
        name: AdamW (decoupled weight decay), Adam (weight decay as L2) or SGD with momentum.
        lr: peak learning rate of the encoder, with an embedder that is a copy of the pretrained one (image encoders: 3e-5).
        layer_decay: factor on `lr` from each layer to the one below it (1: all layers learn at `lr`).
        new_lr: peak learning rate of the new parts: heads, gate, an embedder that is no copy.
        betas: decay rates of Adam's moments.
        momentum: of SGD.
        weight_decay: weight decay.
        clip: greatest norm of the gradient, over all parameters (0: no clipping).
        fused: one fused kernel for the update, where the optimizer has one.
    """

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 1e-4
    layer_decay: float = 1.0
    new_lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    momentum: float = 0.9
    weight_decay: float = 0.01
    clip: float = 1.0
    fused: bool = True

    def __post_init__(self) -> None:
        require(self.lr >= 0, "optimizer.lr", self.lr, "a number >= 0")
        require(0.0 < self.layer_decay <= 1.0, "optimizer.layer_decay", self.layer_decay, "0 < factor <= 1")
        require(self.new_lr >= 0, "optimizer.new_lr", self.new_lr, "a number >= 0")
        require(all(0.0 <= b < 1.0 for b in self.betas), "optimizer.betas", self.betas, "two numbers, 0 <= beta < 1")
        require(0.0 <= self.momentum < 1.0, "optimizer.momentum", self.momentum, "0 <= momentum < 1")
        require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "a number >= 0")
        require(self.clip >= 0, "optimizer.clip", self.clip, "a number >= 0")


@dataclass
class ScheduleConfig:
    """Learning rate over the optimizer steps.

    Args:
        kind: what follows the warm-up: straight line to `floor`, half a cosine to `floor`, factor `gamma` at each
            milestone, or no change.
        warmup: part of all steps spent rising to the peak.
        floor: last learning rate, as a part of the peak.
        milestones: for `step`: parts of the run at which the rate falls.
        gamma: for `step`: by which factor.
    """

    kind: Literal["linear", "cosine", "step", "constant"] = "linear"
    warmup: float = 0.1
    floor: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _fraction("lr_schedule.warmup", self.warmup)
        _fraction("lr_schedule.floor", self.floor)
        for value in self.milestones:
            _fraction("lr_schedule.milestones", value)
        require(self.gamma > 0, "lr_schedule.gamma", self.gamma, "a positive number")


@dataclass
class LoaderConfig:
    """How samples reach the model.

    Args:
        workers: processes that prepare batches (0: the training process itself).
        pin_memory: page-locked batches, copied to a GPU while it computes; without effect on a CPU.
        eval_batch_size: samples per batch where nothing is learned.
    """

    workers: int = 0
    pin_memory: bool = True
    eval_batch_size: int = 256

    def __post_init__(self) -> None:
        require(self.workers >= 0, "loader.workers", self.workers, "a number >= 0")
        require(self.eval_batch_size > 0, "loader.eval_batch_size", self.eval_batch_size, "a positive number")


@dataclass
class CheckpointConfig:
    """When a run is saved, beside the end of training and an interruption.

    Args:
        every_minutes: longest time between checkpoints; the first is made at the end of the first epoch, and where they cost
            little time (a hundredth at most) they are made more often (0: none by time).
        every_steps: optimizer steps between checkpoints (0: none by steps).
    """

    every_minutes: float = 10.0
    every_steps: int = 0

    def __post_init__(self) -> None:
        require(self.every_minutes >= 0, "checkpoint.every_minutes", self.every_minutes, "a number >= 0")
        require(self.every_steps >= 0, "checkpoint.every_steps", self.every_steps, "a number >= 0")


@dataclass
class Config:
    """One training run.

    Args:
        task: what is learned (`--list` names them), or `arrays` with `--data` for data of your own.
        method: how (`--list` explains); some methods have settings of their own, as `--METHOD.KEY`.
        encoder: pretrained encoder: a short name, a model hub name, or a local folder.
        seed: of everything random in the run, except which samples it sees: hold-out, `split.train_size` and `source.limit`
            go by `split.seed`.
        epochs: passes over the training samples, over all of which k and the learning rate are scheduled (null: 30, and of few
            samples as many as make 500 optimizer steps).
        batch_size: samples per batch, over all processes together: their number does not change the result.
        accumulate: batches per optimizer step.
        data: for `arrays`: file or folder with the data.
        data_dir: where the files of a task lie (null: where the package that brings them put them).
        kind: kind of target (null: inferred, and printed).
        loss: what is minimised; `--list` names them, each with its kinds of target (null: cross_entropy for classification,
            bce_with_logits for multilabel, mse for regression and dense). Dense targets that are masks, from 0 to 1, have
            bce_with_logits.
        metric: what is measured, one or several separated by commas, of which the first chooses the epoch; `--list` names them,
            each with its kinds of target (null: first accuracy for classification, auroc for multilabel and masks, rmse for
            regression, relative_l2 for dense). With groups, NAME_per_group and NAME_of_groups too.
        protocol: how a task is evaluated that has several ways (null: its usual one).
        augment: changes of training samples, drawn anew in every epoch: `flip` (images), `shift`, `noise`, separated by commas.
        output_dir: folder of the run (null: `runs/<task>-<method>-<seed>`).
        overwrite: delete what a former run left in `output_dir`.
        resume: go on from the last checkpoint in `output_dir`, with the same data and settings: those that are not given are
            taken from there. Only `epochs` may grow.
        keep: how many checkpoints stay.
        precision: arithmetic of the forward pass; `fp16` needs a GPU.
        compile: compile the encoder with torch.compile.
        device: `auto` takes a GPU where there is one.
        shard: cut the model into shards over the processes instead of a whole copy in each (FSDP), for encoders too large
            for one GPU.
        threads: CPU threads of this process (null: torch's choice).
        select: which epoch's weights are kept, by the validation split: best metric (by loss in a tie, or where the samples
            are such that it has no value; then the later epoch), lowest loss, the last epoch within one standard error of
            the best (for few validation samples, which cannot rank epochs finely), or the last epoch whatever the split says.
        on_nan: when the loss or its gradient is not finite: stop, or skip that step and go on.
        track: experiment trackers, by the names accelerate knows (tensorboard, wandb, mlflow, ...), separated by
            commas; `metrics.jsonl` is always written.
        split: which samples are learned from.
        model: how the encoder is used.
        source: data of the pretraining modality.
        optimizer: the optimizer.
        lr_schedule: learning rate over the steps.
        loader: how samples reach the model.
        checkpoint: when the run is saved.
    """

    task: str = "italy_power_demand"
    method: str = "pare"
    encoder: str = "minilm"
    seed: int = 0
    epochs: int | None = None
    batch_size: int = 16
    accumulate: int = 1
    data: str | None = None
    data_dir: str | None = None
    kind: Literal["classification", "multilabel", "regression", "dense"] | None = None
    loss: str | None = None
    metric: str | None = None
    protocol: str | None = None
    augment: str | None = None
    output_dir: str | None = None
    overwrite: bool = False
    resume: bool = False
    keep: int = 2
    precision: Literal["no", "bf16", "fp16"] = "no"
    compile: bool = False
    device: Literal["auto", "cpu"] = "auto"
    shard: bool = False
    threads: int | None = None
    select: Literal["metric", "loss", "within_error", "last"] = "metric"
    on_nan: Literal["stop", "skip"] = "stop"
    track: str | None = None
    split: SplitConfig = field(default_factory=SplitConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lr_schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    options: Any = None  # of the method, a dataclass; in files under the method's name

    def __post_init__(self) -> None:
        require(self.epochs is None or self.epochs > 0, "epochs", self.epochs, "a positive number or null")
        for key in ("metric", "augment"):
            names = (getattr(self, key) or "").split(",")
            require(len(set(names)) == len(names), key, getattr(self, key), "each name once")
        for key in ("batch_size", "accumulate", "keep"):
            require(getattr(self, key) > 0, key, getattr(self, key), "a positive number")
        require(0 <= self.seed < 2**31, "seed", self.seed, "a number from 0 to 2^31 - 1")
        require(self.threads is None or self.threads > 0, "threads", self.threads, "a positive number or null")
        if self.resume and self.overwrite:
            raise UserError("resume and overwrite: a run is either continued or replaced, set one of the two")
        if self.task == "arrays" and self.data is None:
            raise UserError("data: the task 'arrays' needs --data with a .npz or .ts file or a folder of .npy files")

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        return run_dir(self.task, self.method, self.seed, self.output_dir)

    def epochs_for(self, samples: int) -> int:
        """Epochs of a run that learns from so many samples."""
        steps = math.ceil(samples / (self.batch_size * self.accumulate))
        return self.epochs or max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / steps))

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary; tuples become lists, as YAML writes them. The method's options are under its name."""
        values = plain(dataclasses.asdict(self))
        options = values.pop("options")
        return values | ({self.method: options} if options else {})

    def changed(self, **groups: dict[str, Any]) -> Config:
        """The same settings with some keys of some groups changed: `changed(optimizer={"new_lr": 1e-2})`."""
        parts = {name: dataclasses.replace(getattr(self, name), **values) for name, values in groups.items() if values}
        return dataclasses.replace(self, **parts)


def run_dir(
    task: str = Config.task, method: str = Config.method, seed: int = Config.seed, output_dir: str | None = None
) -> Path:
    """Where a run with these settings lies."""
    return Path(output_dir or f"runs/{task}-{method}-{seed}")


# Keys that say where a run and its data lie and how long it is kept, not what it computes; hashes tell whether data are the same.
BOOKKEEPING = (
    "data",
    "data_dir",
    "output_dir",
    "overwrite",
    "resume",
    "keep",
    "track",
    "threads",
    "checkpoint.every_minutes",
    "checkpoint.every_steps",
)


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys, dotted, in which two runs' settings differ in what they compute (see `BOOKKEEPING` for the rest)."""
    a, b = flatten(one), flatten(other)
    keys = [key for key in {**a, **b} if key not in BOOKKEEPING]
    return {key: (a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)}


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionary to dotted keys."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def plain(value: Any) -> Any:
    """Nested values with lists for tuples."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value
