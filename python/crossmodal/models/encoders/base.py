"""The interface every pretrained encoder offers to the training code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from crossmodal.errors import UserError
from crossmodal.models.embedders import PatchEmbedder
from crossmodal.models.encoders._transformers import GradientCheckpointingLayer, PreTrainedModel

# Entries of a transformers configuration that say nothing about the encoder's architecture.
_NOT_ARCHITECTURE = (
    "attn_implementation",
    "auto_map",
    "experts_implementation",
    "out_features",  # of use as a backbone: derived from the number of layers, and at odds with it once some are dropped
    "out_indices",
    "quantization_config",
    "stage_names",
)
QUERIES_KEYS = {"query", "key", "q_proj", "k_proj", "q_lin", "k_lin"}  # as the families of transformers call them


def architecture(config: dict[str, Any]) -> dict[str, Any]:
    """The entries of a transformers configuration that describe the architecture, without code or backend names."""
    return {key: value for key, value in config.items() if not key.startswith("_") and key not in _NOT_ARCHITECTURE}


class Encoder(nn.Module, ABC):
    """A pretrained transformer whose embedding is replaced by one for a new modality.

    Parts: ``model``, the pretrained layers; ``embedder``, the trainable embedding of the target modality, built by
    :meth:`attach`; ``source_embedder``, the pretrained embedding itself, frozen and always in eval mode, through which
    the pretraining modality enters. The word or patch embeddings thus exist once in memory.

    Attributes:
        modality: what the encoder was pretrained on, ``"text"`` or ``"image"``.
        folder: where the pretrained checkpoint lies; None for an encoder that was rebuilt without it.
        copied: parts of ``embedder`` that :meth:`attach` copied from the pretrained embedding and that go on as parts of the
            encoder; its other parts are new.
        width: token width D at the input of :meth:`body`.
        feature_width: feature width F at its output.
        max_tokens: most tokens a sample may have; None without a limit.
        token_grid, num_tokens, canvas_size, feature_grid, feature_stride: geometry, known after :meth:`attach`.
    """

    modality: ClassVar[str]
    width: int
    feature_width: int
    max_tokens: int | None = None
    folder: str | None = None
    copied: tuple[str, ...] = ()

    def __init__(self, model: PreTrainedModel, *, name: str, keep_source: bool) -> None:
        """Take over a transformers base model.

        Args:
            model: the base model (no task head); its ``embeddings`` module is taken out of it.
            name: hub name or local folder, from which tokenizer and image statistics are read.
            keep_source: keep the pretrained embedding as ``source_embedder`` and start new embedders from it. False for
                an architecture with random weights: there is no pretraining modality then.
        """
        super().__init__()
        self.name = name
        self.config = model.config
        embeddings = model.embeddings
        del model.embeddings
        self.model = model
        self.register_module("source_embedder", embeddings.requires_grad_(False).eval() if keep_source else None)
        self.register_module("embedder", None)

    def train(self, mode: bool = True) -> Encoder:
        super().train(mode)
        if self.source_embedder is not None:
            self.source_embedder.eval()
        return self

    def enable_activation_checkpointing(self) -> None:
        """Recompute the activations of each layer in the backward pass: less memory, about a third more time."""
        # Not the model's own switch: that reaches for the input embedding, which is no longer part of the model.
        for layer in self.layers():
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)

    def freeze_queries_keys(self) -> None:
        """What a layer attends to stays as it is: its projections to queries and keys no longer learn.

        Raises:
            UserError: the encoder has no such projections of their own.
        """
        frozen = [p for name, p in self.model.named_parameters() if not QUERIES_KEYS.isdisjoint(name.split("."))]
        if not frozen:
            raise UserError(
                f"model.freeze: {self.name!r} ({self.config.model_type}) has no projections to queries and keys apart from others"
            )
        for parameter in frozen:
            parameter.requires_grad_(False)

    def layers(self) -> list[nn.Module]:
        """The transformer layers from the first to the last, the innermost of nested ones (Swin has them within stages)."""
        return [
            module
            for module in self.model.modules()
            if [inner for inner in module.modules() if isinstance(inner, GradientCheckpointingLayer)] == [module]
        ]

    # Target modality -------------------------------------------------------------------------------------------------

    @abstractmethod
    def attach(self, input_shape: tuple[int, ...], patch_size: int | tuple[int, ...] | None = None) -> None:
        """Build the embedder of the target modality, initialised from the pretrained embedding.

        Args:
            input_shape: ``(C, L)`` or ``(C, H, W)`` of one sample.
            patch_size: patch length, or one per axis; None lets the encoder choose.

        Raises:
            UserError: if the shape or the patch size does not suit the encoder.
        """

    def _install(self, embedder: PatchEmbedder) -> None:
        like = next(self.model.parameters())
        self.embedder = embedder.to(device=like.device, dtype=like.dtype)

    @property
    def attached(self) -> PatchEmbedder:
        """The embedder; RuntimeError before :meth:`attach`."""
        if self.embedder is None:
            raise RuntimeError("the encoder has no embedder yet: call attach(input_shape) first")
        return self.embedder

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.attached.input_shape

    @property
    def patch_size(self) -> tuple[int, ...]:
        return self.attached.patch_size

    @property
    def token_grid(self) -> tuple[int, ...]:
        return self.attached.grid

    @property
    def num_tokens(self) -> int:
        return self.attached.num_tokens

    @property
    def canvas_size(self) -> tuple[int, ...]:
        """Size per axis of what is cut into patches: the sample's own, or the image size it is resized to."""
        return self.attached.canvas_size

    @property
    def feature_grid(self) -> tuple[int, ...]:
        """Features per axis; their product is N'."""
        return self.token_grid

    @property
    def feature_stride(self) -> tuple[int, ...]:
        """Canvas values per feature and axis."""
        return self.patch_size

    def embed(self, x: Tensor) -> Tensor:
        """Embed target samples ``(B, *input_shape)`` as tokens ``(B, N, D)``; trainable."""
        return self.attached(x)

    # Pretraining modality --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def embed_source(self, inputs: Tensor) -> Tensor:
        """Embed samples of the pretraining modality as tokens ``(B, M, D)`` through the frozen pretrained embedding.

        Args:
            inputs: token ids ``(B, M)`` int64 without special tokens; features of texts ``(B, M, D)``, which are tokens already
                and stay as they are; or images ``(B, 3, H, W)`` of ``image_size``, normalised with ``image_mean`` and
                ``image_std``.

        Raises:
            RuntimeError: if the encoder has random weights or comes from a run folder.
            UserError: if the inputs have the wrong shape.
        """
        if self.source_embedder is None:
            raise RuntimeError(
                "this encoder has no pretrained embedding (random weights, or loaded from a run folder), "
                "so samples of the pretraining modality cannot be embedded"
            )
        return self._embed_source(inputs)

    @abstractmethod
    def _embed_source(self, inputs: Tensor) -> Tensor: ...

    # Both ------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def body(self, tokens: Tensor) -> Tensor:
        """Run the pretrained layers and their final LayerNorm on tokens ``(B, N, D)``: features ``(B, N', F)``."""

    def spec(self) -> dict[str, Any]:
        """Everything needed to rebuild the attached encoder without the pretrained checkpoint, as JSON values."""
        return {
            "name": self.name,
            "config": architecture(self.config.to_dict()),
            "input_shape": list(self.input_shape),
            "patch_size": list(self.patch_size),
        }
