"""One run from settings to results: data, model, training, the test split read once, files."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import set_seed
from safetensors.torch import save_file

from crossmodal import folds, methods, seeds, tasks, verdict
from crossmodal.data.splitting import plain_sample
from crossmodal.errors import UserError, sparing
from crossmodal.files import finite, replacing, writing
from crossmodal.kinds import LABEL_KINDS
from crossmodal.models.base import Model
from crossmodal.naming import unknown
from crossmodal.report import page
from crossmodal.report.tables import closing_table
from crossmodal.scoring import labels, losses, metrics, thresholds
from crossmodal.settings import Config, flatten
from crossmodal.training import outcomes, sharding
from crossmodal.training.checkpoint import Checkpoints
from crossmodal.training.evaluation import Evaluation
from crossmodal.training.folder import WRITER, RunFolder, versions
from crossmodal.training.objective import Objective
from crossmodal.training.run import Run

IMBALANCED = 1.5  # times the share that a class has where all have the same


def train(config: Config) -> dict[str, Any]:
    """Does one run and returns what `results.json` holds (with `check_only` nothing: the data are looked at, no more).

    Raises:
        UserError: settings or data that cannot be used, before anything is written.
        NonFiniteLoss, Interrupted: see `Trainer.fit`.
    """
    if config.options is None:  # settings made in Python
        config = dataclasses.replace(config, options=methods.get(config.method).Options())
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    check_names(config)
    folder = RunFolder(config.run_dir)
    accelerator = sharding.make_accelerator(
        config,
        mixed_precision=config.precision,
        # Without an accelerator accelerate joins processes only where it is told that there is none.
        cpu=config.device == "cpu" or not torch.accelerator.is_available(),
        log_with=config.track.split(",") if config.track else None,
        project_dir=str(folder.path / "trackers"),
    )
    check_machine(config, accelerator)
    if config.check_only:
        accelerator.print(suited_task(config).description)
        return {}
    if accelerator.is_main_process:
        folder.check(config)
    with accelerator.main_process_first():  # Caches of data and texts are filled by one process.
        task, model, objective = build(config)
    hashes = data_hashes(task, objective)
    if folds.asked_for(config):
        return folds.train(config, accelerator, hashes, train)
    if config.resume:
        folder.check_data(hashes)
        stored = folder.read_config()
        if config.epochs is not None and stored["epochs"] is None:
            then, _ = dataclasses.replace(config, epochs=None, steps=stored.get("steps")).length_for(len(task.train))
            if config.epochs < then:
                raise UserError(
                    f"resume: epochs was {then}, as none were set, and is now {config.epochs}; expected no fewer"
                )
        if folder.finished:
            accelerator.print(f"{folder.path} is finished already")
            return folder.read_results()
    for said in filter(None, (task.description, objective.description)):
        accelerator.print(said)
    # Nothing is written, and nothing of an earlier run removed, before data and settings are known to be good.
    if accelerator.is_main_process:
        # Weights, the best weights and two moments of the optimizer, for each checkpoint that stays and one in the making.
        size = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
        kept = 5 if config.optimizer.average else 4  # the averaged weights
        folder.check_space(kept * size * (config.keep + 1) + size)
        folder.prepare(config, hashes)
    accelerator.wait_for_everyone()
    length, most = "", None
    if config.epochs is None:
        why = "as none are set (--epochs)" if config.steps is None else f"for {config.steps} steps"
        epochs, most = config.length_for(len(task.train))
        config = dataclasses.replace(config, epochs=epochs, steps=None)
        length = f"epochs: {epochs}{f' of {most} steps' if most else ''}, {why}"
    try:
        return _train(Run(config, task, model, objective, accelerator, folder, length, most))
    finally:
        folder.release()


def _train(run: Run) -> dict[str, Any]:
    config, accelerator, folder = run.config, run.accelerator, run.folder
    if config.track:
        accelerator.init_trackers(WRITER, {k: v if v is None else str(v) for k, v in flatten(config.to_dict()).items()})
    method, began = methods.get(config.method), time.perf_counter()
    try:
        task = run.task
        run.task = learned_from(task, config)
        run.model = method.fit(run)
        run.seconds = run.seconds or time.perf_counter() - began
        run.task = task
        if config.thresholds in thresholds.CHOICES:
            accelerator.print(_choose_thresholds(run))
        began = time.perf_counter()
        test = run.evaluate(run.task.test) if len(run.task.test) else None
        run.test_seconds = time.perf_counter() - began
        results = summarise(run, test)
        for said in results["warnings"]:
            accelerator.print(said)
        weights = run.whole_weights()
        if test is not None:
            accelerator.log({"test": test.metric}, step=run.steps)
        if accelerator.is_main_process:
            results["verdict"], kept = None, test and outcomes.of(test, run.task.test_rows)
            if kept and config.verdict:
                results["verdict"], others, places = verdict.verdict(run, test)
                if kept.metric == run.task.metric:
                    kept = dataclasses.replace(kept, others=others, compared=places)
            # Model and normaliser, then results.json, which says that both are there.
            run.model.save(folder.model, weights)
            with replacing(folder.normalizer) as aside, writing(folder.normalizer):
                save_file(run.task.normalizer.state(), aside)
            if kept:
                outcomes.save(folder.outcomes, kept)
            folder.write_results(results)
            Checkpoints.clear_stages(folder.checkpoints)
            # What people look at comes last: a picture that cannot be drawn must not cost the run.
            if config.pictures:
                _draw(run, results, test)
            page.write(folder)
    except OSError as error:
        saved = run.checkpoints()
        last = f"the last checkpoint is {saved[-1]}, `--resume true` goes on from it" if saved else "no checkpoint yet"
        raise UserError(f"{folder.path} cannot be written: {error}; {last}") from error
    if test is not None:
        said = [closing_table(results, config.select), *folds.group_lines(results)]
        said += [verdict.lines(results["verdict"])] if results.get("verdict") else []
        accelerator.print("\n".join([*said, str(folder.path)]))
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def _choose_thresholds(run: Run) -> str:
    """Gives the run's task the thresholds that are best on its validation part; returns a sentence on them."""
    by, held = run.config.thresholds, run.task.validation
    if not len(held):
        return (
            "thresholds: there is no validation part to choose them on, so 1/2 stays; --thresholds also takes numbers"
        )
    found = thresholds.chosen(run.evaluate, run.task, by)
    run.task = dataclasses.replace(run.task, thresholds=found)
    if run.best is not None:  # figures of the finished run are by its thresholds
        again = run.evaluate(held)
        run.best = run.best | {"metric": again.metric, "loss": again.loss}
    return f"thresholds, by {by} on {len(held)} validation samples: {thresholds.said(run.task.class_names, found)}"


def _draw(run: Run, results: dict[str, Any], test: Evaluation | None) -> None:
    from crossmodal import drawing
    from crossmodal.report import pictures

    form = run.config.pictures
    with drawing.style():
        pictures.draw_run(run.task, results, test, run.history, run.folder.path, form)
        with sparing(f"{run.folder.path}: pictures of {run.config.method}"):
            drawing.save_all(methods.get(run.config.method).draw(run), run.folder.path, form)


def _warnings(run: Run, test: Evaluation) -> list[str]:
    """Validation that is far better than the test, beyond the 95 % intervals of both."""
    metric, best = metrics.get(run.task.metric), run.best or {}
    if test.interval is None or best.get("metric") is None or run.task.steps:
        return []
    low, high = test.interval
    if not metric.better(best["metric"], high if metric.higher_is_better else low):
        return []
    held = run.evaluate(run.task.validation).interval
    if held is None or not metric.better(held[not metric.higher_is_better], (low, high)[metric.higher_is_better]):
        return []
    figures = f"validation {run.task.metric} {best['metric']:#.4g}, test {test.metric:#.4g}"
    return [
        f"warning: validation is far better than the test ({figures}, beyond the intervals of both): either the test samples "
        "differ from the others, or validation samples resemble training samples, as those of one recording or person do (`group`)."
    ]


def _of_groups(task: tasks.Task, test: Evaluation | None) -> dict[str, dict[str, Any]]:
    """Of each group that is tested, how many samples and what figures, of the metrics of samples."""
    group = None if test is None else task.test.extra("group")
    if group is None or not task.group_names:
        return {}
    found = {}
    for one in group.unique().tolist():
        rows = (group == one).numpy()
        figures = {
            name: metric.figure({key: values[rows] for key, values in test.numbers[name].items()})
            for name in task.metrics
            if not (metric := metrics.get(name)).grouped
        }
        found[task.group_names[one]] = {"samples": int(rows.sum())} | figures
    return found


def _of_classes(task: tasks.Task, test: Evaluation | None) -> dict[str, dict[str, float | None]]:
    """See `labels.by_class`; nothing where the task has none, or where not all outputs were kept."""
    if test is None or task.kind not in LABEL_KINDS or len(test.outputs) < len(task.test):
        return {}
    return finite(labels.by_class(metrics.get("macro_f1").numbers(test.decided, test.targets), task.class_names))


def check_names(config: Config) -> None:
    """Names of task, method and trackers against what there is.

    Raises:
        UserError: with the nearest valid name.
    """
    methods.get(config.method)
    tasks.base.entry(config.task)
    installed = [str(name) for name in get_available_trackers()]
    for name in config.track.split(",") if config.track else ():
        if name not in LOGGER_TYPE_TO_CLASS:
            raise UserError(unknown("track", name, LOGGER_TYPE_TO_CLASS))
        if name not in installed:
            raise UserError(f"track: the package of {name!r} is not installed (pip install {name})")


def check_machine(config: Config, accelerator: Accelerator) -> None:
    """Settings against devices, and against how processes were started.

    Raises:
        UserError: names the key.
    """
    joined, started = accelerator.num_processes, sharding.started()
    if joined != started:
        raise UserError(
            f"device: {started} processes were started, but they do not join into one run on the device that 'auto' takes "
            "here; start them with torchrun, on a machine without CUDA GPUs with --device cpu"
        )
    # `accelerate launch` on a CPU starts one process whatever it is told; these variables it sets for several.
    if joined == 1 and {"ACCELERATE_USE_CPU", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise UserError(
            "num_processes: `accelerate launch` was asked for several processes and started one, as it does on a CPU; "
            "start them with `torchrun --nproc_per_node=N`, or one with plain `python`"
        )
    if config.precision == "fp16" and accelerator.device.type != "cuda":
        raise UserError("precision: fp16 needs a GPU; take bf16 or no")
    kind = accelerator.distributed_type
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise UserError(f"{kind.value}: runs are data-parallel; launch without it, for large models with --shard true")


def load_task(config: Config) -> tasks.Task:
    """The task with the data the settings name."""
    task = tasks.load(
        config.task,
        data=config.data,
        data_dir=config.data_dir,
        kind=config.kind,
        protocol=config.protocol,
        loss=config.loss,
        metrics=config.metric.split(",") if config.metric else (),
        augment=config.augment.split(",") if config.augment else (),
        split=config.split,
        table=config.table,
        recordings=config.recordings,
        images=config.images,
        copies=not config.check_only,
    )
    task = dataclasses.replace(_weighed(task, config), thresholds=thresholds.given(config.thresholds, task))
    count, limit = len(task.test), config.split.test_limit
    if limit is None or limit >= count:
        return task
    rows = plain_sample(count, limit, np.random.default_rng((config.split.seed, 2)))
    said = f"{task.description}\ntest: only {limit} of {count} samples (seed {config.split.seed})."
    return dataclasses.replace(task, test=task.test.subset(rows), test_rows=task.test_rows[rows], description=said)


def _weighed(task: tasks.Task, config: Config) -> tasks.Task:
    """The task with the weights of its classes, and with a word on classes that an accuracy does not do justice to."""
    said = [task.description]
    if config.class_weights is not None:
        weights = losses.class_weights(config.class_weights, task.kind, task.loss, task.train.y, task.num_outputs)
        task = dataclasses.replace(task, class_weights=weights)
        said.append(f"class weights in the loss: {', '.join(f'{weight:.3g}' for weight in weights)}.")
    if config.sampler is not None:
        if task.kind != "classification":
            raise UserError(
                f"sampler: balanced draws samples by their one class, but the target is {task.kind}"
                + ("; --class_weights balanced weighs rare labels more" if task.kind == "multilabel" else "")
            )
        counts = torch.bincount(task.train.y)
        said.append(
            f"sampler: each epoch has {len(task.train)} samples, equally many of each class (there are "
            f"{counts[counts > 0].min()} to {counts.max()} to draw from)."
        )
    if task.kind == "classification" and metrics.plain_name(task.metric) == "accuracy":
        counts = torch.bincount(task.train.y, minlength=task.num_outputs)
        share = counts.max().item() / len(task.train)
        if share >= max(IMBALANCED / task.num_outputs, 2 / 3):
            said.append(
                f"warning: {share:.0%} of the training samples are of one class, and who always says so has that accuracy; "
                "--metric balanced_accuracy or macro_f1 weighs all classes the same, --class_weights balanced or --sampler "
                "balanced learns so."
            )
    return dataclasses.replace(task, description="\n".join(said))


def suited_task(config: Config) -> tasks.Task:
    """The same, for the method of the settings.

    Raises:
        UserError: it cannot do the task.
    """
    task = load_task(config)
    reason = methods.reason_against(config.method, task)
    if reason:
        raise UserError(f"method: {config.method} cannot do {task.title}: {reason}")
    return task


def build(config: Config) -> tuple[tasks.Task, Model, Objective]:
    """Task, model and objective of a run, checked against one another; the model has the weights that training starts from."""
    method = methods.get(config.method)
    set_seed(seeds.derive(config.seed, "initialisation") % 2**32)
    final = config.split.final
    if folds.asked_for(config):  # of the runs the first stands for all
        first = dataclasses.replace(config.split, final=False, fold=config.split.folds and 1)
        config = dataclasses.replace(config, split=first)
    task = method.arranged(suited_task(config), config)
    if final and ((needs := method.needs_validation(task, config)) or config.model.layers == "auto"):
        what = f"method {config.method}" if needs else "model.layers auto"
        raise UserError(
            f"split.final: {what} chooses by a validation split, which a model that learns from all samples does not have; leave "
            "split.final out: of --split.folds 5 predict.py takes the mean"
        )
    model = method.build(learned_from(task, config), config)
    objective = method.objective(task, model, config)
    if config.compile:
        model.compile_body()
    return task, model, objective


def learned_from(task: tasks.Task, config: Config) -> tasks.Task:
    """The task as its method learns it: thresholds are chosen on samples that it has not learned from."""
    if config.thresholds not in thresholds.CHOICES or not methods.get(config.method).learns_validation:
        return task
    return task.without_validation()


def data_hashes(task: tasks.Task, objective: Objective) -> dict[str, str]:
    """What is learned from, in words, and its sha256."""
    return {f"data of {task.name}": task.fingerprint} | objective.fingerprints()


def summarise(run: Run, test: Evaluation | None) -> dict[str, Any]:
    """What `results.json` holds."""
    config, task, model, best = run.config, run.task, run.model, run.best or {}
    method = methods.get(config.method)
    metric = metrics.get(task.metric)
    return {
        "task": task.name,
        "title": task.title,
        "method": config.method,
        "encoder": config.encoder if method.uses_encoder else None,
        "seed": config.seed,
        "kind": task.kind,
        "protocol": task.protocol,
        "miniature": task.miniature,
        "rollout_steps": task.steps,
        "loss": task.loss,
        "thresholds": list(task.thresholds),
        "metric": task.metric,
        "higher_is_better": metric.higher_is_better,
        "validation": best.get("metric"),
        "validation_loss": best.get("loss"),
        "test": test and test.metric,
        "test_loss": test and test.loss,
        "test_interval": test and test.interval,  # 95 %
        "test_interval_over": test and test.unit,
        "test_metrics": test.metrics if test else {},
        "test_groups": _of_groups(task, test),
        "test_classes": _of_classes(task, test),
        # frames x channels, by metric
        "test_fields": test.by_field(task.num_outputs) if test and task.kind == "dense" else {},
        "channels": list(task.equation.outputs) if task.equation else [],
        "best_epoch": best.get("epoch"),
        "epochs": config.epochs if run.history else 0,
        "steps": run.steps,
        "seconds": run.seconds,
        "test_seconds": run.test_seconds,
        "parameters": model.count_parameters(),
        "trainable_parameters": model.count_parameters(trainable=True),
        "fingerprint": task.fingerprint,
        "description": "\n".join(filter(None, (task.description, run.objective.description))),
        "warnings": _warnings(run, test) if test else [],
        "directory": str(Path.cwd()),  # from which relative paths in the settings count
        "samples": {name: len(getattr(task, name)) for name in ("train", "validation", "test")},
        "input_shape": list(task.input_shape),
        "class_names": list(task.class_names),
        "class_values": list(task.class_values),
        "target_names": list(task.about.targets),
        "reading": dict(task.about.reading),
        "precision": config.precision,
        "processes": run.accelerator.num_processes,
        "sharded": sharding.in_force(run.accelerator),
        "device": str(run.accelerator.device.type),
        "pictures": list(method.pictures),
        "versions": versions(),
        **model.facts(),
        **run.objective.facts(),
    }
