"""The model that is fine-tuned: a pretrained encoder with a new embedder and a head for the task."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from crossmodal.errors import UserError
from crossmodal.kinds import KINDS
from crossmodal.models import encoders
from crossmodal.models.base import Model, ParameterGroups
from crossmodal.models.encoders import Encoder
from crossmodal.models.heads import DENSE_HEADS, PooledHead


class FineTuned(Model, name="finetuned"):
    """An attached encoder with a head for the target task.

    Args:
        encoder: an encoder on which ``attach`` was called.
        task_kind: ``"classification"``, ``"multilabel"``, ``"regression"`` or ``"dense"``.
        num_outputs: classes, labels, values, or channels of a dense output.
        output_shape: dense only: ``(num_outputs, L)`` or ``(num_outputs, H, W)``.
        dense_head: dense only: ``"linear"`` or ``"upsampling"``, see :mod:`crossmodal.models.heads`.

    Attributes:
        fitted: whether the head was fitted to the features; it is not new then, but learns with the last layer.

    Raises:
        UserError: if kind, outputs and shape do not fit each other.
    """

    unsaved = ("encoder.source_embedder.",)  # a word table, mostly: the pretrained checkpoint has it

    def __init__(
        self,
        encoder: Encoder,
        task_kind: str,
        num_outputs: int,
        output_shape: tuple[int, ...] | None = None,
        dense_head: str = "linear",
    ) -> None:
        super().__init__()
        self.task_kind = task_kind
        self.num_outputs = num_outputs
        self.output_shape = None if output_shape is None else tuple(output_shape)
        self.dense_head = dense_head
        self.encoder = encoder
        self.fitted = False
        if num_outputs < 1:
            raise UserError(f"num_outputs must be at least 1, got {num_outputs}")
        if task_kind not in KINDS:
            raise UserError(f"kind must be one of {KINDS}, got {task_kind!r}")
        if task_kind != "dense":
            self.head: nn.Module = PooledHead(encoder.feature_width, num_outputs)
            return
        if output_shape is None or output_shape[0] != num_outputs:
            raise UserError(
                f"output_shape of a dense head must start with num_outputs={num_outputs}, got {self.output_shape}"
            )
        self.head = DENSE_HEADS[dense_head](
            encoder.feature_width,
            self.output_shape,
            grid=encoder.feature_grid,
            stride=encoder.feature_stride,
            canvas_size=encoder.canvas_size,
            restore=encoder.attached.restore,
        )

    def embed(self, x: Tensor) -> Tensor:
        """Tokens ``(B, N, D)`` of target samples ``(B, C, L)`` or ``(B, C, H, W)``."""
        return self.encoder.embed(x)

    def embed_source(self, inputs: Tensor) -> Tensor:
        """Tokens ``(B, M, D)`` of the pretraining modality, without gradient."""
        return self.encoder.embed_source(inputs)

    def body(self, tokens: Tensor) -> Tensor:
        """Features ``(B, N', F)`` of tokens ``(B, N, D)``."""
        return self.encoder.body(tokens)

    def predict_from(self, features: Tensor) -> Tensor:
        """Task outputs of features: ``(B, num_outputs)``, or ``(B, *output_shape)`` for a dense task."""
        return self.head(features)

    def forward(self, x: Tensor) -> Tensor:
        """Task outputs of target samples."""
        return self.predict_from(self.body(self.embed(x)))

    def parameter_groups(self) -> ParameterGroups:
        """With random weights nothing is copied, and the embedder is new."""
        layers = self.encoder.layers()
        layer_of = {id(p): number for number, layer in enumerate(layers, 1) for p in layer.parameters()}
        groups = ParameterGroups([[] for _ in range(len(layers) + 1)], [])
        copied = tuple(f"encoder.embedder.{part}" for part in self.encoder.copied)
        number = 0
        for name, parameter in self.named_parameters():
            number = layer_of.get(id(parameter), number)
            if not parameter.requires_grad:
                continue
            if name.startswith(copied):
                groups.encoder[0].append(parameter)
            elif name.startswith("encoder.") and not name.startswith("encoder.embedder."):
                groups.encoder[number].append(parameter)
            elif name.startswith("head.") and self.fitted:
                groups.encoder[-1].append(parameter)
            else:
                groups.new.append(parameter)
        return groups

    def layers(self) -> list[nn.Module]:
        return self.encoder.layers()

    def compile_body(self) -> None:
        self.encoder.body = torch.compile(self.encoder.body)

    def facts(self) -> dict[str, Any]:
        return {
            "layers": len(self.encoder.layers()),
            "tokens": self.encoder.num_tokens,
            "patch_size": list(self.encoder.patch_size),
            "canvas_size": list(self.encoder.canvas_size),
        }

    def spec(self) -> dict[str, Any]:
        return self.arguments | {"encoder": self.encoder.spec()}

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> FineTuned:
        return cls(**spec | {"encoder": encoders.from_spec(spec["encoder"])})
