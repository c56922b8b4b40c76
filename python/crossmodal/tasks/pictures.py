"""A user's folder of images, with classes, numbers or masks as targets."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from crossmodal.data.arrays import Rows, free_memory
from crossmodal.data.dataset import ArrayLike
from crossmodal.data.readers.images import FORMATS, look_at, read_image, read_levels
from crossmodal.data.readers.tables import shown
from crossmodal.errors import UserError
from crossmodal.tasks import columns, oddities
from crossmodal.tasks.base import About, Options, RawTask
from crossmodal.tasks.folders import Listing, list_folder, named_files

SUFFIXES = tuple(FORMATS)
RESERVED = ("mask",)  # columns of an index
MOST_REGIONS = 20  # different levels of masks up to which each is a region of its own
COLOURS = ("red", "green", "blue")


def load_images(options: Options) -> RawTask:
    """The task of a folder of images; see `crossmodal.settings.ImagesConfig`.

    Raises:
        UserError: sizes differ and none is set, or a file is damaged, or a target is missing; names file and line.
    """
    told = options.images
    listing = list_folder(options, SUFFIXES, RESERVED, needs_target=False)
    if listing.index:
        listing.index.require(listing.ignored, "table.ignore")
    masks = _masks(listing)
    if masks is None and listing.y is None:
        raise UserError(
            f"{listing.folder}: its index names neither targets (--table.target) nor masks (a column `mask`)"
        )
    if masks is not None and listing.y is not None:
        raise UserError(
            f"{listing.folder}: its index has masks and targets ({shown(listing.targets)}): leave either out with --table.ignore"
        )
    looked = [look_at(path) for path in listing.paths]
    size = told.size if told.size is not None else _common([one for one, _ in looked], listing.paths)
    size = (size, size) if isinstance(size, int) else tuple(size)
    grey = told.colour == "grey" or (told.colour is None and all(is_grey for _, is_grey in looked))
    x = _stacked(listing.paths, partial(_pixels, size=size, grey=grey), (1 if grey else 3, *size))
    y, kind, loss, notes = listing.y, listing.kind, None, []
    rows = {"sizes": _sizes([one for one, _ in looked], size), "ignored": shown(listing.ignored)}
    if masks is not None:
        if options.kind not in (None, "dense"):
            raise UserError(
                f"kind: masks are dense targets, got {options.kind!r}; without the column `mask` other columns are"
            )
        y, loss, rows["masks"] = _fields(masks, listing.paths, size)
        kind = "dense"
    if isinstance(x, np.ndarray):
        names = [listing.name(entry) for entry in range(len(listing.paths))]
        notes += oddities.said(x, y, names.__getitem__, (), listing.targets, kind)
    return RawTask(
        kind=kind,
        **columns.divide({"x": x, "y": y, "group": listing.group}, listing.part),
        class_names=listing.targets if kind == "multilabel" else (),
        origin=str(listing.folder),
        notes=tuple(notes),
        loss=loss,
        about=About(
            features=("grey",) if grey else COLOURS,
            targets=listing.targets if masks is None else (),
            rows=rows,
            reading={"form": "images", "size": list(size), "grey": grey},
        ),
    )


def _masks(listing: Listing) -> list[Path] | None:
    index = listing.index
    if index is None or "mask" not in index.names or "mask" in (*listing.ignored, *listing.targets):
        return None
    masks = named_files(index, "mask", listing.folder)
    for path, mask, place in zip(listing.paths, masks, listing.places, strict=True):
        if mask.suffix.lower() not in SUFFIXES:
            raise UserError(f"{place}: mask {mask.name}: expected one of {', '.join(SUFFIXES)}")
        if look_at(path)[0] != look_at(mask)[0]:
            raise UserError(
                f"{place}: mask {mask.name} has {look_at(mask)[0]} pixels, its image {look_at(path)[0]} (height, width)"
            )
    return masks


def _common(sizes: Sequence[tuple[int, int]], paths: Sequence[Path]) -> tuple[int, int]:
    counts = Counter(sizes)
    if len(counts) > 1:
        listing = shown([f"{count} of {high} x {wide}" for (high, wide), count in counts.most_common()], 8)
        first = next(path for path, size in zip(paths, sizes, strict=True) if size != sizes[0])
        raise UserError(
            f"images.size: images differ in size, height x width ({listing}; first of another "
            f"size: {first}); --images.size {min(min(one) for one in counts)} brings all to one"
        )
    return sizes[0]


def _sizes(sizes: Sequence[tuple[int, int]], size: tuple[int, int]) -> str:
    changed = sum(one != size for one in sizes)
    return f"{changed} of {len(sizes)} images are resized to {size[0]} x {size[1]} pixels" if changed else ""


def _pixels(path: Path, size: tuple[int, int], grey: bool) -> np.ndarray:
    """An image (C, H, W) of uint8."""
    pixels = read_image(path)
    if pixels.shape[:2] != size:
        pixels = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
    if grey:
        return (
            pixels[..., 0] if (pixels == pixels[..., :1]).all() else np.asarray(Image.fromarray(pixels).convert("L"))
        )[None]
    return np.moveaxis(pixels, 2, 0)


def _levels(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A mask (H, W), as `read_levels`; resized without mixing levels."""
    levels = read_levels(path)
    if levels.shape == size:
        return levels
    rows, cols = (((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, levels.shape, strict=True))
    return levels[rows[:, None], cols]


def _stacked(paths: Sequence[Path], read, shape: tuple[int, ...]) -> ArrayLike:
    """All images, in memory where they and their normalised copy fit, else decoded as they are needed; each is decoded once
    here, so that a damaged one is known before anything else is done."""
    fits = 5 * len(paths) * int(np.prod(shape)) <= free_memory() // 2
    found = np.empty((len(paths) if fits else 1, *shape), np.uint8)
    sha = hashlib.sha256()
    for number, path in enumerate(tqdm(paths, desc="images", disable=len(paths) < 5000)):
        found[number if fits else 0] = pixels = read(path)
        sha.update(np.ascontiguousarray(pixels))
    return found if fits else Rows(len(paths), partial(_row, list(paths), read), shape, np.uint8, sha.hexdigest())


def _row(paths: Sequence[Path], read, row: int) -> np.ndarray:
    return read(paths[row])


def _fields(masks: Sequence[Path], paths: Sequence[Path], size: tuple[int, int]) -> tuple[np.ndarray, str | None, str]:
    """Dense targets of masks, the loss that they need, and what was understood."""
    found = np.stack([_levels(mask, size) for mask in masks])
    levels = np.unique(found)
    if len(levels) == 1:
        raise UserError(f"{masks[0].parent}: all pixels of all masks are {levels[0]}: there is nothing to learn")
    if len(levels) == 2:
        share = (found == levels[1]).mean()
        said = f"{levels[1]} is the region ({share:.1%} of all pixels), {levels[0]} the rest"
        return (found == levels[1])[:, None].astype(np.float32), "bce_with_logits", said
    if len(levels) <= MOST_REGIONS:
        regions = [level for level in levels.tolist() if level]
        said = f"a channel of zeros and ones for each level but 0: {shown(regions, 20)}"
        return np.stack([found == level for level in regions], axis=1).astype(np.float32), "bce_with_logits", said
    said = f"levels from {levels[0]} to {levels[-1]}, as numbers; if these are regions, save them as .png (.jpg blurs their edges)"
    return found[:, None].astype(np.float32), None, said


def read_pictures(path: Path, reading: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, list], str]:
    """An image as a sample (1, C, H, W) of the run, nothing that its name would lack, and a sentence that says so.

    Raises:
        UserError: see `read_image`.
    """
    high, wide = reading["size"]
    pixels = _pixels(path, (int(high), int(wide)), bool(reading["grey"]))
    said = f"{path}: an image, read at {high} x {wide} pixels, {'grey' if reading['grey'] else 'in colour'}"
    return pixels[None], {}, said
