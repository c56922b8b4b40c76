"""The attention network for gestures from muscle signals (Josephs et al., ML4H 2020)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from crossmodal.models.base import Model
from crossmodal.models.convolutions import BatchNorm

FEATURES, WIDTHS, DROPOUT = 128, (500, 500, 2000), 0.36


class AttentionNetwork(Model, name="attention"):
    """Outputs (B, K) of series (B, C, L), or of images (B, C, H, W), whose rows are such channels.

    Batch norm of each channel; 128 features of it by one linear map for all channels; of each feature the mean over the
    channels with weights that a softmax gives; three layers of 500, 500 and 2000 units, each with dropout before it. Mish and
    LayerNorm follow each linear map but the last.

    That the public code takes the 16 electrodes for steps in time, 52 values of which are features, is kept.

    Args:
        input_shape: (C, L) or (C, H, W).
        num_outputs: K.
    """

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        super().__init__()
        *rows, length = input_shape
        channels = rows[0] * (rows[1] if len(rows) > 1 else 1)
        self.norm = BatchNorm(channels)
        self.features = nn.Sequential(nn.Linear(length, FEATURES), nn.Mish(), nn.LayerNorm(FEATURES))
        self.weights = nn.Linear(channels, channels)
        parts: list[nn.Module] = []
        for before, after in pairwise((FEATURES, *WIDTHS)):
            parts += [nn.Dropout(DROPOUT), nn.Linear(before, after), nn.Mish(), nn.LayerNorm(after)]
        self.head = nn.Sequential(*parts, nn.Linear(WIDTHS[-1], num_outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(self.norm(x.flatten(1, -2)))
        weights = self.weights(x.mT).softmax(-1).mT
        return self.head((weights * x).sum(1))
