"""Labelled images: scikit-learn's digits, a folder of class folders, and the public files of CIFAR-10 and Tiny-ImageNet."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from crossmodal.data.readers import cifar
from crossmodal.data.readers.images import FORMATS, read_image
from crossmodal.errors import UserError
from crossmodal.sources.labelled import Labelled


@dataclass(frozen=True)
class LabelledImages(Labelled):
    """Images with labels; ``items`` are arrays ``(H, W, 3)`` of uint8, or paths of image files."""


def digits() -> LabelledImages:
    """The 1797 grey 8 x 8 digits of scikit-learn, as RGB."""
    from sklearn.datasets import load_digits

    data = load_digits()
    grey = np.rint(data.images * (255 / 16)).astype(np.uint8)
    return LabelledImages(
        items=tuple(np.repeat(image[..., None], 3, axis=2) for image in grey),
        labels=tuple(str(label) for label in data.target.tolist()),
        class_names=tuple(str(name) for name in data.target_names.tolist()),
        origin="digits",
    )


def cifar10(path: Path) -> LabelledImages:
    """The training images in `cifar-10-batches-py`, the folder of CIFAR-10's python version: batches.meta, data_batch_1 and so on.

    Raises:
        UserError: a file is missing or damaged, or holds something else; file and key are named.
    """
    names = cifar.read_names(path / "batches.meta", "label_names")
    batches = sorted(path.glob("data_batch_*"))
    if not batches:
        raise UserError(f"{path}: expected images in data_batch_1 and so on, found none")
    parts = [cifar.read_batch(batch, "labels", len(names)) for batch in batches]
    items = [image for images, _ in parts for image in images.transpose(0, 2, 3, 1)]
    labels = [names[label] for _, known in parts for label in known]
    return LabelledImages(tuple(items), tuple(labels), names, str(path))


def list_images(path: Path) -> LabelledImages:
    """List a folder that holds one folder of images per class; classes and files in the order of their names.

    Files and folders whose name starts with a dot are skipped; so are files beside the class folders, unless they are
    images. Where a class folder has a folder `images`, as in Tiny-ImageNet, that is read and nothing beside it.

    Raises:
        UserError: no such folder; a class folder is empty or holds something that is not an image of a known raster format; or
            an image lies beside the class folders.
    """
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    folders = [entry for entry in entries if entry.is_dir()]
    items: list[Path] = []
    labels: list[str] = []
    for entry in entries:
        if folders and entry.is_file() and entry.suffix.lower() in FORMATS:
            raise UserError(f"{entry}: an image outside of the class folders; move it into one, or away")
    for folder in folders:
        inner = folder / "images" if (folder / "images").is_dir() else folder
        found = sorted(entry for entry in inner.iterdir() if not entry.name.startswith("."))
        for entry in found:
            if entry.suffix.lower() not in FORMATS or not entry.is_file():
                raise UserError(f"{entry}: not an image file ({', '.join(FORMATS)})")
        if not found:
            raise UserError(f"{folder}: no images in this class")
        items += found
        labels += [folder.name] * len(found)
    return LabelledImages(tuple(items), tuple(labels), tuple(folder.name for folder in folders), str(path))


def to_inputs(
    images: LabelledImages,
    size: tuple[int, int],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> tuple[Tensor, str]:
    """Decode, resize (bilinear, with antialiasing) and normalise.

    Args:
        size: ``(H, W)``.
        mean, std: per channel, for values in [0, 1].

    Returns:
        float32 ``(n, 3, H, W)``, and the sha256 of the decoded images and their sizes.
    """
    inputs = torch.empty(len(images.items), 3, *size)
    shift, scale = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
    digest = hashlib.sha256()
    for index, item in enumerate(images.items):
        pixels = read_image(item) if isinstance(item, Path) else item
        digest.update(repr(pixels.shape).encode())
        digest.update(np.ascontiguousarray(pixels))
        planes = torch.tensor(pixels).permute(2, 0, 1).to(torch.float32).div(255)
        resized = interpolate(planes[None], size=size, mode="bilinear", antialias=True)[0]
        inputs[index] = (resized - shift) / scale
    return inputs, digest.hexdigest()
