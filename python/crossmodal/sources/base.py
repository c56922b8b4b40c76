"""What a source is, and the road from a name or a path to one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from crossmodal import naming
from crossmodal.data.dataset import Batch
from crossmodal.data.readers.tables import shown
from crossmodal.errors import UserError
from crossmodal.sources import features, images, masks, photographs, scipy_docs, text
from crossmodal.sources.labelled import Labelled

MAX_SAMPLES = 5000


@dataclass(frozen=True)
class Source:
    """Labelled samples of the pretraining modality, as the encoder's ``embed_source`` takes them.

    Attributes:
        modality: "text" or "image".
        inputs: text: token ids int64 ``(n, M)``, every one a token of the text (short texts are repeated, so that no
            padding enters a mixed sample), or ready features float32 ``(n, M, D)``; image: float32 ``(n, 3, H, W)``, normalised
            with the encoder's statistics.
        labels: int64 ``(n,)``, indices into ``class_names``; or masks uint8 ``(n, 1, H, W)`` of the images, likewise, with
            :data:`crossmodal.sources.masks.IGNORED` where a pixel does not count.
        fingerprint: hash of the texts or images in use, before tokens are made or sizes changed, and of their labels.
        description: what was read and done, in words.
    """

    name: str
    modality: str
    inputs: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    fingerprint: str
    description: str

    def __len__(self) -> int:
        return self.inputs.shape[0]

    @property
    def has_masks(self) -> bool:
        """Whether each pixel of a sample has a label, instead of the sample."""
        return self.labels.ndim > 1

    def read(self, rows: Tensor, seeds: Tensor | None = None) -> Batch:
        """The samples of those rows, as a data set gives them; they are not augmented."""
        return Batch(self.inputs[rows], self.labels[rows], rows, torch.ones(len(rows)))

    def facts(self) -> dict[str, Any]:
        """What results.json says of it."""
        return {
            "name": self.name,
            "samples": len(self),
            "classes": len(self.class_names),
            "sha256": self.fingerprint,
        }


class BuiltIn(NamedTuple):
    """A source with a name: its modality, one line for ``--list``, and what reads it."""

    modality: str
    summary: str
    read: Callable[[], Labelled]


SOURCES = {
    "scipy_docs": BuiltIn(
        "text", "documentation of scipy's functions, by subpackage (10 classes); for text encoders", scipy_docs.load
    ),
    "photographs": BuiltIn(
        "image",
        "crops of scikit-image's photographs, by photograph (11 classes); for image encoders (pip install --no-deps scikit-image)",
        photographs.load,
    ),
    "digits": BuiltIn("image", "scikit-learn's handwritten digits (10 classes); for image encoders", images.digits),
}
DEFAULTS = {"text": "scipy_docs", "image": "photographs"}  # by the modality of the encoder


def available() -> dict[str, str]:
    """Every built-in source with its one-line description."""
    return {name: source.summary for name, source in SOURCES.items()}


def load(
    name_or_path: str | Path | None = None,
    *,
    encoder: Any,
    num_tokens: int | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Source:
    """Load a source for an encoder.

    Args:
        name_or_path: a key of :func:`available`; or a .csv or .tsv file with a text and a label per row
            (:func:`crossmodal.sources.text.read_labelled_text`); or a folder with one folder of images per class
            (:func:`crossmodal.sources.images.list_images`), `tiny-imagenet-200`, or `cifar-10-batches-py`; or a folder
            of images with masks (:func:`crossmodal.sources.masks.voc`); or a file of text features
            (:func:`crossmodal.sources.features.read_features`); None for the default of the encoder's modality.
        encoder: an encoder of :mod:`crossmodal.models.encoders`: its ``modality``, and its ``tokenizer`` (of features: its
            ``width``) or its ``image_size``, ``image_mean`` and ``image_std``, are used.
        num_tokens: text: the number of tokens of every sample. Features and images: unused.
        limit: at most so many samples per class, chosen at random; None for at most :data:`MAX_SAMPLES` in all, in which
            the classes keep their shares.
        seed: seed of that choice.

    A source may be smaller than a training set: whoever draws from it starts over at its end.

    Raises:
        UserError: no such file or folder, unknown name, a source of the wrong modality, fewer than two classes, or content that
            cannot be used.
    """
    name = str(name_or_path or DEFAULTS[encoder.modality])
    modality, read = _find(name)
    if modality != encoder.modality:
        raise UserError(f"source.name: {name!r} is of modality {modality}, but the encoder takes {encoder.modality}")
    samples = read().sample(limit, MAX_SAMPLES, seed)
    labels, class_names = samples.label_tensor(), samples.class_names
    what = "texts" if modality == "text" else "images"
    if isinstance(samples, features.TextFeatures):
        inputs, sha256 = features.to_inputs(samples, encoder.width)
        detail = f"features of {inputs.shape[1]} tokens each"
    elif modality == "text":
        inputs, sha256 = text.tokenize(samples, encoder.tokenizer, num_tokens), samples.sha256
        detail = f"the first {num_tokens} tokens of each, short texts repeated"
    else:
        inputs, sha256 = images.to_inputs(samples, encoder.image_size, encoder.image_mean, encoder.image_std)
        detail = "resized to {} x {}".format(*encoder.image_size)
    if isinstance(samples, masks.MaskedImages):
        labels, detail, what = (
            masks.to_masks(samples, encoder.image_size),
            f"with a mask each, {detail}",
            "images with masks",
        )
        sha256 += hashlib.sha256(labels.numpy()).hexdigest()
    sha256 = hashlib.sha256(f"{sha256} {[] if labels.ndim > 1 else labels.tolist()} {class_names}".encode()).hexdigest()
    description = (
        f"source {name}: {len(labels)} {what} in {len(class_names)} classes "
        f"({shown(class_names)}), {detail}"
        f"{f'; {samples.note}' if samples.note else ''}; sha256 {sha256[:12]}."
    )
    return Source(name, modality, inputs, labels, class_names, sha256, description)


def _find(name: str) -> tuple[str, Callable[[], Labelled]]:
    """Modality of a built-in source, or of a file or folder, and what reads it."""
    if name in SOURCES:
        return SOURCES[name].modality, SOURCES[name].read
    path = Path(name)
    if (path / masks.MASKS).is_dir():
        return "image", partial(masks.voc, path)
    if path.suffix.lower() == ".npy" and path.exists():
        return "text", partial(features.read_features, path)
    if (path / "batches.meta").is_file():
        return "image", partial(images.cifar10, path)
    if path.is_dir():  # Tiny-ImageNet has its training images in a folder of that name
        return "image", partial(images.list_images, path / "train" if (path / "wnids.txt").is_file() else path)
    if path.suffix.lower() in text.DELIMITERS and path.exists():
        return "text", partial(text.read_labelled_text, path)
    if path.exists():
        kinds = ", ".join(text.DELIMITERS)
        raise UserError(
            f"source.name: expected a text file ({kinds}), text features (.npy) or a folder of class folders, got {path}"
        )
    raise UserError(naming.unknown("source.name", name, SOURCES) + "; no such file or folder either")
