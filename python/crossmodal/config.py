"""What a run is made of: typed settings, read from defaults, a task's file, a user's file and the command line.

Later sources win: the defaults below, then `configs/<task>.yaml`, then what suits an image encoder (`IMAGE_ENCODERS`), then
`--config FILE`, then the command line (`--optimizer.lr 3e-4`). Every key is known and typed; a wrong one is an error that names it.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import sys
import warnings
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentParser, Namespace

from crossmodal.methods import METHODS
from crossmodal.naming import nearest_key, unknown
from pare_kernels import ReplaceSchedule
from pare_kernels._checks import PAIRINGS, REPLACE, SELECTIONS, check_options, check_word
from pare_kernels.schedule import KINDS as SCHEDULES

TASK_CONFIGS = Path(__file__).parent / "configs"

# Defaults and the files of the tasks were measured with a text encoder. Image encoders cut patches of their own size, and
# unlearn what they know at the learning rate of a text encoder; at a lower one small sets need more epochs.
LEAST_EPOCHS, LEAST_STEPS = 30, 500  # where `epochs` is null
IMAGE_ENCODERS = {"epochs": None, "model.layers": None, "model.patch_size": None, "optimizer.lr": 3e-5}


class ConfigError(ValueError):
    """A setting that is unknown, of the wrong type, out of range, or impossible beside another one."""


def _require(condition: bool, key: str, value: Any, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{key}: expected {expected}, got {value!r}")


def _fraction(key: str, value: float) -> None:
    _require(0.0 <= value <= 1.0, key, value, "a number from 0 to 1")


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
        _require(
            0.0 < self.validation_fraction < 1.0,
            "split.validation_fraction",
            self.validation_fraction,
            "0 < fraction < 1",
        )
        _require(
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
            _require(value is None or value > 0, f"model.{key}", value, "a positive number or null")
        _require(0.0 <= self.dropout < 1.0, "model.dropout", self.dropout, "0 <= dropout < 1")


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
        _require(self.limit is None or self.limit > 0, "source.limit", self.limit, "a positive number or null")


@dataclass
class MixingConfig:
    """Patch replacement: how many patches, which, and what the mixed samples weigh.

    Args:
        schedule: shape of k over the epochs.
        start: k at the first epoch; an int counts patches, a float is a fraction of them.
        end: k towards the last epoch.
        steps: stretches of constant k, for `piecewise`.
        selection: noisy gate scores, plain gate scores, or noise alone.
        gumbel_epochs: with `gumbel`, epochs of noisy selection before plain top-k (null: 5 for 1-D inputs, 10 for 2-D).
        tau: temperature of the relaxation behind the gate's gradient.
        noise_scale: factor on the Gumbel noise.
        exact_steps: steps of the relaxation taken one by one, the rest in closed form (null: all of them).
        straight_through: whether the choice has a gradient (null: with `gumbel` only).
        replace: whether the target patches with the lowest or the highest scores give way.
        pairing: how source patches meet free slots.
        weight: factor on the whole loss of the mixed samples.
    """

    schedule: Literal[SCHEDULES] = "linear"
    start: int | float = 1.0
    end: int | float = 0.0
    steps: int = 4
    selection: Literal[SELECTIONS] = "gumbel"
    gumbel_epochs: int | None = None
    tau: float = 0.9
    noise_scale: float = 1.0
    exact_steps: int | None = 8
    straight_through: bool | None = None
    replace: Literal[REPLACE] = "lowest"
    pairing: Literal[PAIRINGS] = "position"
    weight: float = 1.0

    def __post_init__(self) -> None:
        _require(
            self.gumbel_epochs is None or self.gumbel_epochs >= 0,
            "mixing.gumbel_epochs",
            self.gumbel_epochs,
            "a number >= 0 or null",
        )
        _require(self.weight >= 0, "mixing.weight", self.weight, "a number >= 0")
        try:
            check_word("schedule", self.schedule, SCHEDULES)
            self.replace_schedule()
            check_options(
                self.tau,
                self.noise_scale,
                self.selection,
                self.replace,
                self.pairing,
                self.exact_steps,
                self.straight_through,
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(f"mixing.{error}") from None

    def replace_schedule(self) -> ReplaceSchedule:
        """k over the epochs."""
        return ReplaceSchedule(self.schedule, self.start, self.end, self.steps)


@dataclass
class OptimizerConfig:
    """The optimizer.

    Args:
        name: AdamW (decoupled weight decay), Adam (weight decay as L2) or SGD with momentum.
        lr: peak learning rate of the encoder, with what its embedder copied from the pretrained one (image encoders: 3e-5).
        layer_decay: factor on `lr` from each layer to the one below it (1: all layers learn at `lr`).
        new_lr: peak learning rate of the new parts: heads, gate, what the embedder did not copy.
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
        _require(self.lr >= 0, "optimizer.lr", self.lr, "a number >= 0")
        _require(0.0 < self.layer_decay <= 1.0, "optimizer.layer_decay", self.layer_decay, "0 < factor <= 1")
        _require(self.new_lr >= 0, "optimizer.new_lr", self.new_lr, "a number >= 0")
        _require(all(0.0 <= b < 1.0 for b in self.betas), "optimizer.betas", self.betas, "two numbers, 0 <= beta < 1")
        _require(0.0 <= self.momentum < 1.0, "optimizer.momentum", self.momentum, "0 <= momentum < 1")
        _require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "a number >= 0")
        _require(self.clip >= 0, "optimizer.clip", self.clip, "a number >= 0")


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
        _require(self.gamma > 0, "lr_schedule.gamma", self.gamma, "a positive number")


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
        _require(self.workers >= 0, "loader.workers", self.workers, "a number >= 0")
        _require(self.eval_batch_size > 0, "loader.eval_batch_size", self.eval_batch_size, "a positive number")


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
        _require(self.every_minutes >= 0, "checkpoint.every_minutes", self.every_minutes, "a number >= 0")
        _require(self.every_steps >= 0, "checkpoint.every_steps", self.every_steps, "a number >= 0")


@dataclass
class Config:
    """One training run.

    Args:
        task: what is learned (`--list` names them), or `arrays` with `--data` for data of your own.
        method: how: `pare`, `nft`, `scratch` (`--list` explains).
        encoder: pretrained encoder: a short name, a model hub name, or a local folder.
        seed: of everything random in the run, except which samples it sees: hold-out, `split.train_size` and `source.limit`
            go by `split.seed`.
        epochs: passes over the training samples (null: 30, and of few samples as many as make 500 optimizer steps).
        batch_size: samples per batch, over all processes together: their number does not change the result.
        accumulate: batches per optimizer step.
        data: for `arrays`: file or folder with the data.
        data_dir: where the files of a task lie (null: where the package that brings them put them).
        kind: kind of target (null: inferred, and printed).
        loss: what is minimised; `--list` names them, each with its kinds of target (null: cross_entropy for classification,
            bce_with_logits for multilabel, mse for regression and dense). Dense targets that are masks, from 0 to 1, have
            bce_with_logits.
        metric: what is measured; `--list` names them, each with its kinds of target (null: accuracy for classification, auroc
            for multilabel and masks, rmse for regression, relative_l2 for dense).
        output_dir: folder of the run (null: `runs/<task>-<method>-<seed>`).
        overwrite: delete what a former run left in `output_dir`.
        resume: go on from the last checkpoint in `output_dir`, with the same settings and data.
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
        mixing: patch replacement.
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
    mixing: MixingConfig = field(default_factory=MixingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lr_schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(unknown("method", self.method, METHODS))
        _require(self.epochs is None or self.epochs > 0, "epochs", self.epochs, "a positive number or null")
        for key in ("batch_size", "accumulate", "keep"):
            _require(getattr(self, key) > 0, key, getattr(self, key), "a positive number")
        _require(0 <= self.seed < 2**31, "seed", self.seed, "a number from 0 to 2^31 - 1")
        _require(self.threads is None or self.threads > 0, "threads", self.threads, "a positive number or null")
        if self.resume and self.overwrite:
            raise ConfigError("resume and overwrite: a run is either continued or replaced, set one of the two")
        if self.task == "arrays" and self.data is None:
            raise ConfigError("data: the task 'arrays' needs --data with a .npz or .ts file or a folder of .npy files")

    def epochs_for(self, samples: int) -> int:
        """Epochs of a run that learns from so many samples."""
        steps = math.ceil(samples / (self.batch_size * self.accumulate))
        return self.epochs or max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / steps))

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        return Path(self.output_dir or f"runs/{self.task}-{self.method}-{self.seed}")

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary; tuples become lists, as YAML writes them."""
        return _plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """The inverse of `to_dict`, with the checks of a file read with `--config`; missing keys take their default."""
        parser = _parser()
        try:
            return _build(cls, parser.parse_object(values))
        except argparse.ArgumentError as error:
            raise ConfigError(_explain(str(error), parser)) from None


# Keys that say where and how long a run is kept, not what it computes.
BOOKKEEPING = (
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


def parse(argv: list[str] | None = None, prog: str = "train.py") -> Config:
    """Settings from the command line and the files it names.

    Raises:
        ConfigError: names the key, what it was, what was expected, and the nearest valid name.
        SystemExit: after `--help` and `--print_config`.
    """
    argv = _bare_flags(list(sys.argv[1:] if argv is None else argv))
    for file in _config_files(argv):
        _check_keys(read_mapping(file), file)
        try:
            _parse(_parser(prog), ["--config", file])
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None
    # Task and encoder decide about defaults, so they are looked up first, by the same rules.
    asking = {"-h", "--help"}
    plain = [a for a in argv if a not in asking and not a.startswith("--print_config")]
    first = _parse(_parser(prog), plain)
    parser = _parser(prog, TASK_CONFIGS / f"{first.task}.yaml")
    if asking.isdisjoint(argv):
        from crossmodal import encoders  # imports torch and transformers: help need not wait for them

        if encoders.modality(first.encoder) == "image":
            parser.set_defaults(IMAGE_ENCODERS)
    return _build(Config, _parse(parser, argv))


def load(path: Path | str) -> Config:
    """Settings of a finished or interrupted run, from its `config.yaml`."""
    values = read_mapping(path)
    try:
        return Config.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


class _Loader(yaml.SafeLoader):
    """Plain YAML, in which a key given twice is an error: the one that is read may not be the one that is meant."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_mapping(path: Path | str) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        ConfigError: it is none; names the file, and the line where there is one.
        OSError: it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        raise ConfigError(f"{path}: expected a YAML file, got a folder")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from None
    _require(isinstance(values, dict), str(path), type(values).__name__, "a mapping of settings")
    return values


def _parser(prog: str = "train.py", defaults: Path | None = None) -> ArgumentParser:
    parser = ArgumentParser(
        prog=prog,
        usage="%(prog)s [--list] [--task TASK] [--method METHOD] [--config FILE] [--KEY VALUE ...]",
        description="Fine-tune a pretrained encoder on a modality it never saw. --list names tasks, methods, encoders, "
        "sources, losses and metrics. Defaults are those of the task; a file given with --config goes before them, the "
        "command line before both.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file with settings; keys as below.")
    parser.add_class_arguments(Config)
    if defaults is not None and defaults.is_file():
        parser.set_defaults(flatten(read_mapping(defaults)))
    return parser


def _parse(parser: ArgumentParser, argv: list[str]) -> Namespace:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return parser.parse_args(argv)
        except argparse.ArgumentError as error:
            raise ConfigError(_explain(str(error), parser)) from None


def _check_keys(values: dict[str, Any], file: str) -> None:
    known = flatten(_plain(dataclasses.asdict(Config())))
    groups = {key.partition(".")[0] for key in known if "." in key}
    for key in flatten(values):
        if key not in known and key not in groups and not any(key.startswith(f"{name}.") for name in known):
            raise ConfigError(f"{file}: unknown key {key!r}{nearest_key(key, known)}")


def _config_files(argv: list[str]) -> list[str]:
    """What follows `--config`."""
    pairs = pairwise([*argv, ""])
    named = [a.partition("=")[2] if "=" in a else b for a, b in pairs if a == "--config" or a.startswith("--config=")]
    for name in named:
        if not Path(name).exists():
            raise ConfigError(f"config: no such file: {name}")
    return named


def _explain(message: str, parser: ArgumentParser) -> str:
    """One line in this program's words, with the nearest valid key for each that is not known."""
    message = " ".join(message.split())
    wrong_type = re.search(r'Parser key "([\w.]+)": (.*)', message)
    if wrong_type:
        key, rest = wrong_type.groups()
        value = re.search(r"(?:Given value|Got value): (.*)$", rest)
        kinds = re.findall(
            r"Literal\[(.*?)\]|<class '(\w+)'>|(tuple with \d+ elements)", rest.partition("Given value")[0]
        )
        names = dict.fromkeys(
            "null" if "NoneType" in kind else "a list in brackets, like [0.5,0.9]" if "tuple" in kind else kind
            for parts in kinds
            for kind in parts
            if kind
        )
        if value and names:
            return f"{key}: expected {' or '.join(names).replace(chr(39), '')}, got {value[1]!r}"
    keys = list(flatten(parser.get_defaults().as_dict()))
    wrong = re.findall(r"unrecognized arguments: --?([\w.]+)", message)
    group = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message)
    if group:
        wrong.append(".".join(group.groups()))
    wrong += re.findall(r"(?:Key|Option) '([\w.]+)' is not (?:expected|accepted)", message)
    return message + "".join(nearest_key(name, keys) for name in wrong)


def _bare_flags(argv: list[str]) -> list[str]:
    """`--compile` alone means `--compile true`."""
    switches = {f"--{name}" for name, kind in _switches(Config).items() if kind}
    out: list[str] = []
    for here, following in pairwise([*argv, "--"]):
        out.append(f"{here}=true" if here in switches and following.startswith("-") else here)
    return out


def _switches(cls: type, prefix: str = "") -> dict[str, bool]:
    names = {}
    for item in dataclasses.fields(cls):
        if dataclasses.is_dataclass(item.default_factory):
            names.update(_switches(item.default_factory, f"{prefix}{item.name}."))
        else:
            names[prefix + item.name] = isinstance(item.default, bool)
    return names


def _build(cls: type, values: Namespace, prefix: str = "") -> Any:
    arguments = {}
    for item in dataclasses.fields(cls):
        value, key = values[item.name], f"{prefix}{item.name}"
        if dataclasses.is_dataclass(item.default_factory):
            _require(isinstance(value, Namespace), key, value, "a mapping of settings")
            value = _build(item.default_factory, value, f"{key}.")
        elif value is None:
            _require(item.default is None, key, value, "a value")
        elif isinstance(value, float):
            _require(math.isfinite(value), key, value, "a finite number")
        arguments[item.name] = value
    return cls(**arguments)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
