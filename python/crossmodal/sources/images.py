"""Labelled images: scikit-learn's digits, and a folder of class folders."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import interpolate

from crossmodal.errors import UserError
from crossmodal.sources.labelled import Labelled

# Raster formats alone: the others Pillow knows start programs (EPS) or have parsers that few people look at.
FORMATS = {
    ".bmp": "BMP",
    ".gif": "GIF",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}


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


def list_images(path: Path) -> LabelledImages:
    """List a folder that holds one folder of images per class; classes and files in the order of their names.

    Files and folders whose name starts with a dot are skipped; so are files beside the class folders.

    Raises:
        UserError: no such folder.
        UserError: a class folder is empty or holds something that is not an image of a known raster format.
    """
    if not path.is_dir():
        raise UserError(f"source.name: no such folder: {path}")
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    items: list[Path] = []
    labels: list[str] = []
    for folder in folders:
        found = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        for entry in found:
            if entry.suffix.lower() not in FORMATS or not entry.is_file():
                raise UserError(f"{entry}: not an image file ({', '.join(FORMATS)})")
        if not found:
            raise UserError(f"{folder}: no images in this class")
        items += found
        labels += [folder.name] * len(found)
    return LabelledImages(tuple(items), tuple(labels), tuple(folder.name for folder in folders), str(path))


def read_image(path: Path) -> np.ndarray:
    """Decode an image file to RGB, ``(H, W, 3)`` uint8, turned as its EXIF data say.

    Raises:
        UserError: the file is damaged, of another format, or claims more pixels than Pillow deems safe.
    """
    try:
        with warnings.catch_warnings():
            # Pillow only warns up to twice its limit.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=sorted(set(FORMATS.values()))) as image:
                return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError:
        raise UserError(f"{path}: not an image, or damaged") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{path}: refused: {error}") from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise UserError(f"{path}: cannot be decoded: {error}") from None


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
