"""z-scores of inputs and targets, and the rules that turn a user's raw array into a tensor the model takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crossmodal.data.numeric import chunks, require_numbers
from crossmodal.data.series import stack_series
from crossmodal.errors import UserError

SCALINGS = ("channel", "position", "none")
Scaling = (
    str | tuple[str | tuple[float, float], ...]
)  # one of SCALINGS; or of each channel one, or its mean and deviation
PLAIN = ("input_shape", "resample", "fill_missing", "logits")  # entries that are no tensors


@dataclass(frozen=True)
class Normalizer:
    """``(x - x_mean) / x_std`` and the same for ``y``; saved with a run, applied to new data.

    Attributes:
        input_shape: ``(C, L)`` or ``(C, H, W)``.
        x_mean, x_std: float64, broadcastable to ``input_shape``.
        y_mean, y_std: float64, broadcastable to one target; None where targets are not scaled.
        resample: series of another length are resampled to ``L`` (else refused).
        fill_missing: NaN is interpolated along a series (else refused).
        x_fill: float64, broadcastable to ``input_shape``: what stands in for NaN (else it is refused); None where there is none.
        logits: the model's outputs are logits of targets from 0 to 1, which are not scaled.
    """

    input_shape: tuple[int, ...]
    x_mean: Tensor
    x_std: Tensor
    y_mean: Tensor | None = None
    y_std: Tensor | None = None
    resample: bool = False
    fill_missing: bool = False
    logits: bool = False
    x_fill: Tensor | None = None

    @classmethod
    def fit(
        cls,
        x: np.ndarray,
        y: np.ndarray | None = None,
        *,
        rows: np.ndarray | None = None,
        per_x: Scaling = "channel",
        per_y: str = "channel",
        resample: bool = False,
        fill_missing: bool = False,
        logits: bool = False,
        impute: bool = False,
    ) -> Normalizer:
        """Take the statistics of training data.

        Args:
            x: ``(n, C, L)`` or ``(n, C, H, W)``.
            y: ``(n, R)``, ``(n, Cout, L)`` or ``(n, Cout, H, W)``; None to leave targets alone.
            rows: indices of the samples that count (None: all).
            per_x, per_y: "channel", "position" or "none", of inputs also one of these, or a mean and a deviation, for each
                channel; see :class:`crossmodal.tasks.RawTask`.
            impute: NaN in ``x``, which lies in memory, becomes the median of its position.

        Entries that are constant in ``x`` or ``y`` become zero: their deviation counts as one.
        """
        x_fill = None
        if impute:
            known = np.ma.masked_invalid(x if rows is None else x[rows])
            x_fill = torch.from_numpy(np.ma.median(known, axis=0).filled(0).astype(np.float64))
            x = _filled(x, x_fill)
        x_mean, x_std = _statistics(x, per_x, rows)
        y_mean, y_std = (None, None) if y is None or per_y == "none" else _statistics(y, per_y, rows)
        return cls(tuple(x.shape[1:]), x_mean, x_std, y_mean, y_std, resample, fill_missing, logits, x_fill)

    def apply_x(self, x: np.ndarray | Tensor, rows: np.ndarray | None = None) -> Tensor:
        """Scale inputs ``(n, *input_shape)`` of any real dtype, or those that ``rows`` names; the result is float32."""
        return _scaled(x, rows, self.x_mean, self.x_std, self.x_fill)

    def apply_y(self, y: np.ndarray | Tensor, rows: np.ndarray | None = None) -> Tensor:
        """The same for targets ``(n, ...)``, which keep their values where targets are not scaled; of a roll-out, frame after
        frame along the channels, each frame is scaled alike."""
        return _scaled(y, rows, *self._y_scale(y.shape[1]))

    def inverse_x(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`apply_x`, in float64 where the device has it."""
        x = _wide(x)
        return x * self.x_std.to(x) + self.x_mean.to(x)

    def inverse_y(self, y: Tensor) -> Tensor:
        """The inverse of :meth:`apply_y`, in float64 on the targets' device; those that are not scaled stay as they are."""
        if self.y_mean is None:
            return y
        y = _wide(y)
        mean, std = self._y_scale(y.shape[1])
        return y * std.to(y) + mean.to(y)

    def _y_scale(self, channels: int) -> tuple[Tensor | None, Tensor | None]:
        """Mean and deviation of targets with so many channels, which are one frame's or several frames'."""
        if self.y_mean is None:
            return None, None
        frames = [channels // len(self.y_mean), *[1] * (self.y_mean.ndim - 1)]
        return self.y_mean.repeat(frames), self.y_std.repeat(frames)

    def decode(self, outputs: Tensor) -> Tensor:
        """Turn a model's outputs ``(n, ...)`` into what the targets hold, float64; logits of classes and labels stay."""
        return _wide(outputs).sigmoid() if self.logits else self.inverse_y(outputs)

    def following(self, x: Tensor, output: Tensor) -> Tensor:
        """What comes after the samples ``x`` of a roll-out: of their frames, which lie along the channels, the oldest goes, and the
        model's output is the newest; all scaled, float32."""
        new = self.inverse_y(output)
        frames = torch.cat([self.inverse_x(x)[:, new.shape[1] :], new], dim=1)
        return ((frames - self.x_mean.to(frames)) / self.x_std.to(frames)).float()

    def prepare(self, raw: np.ndarray | Tensor | Sequence[np.ndarray], name: str = "inputs") -> np.ndarray:
        """Turn raw data into an array ``(n, *input_shape)``, checked and in its own units (:meth:`apply_x` scales it).

        Args:
            raw: real numbers ``(n, L)`` (for one channel), ``(n, C, L)`` or ``(n, C, H, W)``; or a list of series
                ``(L_i,)`` or ``(C, L_i)``.
            name: what errors call the data.

        Raises:
            UserError: not real numbers, no samples, a shape that does not fit, NaN or infinity; sample and value are named.
        """
        raw = raw.detach().cpu().numpy() if isinstance(raw, Tensor) else raw
        if isinstance(raw, np.ndarray | np.generic) and raw.ndim < 2:
            raise UserError(f"{name}: expected samples of shape {self.input_shape}, got an array of shape {raw.shape}")
        if len(raw) == 0:
            raise UserError(f"{name}: no samples")
        if not isinstance(raw, np.ndarray):
            each = [self._prepared(np.asanyarray(one)[None], f"{name}[{i}]") for i, one in enumerate(raw)]
            return np.concatenate(each)
        return self._prepared(raw, name)

    def _prepared(self, x: np.ndarray, name: str) -> np.ndarray:
        given = x.shape[1:]
        if x.ndim == 2 and len(self.input_shape) == 2:
            x = x[:, None]
        fits = x.shape[1:2] == self.input_shape[:1] if self.resample else x.shape[1:] == self.input_shape
        if x.ndim != len(self.input_shape) + 1 or not fits or 0 in x.shape[1:]:
            anyhow = " (of any length)" if self.resample else ""
            raise UserError(f"{name}: expected samples of shape {self.input_shape}{anyhow}, got {given}")
        require_numbers(x, name, missing=self.fill_missing or self.x_fill is not None)
        if not self.fill_missing and x.shape[1:] == self.input_shape:
            return x
        return stack_series(x, self.input_shape[-1], name)

    def state(self) -> dict[str, Tensor]:
        """Everything as tensors, for safetensors; what is None is left out."""
        state = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {name: torch.as_tensor(value).clone() for name, value in state.items() if value is not None}

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> Normalizer:
        """Inverse of :meth:`state`.

        Raises:
            UserError: an entry is missing.
        """
        known = {item.name: item.default for item in dataclasses.fields(cls)}
        missing = [name for name, default in known.items() if name not in state and default is not None]
        if missing:
            raise UserError(f"state: missing entries {missing}")
        values = {name: state[name].tolist() if name in PLAIN else state[name] for name in known if name in state}
        return cls(**values | {"input_shape": tuple(values["input_shape"])})


def _wide(values: Tensor) -> Tensor:
    """In float64, where values far from zero (pascals, time stamps) still differ; MPS has none."""
    return values.float() if values.device.type == "mps" else values.double()


def _filled(values: np.ndarray, fill: Tensor | None) -> np.ndarray:
    return values if fill is None else np.where(np.isnan(values), fill.numpy(), values)


def _scaled(
    values: np.ndarray | Tensor,
    rows: np.ndarray | None,
    mean: Tensor | None,
    std: Tensor | None,
    fill: Tensor | None = None,
) -> Tensor:
    """``(values - mean) / std`` of values ``(n, ...)`` in float64, NaN filled, rounded to float32; a piece at a time, for the data
    may fill half the memory."""
    values = values.numpy() if isinstance(values, Tensor) else values
    out = np.empty((len(values) if rows is None else len(rows), *values.shape[1:]), np.float32)
    done = 0
    unscaled = mean is None or not (mean.any() or (std != 1).any())
    with np.errstate(over="ignore"):  # infinity is refused where the task is checked
        for chunk in chunks(values, rows):
            chunk = _filled(chunk, fill)
            if not unscaled:
                chunk = (chunk - mean.numpy()) / std.numpy()
            out[done : done + len(chunk)] = chunk
            done += len(chunk)
    return torch.from_numpy(out)


def _statistics(values: np.ndarray, per: Scaling, rows: np.ndarray | None) -> tuple[Tensor, Tensor]:
    """Mean and deviation over the samples, and for "channel" over positions, shaped to broadcast to one sample."""
    shape = values.shape[1:]
    if not isinstance(per, str):
        ones = (1,) * len(shape)
        parts = [
            _statistics(values[:, channel : channel + 1], one, rows)
            if isinstance(one, str)
            else tuple(torch.full(ones, number, dtype=torch.float64) for number in one)
            for channel, one in enumerate(per)
        ]
        size = torch.broadcast_shapes(*(mean.shape for mean, _ in parts))
        return tuple(torch.cat([part[which].expand(size) for part in parts]) for which in (0, 1))
    if per == "none":
        one_per_channel = (shape[0], *(1 for _ in shape[1:]))
        return torch.zeros(one_per_channel, dtype=torch.float64), torch.ones(one_per_channel, dtype=torch.float64)
    axes = {"channel": (0, *range(2, values.ndim)), "position": (0,)}[per]
    count = (len(values) if rows is None else len(rows)) * (math.prod(shape[1:]) if per == "channel" else 1)
    low, high, total, squares = np.inf, -np.inf, 0.0, 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is reported below
        for chunk in chunks(values, rows):
            low = np.minimum(low, chunk.min(axis=axes, keepdims=True))
            high = np.maximum(high, chunk.max(axis=axes, keepdims=True))
            total = total + chunk.sum(axis=axes, dtype=np.float64, keepdims=True)
        mean = total / count
        for chunk in chunks(values, rows):
            squares = squares + np.square(chunk - mean).sum(axis=axes, keepdims=True)
        std = np.sqrt(squares / count)
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        largest = max(np.abs(low).max(), np.abs(high).max())
        raise UserError(
            f"normalisation: values up to {largest:.3g} in magnitude are so large that their mean or deviation overflows"
        )
    # Asking for equality, not for a small deviation: rounding leaves a deviation above zero in constant data.
    constant = low == high
    mean, std = np.where(constant, low, mean), np.where(constant, 1.0, std)
    return torch.from_numpy(mean[0].astype(np.float64)), torch.from_numpy(std[0].astype(np.float64))
