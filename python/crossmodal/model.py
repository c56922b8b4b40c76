"""The model that is fine-tuned: encoder, task head, and for mixing with a source also its head and the gate."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from crossmodal import encoders
from crossmodal.encoders import Encoder
from crossmodal.heads import PooledHead, build_head
from pare_kernels import PatchGate

WEIGHTS_FILE = "model.safetensors"
DESCRIPTION_FILE = "model.json"
FORMAT = 1

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
_SOURCE_PREFIX = "encoder.source_embedder."


class CrossModalModel(nn.Module):
    """An attached encoder with a head for the target task.

    Args:
        encoder: an encoder on which ``attach`` was called.
        task_kind: ``"classification"``, ``"multilabel"``, ``"regression"`` or ``"dense"``.
        num_outputs: classes, labels, values, or channels of a dense output.
        output_shape: dense only: ``(num_outputs, L)`` or ``(num_outputs, H, W)``.
        source_classes: classes of the pretraining modality's labels; None without mixing, and then ``source_head`` and
            ``gate`` are None.

    Attributes:
        encoder, head: see above.
        source_head: linear map on mean-pooled features to the source's classes.
        gate: :class:`pare_kernels.PatchGate` on tokens of width ``encoder.width``.

    The parts are made in a fixed order, target before source, so one seed gives the same target head with and without
    a source.

    Raises:
        ValueError: if kind, outputs and shape do not fit each other.
    """

    def __init__(
        self,
        encoder: Encoder,
        task_kind: str,
        num_outputs: int,
        output_shape: tuple[int, ...] | None = None,
        source_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.task_kind = task_kind
        self.num_outputs = num_outputs
        self.output_shape = None if output_shape is None else tuple(output_shape)
        self.source_classes = source_classes
        self.encoder = encoder
        self.head = build_head(
            task_kind,
            encoder.feature_width,
            num_outputs,
            output_shape=self.output_shape,
            grid=encoder.feature_grid,
            stride=encoder.feature_stride,
            canvas_size=encoder.canvas_size,
        )
        with_source = source_classes is not None
        self.source_head = PooledHead(encoder.feature_width, source_classes) if with_source else None
        self.gate = PatchGate(encoder.width) if with_source else None

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
        """Task outputs of target samples on the clean path: no source, no gate."""
        return self.predict_from(self.body(self.embed(x)))

    # Parameters ------------------------------------------------------------------------------------------------------

    def parameter_groups(
        self, *, encoder_lr: float, new_lr: float, weight_decay: float = 0.0, decay_norm_and_bias: bool = True
    ) -> list[dict[str, Any]]:
        """Groups for a torch optimiser: the pretrained body at one learning rate, everything new at another.

        New is what fine-tuning adds: embedder, heads and gate. Frozen parameters are left out.

        Args:
            encoder_lr: learning rate of the pretrained body.
            new_lr: learning rate of the new parts.
            weight_decay: for both.
            decay_norm_and_bias: False exempts LayerNorms and biases (every parameter with one axis) from weight decay.

        Returns:
            Non-empty groups with ``name`` (``"encoder"``, ``"new"``, with ``"_no_decay"`` appended for the exempt
            parameters), ``params``, ``lr`` and ``weight_decay``.
        """
        groups: dict[str, dict[str, Any]] = {}
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            pretrained = name.startswith("encoder.") and not name.startswith("encoder.embedder.")
            exempt = not decay_norm_and_bias and parameter.ndim <= 1
            key = ("encoder" if pretrained else "new") + ("_no_decay" if exempt else "")
            group = groups.setdefault(
                key,
                {
                    "name": key,
                    "params": [],
                    "lr": encoder_lr if pretrained else new_lr,
                    "weight_decay": 0.0 if exempt else weight_decay,
                },
            )
            group["params"].append(parameter)
        return list(groups.values())

    def count_parameters(self, *, trainable: bool = False) -> int:
        """Number of parameters of the model, or of those that are trained.

        The frozen source embedding (a word table, mostly) is no part of the model that predicts and is not counted.
        """
        return sum(
            parameter.numel()
            for name, parameter in self.named_parameters()
            if not name.startswith(_SOURCE_PREFIX) and (parameter.requires_grad or not trainable)
        )

    # Files -----------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``model.json`` into ``folder``, which is made if need be.

        The frozen source embedding is left out: it is not needed to predict, and the pretrained checkpoint has it.
        Files are written aside and renamed, so an interruption leaves the old ones.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {key: value.detach().cpu().contiguous() for key, value in self._saved_state().items()}
        weights = _aside(folder / WEIGHTS_FILE)
        save_file(tensors, weights, metadata={"format": "pt"})
        description = {
            "format": FORMAT,
            "weights_sha256": _sha256(weights),
            "dtype": str(next(self.encoder.model.parameters()).dtype).removeprefix("torch."),
            "task_kind": self.task_kind,
            "num_outputs": self.num_outputs,
            "output_shape": None if self.output_shape is None else list(self.output_shape),
            "source_classes": self.source_classes,
            "encoder": self.encoder.spec(),
        }
        text = _aside(folder / DESCRIPTION_FILE)
        text.write_text(json.dumps(description, indent=2) + "\n")
        os.replace(weights, folder / WEIGHTS_FILE)
        os.replace(text, folder / DESCRIPTION_FILE)

    @classmethod
    def load(cls, folder: str | Path, *, device: str | torch.device = "cpu") -> CrossModalModel:
        """Read a model written by :meth:`save`, in eval mode; neither hub nor pretrained checkpoint is needed.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if a file is damaged, or the two do not belong together; the file and the key are named.
        """
        folder = Path(folder)
        description_file, weights_file = folder / DESCRIPTION_FILE, folder / WEIGHTS_FILE
        for file in (description_file, weights_file):
            if not file.is_file():
                raise FileNotFoundError(f"{file} is missing: {folder} is not the folder of a finished run")
        description = _read_description(description_file)
        if _sha256(weights_file) != description["weights_sha256"]:
            raise ValueError(f"{weights_file} is damaged or does not belong to {description_file} (its hash differs)")
        try:
            tensors = load_file(weights_file)
        except SafetensorError as error:
            raise ValueError(f"{weights_file} is not a readable safetensors file: {error}") from error
        model = cls._from_description(description, description_file)
        _check_tensors(tensors, model._saved_state(), weights_file)
        model.load_state_dict(tensors)
        return model.to(device).eval()

    @classmethod
    def _from_description(cls, description: dict[str, Any], file: Path) -> CrossModalModel:
        try:
            # The random weights that are overwritten at once must not move the caller's random stream.
            with torch.random.fork_rng(devices=[]):
                model = cls(
                    encoders.from_spec(description["encoder"]),
                    description["task_kind"],
                    description["num_outputs"],
                    description["output_shape"],
                    description["source_classes"],
                )
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file} does not describe a model: {error}") from error
        return model.to(_DTYPES[description["dtype"]])

    def _saved_state(self) -> dict[str, Tensor]:
        return {key: value for key, value in self.state_dict().items() if not key.startswith(_SOURCE_PREFIX)}


def _read_description(file: Path) -> dict[str, Any]:
    try:
        description = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not readable JSON: {error}") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f"{file} must describe a model in format {FORMAT}")
    expected = ("weights_sha256", "dtype", "task_kind", "num_outputs", "output_shape", "source_classes", "encoder")
    for key in expected:
        if key not in description:
            raise ValueError(f"{file} lacks the key {key!r}")
    if description["dtype"] not in _DTYPES:
        raise ValueError(f"{file}: dtype must be one of {list(_DTYPES)}, got {description['dtype']!r}")
    return description


def _check_tensors(found: dict[str, Tensor], expected: dict[str, Tensor], file: Path) -> None:
    for key in sorted(found.keys() ^ expected.keys()):
        raise ValueError(f"{file} {'lacks the tensor' if key in expected else 'has an unexpected tensor'} {key!r}")
    for key, value in found.items():
        if value.shape != expected[key].shape:
            raise ValueError(
                f"{file}: tensor {key!r} has shape {tuple(value.shape)}, expected {tuple(expected[key].shape)}"
            )


def _aside(file: Path) -> Path:
    return file.with_name(f".{file.name}.{os.getpid()}.tmp")


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
