"""Image encoders: Swin (hierarchical, windows) and ViT (one scale, class token)."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from crossmodal.errors import UserError
from crossmodal.models.embedders import DEFAULT_TARGET_TOKENS, PatchEmbedder, tile_channels
from crossmodal.models.encoders._transformers import PreTrainedModel
from crossmodal.models.encoders.base import Encoder
from crossmodal.models.series_images import SeriesImages


class ImageEncoder(Encoder):
    """What Swin and ViT share: samples ``(C, H, W)`` are resized to ``image_size`` and cut by the pretrained patch size; series
    ``(C, L)`` are drawn as images of that size first (:class:`~crossmodal.models.series_images.SeriesImages`).

    Each image of a sample goes through :meth:`body` alone, and their features are joined, patch by patch.

    The pretrained patch kernel is tiled along the input channels, its bias, LayerNorm and position embeddings are
    copied; positions of another grid than the pretrained one are interpolated as transformers does (bicubic).

    Args:
        image_size: ``(H, W)``; None for ``usual_size``, and for series for what makes at most 64 patches of it.
        usual_size: the checkpoint's own.
        series: "pieces" (the default of series) or "spectrogram": what is drawn of a series.
        channels: "images" (the default of series) or "colours": what the channels of a series become.

    Attributes:
        image_size: ``(H, W)`` of the canvas, and of the images given to :meth:`embed_source`; of series, known after
            :meth:`attach`.
        image_mean, image_std: statistics by which those images are normalised.
    """

    modality = "image"
    series_tokens: ClassVar[int | None] = (
        DEFAULT_TARGET_TOKENS  # of an image, where no size is asked for; None: the usual size
    )

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        name: str,
        keep_source: bool,
        image_size: tuple[int, int] | None = None,
        usual_size: tuple[int, int] | None = None,
        image_mean: tuple[float, ...],
        image_std: tuple[float, ...],
        series: str | None = None,
        channels: str | None = None,
    ) -> None:
        projection: nn.Conv2d = model.embeddings.patch_embeddings.projection
        self._kernel = projection.kernel_size
        self._channels = projection.in_channels
        super().__init__(model, name=name, keep_source=keep_source)
        self._sized = image_size is not None
        self.image_size = tuple(image_size or usual_size)
        if any(size < patch or size % patch for size, patch in zip(self.image_size, self._kernel, strict=True)):
            raise UserError(
                f"model.image_size: expected a multiple of the patch size {self._kernel}, got {self.image_size}"
            )
        self.image_mean = tuple(image_mean)
        self.image_std = tuple(image_std)
        self.series, self.channels = series, channels
        self.width = projection.out_channels

    @property
    def feature_width(self) -> int:
        return self.config.hidden_size * self.attached.images

    @property
    def max_tokens(self) -> int:
        return self._num_patches if self.embedder is None else self.num_tokens

    @property
    def _num_patches(self) -> int:
        """Of one image."""
        return (self.image_size[0] // self._kernel[0]) * (self.image_size[1] // self._kernel[1])

    def attach(self, input_shape: tuple[int, ...], patch_size: int | tuple[int, ...] | None = None) -> None:
        """Build the embedder; the patch size is the pretrained one."""
        if patch_size is not None and patch_size not in (self._kernel, list(self._kernel), self._kernel[0]):
            raise UserError(
                f"model.patch_size: the weights of {self.name!r} fix it to {self._kernel}, got {patch_size}"
            )
        embedder = self._new_embedder(input_shape, self._imaging(input_shape))
        if self.source_embedder is None:
            nn.init.trunc_normal_(embedder.projection.weight, std=self.config.initializer_range)
            if embedder.position_embeddings is not None:
                nn.init.trunc_normal_(embedder.position_embeddings, std=self.config.initializer_range)
        else:
            self._initialise(embedder)
            self.copied = ("projection", "norm", "position_embeddings")
        self._install(embedder)

    @abstractmethod
    def _new_embedder(self, input_shape: tuple[int, ...], imaging: SeriesImages | None) -> PatchEmbedder: ...

    def _imaging(self, input_shape: tuple[int, ...]) -> SeriesImages | None:
        """What draws series of that shape."""
        if len(input_shape) == 3:
            for key in ("series", "channels"):
                if getattr(self, key) is not None:
                    raise UserError(
                        f"model.{key}: for series (C, L); samples of shape {input_shape} are images already"
                    )
            return None
        if not self._sized and self.series_tokens is not None:
            most = math.isqrt(self.series_tokens)
            sides = zip(self.image_size, self._kernel, strict=True)
            self.image_size = tuple(min(size, most * patch) for size, patch in sides)
        self.series, self.channels = self.series or "pieces", self.channels or "images"
        return SeriesImages(
            input_shape,
            self.image_size,
            series=self.series,
            channels=self.channels,
            mean=self.image_mean,
            std=self.image_std,
        )

    @torch.no_grad()
    def _initialise(self, embedder: PatchEmbedder) -> None:
        source = self.source_embedder
        pretrained = source.patch_embeddings.projection
        embedder.projection.weight.copy_(tile_channels(pretrained.weight, embedder.projection.in_channels))
        embedder.projection.bias.copy_(pretrained.bias)
        if embedder.position_embeddings is not None:
            embedder.position_embeddings.copy_(
                _positions(source, self.image_size, self._num_patches)[0, -self._num_patches :]
            )

    def embed_source(self, inputs: Tensor) -> Tensor:
        """See :class:`Encoder`; where samples are several images, the source image stands for each of them."""
        tokens = super().embed_source(inputs)
        return tokens if self.embedder is None else tokens.repeat(1, self.embedder.images, 1)

    def _check_source(self, images: Tensor) -> None:
        expected = (self._channels, *self.image_size)
        if images.shape[1:] != expected:
            raise UserError(f"inputs must be images (B, {', '.join(map(str, expected))}), got {tuple(images.shape)}")

    def spec(self) -> dict[str, Any]:
        return super().spec() | {
            "image_size": list(self.image_size),
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
            "series": self.series,
            "channels": self.channels,
        }

    def body(self, tokens: Tensor) -> Tensor:
        features = self._image_body(tokens.reshape(-1, self._num_patches, self.width))
        images = tokens.shape[1] // self._num_patches
        return features.unflatten(0, (-1, images)).transpose(1, 2).flatten(2)

    @abstractmethod
    def _image_body(self, tokens: Tensor) -> Tensor:
        """:meth:`body` for the tokens of one image."""


class SwinEncoder(ImageEncoder):
    """Swin and Swin v2: patch embedding and LayerNorm, then stages that halve the grid; features after the last norm.

    Swin-base at 224 x 224: tokens ``(B, 56 * 56, 128)``, features ``(B, 7 * 7, 1024)``.
    """

    series_tokens = None  # windows and stages ask for more than a few

    def __init__(self, model: PreTrainedModel, **kwargs: Any) -> None:
        self._norm_eps = model.embeddings.norm.eps
        self._has_positions = model.embeddings.position_embeddings is not None
        super().__init__(model, **kwargs)
        self._halvings = len(self.config.depths) - 1
        smallest = min(self.image_size) // self._kernel[0] // 2**self._halvings
        # Swin v2 shrinks its windows to the grid, v1 cannot: its table of relative positions has the window's size.
        if self.config.model_type == "swin" and smallest < self.config.window_size:
            raise UserError(
                f"model.image_size: {self.image_size} leaves {smallest} cells per axis in the last stage of {self.name!r}, "
                f"less than its window of {self.config.window_size}"
            )

    def _new_embedder(self, input_shape: tuple[int, ...], imaging: SeriesImages | None) -> PatchEmbedder:
        return PatchEmbedder(
            input_shape,
            self.width,
            self._kernel,
            image_size=self.image_size,
            imaging=imaging,
            norm_eps=self._norm_eps,
            positions=self._has_positions,
        )

    def _initialise(self, embedder: PatchEmbedder) -> None:
        super()._initialise(embedder)
        embedder.norm.load_state_dict(self.source_embedder.norm.state_dict())

    @property
    def feature_grid(self) -> tuple[int, ...]:
        grid = self.token_grid
        for _ in range(self._halvings):
            grid = tuple((cells + 1) // 2 for cells in grid)
        return grid

    @property
    def feature_stride(self) -> tuple[int, ...]:
        return tuple(patch * 2**self._halvings for patch in self.patch_size)

    def _embed_source(self, inputs: Tensor) -> Tensor:
        self._check_source(inputs)
        return self.source_embedder(inputs, interpolate_pos_encoding=True)[0]

    def _image_body(self, tokens: Tensor) -> Tensor:
        hidden = self.model.encoder(tokens, self.token_grid)[0]
        return self.model.layernorm(hidden)


class ViTEncoder(ImageEncoder):
    """ViT, DeiT, DINOv2: tokens are the patches; class (and distillation) tokens join inside :meth:`body`.

    They attend and are attended to, but there is one feature for each patch alone, so that pooling and dense heads see no others.

    Args:
        class_token: to each patch's feature that of the class token is appended, which under pooling is the concatenation of
            class token and mean.
    """

    def __init__(self, model: PreTrainedModel, *, class_token: bool = False, **kwargs: Any) -> None:
        embeddings = model.embeddings
        super().__init__(model, **kwargs)
        self.class_token = class_token
        # Class tokens with their positions do not depend on the image: read them off a blank one.
        blank = torch.zeros(1, self._channels, *self.image_size)
        with torch.no_grad():
            prefix = self._embed_with_prefix(embeddings.eval(), blank)[:, : -self._num_patches]
        self.prefix = nn.Parameter(prefix.clone())

    @property
    def feature_width(self) -> int:
        return super().feature_width * (2 if self.class_token else 1)

    def _new_embedder(self, input_shape: tuple[int, ...], imaging: SeriesImages | None) -> PatchEmbedder:
        return PatchEmbedder(input_shape, self.width, self._kernel, image_size=self.image_size, imaging=imaging)

    def _embed_with_prefix(self, embeddings: nn.Module, images: Tensor) -> Tensor:
        # DINOv2 always interpolates its positions and has no switch for it.
        if self.config.model_type == "dinov2":
            return embeddings(images)
        return embeddings(images, interpolate_pos_encoding=True)

    def _embed_source(self, inputs: Tensor) -> Tensor:
        self._check_source(inputs)
        return self._embed_with_prefix(self.source_embedder, inputs)[:, -self._num_patches :]

    def _image_body(self, tokens: Tensor) -> Tensor:
        hidden = torch.cat([self.prefix.expand(len(tokens), -1, -1), tokens], dim=1)
        layers = self.model.layers if hasattr(self.model, "layers") else self.model.encoder.layer
        for layer in layers:
            hidden = layer(hidden)
        hidden = self.model.layernorm(hidden)
        patches = hidden[:, self.prefix.shape[1] :]
        return torch.cat([patches, hidden[:, :1].expand_as(patches)], dim=2) if self.class_token else patches

    def spec(self) -> dict[str, Any]:
        return super().spec() | {"class_token": self.class_token}


def _positions(embeddings: nn.Module, image_size: tuple[int, int], num_patches: int) -> Tensor:
    """Position embeddings ``(1, P + N, D)`` of a transformers patch embedding for another image size (P class tokens)."""
    table = embeddings.position_embeddings
    patches = embeddings.patch_embeddings
    prefix = table.shape[1] - patches.num_patches
    like = table.new_empty(1, prefix + num_patches, table.shape[2])  # only its shape is read
    return embeddings.interpolate_pos_encoding(like, *image_size)
