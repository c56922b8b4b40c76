"""A finished run as something that predicts."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from crossmodal import (
    methods,  # noqa: F401 - a method's file may hold its model
    parsers,
)
from crossmodal.data.normalizer import Normalizer
from crossmodal.data.numeric import require_finite
from crossmodal.data.readers import read_samples
from crossmodal.errors import UserError
from crossmodal.files import replacing
from crossmodal.kinds import LABEL_KINDS
from crossmodal.models import base
from crossmodal.naming import counted
from crossmodal.scoring import protocols, thresholds
from crossmodal.tasks import own
from crossmodal.training.folder import RunFolder

# What predictions and figures are made with, of all that results.json holds.
NEEDED = (
    "kind",
    "class_names",
    "class_values",
    "validation",
    "test",
    "fingerprint",
    "directory",
    "precision",
    "processes",
)


class Prediction(NamedTuple):
    """What a run says about samples, on the CPU.

    predictions: classes: (n,), as they were called in the data of the run: whole numbers as int64, strings as a numpy array
    of str; labels: bool (n, K); values, dense: float64 (n, ...) in the data's own units (for a run with
    `loss: bce_with_logits`: values from 0 to 1).
    probabilities: classes and labels: float32 (n, K); else None.
    """

    predictions: Tensor | np.ndarray
    probabilities: Tensor | None


class Predictor(nn.Module):
    """A trained model with its normaliser: raw data in, predictions in the data's own labels or units out.

    Attributes:
        results: what `results.json` of the run holds.
        class_names: names of classes or labels, in order; empty where there are none.
        class_values: what each class was called in the data, whole numbers or strings, in the same order; empty where there
            are no classes.
        kind: kind of target.
        steps: of a roll-out, by which the run was evaluated; 0 where it was none.
        thresholds: of each label's probability, or that of the second of two classes, above which it is predicted; empty: 1/2.
    """

    def __init__(self, model: base.Model, normalizer: Normalizer, results: dict) -> None:
        super().__init__()
        self.model = model
        self.normalizer = normalizer
        self.results = results
        self.kind: str = results["kind"]
        self.class_names: tuple[str, ...] = tuple(results["class_names"])
        self.class_values: tuple[int | str, ...] = tuple(results["class_values"])
        self.steps: int = results.get("rollout_steps", 0)
        self.thresholds: tuple[float, ...] = tuple(results.get("thresholds", ()))
        self.target_names: tuple[str, ...] = tuple(results.get("target_names", ()))
        self._reading: dict = results.get("reading", {})
        self.gives_every_frame = model.gives_every_frame
        self._dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(results["precision"])
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the model, as in training: x (B, C, L) or (B, C, H, W), normalised, to logits or normalised values.

        In the precision of the run, float32 comes out.
        """
        with torch.autocast(x.device.type, self._dtype, enabled=self._dtype is not None):
            return self.model(x).float()

    @torch.no_grad()
    def outputs(self, x: Tensor, batch_size: int = 256, steps: int = 0) -> Tensor:
        """Outputs (n, ...) for normalised samples (n, C, ...) in batches, on the CPU; of a roll-out as `protocols.predict`."""
        self.eval()
        device = next(self.parameters()).device
        return torch.cat(
            [protocols.predict(self, part.to(device), steps, self.normalizer).cpu() for part in x.split(batch_size)]
        )

    def predict(
        self, raw: np.ndarray | Tensor, batch_size: int = 256, name: str = "inputs", steps: int | None = None
    ) -> Prediction:
        """Predictions for raw data, in the units and shapes the run was trained on.

        Args:
            raw: real numbers (n, L) for one channel, (n, C, L) or (n, C, H, W).
            batch_size: samples at a time.
            name: what errors call the data.
            steps: of a roll-out: frames to predict, (n, steps * C, ...) frame by frame (None: as many as the run was evaluated by).

        Raises:
            UserError: the data do not fit the run, or overflow in it; sample and value are named. Or steps of what is no roll-out.
        """
        if steps is not None and not (self.steps and steps > 0):
            raise UserError(f"steps: expected a positive number, and a run that was evaluated by roll-out, got {steps}")
        if steps is not None and self.gives_every_frame and steps != self.steps:
            raise UserError(
                f"steps: this model gives all of its {self.steps} frames at once, got {steps}; leave it out"
            )
        x = self.normalizer.apply_x(self.normalizer.prepare(raw, name))
        require_finite(x.numpy(), f"{name}, normalised")
        outputs = self.outputs(x, batch_size, steps or self.steps)
        require_finite(outputs.numpy(), f"{name}: outputs of the model")
        return self.interpret(outputs)

    def read(
        self, path: Path | str, key: str | None = None, header: bool | None = None
    ) -> np.ndarray | Sequence[np.ndarray]:
        """Samples from a file, for `predict`; prints what was taken for them.

        Args:
            path: a table with the columns of the run's, in any order, a recording, an image, or a folder of these, where the run
                learned from such; else what `crossmodal.data.readers.read_samples` takes.
            key, header: see there.

        Raises:
            UserError: see there; or a column or channel is missing, or holds what training did not meet.
        """
        return self.read_with_places(Path(path), key, header)[0]

    def read_with_places(
        self, path: Path, key: str | None, header: bool | None
    ) -> tuple[np.ndarray | Sequence[np.ndarray], dict[str, list]]:
        """The same, and where each sample is from, see `own.read_new`; nothing where that is the order in the file."""
        suffixes = own.suffixes(self._reading)
        if path.suffix.lower() in suffixes or (suffixes and path.is_dir()):
            samples, places, said = own.read_new(path, self._reading)
            print(*said, sep="\n")
            return samples, places
        shape, any_length = self.normalizer.input_shape, self.normalizer.resample
        samples = read_samples(path, key, shape[-1] if len(shape) == 2 and not any_length else None, header)
        lengths = sorted({one.shape[-1] for one in samples} - {shape[-1]})
        if any_length and lengths:
            shown = f"{lengths[0]} to {lengths[-1]}" if len(lengths) > 1 else str(lengths[0])
            print(f"{path}: samples of length {shown} are resampled to {shape[-1]}")
        return samples, {}

    def interpret(self, outputs: Tensor) -> Prediction:
        """Outputs of the model as predictions."""
        shift = thresholds.shift(self.kind, self.thresholds)
        decided = outputs if shift is None else outputs - shift
        if self.kind == "classification":
            chosen = np.array(self.class_values)[decided.argmax(1).numpy()]
            is_text = chosen.dtype.kind == "U"  # for which there are no tensors
            return Prediction(chosen if is_text else torch.from_numpy(chosen), outputs.softmax(1))
        if self.kind == "multilabel":
            return Prediction(decided > 0, outputs.sigmoid())
        return Prediction(self.normalizer.decode(outputs), None)


class Ensemble(Predictor):
    """The models of several folds as one: the mean of what they predict, probabilities or values. Attributes as of
    :class:`Predictor`; `members` are those of the folds."""

    def __init__(self, members: list[Predictor], results: dict) -> None:
        nn.Module.__init__(self)
        self.members = nn.ModuleList(members)
        self.results = results
        first = members[0]
        self.kind, self.class_names, self.class_values = first.kind, first.class_names, first.class_values
        self.target_names, self._reading = first.target_names, first._reading
        self.steps, self.normalizer = first.steps, first.normalizer
        self.thresholds = tuple(results.get("thresholds", ()))

    def forward(self, x: Tensor) -> Tensor:
        """Not defined: each fold scales samples by its own training part. Take a member, or `predict`."""
        raise UserError(
            "predict: the models of several folds take raw data together; for outputs take one of its members"
        )

    def predict(
        self, raw: np.ndarray | Tensor, batch_size: int = 256, name: str = "inputs", steps: int | None = None
    ) -> Prediction:
        """See :meth:`Predictor.predict`."""
        found = [member.predict(raw, batch_size, name, steps) for member in self.members]
        if self.kind not in LABEL_KINDS:
            return Prediction(torch.stack([one.predictions for one in found]).mean(0), None)
        mean = torch.stack([one.probabilities for one in found]).mean(0)
        logits = mean.log() if self.kind == "classification" else mean.logit()
        return Prediction(self.interpret(logits).predictions, mean)


def load(run: str | Path, device: str | torch.device = "cpu") -> Predictor:
    """The model of a finished run, ready to predict. Needs neither the pretrained checkpoint nor the data.

    Of a run of several folds it is the model that learned from all samples, where `split.final` asked for one, else the mean of the
    folds' models; each has a folder of its own, too.

    Args:
        run: the run's folder.
        device: where the model shall be.

    Raises:
        UserError: the folder holds no finished run, or a file in it is damaged or lacks what a run writes, or no such device.
    """
    folder = RunFolder(run)
    results = folder.read_results()
    missing = [key for key in NEEDED if key not in results]
    if missing:
        raise UserError(f"{folder.results}: lacks {', '.join(missing)}")
    _check_device(device)
    if "folds" in results:
        if results["final"]:
            return load(folder.path / "final", device)
        return Ensemble([load(folder.path / Path(name).name, device) for name in results["folds"]["runs"]], results)
    model = base.load(folder.model, device=device)
    if not folder.normalizer.is_file():
        raise UserError(f"{folder.normalizer}: missing")
    try:
        normalizer = Normalizer.from_state(load_file(folder.normalizer))
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{folder.normalizer} is damaged: {error}") from None
    return Predictor(model, normalizer, results)


def _check_device(name: str | torch.device) -> None:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device: expected a name like cpu or cuda:0, got {name!r}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device: {name} is not there, PyTorch sees {torch.cuda.device_count()} CUDA devices")


def check_output(path: Path, source: Path | None = None) -> None:
    """Whether predictions can be written to `path`, before they are computed.

    Args:
        path: where to.
        source: the file they are made from, which must not be overwritten.

    Raises:
        UserError: another kind of file, or the input itself.
        OSError: no such folder, or a folder stands there.
    """
    if path.suffix.lower() not in (".npz", ".npy", ".csv"):
        raise UserError(f"output: expected a .npz, .npy or .csv file, got {path}")
    if path.is_dir():
        raise UserError(f"output: {path} is a folder")
    if not path.parent.is_dir():
        raise UserError(f"output: no such folder: {path.parent}")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise UserError(f"output: {path} is the input, which would be lost")


def write_prediction(
    path: Path,
    prediction: Prediction,
    class_names: tuple[str, ...],
    class_values: tuple[int | str, ...] = (),
    places: Mapping[str, Sequence] | None = None,
) -> None:
    """Writes predictions, whole.

    .npz: `predictions`, and for classes and labels `probabilities` and `class_names`. .npy: the predictions alone. In both,
    classes are as they were in the data. .csv: a row per sample; classes by name, with the probability of each.
    With `places`, columns that say where each sample is from, .csv begins with these, and .npz has each as `sample_NAME`. One that
    is called as what is predicted gets "(given)" to its name.

    Raises:
        UserError: see `check_output`; or the file cannot be written.
    """
    check_output(path)
    suffix = path.suffix.lower()
    predictions = np.asarray(prediction.predictions)
    probabilities = None if prediction.probabilities is None else prediction.probabilities.numpy()
    with replacing(path) as aside:
        if suffix == ".npy":
            np.save(aside, predictions, allow_pickle=False)
        elif suffix == ".npz":
            arrays = {"predictions": predictions}
            if probabilities is not None:
                arrays |= {"probabilities": probabilities, "class_names": np.array(class_names, dtype=str)}
            np.savez(aside, **arrays, **{f"sample_{name}": np.array(cells) for name, cells in (places or {}).items()})
        else:
            _write_csv(aside, predictions, probabilities, class_names, class_values, places or {})


def _write_csv(
    path: Path,
    predictions: np.ndarray,
    probabilities: np.ndarray | None,
    names: tuple[str, ...],
    values: tuple,
    places: Mapping[str, Sequence],
) -> None:
    flat = predictions.reshape(len(predictions), -1)
    columns = flat.shape[1] if probabilities is None else probabilities.shape[1]
    if len(names) != columns:  # none, or those of channels, of which a field has several values
        names = tuple(map(str, range(columns)))
    if probabilities is None:
        head, rows = [f"value_{name}" for name in names], flat.tolist()
    elif predictions.ndim == 1:
        name = dict(zip(values, names, strict=True))
        head = ["prediction", *(f"probability_{name}" for name in names)]
        rows = [[name[value], *row] for value, row in zip(predictions.tolist(), probabilities.tolist(), strict=True)]
    else:
        head = [*names, *(f"probability_{name}" for name in names)]
        rows = np.concatenate([flat.astype(float), probabilities], axis=1).tolist()
    if places:
        rows = [[*place, *row] for *place, row in zip(*places.values(), rows, strict=True)]
        head = [*(f"{name} (given)" if name in head else name for name in places), *head]
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])


def main(argv: list[str] | None = None) -> None:
    """Command line: see `--help`."""
    parser = parsers.predict()
    arguments = parser.parse_args(argv)
    if arguments.batch_size < 1:
        parser.error(f"argument --batch_size: must be at least 1, got {arguments.batch_size}")
    check_output(arguments.output, arguments.input)
    predictor = load(arguments.run, arguments.device)
    if isinstance(predictor, Ensemble):
        print(f"{arguments.run}: the mean of the models of {len(predictor.members)} folds")
    elif "folds" in RunFolder(arguments.run).read_results():
        print(f"{arguments.run}: the model that learned from all samples (final)")
    names = predictor.class_names or predictor.target_names
    if predictor.thresholds:
        print(f"predicted where the probability is above {thresholds.said(names, predictor.thresholds)}")
    header = None if arguments.header is None else arguments.header == "yes"
    inputs, places = predictor.read_with_places(arguments.input, arguments.key, header)
    prediction = predictor.predict(inputs, arguments.batch_size, str(arguments.input), arguments.steps)
    write_prediction(arguments.output, prediction, names, predictor.class_values, places)
    print(f"{counted(len(prediction.predictions), 'predictions')} in {arguments.output}")
