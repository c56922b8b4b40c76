"""The last word on a run: is it better than what needs no learning, and than what needs no transformer?

These are fitted on the run's own training and validation samples and scored on its test samples, in seconds: of more samples than
`MOST_LEARNED` and `MOST_TESTED`, or of large ones, a part is drawn; where a single sample is larger than `MOST_VALUES`, nothing
that learns is fitted. Differences are paired, sample by sample or group by group.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from crossmodal import methods, seeds
from crossmodal.data.dataset import Batch, Dataset
from crossmodal.data.splitting import plain_sample
from crossmodal.errors import UserError
from crossmodal.models.base import Model
from crossmodal.naming import counted
from crossmodal.report.statistics import LEVEL, compared, holm
from crossmodal.scoring import metrics, protocols, thresholds
from crossmodal.scoring.metric import FEWEST
from crossmodal.training import outcomes
from crossmodal.training.evaluation import Evaluation, evaluate
from crossmodal.training.run import Run

MOST_LEARNED, MOST_TESTED, LEAST = 1000, 2000, 24  # samples
MOST_VALUES, MOST_AT_ONCE = 2**21, 2**18  # values of these samples together, and of those in one batch
# What needs no transformer: methods, with their options here.
LEARNERS: dict[str, dict[str, Any]] = {"linear": {}, "rocket": {"kernels": 1000}, "knn": {}}
CALLED = {"linear": "a linear model", "rocket": "ROCKET", "knn": "nearest neighbours"}
FREQUENT = {"classification": "the most frequent class", "multilabel": "how often each label occurs"}

Predict = Callable[[Batch], Tensor]


def verdict(run: Run, test: Evaluation) -> tuple[dict[str, Any], dict[str, metrics.Numbers], np.ndarray]:
    """What `results.json` says of a run beside others.

    Returns:
        `sentence`; `metric`, `value`, `interval` and `over` ("samples" or "groups", of which there are `units`), all on the
        `tested_on` samples that the others were tested on; `others`, by name: `called`, `learns`, `value`, `gain` (by how much
        the run is better), its `interval` (95 %) and `p`; `learned_from`; `left_out`: what could not be fitted, and why.
        Then, by name, what the metric says of the others on each of these samples, and their places in the test part.
    """
    rng = np.random.default_rng((run.config.split.seed, 3))
    size = int(np.prod(run.task.input_shape)) + int(np.prod(run.task.output_shape))
    learned, tested = (max(LEAST, min(limit, MOST_VALUES // size)) for limit in (MOST_LEARNED, MOST_TESTED))
    held = learned // 5
    batch = max(1, min(run.config.loader.eval_batch_size, MOST_AT_ONCE // size))
    config = run.config.changed(loader={"eval_batch_size": batch})
    rows = plain_sample(len(run.task.test), tested, rng)
    task = dataclasses.replace(
        run.task,
        metrics=run.task.metrics[:1],
        train=_some(
            getattr(run.task.train, "steps", run.task.train), learned - held, rng
        ),  # single ones of trajectories
        validation=_some(run.task.validation, held, rng),
        test=run.task.test if len(rows) == len(run.task.test) else run.task.test.subset(rows),
    )
    called: dict[str, tuple[str, bool]] = {}
    others: dict[str, metrics.Numbers] = {}
    left_out: dict[str, str] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.derive(run.config.seed, "verdict"))
        for name, words, learns, fit in _rivals(task, config):
            try:
                if learns and size > MOST_VALUES:
                    raise UserError(f"a sample has {size:,} values, which is too many to fit it in passing")
                predict = fit()
                own = _with_thresholds(task, config, predict) if learns else dataclasses.replace(task, thresholds=())
                others[name] = evaluate(predict, task.test, own, batch).numbers[task.metric]
            # A rival that cannot be fitted (UserError is a ValueError) must not cost the run; where memory is short torch raises
            # RuntimeError.
            except (ValueError, MemoryError, RuntimeError) as error:
                left_out[name] = str(error)
                continue
            called[name] = words, learns
    group = None if test.group is None else test.group[rows]
    ours = outcomes.Outcomes(task.metric, outcomes.taken(test.numbers[task.metric], rows), rows, group)
    said = _compared(ours, others, called) | {
        "learned_from": len(task.train) + len(task.validation),
        "of": len(run.task.train) + len(run.task.validation),
        "left_out": left_out,
    }
    if said["over"] == "groups" and said["units"] < FEWEST and run.config.data and run.config.split.fold is None:
        said["sentence"] += " --split.folds tests on all groups."
    return said, others, rows


def of_folds(found: outcomes.Outcomes, several: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The verdict on all folds together, from what came of their samples and the verdict on each; None where one has none.

    Args:
        found: of all folds, see `outcomes.joined`.
        several: see `verdict`.
    """
    if not len(found.compared) or None in several:
        return None
    first = several[0]["others"]
    called = {name: (first[name]["called"], first[name]["learns"]) for name in found.others}
    return _compared(found.some(found.compared), found.others, called) | {
        "learned_from": min(one["learned_from"] for one in several),
        "of": min(one["of"] for one in several),
        "left_out": {name: reason for one in several for name, reason in one["left_out"].items()},
    }


def _compared(
    ours: outcomes.Outcomes, others: Mapping[str, metrics.Numbers], called: Mapping[str, tuple[str, bool]]
) -> dict[str, Any]:
    """The run beside the others, on the same samples."""
    metric, fold = ours.measure, ours.fold
    sign = 1 if metric.higher_is_better else -1
    figures, units = metric.resampled([ours.numbers, *others.values()], ours.units, fold)
    value, found = metric.over_folds(ours.numbers, fold), {}
    for place, (name, numbers) in enumerate(others.items(), 1):
        words, learns = called[name]
        its = metric.over_folds(numbers, fold)
        # Zero is added because the difference of equal errors is -0 else.
        gain = compared(sign * (value - its) + 0.0, sign * (figures[:, 0] - figures[:, place]) + 0.0, units)
        found[name] = {
            "called": words,
            "learns": learns,
            "value": its,
            "gain": gain.mean,
            "interval": gain.interval,
            "p": gain.p,
        }
    over = "groups" if ours.group is not None or metric.grouped else "samples"
    return {
        "sentence": _sentence(ours.metric, value, found, over, units),
        "metric": ours.metric,
        "value": value,
        "interval": metric.interval(ours.numbers, ours.units, fold),
        "over": over,
        "units": units,
        "others": found,
        "tested_on": len(ours),
    }


def _some(split: Dataset, limit: int, rng: np.random.Generator) -> Dataset:
    return split if len(split) <= limit else split.subset(plain_sample(len(split), limit, rng))


def _rivals(task, config) -> list[tuple[str, str, bool, Callable[[], Predict]]]:
    """(name, what it is called, whether it learns, what fits it) of all that suit a task, but for the run's own method."""
    rivals = []
    called = "how often each pixel is set" if task.normalizer.logits else FREQUENT.get(task.kind, "the mean")
    for name, words, learns in (
        ("mean", called, False),
        ("copy", "the last known frame", False),
        *((name, CALLED[name], True) for name in LEARNERS),
    ):
        slides = task.is_table and methods.get(name).slides
        if name != config.method and not slides and not methods.reason_against(name, task):
            rivals.append((name, words, learns, partial(_fitted, name, task, config)))
    if task.kind in ("regression", "dense") and not task.normalizer.logits:
        y, mask = task.normalizer.inverse_y(task.train.y), task.train.extra("mask")
        y = y if mask is None else y[mask]
        if y.min() <= 0 <= y.max():  # of what is never as small as that it is no guess
            rivals.append(("zero", "zero", False, partial(_filled, task, 0.0)))
        if metrics.plain_name(task.metric) == "mae":
            rivals.append(("median", "the median", False, partial(_median, task)))
        if metrics.plain_name(task.metric) == "mae_8":
            rivals.append(("constant", "the best constant", False, partial(_best_constant, task)))
    if (
        task.kind == "regression"
        and task.about.reading.get("form") != "table"
        and task.ndim == 1
        and task.input_shape[0] in (1, task.num_outputs)
        and not task.other_quantity
    ):
        rivals.append(("last", "the last value of the series", False, partial(_last, task)))
    return rivals


def _fitted(name: str, task, config) -> Predict:
    method = methods.get(name)
    if config.thresholds in thresholds.CHOICES:  # for which samples are needed that it has not learned from
        task = task.without_validation()
    config = dataclasses.replace(config, method=name, options=method.Options(**LEARNERS.get(name, {})))
    alone = SimpleNamespace(  # what these methods ask of a run, in this process and on the CPU
        task=task,
        config=config,
        model=method.build(task, config),
        accelerator=SimpleNamespace(device=torch.device("cpu")),
    )
    predict = partial(_predict, task)
    alone.evaluate = lambda split: evaluate(partial(predict, alone.model), split, task, config.loader.eval_batch_size)
    return partial(predict, method.fit(alone).eval())


def _with_thresholds(task, config, predict: Predict):
    """The task with the thresholds of what predicts, chosen as the run's are."""
    by, held = config.thresholds, task.validation
    if by not in thresholds.CHOICES or not len(held):
        return task
    size = config.loader.eval_batch_size
    found = thresholds.chosen(lambda split, own: evaluate(predict, split, own, size), task, by)
    return dataclasses.replace(task, thresholds=found)


def _predict(task, model: Model, batch: Batch) -> Tensor:
    return protocols.predict(model, batch.x, task.steps, task.normalizer).float()


def _constant(output: Tensor, batch: Batch) -> Tensor:
    return output.expand(len(batch), *output.shape)


def _filled(task, value: float) -> Predict:
    shape = task.test.read(torch.tensor([0])).y.shape[1:]
    return partial(_constant, task.normalizer.apply_y(np.full((1, *shape), value))[0])


def _best_constant(task) -> Predict:
    """By the metric itself, which counts small distances alone: of these the mean of all distances knows nothing."""
    metric, parts = metrics.get(task.metric), (task.train, task.validation)
    y = task.normalizer.inverse_y(torch.cat([part.y for part in parts]))
    mask = torch.cat([part.extra("mask") for part in parts])

    def error(value: float) -> float:
        return metric(torch.full_like(y, value), y, mask)

    bounds = y[mask].min().item(), y[mask].max().item()
    return _filled(task, float(minimize_scalar(error, bounds=bounds, method="bounded", options={"xatol": 0.01}).x))


def _median(task) -> Predict:
    return partial(_constant, torch.from_numpy(np.median(torch.cat([task.train.y, task.validation.y]).numpy(), axis=0)))


def _last(task) -> Predict:
    def predict(batch: Batch) -> Tensor:
        last = task.normalizer.inverse_x(batch.x)[..., -1]
        return task.normalizer.apply_y(last.expand(-1, task.num_outputs))

    return predict


def _sentence(metric: str, value: float, others: dict[str, dict[str, Any]], over: str, units: int) -> str:
    """One plain sentence. Against several learners p values are adjusted by Holm's procedure before one is called better."""
    better = max if metrics.get(metric).higher_is_better else min
    usable = {name: one for name, one in others.items() if np.isfinite(one["value"])}
    if not np.isfinite(value) or not usable:
        return f"No verdict: test {metric} has no value {'here' if usable else 'to compare with'}."
    floors, learners = ([one for one in usable.values() if one["learns"] == learns] for learns in (False, True))
    floor, learner = (better(ones, key=lambda one: one["value"]) if ones else None for ones in (floors, learners))

    def by(one: dict[str, Any]) -> str:
        low, high = sorted(bound if one["gain"] >= 0 else -bound for bound in one["interval"])
        return f"by {abs(one['gain']):.3g} (95 %: {low:.3g} to {high:.3g}, paired bootstrap over {units} {over})"

    def figures(one: dict[str, Any]) -> str:
        return f"{metric} {value:.4g} against {one['value']:.4g}"

    first = floor or learner
    if first["p"] is None:
        few = f"too few test {over} ({units})" if units < FEWEST else f"{metric} has no interval"
        return (
            f"Not told: {few} to say whether this is better than {_doing(first)} ({figures(first)} on these samples)."
        )
    if first["p"] >= LEVEL or first["gain"] <= 0:
        worse = first["p"] < LEVEL
        said = f"{'Worse' if worse else 'No better'} than {_doing(first)}: {figures(first)}"
        low, high = first["interval"]
        return f"{said}, difference {first['gain']:.3g} (95 %: {low:.3g} to {high:.3g}, paired bootstrap over {units} {over})."
    if learner is None or learner is first:
        return f"Better than {_doing(first)} {by(first)}: {figures(first)}."
    adjusted = dict(zip(map(id, learners), holm([one["p"] for one in learners]), strict=True))[id(learner)]
    if learner["p"] < LEVEL and learner["gain"] > 0:
        return (
            f"Better than {_doing(learner)}, the best of what needs no transformer, {by(learner)}: {figures(learner)}; "
            f"{_doing(floor)} has {floor['value']:.4g}."
        )
    told = f"Better than {_doing(floor)} {by(floor)}, but "
    if adjusted < LEVEL:
        return f"{told}worse than {_doing(learner)} {by(learner)}: {figures(learner)}."
    low, high = learner["interval"]
    said = f"difference {learner['gain']:.3g} (95 %: {low:.3g} to {high:.3g})"
    return f"{told}not told apart from {_doing(learner)}: {figures(learner)}, {said}."


def _doing(one: dict[str, Any]) -> str:
    return one["called"] if one["learns"] else f"predicting {one['called']}"


def lines(found: dict[str, Any]) -> str:
    """The verdict as it is printed."""
    metric, over, units = found["metric"], found["over"], found["units"]
    interval = "" if found["interval"] is None else f" (95 %: {found['interval'][0]:.4g} to {found['interval'][1]:.4g})"
    shown = [f"verdict, over {counted(units, over)}: test {metric} {found['value']:.4g}{interval}"]
    if over == "groups" and units < FEWEST:
        shown.append("  too few groups for intervals")
    width = max(len(one["called"]) for one in found["others"].values()) if found["others"] else 0
    for one in found["others"].values():
        gain = "" if one["interval"] is None else f" (95 %: {one['interval'][0]:+.3g} to {one['interval'][1]:+.3g})"
        shown.append(f"  {one['called']:{width}} {one['value']:>#8.4g}, this run better by {one['gain']:+.3g}{gain}")
    if found["learned_from"] < found["of"]:
        shown.append(f"  these learned from {found['learned_from']} of {found['of']} samples")
    shown += [f"  without {name}: {reason}" for name, reason in found["left_out"].items()]
    return "\n".join([*shown, found["sentence"]])
