"""The model that is fine-tuned: encoder, task head, and for mixing with a source also its head and the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from crossmodal import encoders
from crossmodal.encoders import Encoder
from crossmodal.files import digest, read_json, replacing, write_json, writing
from crossmodal.heads import PooledHead, build_head
from pare_kernels import PatchGate

WEIGHTS_FILE = "model.safetensors"
DESCRIPTION_FILE = "model.json"
FORMAT = 1

_DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
_SOURCE_PREFIX = "encoder.source_embedder."


class ParameterGroups(NamedTuple):
    """Trainable parameters: ``encoder``, by layer, and ``new``, what fine-tuning adds (heads, gate, new parts of the embedder).

    ``encoder[0]`` is the embedding (class tokens, and what the embedder copied), ``encoder[i]`` layer i with what follows
    it up to the next one. With random weights nothing is copied, and the embedder is new.
    """

    encoder: list[list[nn.Parameter]]
    new: list[nn.Parameter]


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

    def parameter_groups(self) -> ParameterGroups:
        """Trainable parameters, those of the encoder apart from the new ones, for their learning rates."""
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
            else:
                groups.new.append(parameter)
        return groups

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

    def save(self, folder: str | Path, weights: dict[str, Tensor] | None = None) -> None:
        """Write ``model.safetensors`` and ``model.json`` into ``folder``, which is made if need be.

        ``weights``: whole tensors by the names of ``state_dict``, where the model itself holds shards of them.

        The frozen source embedding is left out: it is not needed to predict, and the pretrained checkpoint has it.
        Files are written aside and renamed; the description holds the hash of the weights, so that a pair torn apart
        by an interruption is refused when it is loaded.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = self.state_dict() if weights is None else weights
        tensors = {key: value.detach().cpu().contiguous() for key, value in _saved(weights).items()}
        with replacing(folder / WEIGHTS_FILE) as aside, writing(folder / WEIGHTS_FILE):
            save_file(tensors, aside, metadata={"format": "pt"})
            weights_sha256 = digest(aside)
        description = {
            "format": FORMAT,
            "weights_sha256": weights_sha256,
            "dtype": str(next(self.encoder.model.parameters()).dtype).removeprefix("torch."),
            "task_kind": self.task_kind,
            "num_outputs": self.num_outputs,
            "output_shape": self.output_shape,
            "source_classes": self.source_classes,
            "encoder": self.encoder.spec(),
        }
        write_json(folder / DESCRIPTION_FILE, description)

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
        if digest(weights_file) != description["weights_sha256"]:
            raise ValueError(f"{weights_file} is damaged or does not belong to {description_file} (its hash differs)")
        try:
            tensors = load_file(weights_file)
        except SafetensorError as error:
            raise ValueError(f"{weights_file} is not a readable safetensors file: {error}") from error
        model = cls._from_description(description, description_file)
        _check_tensors(tensors, _saved(model.state_dict()), weights_file)
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


def _saved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith(_SOURCE_PREFIX)}


def _read_description(file: Path) -> dict[str, Any]:
    description = read_json(file)
    if description.get("format") != FORMAT:
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
