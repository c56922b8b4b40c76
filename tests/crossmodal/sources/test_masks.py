"""PASCAL VOC's images with masks, as they are published."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from crossmodal import sources
from crossmodal.errors import UserError
from crossmodal.sources.masks import IGNORED, read_mask
from tests.crossmodal.runs import write_mask, write_voc

SIZE = (9, 8)  # rows, columns


@pytest.fixture
def voc(tmp_path):
    return write_voc(tmp_path / "VOC2012", 2)


def test_masks_of_the_listed_images(voc, image_encoder):
    image_encoder.image_size = (9, 16)
    source = sources.load(voc, encoder=image_encoder)
    assert source.has_masks
    assert (source.modality, source.class_names) == ("image", ("background", "foreground"))
    assert (source.inputs.shape, source.inputs.dtype) == ((2, 3, 9, 16), torch.float32)
    assert (source.labels.shape, source.labels.dtype) == ((2, 1, 9, 16), torch.uint8)
    assert source.labels[0, 0].unique(dim=0).tolist() == [[1] * 8 + [IGNORED] * 2 + [0] * 6]
    assert source.labels[1].sum() == 0
    assert (
        "2 images with masks in 2 classes (background, foreground), with a mask each, resized to 9 x 16"
        in source.description
    )
    assert source.facts()["samples"] == 2
    before = source.fingerprint
    write_mask(voc / "SegmentationClass/2007_1.png", np.ones(SIZE, np.uint8))
    assert sources.load(voc, encoder=image_encoder).fingerprint != before
    lists = voc / "ImageSets/Segmentation"
    (lists / "trainval.txt").rename(lists / "val.txt")
    (voc / "SegmentationClass/2007_1.png").unlink()
    with pytest.raises(
        UserError, match=r"val\.txt lists '2007_1', but there is no file .*SegmentationClass/2007_1\.png"
    ):
        sources.load(voc, encoder=image_encoder)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (np.full(SIZE, 21), "expected numbers from 0 to 20, or 255, got 21"),
        (np.zeros((9, 9)), r"of the size of its image, \(9, 8\), got \(9, 9\)"),
        (None, "not an image, or damaged|cannot be read"),
    ],
)
def test_masks_that_are_wrong(voc, content, match):
    path = voc / "SegmentationClass/2007_0.png"
    if content is None:
        path.write_bytes(path.read_bytes()[:60])
    else:
        write_mask(path, content.astype(np.uint8))
    with pytest.raises(UserError, match=rf"2007_0\.png: .*({match})"):
        read_mask(path, SIZE)
    Image.new("RGB", SIZE[::-1], "red").save(path)
    with pytest.raises(UserError, match=r"\(mode RGB\) are coloured"):
        read_mask(path, SIZE)


@pytest.mark.parametrize(
    ("listed", "match"),
    [("../x", r"lists '\.\./x'"), ("", "trainval.txt: no images"), (None, r"expected a list of images, ImageSets/Seg")],
)
def test_lists_that_are_wrong(voc, image_encoder, listed, match):
    for path in (voc / "ImageSets/Segmentation").iterdir():
        path.unlink()
    if listed is not None:
        (voc / "ImageSets/Segmentation/trainval.txt").write_text(listed)
    with pytest.raises(UserError, match=match):
        sources.load(voc, encoder=image_encoder)
