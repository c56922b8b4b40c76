"""Reader of image files, which may come from anywhere."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from crossmodal.errors import UserError

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
OPAQUE_MODES = ("1", "L", "P", "RGB", "YCbCr")  # which RGB holds
GREY_MODES = ("1", "L", "I")


def read_image(path: Path) -> np.ndarray:
    """Decode an image file to RGB, ``(H, W, 3)`` uint8, turned as its EXIF data say; 16 bits are scaled to 8.

    Colour profiles are not applied. Of a photo that brings further pictures along (MPO: previews, depth) it is the photo.

    Raises:
        UserError: the file is damaged, of another format, or claims more pixels than Pillow deems safe; or it holds what
            Pillow would clip, drop or guess on the way to RGB: floats, 32 bits, CMYK or LAB, transparency, many frames.
    """
    with _opened(path) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":
            raise UserError(f"it has {frames} frames; save those that are meant as files of their own")
        return np.asarray(ImageOps.exif_transpose(_eight_bits(image)).convert("RGB"))


def look_at(path: Path) -> tuple[tuple[int, int], bool]:
    """(H, W) of an image file as `read_image` turns it, and whether it is grey, by its head alone.

    Raises:
        UserError: see `read_image`.
    """
    with _opened(path) as image:
        width, height = image.size
        turned = image.getexif().get(0x0112, 1) > 4
        return ((width, height) if turned else (height, width)), image.mode in GREY_MODES or image.mode.startswith(
            "I;16"
        )


def read_levels(path: Path) -> np.ndarray:
    """The levels of a grey image, or the numbers of the colours of one with a palette, ``(H, W)``, uint8 or uint16: a mask as it
    was drawn. Colours are welcome where each pixel is grey.

    Raises:
        UserError: see `read_image`; or it is coloured.
    """
    with _opened(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode == "1":
            image = image.convert("L")
        levels = np.asarray(image)
        if levels.ndim == 3 and (levels[..., :1] == levels[..., :3]).all():
            levels = levels[..., 0]
        if levels.ndim != 2 or levels.dtype.kind not in "ui":
            raise UserError(f"its pixels (mode {image.mode}) are coloured; save a mask in grey or with a palette")
        return levels


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file, and errors that name it."""
    try:
        with warnings.catch_warnings():
            # Pillow only warns up to twice its limit.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=sorted(set(FORMATS.values()))) as image:
                yield image
    except UnidentifiedImageError:
        raise UserError(f"{path}: not an image, or damaged") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{path}: refused: {error}") from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise UserError(f"{path}: cannot be read as RGB: {error}") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image in a mode that becomes RGB without a loss.

    Raises:
        UserError: there is none; says why, and the remedy.
    """
    # Grey in 16 bits; the "I" of a PGM is that too, scaled from its own range.
    is_grey16 = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG"))
    if is_grey16 and image.format == "TIFF":
        bits, photometric = image.tag_v2.get(258), image.tag_v2.get(262)
        if bits != (16,) or photometric == 0:
            raise UserError(
                f"grey TIFF of {bits} bits, photometric {photometric}; save it in 8 or 16 bits, 0 for black"
            )
    if not is_grey16 and image.mode not in OPAQUE_MODES and not image.has_transparency_data:
        raise UserError(f"its pixels (mode {image.mode}) are not grey or RGB in 8 or 16 bits; save it as such")
    if image.has_transparency_data and (is_grey16 or image.convert("RGBA").getchannel("A").getextrema()[0] < 255):
        raise UserError("parts of it are transparent; save it without transparency, on the background that is meant")
    if not is_grey16:
        return image
    grey = Image.fromarray((np.asarray(image, dtype=np.uint16) // 257).astype(np.uint8))
    grey.info = image.info
    return grey
