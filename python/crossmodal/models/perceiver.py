"""Perceiver IO (Jaegle et al., ICLR 2022): a few latent vectors look at every value of the input, whatever its shape, and
queries look at them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import PerceiverConfig, PerceiverModel
from transformers.models.perceiver import modeling_perceiver as perceiver

from crossmodal.models.base import Model

LATENTS, WIDTH, BANDS = 32, 128, 32
HEADS, LAYERS = 4, 3  # heads of the encoder; self-attentions in a block


class PerceiverIO(Model, name="perceiver"):
    """Outputs (B, K), or fields (B, K, *grid), of samples (B, C, L), which are images of one row, or (B, C, H, W).

    A value of the grid goes in as its channels with Fourier features of its place. Both forms have 32 latent vectors of 128
    numbers, cross-attention with 4 heads, blocks of 3 self-attentions, and linear maps as wide as the vectors between attentions.

    `paper`: transformers' model: one cross-attention, one block; a trained query gives K outputs, for fields the places
    themselves are queries. `nb360`: that of NAS-Bench-360: three times a cross-attention and a block, with weights of their own
    the first time and shared ones later; one trained query gives all outputs, a whole field as well.

    Args:
        input_shape: (C, L) or (C, H, W).
        num_outputs: K.
        dense: whether outputs are fields.
        variant: `paper` or `nb360`.
    """

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, dense: bool, variant: str) -> None:
        super().__init__()
        channels, *grid = input_shape
        self.grid, self.field = [1, *grid][-2:], (num_outputs, *grid) if dense else None
        if variant == "nb360":
            self.network: nn.Module = Repeated(
                channels, self.grid, num_outputs * math.prod(grid) if dense else num_outputs
            )
        else:
            self.network = _of_transformers(channels, self.grid, num_outputs, dense)
        self.variant = variant

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(len(x), x.shape[1], *self.grid)
        if self.variant == "nb360":
            found = self.network(x)
        else:
            found = self.network(x).logits  # of fields (B, *grid, K)
            found = found.movedim(-1, 1) if self.field else found
        return found.reshape(len(x), *self.field) if self.field else found


def _of_transformers(channels: int, grid: list[int], num_outputs: int, dense: bool) -> PerceiverModel:
    # Places are told apart by sines and cosines along both axes, and by their coordinates.
    config = PerceiverConfig(
        num_latents=LATENTS,
        d_latents=WIDTH,
        d_model=channels + 2 * (2 * BANDS + 1),
        num_blocks=1,
        num_self_attends_per_block=LAYERS,
        num_self_attention_heads=HEADS,
        num_cross_attention_heads=HEADS,
        qk_channels=WIDTH,
        v_channels=WIDTH,
        cross_attention_shape_for_attention="q",
        self_attention_widening_factor=1,
        cross_attention_widening_factor=1,
        num_labels=num_outputs,
        attn_implementation="eager",
    )
    preprocessor = perceiver.PerceiverImagePreprocessor(
        config,
        prep_type="pixels",
        spatial_downsample=1,
        in_channels=channels,
        position_encoding_type="fourier",
        fourier_position_encoding_kwargs={
            "num_bands": BANDS,
            "max_resolution": grid,
            "sine_only": False,
            "concat_pos": True,
        },
    )
    heads = {"qk_channels": WIDTH, "v_channels": WIDTH, "num_heads": 1}
    if dense:
        decoder = perceiver.PerceiverOpticalFlowDecoder(
            config,
            output_image_shape=grid,
            output_num_channels=num_outputs,
            rescale_factor=1.0,
            num_channels=config.d_model,
            position_encoding_type="none",
            **heads,
        )
    else:
        decoder = perceiver.PerceiverClassificationDecoder(
            config,
            num_channels=WIDTH,
            trainable_position_encoding_kwargs={"num_channels": WIDTH, "index_dims": 1},
            use_query_residual=True,
            **heads,
        )
    network = PerceiverModel(config, decoder=decoder, input_preprocessor=preprocessor)
    for module in network.modules():
        if isinstance(
            module, nn.Linear
        ):  # as the authors draw them; transformers' 0.02 is too little for maps of so few numbers
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    return network


class Repeated(nn.Module):
    """NAS-Bench-360's form: (B, C, H, W) to (B, outputs)."""

    ROUNDS = 3

    def __init__(self, channels: int, grid: list[int], outputs: int) -> None:
        super().__init__()
        self.register_buffer("places", fourier_features(grid), persistent=False)
        inputs = channels + self.places.shape[1]
        self.latents = nn.Parameter(0.02 * torch.randn(LATENTS, WIDTH))
        self.query = nn.Parameter(0.02 * torch.randn(1, WIDTH))
        self.rounds = nn.ModuleList(
            nn.ModuleList([Attention(HEADS, inputs), *(Attention(HEADS) for _ in range(LAYERS))]) for _ in range(2)
        )
        self.decoder, self.head = Attention(1, WIDTH), nn.Linear(WIDTH, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x.flatten(2).mT, self.places.expand(len(x), -1, -1)], dim=2)
        latents = self.latents.expand(len(x), -1, -1)
        for number in range(self.ROUNDS):
            cross, *block = self.rounds[min(number, 1)]
            latents = cross(latents, x)
            for attention in block:
                latents = attention(latents)
        return self.head(self.decoder(self.query.expand(len(x), -1, -1), latents)[:, 0])


class Attention(nn.Module):
    """Attention of x (B, N, 128) to values (B, M, inputs), or of x to itself, then two linear maps with GELU between; what
    comes of each is added to x.

    Args:
        heads: how many.
        inputs: numbers of a value; None: x attends to itself.
    """

    def __init__(self, heads: int, inputs: int | None = None) -> None:
        super().__init__()
        self.norm, self.norm_values = nn.LayerNorm(WIDTH), nn.LayerNorm(inputs) if inputs else None
        self.attention = nn.MultiheadAttention(WIDTH, heads, kdim=inputs, vdim=inputs, batch_first=True)
        self.after = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor, values: Tensor | None = None) -> Tensor:
        query = self.norm(x)
        values = query if values is None else self.norm_values(values)
        x = x + self.attention(query, values, values, need_weights=False)[0]
        return x + self.after(x)


def fourier_features(grid: list[int]) -> Tensor:
    """Of every point of a grid its coordinates from -1 to 1 and sines and cosines of these, at 32 frequencies per axis up to
    half the number of points: (points, axes * 65)."""
    coordinates = torch.meshgrid(*(torch.linspace(-1, 1, size) for size in grid), indexing="ij")
    features = []
    for axis, size in zip(coordinates, grid, strict=True):
        phases = math.pi * axis.flatten()[:, None] * torch.linspace(1, size / 2, BANDS)
        features.append(torch.cat([axis.flatten()[:, None], phases.sin(), phases.cos()], dim=1))
    return torch.cat(features, dim=1)
