"""Text encoders: BERT, RoBERTa and their relatives."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn

from crossmodal.errors import UserError
from crossmodal.models.embedders import DEFAULT_TARGET_TOKENS, PatchEmbedder, default_patch_size
from crossmodal.models.encoders._transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from crossmodal.models.encoders.base import Encoder


class TextEncoder(Encoder):
    """BERT-shaped encoder over patches of a signal ``(C, L)``, or of an image ``(C, H, W)`` in row-major order.

    Target embedding, as in ORCA and PaRe: convolution, LayerNorm (copied), then position embeddings (the first N,
    copied, trainable) on top; no token-type embedding and no dropout. The two copies serve a new modality behind a new
    convolution, and learn at the rate of new parts. Note that BERT itself normalises *after* adding
    positions and types; that is what :meth:`embed_source` does for text.
    """

    modality = "text"

    def __init__(self, model: PreTrainedModel, *, name: str, keep_source: bool) -> None:
        positions: nn.Embedding = model.embeddings.position_embeddings
        norm: nn.LayerNorm = model.embeddings.LayerNorm
        # RoBERTa keeps the rows up to the padding id free of positions.
        self._first_position = 0 if positions.padding_idx is None else positions.padding_idx + 1
        self._norm_eps = norm.eps
        super().__init__(model, name=name, keep_source=keep_source)
        self.width = norm.normalized_shape[0]
        self.feature_width = self.config.hidden_size
        self.max_tokens = positions.num_embeddings - self._first_position

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that belongs to the pretrained weights.

        Raises:
            UserError: if the checkpoint has none or cannot be reached.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder or self.name, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise UserError(f"encoder {self.name!r} has no readable tokenizer: {error}") from error
        # Without its files transformers makes a tokenizer up that maps every word to the unknown token.
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise UserError(f"encoder {self.name!r} has no tokenizer files (tokenizer.json or a vocabulary)")
        return tokenizer

    def attach(self, input_shape: tuple[int, ...], patch_size: int | tuple[int, ...] | None = None) -> None:
        size = input_shape[1:]
        if patch_size is None:
            patch_size = default_patch_size(size, min(DEFAULT_TARGET_TOKENS, self.max_tokens))
        elif isinstance(patch_size, int):
            patch_size = (patch_size,) * len(size)
        if len(patch_size) != len(size) or not all(
            1 <= p <= length for p, length in zip(patch_size, size, strict=True)
        ):
            raise UserError(f"model.patch_size: expected 1 to {size} per axis, got {patch_size}")
        embedder = PatchEmbedder(input_shape, self.width, patch_size, norm_eps=self._norm_eps)
        if embedder.num_tokens > self.max_tokens:
            raise UserError(
                f"model.patch_size: {patch_size} cuts samples of shape {input_shape} into {embedder.num_tokens} tokens, but "
                f"{self.name!r} has {self.max_tokens} positions: use patches of at least "
                f"{default_patch_size(size, self.max_tokens)}"
            )
        if self.source_embedder is None:
            nn.init.normal_(embedder.position_embeddings, std=self.config.initializer_range)
        else:
            rows = slice(self._first_position, self._first_position + embedder.num_tokens)
            with torch.no_grad():
                embedder.position_embeddings.copy_(self.source_embedder.position_embeddings.weight[rows])
            embedder.norm.load_state_dict(self.source_embedder.LayerNorm.state_dict())
        self._install(embedder)

    def _embed_source(self, inputs: Tensor) -> Tensor:
        return inputs if inputs.is_floating_point() else self.source_embedder(input_ids=inputs)

    def body(self, tokens: Tensor) -> Tensor:
        # ELECTRA's embedding may be narrower than its layers.
        project = getattr(self.model, "embeddings_project", None)
        hidden = tokens if project is None else project(tokens)
        layers = self.model.transformer if self.config.model_type == "distilbert" else self.model.encoder
        return layers(hidden)[0]
