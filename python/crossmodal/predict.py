"""A finished run as something that predicts."""

from __future__ import annotations

import argparse
import csv
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from crossmodal.files import replacing
from crossmodal.model import CrossModalModel
from crossmodal.results import RunFolder
from crossmodal.tasks import Normalizer


class Prediction(NamedTuple):
    """What a run says about samples, on the CPU.

    predictions: classes: int64 (n,); labels: bool (n, K); values, dense: float32 (n, ...) in the data's own units.
    probabilities: classes and labels: float32 (n, K); else None.
    """

    predictions: Tensor
    probabilities: Tensor | None


class Predictor(nn.Module):
    """A trained model with its normaliser: raw data in, predictions in the data's own units out.

    Attributes:
        results: what `results.json` of the run holds.
        class_names: names of classes or labels, in order; empty where there are none.
        kind: kind of target.
    """

    def __init__(self, model: CrossModalModel, normalizer: Normalizer, results: dict) -> None:
        super().__init__()
        self.model = model
        self.normalizer = normalizer
        self.results = results
        self.kind: str = results["kind"]
        self.class_names: tuple[str, ...] = tuple(results["class_names"])
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the model, as in training: x (B, C, L) or (B, C, H, W), normalised, to logits or normalised values."""
        return self.model(x).float()

    @torch.no_grad()
    def outputs(self, x: Tensor, batch_size: int = 256) -> Tensor:
        """`forward` in batches, for any number of samples; the result is on the CPU."""
        self.eval()
        device = next(self.parameters()).device
        if len(x) == 0:
            raise ValueError("inputs: no samples")
        return torch.cat([self(part.to(device)).cpu() for part in x.split(batch_size)])

    def predict(self, raw: np.ndarray | Tensor, batch_size: int = 256) -> Prediction:
        """Predictions for raw data, in the units and shapes the run was trained on.

        Args:
            raw: real numbers (n, L) for one channel, (n, C, L) or (n, C, H, W).
            batch_size: samples at a time.

        Raises:
            TypeError, ValueError: the data do not fit the run; sample and value are named.
        """
        x = self.normalizer.apply_x(self.normalizer.prepare(raw))
        return self.interpret(self.outputs(x, batch_size))

    def interpret(self, outputs: Tensor) -> Prediction:
        """Outputs of the model as predictions."""
        if self.kind == "classification":
            return Prediction(outputs.argmax(1), outputs.softmax(1))
        if self.kind == "multilabel":
            return Prediction(outputs > 0, outputs.sigmoid())
        return Prediction(self.normalizer.inverse_y(outputs), None)


def load(run: str | Path, device: str | torch.device = "cpu") -> Predictor:
    """The model of a finished run, ready to predict. Needs neither the pretrained checkpoint nor the data.

    Args:
        run: the run's folder.
        device: where the model shall be.

    Raises:
        FileNotFoundError: the folder holds no finished run.
        ValueError: a file in it is damaged.
    """
    folder = RunFolder(run)
    results = folder.read_results()
    model = CrossModalModel.load(folder.model, device=device)
    if not folder.normalizer.is_file():
        raise FileNotFoundError(f"{folder.normalizer}: missing")
    return Predictor(model, Normalizer.from_state(load_file(folder.normalizer)), results)


def read_inputs(path: Path, key: str | None = None) -> np.ndarray:
    """Samples from a file.

    Args:
        path: .npy (one array), .npz (the array `key`, or `x`, or the only one) or .csv (a sample of one channel per row,
            with or without a line of names).
        key: name of the array in a .npz file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, no such array, or content that is not numbers.
    """
    if not path.is_file():
        raise FileNotFoundError(f"input: no such file: {path}")
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz", ".csv"):
        raise ValueError(f"input: expected a .npz, .npy or .csv file, got {path}")
    try:
        if suffix == ".csv":
            return _read_csv(path)
        loaded = np.load(path, allow_pickle=False)
        if suffix == ".npy":
            return loaded
        with loaded:
            return loaded[_array_name(path, loaded.files, key)]
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"input: {path} cannot be read ({error})") from None


def _array_name(path: Path, names: list[str], key: str | None) -> str:
    wanted = key or (names[0] if len(names) == 1 else "x")
    if wanted not in names:
        raise ValueError(f"input: {path} holds no array {wanted!r} but {', '.join(names)}; name one with --key")
    return wanted


def _read_csv(path: Path) -> np.ndarray:
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    if rows and not _is_number(rows[0][0]):
        rows = rows[1:]
    lengths = {len(row) for row in rows}
    if len(lengths) != 1:
        raise ValueError(f"input: {path} must have rows of one length, got {sorted(lengths) or 'no rows'}")
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            if not _is_number(cell):
                raise ValueError(f"input: {path}: row {number}, column {column} is not a number: {cell!r}")
    return np.array(rows, dtype=np.float64)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def write_prediction(path: Path, prediction: Prediction, class_names: tuple[str, ...]) -> None:
    """Writes predictions, whole.

    .npz: `predictions`, and for classes and labels `probabilities` and `class_names`. .npy: the predictions alone.
    .csv: a row per sample; classes by name, with the probability of each.

    Raises:
        ValueError: another kind of file.
    """
    suffix = path.suffix.lower()
    predictions = prediction.predictions.numpy()
    probabilities = None if prediction.probabilities is None else prediction.probabilities.numpy()
    if suffix not in (".npz", ".npy", ".csv"):
        raise ValueError(f"output: expected a .npz, .npy or .csv file, got {path}")
    with replacing(path) as aside:
        if suffix == ".npy":
            np.save(aside, predictions, allow_pickle=False)
        elif suffix == ".npz":
            arrays = {"predictions": predictions}
            if probabilities is not None:
                arrays |= {"probabilities": probabilities, "class_names": np.array(class_names, dtype=str)}
            np.savez(aside, **arrays)
        else:
            _write_csv(aside, predictions, probabilities, class_names)


def _write_csv(
    path: Path, predictions: np.ndarray, probabilities: np.ndarray | None, class_names: tuple[str, ...]
) -> None:
    flat = predictions.reshape(len(predictions), -1)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if probabilities is None:
            writer.writerow([f"value_{i}" for i in range(flat.shape[1])])
            writer.writerows(flat.tolist())
            return
        names = class_names or tuple(map(str, range(probabilities.shape[1])))
        columns = [f"probability_{name}" for name in names]
        if predictions.ndim == 1:
            writer.writerow(["prediction", *columns])
            writer.writerows([names[p], *row] for p, row in zip(predictions, probabilities.tolist(), strict=True))
        else:
            writer.writerow([*names, *columns])
            writer.writerows(np.concatenate([flat.astype(float), probabilities], axis=1).tolist())


def main(argv: list[str] | None = None) -> None:
    """Command line: see `--help`."""
    parser = argparse.ArgumentParser(prog="predict.py", description="Predict with a finished run.")
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("input", type=Path, help=".npz, .npy or .csv with samples in the units the run was trained on")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".npz, .npy or .csv to write")
    parser.add_argument("--key", help="name of the array in a .npz input (default: x, or the only one)")
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--device", default="cpu", help="where to compute, e.g. cuda")
    arguments = parser.parse_args(argv)
    predictor = load(arguments.run, arguments.device)
    prediction = predictor.predict(read_inputs(arguments.input, arguments.key), arguments.batch_size)
    write_prediction(arguments.output, prediction, predictor.class_names)
    print(f"{len(prediction.predictions)} predictions in {arguments.output}")
