"""One run from settings to results: data, model, training, the test split read once, files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import set_seed
from safetensors.torch import save_file
from torch import Tensor

from crossmodal import checks, encoders, metrics, plots, seeds, sharding, sources, tasks
from crossmodal.config import Config, ConfigError, flatten
from crossmodal.engine import Evaluation, Trainer, gumbel_epochs, patches_at_hand
from crossmodal.files import replacing, writing
from crossmodal.methods import METHODS
from crossmodal.model import CrossModalModel
from crossmodal.naming import unknown
from crossmodal.progress import closing_table
from crossmodal.results import WRITER, RunFolder, versions


def train(config: Config) -> dict[str, Any]:
    """Does one run and returns what `results.json` holds.

    Raises:
        ValueError, OSError, RunFolderError: settings or data that cannot be used, before anything is written.
        NonFiniteLoss, Interrupted: see `Trainer.fit`.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    check_names(config)
    folder = RunFolder(config.run_dir)
    accelerator = sharding.make_accelerator(
        config,
        mixed_precision=config.precision,
        cpu=config.device == "cpu",
        log_with=config.track.split(",") if config.track else None,
        project_dir=str(folder.path / "trackers"),
    )
    checks.check_device(config, accelerator.device)
    checks.check_distribution(accelerator.distributed_type)
    if accelerator.is_main_process:
        folder.check(config)
    task, source, model = build(config, accelerator)
    hashes = data_hashes(task, source)
    if config.resume:
        folder.check_data(hashes)
        if folder.finished:
            accelerator.print(f"{folder.path} is finished already")
            return folder.read_results()
    accelerator.print(task.description)
    if source is not None:
        accelerator.print(source.description)
    # Nothing is written, and nothing of an earlier run removed, before data and settings are known to be good.
    if accelerator.is_main_process:
        # Weights, the best weights and two moments of the optimizer, for each checkpoint that stays and one in the making.
        size = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
        folder.check_space(4 * size * (config.keep + 1) + size)
        folder.prepare(config, hashes)
    accelerator.wait_for_everyone()
    if config.epochs is None:
        config = dataclasses.replace(config, epochs=config.epochs_for(len(task.train)))
        accelerator.print(f"epochs: {config.epochs}, as none are set (--epochs)")
    try:
        return _train(config, accelerator, folder, task, source, model)
    finally:
        folder.release()


def _train(config: Config, accelerator: Accelerator, folder: RunFolder, task, source, model) -> dict[str, Any]:
    if config.track:
        accelerator.init_trackers(WRITER, {k: v if v is None else str(v) for k, v in flatten(config.to_dict()).items()})

    trainer = Trainer(config, task, source, model, accelerator, folder)
    try:
        trainer.fit()
        test = trainer.evaluate(task.test)
        results = summarise(config, task, source, trainer, test)
        weights = trainer.whole_weights()
        accelerator.log({"test": test.metric}, step=trainer.state.step)
        if accelerator.is_main_process:
            write(folder, trainer, weights, test, results)
    except OSError as error:
        saved = trainer.checkpoints.list()
        last = f"the last checkpoint is {saved[-1]}, `--resume true` goes on from it" if saved else "no checkpoint yet"
        raise OSError(f"{folder.path} cannot be written: {error}; {last}") from error
    if accelerator.is_main_process:
        accelerator.print(f"{closing_table(results, config.select)}\n{folder.path}")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def check_names(config: Config) -> None:
    """Names of task and trackers against what there is.

    Raises:
        ConfigError: with the nearest valid name.
    """
    if config.task not in tasks.available():
        raise ConfigError(unknown("task", config.task, tasks.available()))
    installed = [str(name) for name in get_available_trackers()]
    for name in config.track.split(",") if config.track else ():
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ConfigError(unknown("track", name, LOGGER_TYPE_TO_CLASS))
        if name not in installed:
            raise ConfigError(f"track: the package of {name!r} is not installed (pip install {name})")


def load_task(config: Config):
    """The task with the data the settings name."""
    return tasks.load(
        config.task,
        data=config.data,
        data_dir=config.data_dir,
        kind=config.kind,
        loss=config.loss,
        metric=config.metric,
        validation_fraction=config.split.validation_fraction,
        split_seed=config.split.seed,
        train_size=config.split.train_size,
    )


def load_data(config: Config) -> tuple[Any, Any, Any]:
    """Task, the encoder that reads it, and source (None without mixing); checked."""
    method = METHODS[config.method]
    task = load_task(config)
    checks.check_task(task)
    encoder = encoders.load(
        config.encoder,
        pretrained=method.pretrained,
        layers=config.model.layers,
        dropout=config.model.dropout,
        image_size=config.model.image_size,
    )
    encoder.attach(task.input_shape, config.model.patch_size)
    source = None
    if method.mixes:
        source = sources.load(
            config.source.name,
            encoder=encoder,
            num_tokens=encoder.num_tokens,
            limit=config.source.limit,
            seed=config.split.seed,
        )
    return task, encoder, source


def data_hashes(task, source) -> dict[str, str]:
    """What is learned from, in words, and its sha256."""
    hashes = {f"data of {task.name}": task.sha256}
    return hashes if source is None else hashes | {f"source {source.name}": source.sha256}


def build(config: Config, accelerator: Accelerator) -> tuple[Any, Any, CrossModalModel]:
    """Task, source (None without mixing) and model; checked against one another."""
    set_seed(seeds.derive(config.seed, "initialisation") % 2**32)
    with accelerator.main_process_first():  # Caches of data and texts are filled by one process.
        task, encoder, source = load_data(config)
    classes = len(source.class_names) if source is not None else None
    model = CrossModalModel(
        encoder, task.kind, task.num_outputs, task.output_shape if task.kind == "dense" else None, classes
    )
    if source is not None:
        checks.check_mixing(config, patches_at_hand(model, source))
    if config.model.activation_checkpointing:
        encoder.enable_activation_checkpointing()
    if config.compile:
        encoder.body = torch.compile(encoder.body)
    return task, source, model


def summarise(config: Config, task, source, trainer: Trainer, test: Evaluation) -> dict[str, Any]:
    """What `results.json` holds."""
    best, model = trainer.selection.best, trainer.model
    results = {
        "task": task.name,
        "method": config.method,
        "encoder": config.encoder,
        "seed": config.seed,
        "kind": task.kind,
        "loss": task.loss,
        "metric": task.metric,
        "higher_is_better": metrics.get(task.metric).higher_is_better,
        "validation": best["metric"],
        "validation_loss": best["loss"],
        "test": test.metric,
        "test_loss": test.loss,
        "best_epoch": best["epoch"],
        "epochs": config.epochs,
        "steps": trainer.state.step,
        "seconds": trainer.state.seconds,
        "parameters": model.count_parameters(),
        "trainable_parameters": model.count_parameters(trainable=True),
        "data_sha256": task.sha256,
        "directory": str(Path.cwd()),  # from which relative paths in the settings count
        "samples": {name: len(getattr(task, name)) for name in ("train", "validation", "test")},
        "input_shape": list(task.input_shape),
        "tokens": model.encoder.num_tokens,
        "patch_size": list(model.encoder.patch_size),
        "canvas_size": list(model.encoder.canvas_size),
        "class_names": list(task.class_names),
        "class_values": list(task.class_values),
        "precision": config.precision,
        "processes": trainer.accelerator.num_processes,
        "sharded": sharding.in_force(trainer.accelerator),
        "device": str(trainer.accelerator.device.type),
        "versions": versions(),
    }
    if source is not None:
        results["source"] = {
            "name": source.name,
            "samples": len(source.inputs),
            "classes": len(source.class_names),
            "sha256": source.sha256,
        }
        results["gumbel_epochs"] = gumbel_epochs(config, task.ndim)
        results["replaced"] = trainer.state.replaced
    return results


def write(
    folder: RunFolder, trainer: Trainer, weights: dict[str, Tensor], test: Evaluation, results: dict[str, Any]
) -> None:
    """Model and normaliser, then results.json, which says that both are there; checkpoints go, and pictures are drawn."""
    trainer.model.save(folder.model, weights)
    with replacing(folder.normalizer) as aside, writing(folder.normalizer):
        save_file(trainer.task.normalizer.state(), aside)
    folder.write_results(results)
    trainer.checkpoints.clear()
    # Pictures come last: one that cannot be drawn must not cost the run.
    task = trainer.task
    outputs, targets = task.normalizer.decode(test.outputs), task.normalizer.inverse_y(task.test.y)
    plots.draw_run(folder, task, results, trainer.state.history, outputs, targets)
