"""Labelled images: scikit-learn's digits, a folder of class folders, and the public files of CIFAR-10 and Tiny-ImageNet."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from crossmodal.data.readers.images import FORMATS, read_image
from crossmodal.data.readers.pickles import read_pickle
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
    meta = read_pickle(path / "batches.meta")
    names = meta.get("label_names") if isinstance(meta, dict) else None
    if not isinstance(names, list) or not names:
        raise UserError(f"{path / 'batches.meta'}: expected a list of names under 'label_names'")
    names = [name.decode("latin1") if isinstance(name, bytes) else str(name) for name in names]
    items: list[np.ndarray] = []
    labels: list[str] = []
    batches = sorted(path.glob("data_batch_*"))
    if not batches:
        raise UserError(f"{path}: expected images in data_batch_1 and so on, found none")
    for batch in batches:
        found = read_pickle(batch)
        data, known = (found.get(key) if isinstance(found, dict) else None for key in ("data", "labels"))
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3 * 32 * 32,):
            raise UserError(f"{batch}: data: expected uint8 of shape (n, 3072)")
        if not isinstance(known, list) or len(known) != len(data) or not set(known) <= set(range(len(names))):
            raise UserError(f"{batch}: labels: expected {len(data)} numbers from 0 to {len(names) - 1}")
        items += list(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels += [names[label] for label in known]
    return LabelledImages(tuple(items), tuple(labels), tuple(names), str(path))


def list_images(path: Path) -> LabelledImages:
    """List a folder that holds one folder of images per class; classes and files in the order of their names.

    Files and folders whose name starts with a dot are skipped; so are files beside the class folders, unless they are
    images. Where a class folder has a folder `images`, as in Tiny-ImageNet, that is read and nothing beside it.

    Raises:
        UserError: no such folder.
        UserError: a class folder is empty or holds something that is not an image of a known raster format; or an image lies
            beside the class folders.
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
