"""What a run is made of: typed settings. How they are read is in `crossmodal.parsing`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from crossmodal.errors import UserError
from crossmodal.kinds import Kind
from crossmodal.naming import title
from crossmodal.values import (
    BelowOne,
    Count,
    Factor,
    Fraction,
    NotNegative,
    Positive,
    Range,
    Seed,
    Share,
    Whole,
    settle,
)

# Defaults and the files of the tasks were measured with a text encoder. Image encoders cut patches of their own size, and
# where they are pretrained unlearn what they know at the learning rate of a text encoder.
LEAST_EPOCHS, LEAST_STEPS = 30, 500  # where `epochs` is null
FEWEST_EPOCHS = 5  # of a length in steps: k falls from epoch to epoch, and the best epoch is kept
IMAGE_ENCODERS = {"epochs": None, "model.layers": None, "model.patch_size": None}
PRETRAINED_IMAGE_ENCODERS = IMAGE_ENCODERS | {"optimizer.lr": 1e-5, "optimizer.layer_decay": 0.65}


def require(condition: bool, key: str, value: Any, expected: str) -> None:
    """Raises UserError, with key, value and expectation, unless the condition holds."""
    if not condition:
        raise UserError(f"{key}: expected {expected}, got {value!r}")


@dataclass
class SplitConfig:
    """Which samples are learned from. Where they belong to groups, no choice divides a group.

    Args:
        test_fraction: part of the samples that becomes the test part of data that bring none.
        validation_fraction: part of the training samples held out to choose the epoch; not used where the data bring a
            validation split of their own.
        folds: test on each of so many parts of all samples in turn (cross-validation), each by a run of its own, in `fold-1`,
            `fold-2`, ... of the run's folder (null: on one test part).
        repeats: divide into folds so many times, each time anew.
        fold: do this fold alone, as an ordinary run (null: all; 0: the model of all samples alone).
        final: then learn from all samples once more, without a test part, for the epochs that were best in the runs before; this
            model is in `final` of the run's folder, and predicts.
        divide_groups: let parts share groups: figures then say nothing about new groups, which is warned of.
        seed: seed of all these choices, of `split.train_size`, `split.test_limit` and `source.limit`; kept apart from the run's
            seed, so that runs differ in training alone.
        train_size: learn from a subset of this many samples (drawn with `split.seed`) instead of all; of samples in groups from
            whole groups with about so many.
        test_limit: test on at most so many samples (drawn with `split.seed`; null: all, for pinn 10).
    """

    test_fraction: Share = 0.2
    validation_fraction: Share = 0.2
    folds: Annotated[int, Range(">= 2", lambda value: value >= 2)] | None = None
    repeats: Count = 1
    fold: Whole | None = None
    final: bool = False
    divide_groups: bool = False
    seed: Whole = 0
    train_size: Count | None = None
    test_limit: Count | None = None

    @property
    def runs(self) -> int:
        """How many runs test."""
        return (self.folds or 1) * self.repeats

    def check(self) -> None:
        """Raises UserError where settings stand against one another."""
        if self.folds is None and self.repeats > 1:
            raise UserError(f"split.repeats: expected split.folds as well, got {self.repeats} repeats of no folds")
        if self.fold == 0:
            require(self.final, "split.final", self.final, "true, as split.fold is 0")
            return
        if self.fold is not None and self.folds is None:
            raise UserError(f"split.fold: expected split.folds as well, got fold {self.fold}")
        if self.fold is not None:
            require(self.fold <= self.runs, "split.fold", self.fold, f"at most {self.runs}, folds times repeats")


@dataclass
class ModelConfig:
    """How the pretrained encoder is used.

    Args:
        layers: keep the first so many transformer layers (null: all); `auto` keeps those after which a linear model of the frozen
            features has the least validation loss.
        patch_size: samples (1-D) or pixels (2-D) per token (null: the encoder's own choice for the input).
        image_size: side of the square an image encoder works at (null: its own; for series what gives 64 patches, where it has
            one scale: 112 for dinov2-small).
        series: what an image encoder sees of a series: its pieces as rows, or its spectrogram (null: pieces).
        channels: what the channels of a series become for an image encoder: images of their own, whose features are joined, or
            the colours of one image (null: images).
        class_token: the class token's feature is given to the head beside the mean of the patches' (to dense heads beside that of
            each patch); for encoders with such a token, ViT and DINOv2.
        probe: the head starts as a linear model of the frozen features (logistic or ridge regression) instead of at random, and
            learns at `optimizer.lr` (null: of pretrained image encoders); not for dense targets.
        dense_head: how features become a dense output: `linear`, each patch of its own token, as in the paper; or `upsampling`, a
            decoder of convolutions that is learned from scratch, without seams between patches.
        freeze: what of the pretrained layers does not learn: `queries_keys`, the projections to queries and keys (null: nothing).
        dropout: dropout inside the encoder.
        activation_checkpointing: recompute activations in the backward pass; less memory, about a third more time.
    """

    layers: Count | Literal["auto"] | None = None
    patch_size: Count | None = None
    image_size: Count | None = None
    series: Literal["pieces", "spectrogram"] | None = None
    channels: Literal["images", "colours"] | None = None
    class_token: bool = False
    probe: bool | None = None
    dense_head: Literal["linear", "upsampling"] = "linear"
    freeze: Literal["queries_keys"] | None = None
    dropout: BelowOne = 0.0
    activation_checkpointing: bool = False


@dataclass
class SourceConfig:
    """Labelled data of the pretraining modality, from which source patches come.

    Args:
        name: a built-in source, or a path: CSV or TSV with text and label, or a folder with one folder of images per
            class, `cifar-10-batches-py`, `tiny-imagenet-200` or PASCAL's `VOC2012` (images with masks) as they are published, or
            `text_xs.npy` with features of texts (null: the encoder's default, `scipy_docs` for text and `photographs` for
            images).
        limit: at most so many samples per class, drawn with `split.seed` (null: at most 5000 in all, in which the classes
            keep their shares).
    """

    name: str | None = None
    limit: Count | None = None


@dataclass
class TableConfig:
    """What the columns are of a table of your own (.csv, .tsv, .parquet), or of the table `index` in a folder of files.

    Args:
        target: what is to be predicted, one column or several separated by commas (null: of an index the only column that is
            left over).
        group: the patient, subject or site of each row, which no split divides (null: of an index `group`, where there is one).
        split: the part of each row: train, validation or test (null: of an index `split`, where there is one).
        ignore: columns, separated by commas, that are not learned from; of recordings channels, too.
        missing: empty cells of numbers become the median of the training samples; `indicator` adds a column that says where
            they were (null: no such column).
    """

    target: str | None = None
    group: str | None = None
    split: str | None = None
    ignore: str | None = None
    missing: Literal["indicator"] | None = None


@dataclass
class RecordingsConfig:
    """How samples are made of a folder of recordings (.csv, .npy, .wav, .edf, .hea).

    Args:
        window: length of a sample, in seconds (`2s`) or values (`400`) (null: a recording is one sample).
        hop: from the start of one window to that of the next, likewise (null: the window, so that none overlap).
        rate: values per second of recordings that do not say (null: they have none, and windows are counted in values).
        resample: values per second that all recordings are brought to (null: they must have one rate).
        labels: column of the recordings (.csv), or `annotations` (.edf, .hea), with a label for each moment, instead of one
            for each file.
        rule: label of a window: that of most of its values, of its last value, or any that occurs in it (several labels, or
            of zeros and ones whether there is a one) (null: majority, of real numbers last).
    """

    window: str | None = None
    hop: str | None = None
    rate: Positive | None = None
    resample: Positive | None = None
    labels: str | None = None
    rule: Literal["majority", "last", "any"] | None = None


@dataclass
class ImagesConfig:
    """How samples are made of a folder of images.

    Args:
        size: common size in pixels, a side or [height,width], to which images are resized (null: they must have one size).
        colour: channels of a sample (null: grey where all images are).
    """

    size: Count | tuple[Count, Count] | None = None
    colour: Literal["grey", "rgb"] | None = None


@dataclass
class OptimizerConfig:
    """The optimizer.

    Args:
        name: AdamW (decoupled weight decay), Adam (weight decay as L2), SGD with momentum, RMSprop, or Ranger
            (RAdam whose weights every sixth step go half the way from where they were six steps before).
        lr: peak learning rate of the encoder, with an embedder that is a copy of the pretrained one (pretrained image encoders:
            1e-5).
        layer_decay: factor on `lr` from each layer to the one below it (1: all layers learn at `lr`; pretrained image encoders:
            0.65).
        new_lr: peak learning rate of the new parts: heads that start at random, gate, an embedder that is no copy.
        betas: decay rates of Adam's moments; of RMSprop the second.
        momentum: of SGD.
        nesterov: SGD looks ahead by its momentum (Nesterov).
        weight_decay: weight decay.
        clip: greatest norm of the gradient, over all parameters (0: no clipping).
        average: last part of the run over whose steps the weights are averaged; from there on their mean is what is validated
            and kept (0: none).
        fused: one fused kernel for the update, where the optimizer has one.
    """

    name: Literal["adamw", "adam", "sgd", "rmsprop", "ranger"] = "adamw"
    lr: NotNegative = 1e-4
    layer_decay: Factor = 1.0
    new_lr: NotNegative = 1e-3
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.98)
    momentum: BelowOne = 0.9
    nesterov: bool = False
    weight_decay: NotNegative = 0.01
    clip: NotNegative = 1.0
    average: Fraction = 0.0
    fused: bool = True


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
    warmup: Fraction = 0.1
    floor: Fraction = 0.0
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    gamma: Positive = 0.1


@dataclass
class LoaderConfig:
    """How samples reach the model.

    Args:
        workers: processes that prepare batches (0: the training process itself).
        pin_memory: page-locked batches, copied to a GPU while it computes; without effect on a CPU.
        eval_batch_size: samples per batch where nothing is learned.
    """

    workers: Whole = 0
    pin_memory: bool = True
    eval_batch_size: Count = 256


@dataclass
class CheckpointConfig:
    """When a run is saved, beside the end of training and an interruption.

    Args:
        every_minutes: longest time between checkpoints; the first is made at the end of the first epoch, and where they cost
            little time (a hundredth at most) they are made more often (0: none by time).
        every_steps: optimizer steps between checkpoints (0: none by steps).
    """

    every_minutes: NotNegative = 10.0
    every_steps: Whole = 0


@dataclass
class Config:
    """One training run.

    Args:
        task: what is learned (`--list` names them), or `arrays` with `--data` for data of your own.
        method: how (`--list` explains); some methods have settings of their own, as `--METHOD.KEY`.
        encoder: pretrained encoder: a short name, a model hub name, or a local folder.
        seed: of everything random in the run, except which samples it sees: hold-out, `split.train_size`,
            `split.test_limit` and `source.limit` go by `split.seed`.
        epochs: passes over the training samples, over all of which k and the learning rate are scheduled (null: 30, and of few
            samples as many as make 500 optimizer steps).
        steps: optimizer steps as the length of the run, instead of `epochs`; the last epoch is made whole, or, where they are
            fewer than five passes over the training samples, five epochs share them.
        batch_size: samples per batch, over all processes together: their number does not change the result.
        accumulate: batches per optimizer step.
        data: for `arrays`: file or folder with the data; without `task` it means `arrays`.
        data_dir: where the files of a task lie (null: where the package that brings them put them).
        kind: kind of target (null: inferred, and printed).
        loss: what is minimised; `--list` names them, each with its kinds of target (null: cross_entropy for classification,
            bce_with_logits for multilabel, mse for regression and dense). Dense targets that are masks, from 0 to 1, have
            bce_with_logits.
        class_weights: of each class in the loss of training: `balanced` (the rarer, the more), or a number for each class, or for
            each label where it is there, separated by commas (null: all weigh the same). Not used by what is fitted in closed
            form or without a loss: linear, knn, rocket, linear_probe, mean.
        sampler: `balanced` draws the training samples of each epoch so that every class comes equally often, the samples of rare
            classes several times; for classification (null: each sample once). Not used where `class_weights` are not.
        thresholds: probability above which a label, or the second of two classes, is predicted: a number for each, separated by
            commas, or what is best on the validation part by `f1` of the label (the usual choice) or `balanced_accuracy`, chosen
            when training is done (null: 1/2).
        metric: what is measured, one or several separated by commas, of which the first chooses the epoch; `--list` names them,
            each with its kinds of target (null: first accuracy for classification, auroc for multilabel and masks, rmse for
            regression, relative_l2 for dense). With groups, NAME_per_group, NAME_of_groups, NAME_of_group_logits and
            NAME_of_group_votes too; NAME_per_1024 averages the figures of so many samples at a time.
        protocol: how a task is evaluated that has several ways (null: its usual one).
        augment: changes of training samples, drawn anew in every epoch: `flip` (images), `shift` and `crop` (what
            is uncovered repeats the edge, or is zero), `cutout` (a piece becomes zero), `noise`, `spec_augment` (spectrograms:
            bands and frames are blotted out), and those that a task brings, separated by commas.
        check_only: print what was understood of the data, and end: nothing is learned or written.
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
        pictures: what is drawn of the run: `png` for the report, and `pdf` or `svg` beside it for a paper (null: nothing).
        verdict: compare the test figure, at the end, with what needs no learning and what needs no transformer, fitted in
            seconds on the same samples (of many or large ones on a part of them).
        patience: end training after so many epochs in a row of which `select` keeps none (null: go on to the last).
        on_nan: when the loss or its gradient is not finite: stop, or skip that step and go on.
        track: experiment trackers, by the names accelerate knows (tensorboard, wandb, mlflow, ...), separated by
            commas; `metrics.jsonl` is always written.
        split: which samples are learned from.
        table: columns of your own table or index.
        recordings: samples out of your own recordings.
        images: samples out of your own images.
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
    seed: Seed = 0
    epochs: Count | None = None
    steps: Count | None = None
    batch_size: Count = 16
    accumulate: Count = 1
    data: str | None = None
    data_dir: str | None = None
    kind: Kind | None = None
    loss: str | None = None
    class_weights: str | None = None
    sampler: Literal["balanced"] | None = None
    thresholds: str | None = None
    metric: str | None = None
    protocol: str | None = None
    augment: str | None = None
    check_only: bool = False
    output_dir: str | None = None
    overwrite: bool = False
    resume: bool = False
    keep: Count = 2
    precision: Literal["no", "bf16", "fp16"] = "no"
    compile: bool = False
    device: Literal["auto", "cpu"] = "auto"
    shard: bool = False
    threads: Count | None = None
    select: Literal["metric", "loss", "within_error", "last"] = "metric"
    pictures: Literal["png", "pdf", "svg"] | None = "png"
    verdict: bool = True
    patience: Count | None = None
    on_nan: Literal["stop", "skip"] = "stop"
    track: str | None = None
    split: SplitConfig = field(default_factory=SplitConfig)
    table: TableConfig = field(default_factory=TableConfig)
    recordings: RecordingsConfig = field(default_factory=RecordingsConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lr_schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    options: Any = None  # of the method, a dataclass; in files under the method's name

    def __post_init__(self) -> None:
        settle(self)
        for item in dataclasses.fields(self):
            if dataclasses.is_dataclass(section := getattr(self, item.name)):
                settle(section, f"{self.method if item.name == 'options' else item.name}.")
        self.split.check()
        if self.epochs is not None and self.steps is not None:
            raise UserError("epochs and steps: either is the length of the run, set one of the two")
        if self.patience is not None and self.select == "last":
            raise UserError("patience: select 'last' keeps every epoch; choose another rule, or leave patience out")
        if self.sampler is not None and self.class_weights == "balanced":
            raise UserError("sampler and class_weights: either balances the classes, set one of the two")
        for key in ("metric", "augment"):
            names = (getattr(self, key) or "").split(",")
            require(len(set(names)) == len(names), key, getattr(self, key), "each name once")
        if self.resume and self.overwrite:
            raise UserError("resume and overwrite: a run is either continued or replaced, set one of the two")

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        return run_dir(self.task, self.method, self.seed, self.output_dir)

    @property
    def title(self) -> str:
        """What titles call what is learned."""
        return title(self.task, self.data)

    def length_for(self, samples: int) -> tuple[int, int | None]:
        """Epochs of a run that learns from so many samples, and after how many optimizer steps each ends (None: when all samples
        were seen)."""
        steps = math.ceil(samples / (self.batch_size * self.accumulate))
        if self.steps is None:
            return self.epochs or max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / steps)), None
        whole, fewest = math.ceil(self.steps / steps), min(FEWEST_EPOCHS, self.steps)
        return (whole, None) if whole >= fewest else (fewest, round(self.steps / fewest))

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


# Keys that say where a run and its data lie, how long it is kept and what is said of it, not what it computes; hashes tell
# whether data are the same.
BOOKKEEPING = (
    "data",
    "data_dir",
    "check_only",
    "output_dir",
    "overwrite",
    "resume",
    "keep",
    "track",
    "threads",
    "verdict",
    "pictures",
    "checkpoint.every_minutes",
    "checkpoint.every_steps",
)


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys, dotted, in which two runs' settings differ in what they compute (see `BOOKKEEPING` for the rest)."""
    a, b = flatten(one), flatten(other)
    keys = [key for key in {**a, **b} if key not in BOOKKEEPING]
    return {key: (a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)}


def changes(stored: dict[str, Any], config: Config) -> dict[str, tuple[Any, Any]]:
    """The same for a stored run and one to be done. What the stored one lacks, made before there was such a setting, had
    its default."""
    usual = Config(method=config.method, options=type(config.options)())
    return differences(flatten(usual.to_dict()) | flatten(stored), config.to_dict())


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
