"""Fine-tuning of a pretrained encoder, all of it on target samples alone; and the same network without what it learned before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from crossmodal.errors import UserError
from crossmodal.methods.base import Method, get, register

if TYPE_CHECKING:
    from crossmodal.models.finetuned import FineTuned
    from crossmodal.sources import Source


def build(task, config) -> FineTuned:
    """The encoder that the settings name, with an embedder and a head for the task; `Method.pretrained` says with which weights.

    Raises:
        UserError: the encoder cannot be loaded, or does not suit the samples.
    """
    from crossmodal.models import encoders
    from crossmodal.models.finetuned import FineTuned

    if task.kind == "dense" and (config.model.probe or config.model.layers == "auto"):
        key = "probe" if config.model.probe else "layers auto"
        raise UserError(f"model.{key}: not for dense targets, which {task.title} has")
    if task.kind != "dense" and config.model.dense_head != "linear":
        raise UserError(f"model.dense_head: for dense targets; {task.title} is {task.kind}")
    if config.model.layers == "auto":
        import torch

        from crossmodal.training.probe import best_depth

        with torch.random.fork_rng(devices=[]):
            whole = build(task, config.changed(model={"layers": None}))
            depth = best_depth(whole, task, config.loader.eval_batch_size)
        config = config.changed(model={"layers": depth})
    encoder = encoders.load(
        config.encoder,
        pretrained=get(config.method).pretrained,
        layers=config.model.layers,
        dropout=config.model.dropout,
        image_size=config.model.image_size,
        series=config.model.series,
        channels=config.model.channels,
        class_token=config.model.class_token,
    )
    encoder.attach(task.input_shape, config.model.patch_size)
    if config.model.activation_checkpointing:
        encoder.enable_activation_checkpointing()
    if config.model.freeze == "queries_keys":
        encoder.freeze_queries_keys()
    output_shape = task.output_shape if task.kind == "dense" else None
    model = FineTuned(encoder, task.kind, task.num_outputs, output_shape, config.model.dense_head)
    if task.level:
        model.head.last.bias.data.fill_(task.level)
    return model


def load_source(model: FineTuned, config) -> Source:
    """The samples of the pretraining modality that the settings name, as the model's encoder takes them.

    Raises:
        UserError: see `sources.load`.
    """
    from crossmodal import sources

    encoder = model.encoder
    return sources.load(
        config.source.name,
        encoder=encoder,
        num_tokens=encoder.num_tokens,
        limit=config.source.limit,
        seed=config.split.seed,
    )


@dataclass
class Options:
    """What fine-tuning starts from.

    Args:
        embedder: `copied`, as far as the pretrained embedding fits the new modality (its patch kernel, LayerNorm, positions), or
            `random` but for the positions, which is naive fine-tuning in the tables of ORCA and PaRe.
    """

    embedder: Literal["copied", "random"] = "copied"


@register
class NaiveFineTuning(Method):
    """The baseline of every comparison."""

    name = "nft"
    description = "naive fine-tuning: pretrained encoder, target samples alone"
    Options = Options

    def build(self, task, config) -> FineTuned:
        model = build(task, config)
        if config.options.embedder == "random":
            from torch import nn

            encoder = model.encoder
            for part in (encoder.embedder.projection, encoder.embedder.norm):
                if not isinstance(part, nn.Identity):
                    part.reset_parameters()
            encoder.copied = tuple(part for part in encoder.copied if part == "position_embeddings")
        return model


class FineTuningMethod(Method):
    """A pretrained encoder, whole, with a new embedder and head."""

    def build(self, task, config) -> FineTuned:
        return build(task, config)


@register
class Scratch(FineTuningMethod):
    """What the pretrained weights are worth."""

    name = "scratch"
    description = "the same network without its pretrained weights"
    pretrained = False
