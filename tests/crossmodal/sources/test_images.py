import pickle
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from crossmodal import sources
from crossmodal.data.readers.images import read_image
from crossmodal.errors import UserError
from crossmodal.sources.images import LabelledImages, cifar10, digits, list_images, to_inputs

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def folder(tmp_path):
    """Two classes of two images each, in different formats and modes."""
    root = tmp_path / "images"
    for name, colour in (("red", RED), ("blue", BLUE)):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (5, 3), colour).save(root / name / "a.png")
        Image.new("RGBA", (2, 2), (*colour, 255)).save(root / name / "b.webp", lossless=True)
        (root / name / ".hidden").write_text("")
    (root / ".git").mkdir()
    (root / "README.md").write_text("about")
    return root


def test_digits():
    images = digits()
    assert len(images.items) == 1797
    assert images.class_names == tuple("0123456789")
    assert images.items[0].shape == (8, 8, 3)
    assert max(image.max() for image in images.items) == 255


def test_classes_are_folders(folder):
    images = list_images(folder)
    assert images.class_names == ("blue", "red")
    assert images.labels == ("blue", "blue", "red", "red")
    assert [item.name for item in images.items] == ["a.png", "b.webp"] * 2
    assert read_image(images.items[1])[0, 0].tolist() == list(BLUE)


def test_grey_palette_and_rotated_images_become_upright_rgb(tmp_path):
    Image.new("L", (3, 2), 7).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").tolist() == [[[7, 7, 7]] * 3] * 2
    Image.new("RGB", (3, 2), RED).convert("P").save(tmp_path / "palette.gif")
    assert read_image(tmp_path / "palette.gif").shape == (2, 3, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by a quarter
    Image.new("RGB", (3, 2)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (3, 2, 3)


RAMP = np.tile(np.linspace(0, 65535, 32).astype(np.uint16), (32, 1))


@pytest.mark.parametrize("name", ["ramp.png", "ramp.tif", "ramp.pgm"])
def test_grey_in_16_bits_is_scaled_like_its_8_bit_file(tmp_path, name):
    Image.fromarray(RAMP).save(tmp_path / name)
    found = read_image(tmp_path / name)
    assert (found == (RAMP // 257)[..., None]).all()
    assert (found[0, 0].tolist(), found[0, 31].tolist()) == ([0] * 3, [255] * 3)


def test_a_pgm_is_scaled_from_its_own_range_and_16_bits_are_turned(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 1000\n" + np.array([0, 500, 1000], ">u2").tobytes())
    assert read_image(tmp_path / "a.pgm")[0, :, 0].tolist() == [0, 127, 255]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RAMP[:8]).save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png")[:, 0, 0].tolist() == (RAMP[0] // 257).tolist()


COLOURS = Image.new("RGB", (4, 3), RED)


@pytest.mark.parametrize(
    ("image", "name", "options", "message"),
    [
        (Image.fromarray((RAMP / 65535).astype("f4")), "a.tif", {}, r"\(mode F\) are not grey or RGB in 8 or 16 bits"),
        (Image.fromarray(RAMP.astype("i4")), "a.tif", {}, r"\(mode I\) are not grey or RGB"),
        (Image.fromarray(RAMP), "a.tif", {"tiffinfo": {262: 0}}, r"grey TIFF of \(16,\) bits, photometric 0"),
        (COLOURS.convert("CMYK"), "a.jpg", {}, r"\(mode CMYK\) are not"),
        (Image.new("RGBA", (2, 2), (*RED, 254)), "a.png", {}, "parts of it are transparent"),
        (Image.new("LA", (2, 2), (7, 0)), "a.png", {}, "parts of it are transparent"),
        (COLOURS, "a.png", {"transparency": RED}, "parts of it are transparent"),
        (COLOURS.quantize(4), "a.gif", {"transparency": 0}, "parts of it are transparent"),
        *(
            (COLOURS, f"a.{kind}", {"save_all": True, "append_images": [Image.new("RGB", (4, 3))]}, "it has 2 frames")
            for kind in ("gif", "png", "webp", "tif")
        ),
    ],
)
def test_what_rgb_in_8_bits_does_not_hold_is_refused(tmp_path, image, name, options, message):
    image.save(tmp_path / name, **options)
    with pytest.raises(ValueError, match=rf"{name}: cannot be read as RGB: .*{message}"):
        read_image(tmp_path / name)


def test_of_a_photo_with_further_pictures_the_photo_is_read(tmp_path):
    Image.new("RGB", (8, 8), BLUE).save(
        tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[Image.new("RGB", (8, 8), RED)]
    )
    assert read_image(tmp_path / "a.jpg")[0, 0].tolist() == pytest.approx(BLUE, abs=2)


def test_inputs_are_resized_and_normalised(folder):
    inputs, sha256 = to_inputs(list_images(folder), (6, 4), (0.5, 0.25, 0.0), (0.5, 0.25, 1.0))
    assert inputs.shape == (4, 3, 6, 4)
    assert inputs.dtype == torch.float32
    torch.testing.assert_close(inputs[2], torch.tensor([1.0, -1.0, 0.0]).view(3, 1, 1).expand(3, 6, 4))
    torch.testing.assert_close(inputs[0, :, 0, 0], torch.tensor([-1.0, -1.0, 1.0]))
    assert len(sha256) == 64


def test_hash_is_over_the_images():
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)

    def hashed(*items):
        return to_inputs(LabelledImages(items, ("a", "b"), ("a", "b"), "toy"), (2, 2), (0, 0, 0), (1, 1, 1))[1]

    assert hashed(black, white) == hashed(black, white)
    assert hashed(black, white) != hashed(white, black)
    assert hashed(black, black) != hashed(black, black.reshape(1, 4, 3))


def bomb(path, side=20_000):
    """A PNG of a few bytes whose header claims side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [10_000, 20_000], ids=["warned of by Pillow", "refused by Pillow"])
def test_decompression_bombs_are_refused(tmp_path, side):
    bomb(tmp_path / "bomb.png", side)
    with pytest.raises(ValueError, match=r"bomb\.png: refused: .*decompression bomb"):
        read_image(tmp_path / "bomb.png")


def test_files_that_are_no_images_are_named(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"x\.png: not an image, or damaged"):
        read_image(path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"x\.png: (cannot be read as RGB|not an image)"):
        read_image(path)


def test_formats_beyond_the_list_stay_shut_whatever_their_name(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"x\.png: not an image"):
        read_image(tmp_path / "x.png")


def test_folders_that_cannot_be_used(folder, tmp_path):
    (folder / "green").mkdir()
    with pytest.raises(ValueError, match="green: no images in this class"):
        list_images(folder)
    (folder / "green" / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"notes\.txt: not an image file \(\.bmp, "):
        list_images(folder)
    (folder / "loose.PNG").write_bytes(b"")
    with pytest.raises(ValueError, match=r"loose\.PNG: an image outside of the class folders"):
        list_images(folder)
    with pytest.raises(ValueError, match=r"needs at least two classes, got \[\]"):
        list_images(folder / "red")


@pytest.fixture
def cifar(tmp_path):
    """CIFAR-10's folder with two batches, as Python 2 pickled it (keys are bytes to Python 3)."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"red", b"blue"], b"num_vis": 3072}, 2))
    for batch in (1, 2):
        data = np.zeros((3, 3, 32, 32), np.uint8)
        labels = [0, 1, 0]
        for row, label in enumerate(labels):
            data[row, 2 * label] = 255
        data[:, 1, 0, 5] = batch
        content = {b"data": data.reshape(3, -1), b"labels": labels, b"batch_label": b"training"}
        (folder / f"data_batch_{batch}").write_bytes(pickle.dumps(content, 2))
    return folder


def test_cifar_10_as_it_is_published(cifar, image_encoder):
    images = cifar10(cifar)
    assert images.class_names == ("red", "blue")
    assert images.labels == ("red", "blue", "red") * 2
    assert images.items[4][0, 5].tolist() == [0, 2, 255]
    found = sources.load(cifar, encoder=image_encoder)
    assert (found.modality, found.inputs.shape, found.labels.tolist()) == ("image", (6, 3, 6, 4), [0, 1, 0] * 2)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("batches.meta", {}, r"batches\.meta: lacks the key 'label_names'; it holds nothing"),
        ("batches.meta", {"label_names": ["a", 1]}, r"batches\.meta: expected label_names, a list of different names"),
        ("data_batch_2", {"labels": [0]}, r"data_batch_2: lacks the key 'data'; it holds 'labels'"),
        (
            "data_batch_2",
            {"data": np.zeros((1, 3072), np.uint8), "labels": [2]},
            "labels: expected labels from 0 to 1, but the one at index 0 is 2",
        ),
        ("data_batch_1", {"data": print}, r"refused: it asks for \w+\.print"),
    ],
)
def test_cifar_10_files_that_are_wrong(cifar, name, content, match):
    (cifar / name).write_bytes(pickle.dumps(content, 2))
    with pytest.raises(UserError, match=match):
        cifar10(cifar)


def test_tiny_imagenet_as_it_is_published(tmp_path, image_encoder):
    root = tmp_path / "tiny-imagenet-200"
    for name, colour in (("n01", RED), ("n02", BLUE)):
        (root / "train" / name / "images").mkdir(parents=True)
        (root / "train" / name / f"{name}_boxes.txt").write_text("a box")
        Image.new("RGB", (64, 64), colour).save(root / "train" / name / "images" / f"{name}_0.JPEG")
    (root / "wnids.txt").write_text("n01\nn02\n")
    (root / "val").mkdir()
    found = sources.load(root, encoder=image_encoder)
    assert (found.class_names, found.labels.tolist()) == (("n01", "n02"), [0, 1])
