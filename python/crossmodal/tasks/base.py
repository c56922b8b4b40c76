"""What a task is, and the registry of tasks; how one is made of a loader's arrays is in `assembly`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from crossmodal.data.dataset import ArrayLike, Augmentation, Dataset, Variation
from crossmodal.data.download import Remote, marker, missing
from crossmodal.data.normalizer import Normalizer, Scaling
from crossmodal.data.readers.tables import shown
from crossmodal.errors import UserError
from crossmodal.naming import Registry
from crossmodal.pde.base import SolvedEquation
from crossmodal.scoring.protocols import PROTOCOLS
from crossmodal.settings import ImagesConfig, RecordingsConfig, TableConfig

# kind -> (loss, metrics) where a task names none of its own; the first metric chooses the epoch, all are reported. Dense targets
# with the loss "bce_with_logits" are masks.
DEFAULTS = {
    "classification": ("cross_entropy", ("accuracy", "macro_f1")),
    "multilabel": ("bce_with_logits", ("auroc", "mean_average_precision", "macro_f1")),
    "regression": ("mse", ("rmse", "mae", "r2")),
    "dense": ("mse", ("relative_l2", "rmse")),
    "mask": ("bce_with_logits", ("auroc", "iou", "macro_f1")),
}


@dataclass(frozen=True)
class About:
    """What is known of data beside their numbers.

    Attributes:
        features: names of the channels, or where samples are rows of a table, of its columns.
        units: of each of these, "" where unknown.
        rate: values per second of a series.
        targets: names of what is predicted.
        rows: more lines of the table that is printed before training, by their headings.
        reading: how files of new samples are read, for :mod:`crossmodal.predict`, as JSON takes it.
    """

    features: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    rate: float | None = None
    targets: tuple[str, ...] = ()
    rows: Mapping[str, str] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A data set ready for training.

    Attributes:
        kind: one of :data:`crossmodal.kinds.KINDS`.
        train, validation, test: data sets whose batches hold x: float32, ``(B, C, L)`` or ``(B, C, H, W)``, normalised; y:
            classification int64 ``(B,)``; multilabel float32 zeros and ones ``(B, K)``; regression float32 ``(B, R)``; dense
            float32 ``(B, Cout, L)`` or ``(B, Cout, H, W)``; regression and dense targets normalised; extras: ``group`` int64
            ``(B,)`` where samples belong to groups, ``mask`` bool of the shape of y where some values of dense targets do not
            count.
        class_names: names of the classes or labels in the order of their indices; empty where there are none.
        group_names: names of the groups, by their numbers in ``group``; empty where there are none.
        test_rows: int64, where the test samples lie in the array they are from.
        class_values: classification: the label of each class in the data as they were given, whole numbers or strings.
        loss: name in ``crossmodal.scoring.losses``.
        metrics: names in ``crossmodal.scoring.metrics``; the first chooses the epoch.
        protocol: how it is evaluated, one of ``crossmodal.scoring.protocols.PROTOCOLS``.
        steps: evaluation applies the model so many times to its own output (0: it does not).
        equation: what the fields solve, where that is known.
        level: of dense targets that are not scaled: what a new dense head starts at, in their own units.
        class_weights: of each class or label in the loss of training, see `losses.class_weights`; empty: all weigh the same.
        thresholds: of each label's probability, or that of the second of two classes, above which it is predicted; empty: 1/2.
        normalizer: what was applied to ``x`` (and to ``y``), fitted on the training split alone.
        description: what was read, inferred and done, in words.
        fingerprint: hash of the data as they were read, before any split or normalisation, and of the names and the scaling that
            came with them.
        about: names, units, and how new data are read.
        title: what titles and messages call it, see `naming.title`.
        miniature: whether the data are a small set made here, on which no result stands for the real task.
    """

    name: str
    kind: str
    train: Dataset
    validation: Dataset
    test: Dataset
    input_shape: tuple[int, ...]  # of one sample: (C, L) or (C, H, W)
    output_shape: tuple[int, ...]  # of one prediction: (num_outputs,), or (Cout, L) / (Cout, H, W) for dense tasks
    class_names: tuple[str, ...]
    loss: str
    metrics: tuple[str, ...]
    normalizer: Normalizer
    description: str
    title: str = ""
    fingerprint: str = ""
    class_values: tuple[int | str, ...] = ()
    group_names: tuple[str, ...] = ()
    test_rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    protocol: str = "default"
    steps: int = 0
    miniature: bool = False
    equation: SolvedEquation | None = None
    level: float = 0.0
    about: About = field(default_factory=About)
    class_weights: tuple[float, ...] = ()
    thresholds: tuple[float, ...] = ()

    def without_validation(self) -> Task:
        """The same, but for the validation part, which has no samples."""
        return replace(self, validation=self.validation.subset(np.zeros(0, np.int64)))

    @property
    def metric(self) -> str:
        """The metric that chooses the epoch."""
        return self.metrics[0]

    @property
    def is_table(self) -> bool:
        """Whether the values of a sample are columns of a table that are in no order, as those of a spectrum are, whose names are
        numbers."""
        if self.about.reading.get("form") != "table":
            return False
        try:
            steps = np.diff([float(name) for name in self.about.features])
        except ValueError:
            return True
        return not ((steps > 0).all() or (steps < 0).all())

    @property
    def other_quantity(self) -> str:
        """Why the last values of a sample are no guess at its target, by the names of both; "" where these do not say so."""
        held, asked = self.about.features, self.about.targets
        if self.equation is not None:
            held, asked = self.equation.inputs, self.equation.outputs
        same = not asked or held[-len(asked) :] == asked
        return "" if same else f"samples hold {shown(held)}, targets {shown(asked)}"

    @property
    def num_outputs(self) -> int:
        """Number of classes, labels, regressed values, or output channels (dense)."""
        return self.output_shape[0]

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions: 1 for sequences, 2 for images."""
        return len(self.input_shape) - 1


@dataclass(frozen=True)
class RawTask:
    """What a task's loader returns: arrays in their own units, before any split or normalisation of ours.

    Attributes:
        kind: one of :data:`crossmodal.kinds.KINDS`; None: from ``y_train``, see :func:`crossmodal.tasks.targets.infer_kind`.
        x_train, x_test, x_val: real numbers ``(n, L)``, ``(n, C, L)`` or ``(n, C, H, W)`` of any dtype, finite. Without ``x_val`` a
            share of the training part is set aside; without ``x_test`` too, before that.
        y_train, y_test, y_val: classification whole numbers or strings ``(n,)``, or one-hot rows; multilabel zeros and ones
            ``(n, K)``; regression ``(n,)`` or ``(n, R)``; dense ``(n, Cout, L)`` or ``(n, Cout, H, W)``, in their own units.
        group_train, group_test, group_val: whole numbers or strings ``(n,)``: samples of one recording, patient or clip have the
            same. What is set aside are then whole groups.
        mask_train, mask_test, mask_val: of dense targets: booleans of their shape, False where a value must not count.
        class_names: of classes, which labels name, or count from 0; by default the labels that occur in ``y_train``. Of labels,
            in the order of the columns.
        class_values, group_names: what class and group ``i`` was called in the data; known once the arrays are checked.
        origin: where the data came from, for descriptions and errors.
        notes: sentences for the task's description.
        loss, metrics: by kind (:data:`DEFAULTS`) where not given. With the loss "bce_with_logits" dense targets are masks,
            values from 0 to 1, and are not scaled.
        normalize_x: "channel" (one mean and deviation per channel), "position" (per channel and position: tables,
            fields on one grid) or "none"; or a tuple with one of these, or a mean and a deviation, for each channel.
        normalize_y: the same for dense targets; regression targets are per value in any case unless "none".
        vary: change of raw training samples, drawn anew in every epoch; for inputs that are not in memory.
        augmentations: changes of a normalised sample that this task alone has, by name, for ``--augment``.
        resample: series of another length are welcome in new data and are resampled.
        fill_missing: NaN in new data is interpolated.
        impute: NaN in inputs, here and in new data, becomes the median of the training samples.
        about: names, units, and how new data are read.
        steps, equation, level: see :class:`Task`; with steps, targets of the validation and test part hold so many
            frames, along the channels.
    """

    kind: str | None
    x_train: ArrayLike
    y_train: ArrayLike
    x_test: ArrayLike | None = None
    y_test: ArrayLike | None = None
    x_val: ArrayLike | None = None
    y_val: ArrayLike | None = None
    group_train: np.ndarray | None = None
    group_test: np.ndarray | None = None
    group_val: np.ndarray | None = None
    mask_train: ArrayLike | None = None
    mask_test: ArrayLike | None = None
    mask_val: ArrayLike | None = None
    group_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    class_values: tuple[int | str, ...] = ()
    origin: str = ""
    notes: tuple[str, ...] = ()
    loss: str | None = None
    metrics: tuple[str, ...] = ()
    normalize_x: Scaling = "channel"
    normalize_y: str = "channel"
    vary: Variation | None = None
    augmentations: Mapping[str, Augmentation] = field(default_factory=dict)
    resample: bool = False
    fill_missing: bool = False
    impute: bool = False
    about: About = field(default_factory=About)
    steps: int = 0
    equation: SolvedEquation | None = None
    level: float = 0.0


@dataclass(frozen=True)
class Options:
    """What the caller of :func:`load` asked for, handed to the task's loader.

    Attributes:
        data: the user's own file or folder.
        data_dir: folder of downloaded data sets, searched first.
        kind: one of :data:`crossmodal.kinds.KINDS`, or None to infer it.
        protocol: one of ``crossmodal.scoring.protocols.PROTOCOLS``.
        table, recordings, images: how the user's own files are read.
        copies: whether copies of these may be made that are faster to read.
    """

    data: Path | None = None
    data_dir: Path | None = None
    kind: str | None = None
    protocol: str = "default"
    table: TableConfig = field(default_factory=TableConfig)
    recordings: RecordingsConfig = field(default_factory=RecordingsConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    copies: bool = True


Loader = Callable[[Options], RawTask]


@dataclass(frozen=True)
class Entry:
    """A task as it was registered."""

    loader: Loader
    summary: str
    own_data: bool
    protocols: tuple[str, ...]
    files: tuple[Remote, ...]
    needs_files: bool = True


REGISTRY: Registry[Entry] = Registry("task")
entry = REGISTRY.find


def register(
    name: str,
    summary: str,
    *,
    own_data: bool = False,
    protocols: tuple[str, ...] = ("default",),
    files: tuple[Remote, ...] = (),
    needs_files: bool = True,
) -> Callable[[Loader], Loader]:
    """Decorator that makes a loader known as task ``name``.

    Args:
        summary: one line for ``--list``.
        own_data: the task reads the user's own ``data`` and ``kind``; the others refuse these options.
        protocols: ways in which it can be evaluated, the usual one first.
        files: public files that it reads, below `data_dir`; the loader is called when all of them are there.
        needs_files: False: the loader looks for them itself, and can do without.

    Raises:
        ValueError: the name is taken, or there is no such protocol.
    """
    if not set(protocols) <= set(PROTOCOLS):
        raise ValueError(f"protocols: expected some of {PROTOCOLS}, got {protocols}")

    def decorate(loader: Loader) -> Loader:
        REGISTRY.add(name, Entry(loader, summary, own_data, protocols, files, needs_files))
        return loader

    return decorate


def available() -> dict[str, str]:
    """Every registered task with its one-line description."""
    return {name: entry.summary for name, entry in REGISTRY.items()}


def protocols(name: str) -> tuple[str, ...]:
    """Ways in which a task can be evaluated, the usual one first."""
    return entry(name).protocols


def check_files(name: str, data_dir: Path | None) -> bool:
    """Whether the files of a task are a miniature, after a look at whether they are where its loader looks for them.

    Raises:
        UserError: they are not there; the message says how to get them.
    """
    files = entry(name).files if entry(name).needs_files else ()
    absent = missing(files, data_dir) if data_dir else files
    if absent:
        named = shown([file.path for file in absent], 4)
        where = f"{data_dir} lacks {named}" if data_dir else f"it reads {named} below the folder --data_dir"
        folder = data_dir or "DIR"
        raise UserError(
            f"data_dir: task {name!r} needs public files, and {where}. Fetch them with `python python/train.py --download "
            f"{name} --data_dir {folder}`, or make a small set to try it with: `python python/miniature.py {name} -o {folder}`"
        )
    return bool(files) and marker(name, data_dir).exists()
