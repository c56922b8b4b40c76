"""Metrics of classes, labels and masks: counts and ranks per column."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from crossmodal.scoring.metric import Numbers, mean_of

BINS = 10  # of the calibration error


def columns(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(truth, probability), (B, K) for classes and labels, (B, K, pixels) for the channels of masks."""
    if targets.ndim == 1:
        truth = torch.nn.functional.one_hot(targets, outputs.shape[1]) > 0
        return truth, outputs.double().softmax(1)
    if targets.ndim == 2:
        return targets > 0.5, outputs.double().sigmoid()
    return (targets > 0.5).flatten(2), outputs.flatten(2)


def counts(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Per column, how often it is true, found, and both; float64 (B, K). Classes are found by largest logit, labels and pixels
    by a probability above 1/2; outputs that are NaN find NaN."""
    truth, probability = columns(outputs, targets)
    found = probability > 0.5
    if targets.ndim == 1:
        found = torch.arange(outputs.shape[1], device=outputs.device) == outputs.argmax(1)[:, None]
    if mask is not None:
        truth, found = truth & mask.flatten(2), found & mask.flatten(2)
    parts = {"truth": truth, "found": found, "both": truth & found}
    counts = {name: (part.sum(2) if part.ndim > 2 else part).double() for name, part in parts.items()}
    undefined = outputs.flatten(1).isnan().any(1, keepdim=True)
    return counts | {name: counts[name].masked_fill(undefined, torch.nan) for name in ("found", "both")}


def sums(numbers: Numbers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(numbers[name].sum(0) for name in ("truth", "found", "both"))


def by_class(numbers: Numbers, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Of each class or label, how many `samples` have it, and `recall`, `precision` and `f1`, NaN where there are none."""
    truth, found, both = sums(numbers)
    names = names or tuple(map(str, range(len(truth))))
    with np.errstate(invalid="ignore"):
        columns = zip(
            truth.astype(int).tolist(),
            *(part.tolist() for part in (both / truth, both / found, 2 * both / (truth + found))),
            strict=True,
        )
    return {
        name: dict(zip(("samples", "recall", "precision", "f1"), column, strict=True))
        for name, column in zip(names, columns, strict=True)
    }


def accuracy(numbers: Numbers) -> float:
    return float(numbers["both"].sum() / numbers["truth"].sum())


def balanced_accuracy(numbers: Numbers) -> float:
    truth, _, both = sums(numbers)
    return mean_of(both[truth > 0] / truth[truth > 0])


def macro_f1(numbers: Numbers) -> float:
    truth, found, both = sums(numbers)
    total = truth + found
    return mean_of(2 * both[total != 0] / total[total != 0])


def challenge2017_f1(numbers: Numbers) -> float:
    return macro_f1({name: numbers[name][:, :3] for name in ("truth", "found", "both")})


def iou(numbers: Numbers) -> float:
    truth, found, both = sums(numbers)
    union = truth + found - both
    return mean_of(both[union != 0] / union[union != 0])


def false_negative_rate(numbers: Numbers) -> float:
    truth, _, both = sums(numbers)
    return mean_of(1 - both[truth > 0] / truth[truth > 0])


def counts_of_all(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Counts, and pixels whether they count or not."""
    found = counts(outputs, targets, mask)
    return found | {"pixels": torch.full_like(found["truth"], targets[0, 0].numel())}


def thresholded_auroc(numbers: Numbers) -> float:
    truth, found, both = sums(numbers)
    pixels = numbers["pixels"].sum(0)
    scored = (truth > 0) & (truth < pixels)
    positive, negative = both[scored] / truth[scored], 1 - (found - both)[scored] / (pixels - truth)[scored]
    return mean_of((positive + negative) / 2)


def ranks(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Per column whether it is true, its probability (float64), and whether it counts; each (B, K), of masks (B, K, pixels)."""
    truth, probability = columns(outputs, targets)
    counts = torch.ones_like(truth) if mask is None else mask.flatten(2)
    return {"truth": truth, "probability": probability, "counts": counts}


def per_column(score: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[Numbers], float]:
    """Mean of `score`, given the sorted probabilities of what is true and of what is not, over the columns that have both."""

    def figure(numbers: Numbers) -> float:
        if np.isnan(numbers["probability"]).any():
            return float("nan")
        scores = []
        for column in range(numbers["truth"].shape[1]):
            counts, truth, probability = (
                numbers[name][:, column].ravel() for name in ("counts", "truth", "probability")
            )
            having, lacking = np.sort(probability[truth & counts]), np.sort(probability[~truth & counts])
            if len(having) and len(lacking):
                scores.append(score(having, lacking))
        return mean_of(np.array(scores))

    return figure


def area(having: np.ndarray, lacking: np.ndarray) -> float:
    """How often one that has the label ranks before one that does not (Mann and Whitney, 1947); sorted, (n,) and (m,)."""
    below, upto = (np.searchsorted(lacking, having, side) for side in ("left", "right"))
    return (below + upto).mean() / (2 * len(lacking))


def precision(having: np.ndarray, lacking: np.ndarray) -> float:
    """Mean over those that have the label of the precision at their probability; sorted, (n,) and (m,)."""
    right, wrong = (len(values) - np.searchsorted(values, having) for values in (having, lacking))
    return (right / (right + wrong)).mean()


def positive_ranks(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """`ranks`, of two classes those of the second alone."""
    return {
        name: values[:, -1:] if targets.ndim == 1 and values.shape[1] == 2 else values
        for name, values in ranks(outputs, targets, mask).items()
    }


def orders(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """True and predicted place in the order of the classes, float64 (B,); outputs that are NaN predict NaN."""
    found = outputs.argmax(1).double().masked_fill(outputs.isnan().any(1), torch.nan)
    return {"truth": targets.double(), "found": found}


def quadratic_kappa(numbers: Numbers) -> float:
    """1 - mean (true - predicted)^2 over its mean if the two had nothing to do with one another (Cohen, 1968); NaN where that is
    zero."""
    truth, found = numbers["truth"], numbers["found"]
    expected = truth.var() + found.var() + (truth.mean() - found.mean()) ** 2
    return float("nan") if expected == 0 else float(1 - np.square(truth - found).mean() / expected)


def squares(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Per sample, float64 (B,): squared distance of the probabilities from the truth, summed over classes (of two, that of one:
    half the sum), mean over labels."""
    truth, probability = columns(outputs, targets)
    distance = (probability - truth.double()).square()
    if targets.ndim == 2:
        return {"square": distance.mean(1)}
    return {"square": distance.sum(1) / (2 if distance.shape[1] == 2 else 1)}


def brier(numbers: Numbers) -> float:
    return float(numbers["square"].mean())


def confidences(outputs: Tensor, targets: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Probability of what is predicted and whether it is true, float64 (B, 1) for classes; of each label (B, K)."""
    truth, probability = columns(outputs, targets)
    if targets.ndim == 1:
        probability, chosen = probability.max(1, keepdim=True)
        truth = truth.gather(1, chosen)
    return {"probability": probability, "truth": truth.double()}


def bins(probability: np.ndarray) -> list[np.ndarray]:
    """The bins of the calibration error: rows of equally many samples, by growing probability (n,)."""
    return np.array_split(np.argsort(probability, kind="stable"), min(BINS, len(probability)))


def calibration_error(numbers: Numbers) -> float:
    """Expected calibration error over bins of equally many samples (Nguyen and O'Connor, EMNLP 2015), mean over labels."""
    errors = []
    for probability, truth in zip(numbers["probability"].T, numbers["truth"].T, strict=True):
        gaps = [abs((probability[one] - truth[one]).sum()) for one in bins(probability)]
        errors.append(sum(gaps) / len(probability))
    return float(np.mean(errors))
