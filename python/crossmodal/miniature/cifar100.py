"""CIFAR-100 and its projection onto a sphere, from the photographs that scikit-image carries."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from crossmodal.miniature.base import register
from crossmodal.sources import photographs

PHOTOGRAPHS, ACROSS, DOWN = 10, 5, 2  # a class is one of 10 regions of one of 10 photographs
EACH = {"train": 6, "test": 2}  # samples of each class
SIDE = 32
BANDWIDTH = 30  # of the grid on the sphere: twice as many angles along either axis


@register("cifar100", "pieces of 10 photographs that scikit-image carries, by where they are from")
def cifar100(folder: Path, rng: np.random.Generator) -> None:
    """The files of the python version of the set, as Python 3 pickles them."""
    place = folder / "cifar-100-python"
    place.mkdir()
    names, parts = _pieces(rng)
    for part, (images, labels) in parts.items():
        content = {
            "filenames": [f"{names[label]}_{index}.png" for index, label in enumerate(labels.tolist())],
            "batch_label": f"{part} part of a miniature",
            "fine_labels": labels.tolist(),
            "coarse_labels": (labels // 5).tolist(),
            "data": images.reshape(len(images), -1),
        }
        (place / part).write_bytes(pickle.dumps(content, 2))
    meta = {"fine_label_names": names, "coarse_label_names": [f"group_{index}" for index in range(20)]}
    (place / "meta").write_bytes(pickle.dumps(meta, 2))


@register("spherical", "pieces of 10 photographs that scikit-image carries, on a sphere turned at random")
def spherical(folder: Path, rng: np.random.Generator) -> None:
    """The pickle in a gzip."""
    _, parts = _pieces(rng)
    content = {
        part: {"images": np.stack([project(image, rng) for image in images]), "labels": labels}
        for part, (images, labels) in parts.items()
    }
    (folder / "s2_cifar100.gz").write_bytes(gzip.compress(pickle.dumps(content, 4), 4, mtime=0))


def _pieces(rng: np.random.Generator) -> tuple[list[str], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Names of the 100 classes, and by part images uint8 (n, 3, 32, 32) and labels int64 (n,) in random order."""
    whole = list(photographs.pictures("a miniature of photographs").items())[:PHOTOGRAPHS]
    names = [f"{name}_{region}" for name, _ in whole for region in range(ACROSS * DOWN)]
    parts = {}
    for part, each in EACH.items():
        labels = rng.permutation(np.repeat(np.arange(len(names)), each))
        pictures = [whole[label // (ACROSS * DOWN)][1] for label in labels]
        images = [
            _piece(picture, label % (ACROSS * DOWN), rng) for picture, label in zip(pictures, labels, strict=True)
        ]
        parts[part] = np.stack(images), labels
    return names, parts


def _piece(picture: np.ndarray, region: int, rng: np.random.Generator) -> np.ndarray:
    """Most of a region, (3, 32, 32) uint8: its place and size vary a little."""
    high, wide = picture.shape[0] // DOWN, picture.shape[1] // ACROSS
    size = rng.uniform(0.8, 1.0, 2) * (high, wide)
    first = (region // ACROSS * high, region % ACROSS * wide) + rng.uniform(0, 1, 2) * ((high, wide) - size)
    axes = [np.linspace(low, low + length - 1, SIDE) for low, length in zip(first, size, strict=True)]
    grid = np.meshgrid(*axes, indexing="ij")
    return np.stack([map_coordinates(picture[..., colour], grid, order=1) for colour in range(3)])


def project(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image (3, H, W) on a sphere that is turned at random, (3, 60, 60): colatitudes down, longitudes across.

    It covers half the sphere, seen from the opposite pole (stereographic projection); the other half is black. The grid is that of
    Driscoll and Healy (1994).
    """
    steps = np.arange(2 * BANDWIDTH)
    theta, phi = np.meshgrid(np.pi * (2 * steps + 1) / (4 * BANDWIDTH), np.pi * steps / BANDWIDTH, indexing="ij")
    points = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1)
    x, y, z = np.moveaxis(
        Rotation.from_quat(rng.standard_normal(4)).apply(points.reshape(-1, 3)).reshape(points.shape), -1, 0
    )
    # From the pole at z = -1 onto the plane z = 0: the half with z > 0 falls within the unit circle, and the square within that.
    below = np.maximum(1 + z, 1e-9)
    places = [
        (1 + along / below * np.sqrt(2)) * (size - 1) / 2 for along, size in ((x, image.shape[1]), (y, image.shape[2]))
    ]
    return np.stack([map_coordinates(colour, places, order=1, mode="constant") for colour in image])
