"""Images of one's own: in folders of classes or listed by a table, with masks; and what is refused."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from crossmodal import cli, predict, tasks
from crossmodal.errors import UserError
from crossmodal.settings import ImagesConfig, TableConfig
from crossmodal.tasks import pictures
from crossmodal.tasks.base import Options
from crossmodal.tasks.pictures import load_images

RNG = np.random.default_rng(0)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Grey images of 6 x 8 pixels, dark and light."""
    for part, count in (("train", 5), ("test", 2)):
        for name, level in (("dark", 0), ("light", 150)):
            for i in range(count):
                save(tmp_path / "set" / part / name / f"{i}.png", RNG.integers(0, 100, (6, 8)) + level)
    return tmp_path / "set"


@pytest.fixture
def masked(tmp_path):
    """Coloured images whose red pixels are the region of a mask."""
    lines = ["file,mask,split"]
    for i in range(10):
        x = RNG.integers(0, 255, (8, 8, 3))
        save(tmp_path / f"x/{i}.png", x)
        save(tmp_path / f"m/{i}.png", 255 * (x[..., 0] > 128))
        lines.append(f"x/{i}.png,m/{i}.png,{'train' if i < 7 else 'test'}")
    (tmp_path / "index.csv").write_text("\n".join(lines))
    return tmp_path


def raw(folder, kind=None, table=None, **told):
    return load_images(Options(data=folder, kind=kind, table=TableConfig(**(table or {})), images=ImagesConfig(**told)))


def test_folders_of_classes(folder):
    task = tasks.load("arrays", data=folder)
    assert (task.input_shape, task.class_names) == ((1, 6, 8), ("dark", "light"))
    assert (len(task.train) + len(task.validation), len(task.test)) == (10, 4)
    assert "channels        1: grey" in task.description
    assert raw(folder, colour="rgb").x_train.shape == (10, 3, 6, 8)
    expected = np.asarray(Image.open(folder / "train" / "dark" / "0.png"))
    np.testing.assert_array_equal(raw(folder).x_train[0, 0], expected)


def test_sizes(folder):
    save(folder / "train" / "dark" / "9.png", np.full((12, 16), 40))
    with pytest.raises(
        UserError, match=r"height x width \(14 of 6 x 8, 1 of 12 x 16; first .*9\.png\); --images\.size 6"
    ):
        raw(folder)
    found = raw(folder, size=(3, 4))
    assert found.x_train.shape == (11, 1, 3, 4)
    assert (found.x_train[5] == 40).all()
    assert found.about.rows["sizes"] == "15 of 15 images are resized to 3 x 4 pixels"


def test_masks(masked):
    task = tasks.load("arrays", data=masked)
    assert (task.kind, task.loss, task.output_shape) == ("dense", "bce_with_logits", (1, 8, 8))
    red = np.stack([np.asarray(Image.open(masked / f"x/{i}.png"))[..., 0] for i in range(7, 10)])
    assert torch.equal(task.test.y[:, 0] > 0.5, torch.from_numpy(red > 128))
    assert "masks           255 is the region (" in task.description
    small = raw(masked, size=4)
    assert set(np.unique(small.y_train)) == {0, 1}  # edges are not mixed
    for i in range(10):
        save(masked / f"m/{i}.png", np.arange(64).reshape(8, 8) // 22)
    several = raw(masked)
    assert several.y_train.shape == (7, 2, 8, 8)
    assert several.y_train[0].sum((1, 2)).tolist() == [22, 20]
    for i in range(10):
        save(masked / f"m/{i}.png", np.arange(64).reshape(8, 8))
    field = raw(masked)
    assert (field.loss, field.y_train.max()) == (None, 63)


def test_a_palette_is_read_as_numbers(masked):
    for i in range(10):
        image = Image.fromarray((np.arange(64).reshape(8, 8) % 2).astype(np.uint8), "P")
        image.putpalette([10, 20, 30, 200, 100, 0])
        image.save(masked / f"m/{i}.png")
    assert raw(masked).y_train[0, 0, 0].tolist() == [0, 1] * 4


def test_sixteen_bits_are_those_of_sources(folder):
    for path in folder.rglob("*.png"):
        Image.fromarray(np.full((6, 8), 257 * 100, np.uint16)).save(path)
    found = raw(folder)
    assert found.x_train.shape == (10, 1, 6, 8)
    assert (found.x_train == 100).all()
    notes = "\n".join(found.notes)
    assert "warning: constant channels, which say nothing: 0 (always 100)" in notes
    assert "copies of other samples: 13 of 14, 7 with another target" in notes


def test_images_that_do_not_fit_into_memory_are_decoded_as_they_are_needed(folder, monkeypatch):
    expected = raw(folder)
    monkeypatch.setattr(pictures, "free_memory", lambda: 0)
    found = raw(folder)
    assert not isinstance(found.x_train, np.ndarray)
    np.testing.assert_array_equal(found.x_test[[3, 0]], expected.x_test[[3, 0]])
    assert len(tasks.load("arrays", data=folder).test) == 4


def bomb(path):
    """A PNG whose head claims 60,000 x 60,000 pixels."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0), b"IDAT" + zlib.compress(b"0"))
    parts = (struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:60]), r"1\.png: cannot be read as RGB|1\.png: not an image"),
        (lambda p: p.write_bytes(b"hello"), r"1\.png: not an image, or damaged"),
        (bomb, r"1\.png: refused: Image size"),
        (lambda p: p.rename(p.with_suffix(".txt")), r"1\.txt: expected one of \.bmp"),
        (lambda p: p.rename(p.parents[1] / "1.png"), r"1\.png: expected files in .*set/PART/CLASS"),
    ],
)
def test_malformed_files(folder, change, message):
    change(folder / "train" / "dark" / "1.png")
    with pytest.raises(UserError, match=message):
        raw(folder)


@pytest.mark.parametrize(
    ("change", "told", "message"),
    [
        (lambda f: save(f / "m/3.png", np.zeros((4, 8))), {}, r"line 5: mask 3\.png has \(4, 8\) pixels, its image \(8, 8\)"),
        (lambda f: save(f / "m/3.png", RNG.integers(0, 9, (8, 8, 3))), {}, r"m/3\.png: .*are coloured; save a mask in grey"),
        (lambda f: [save(p, np.zeros((8, 8))) for p in f.glob("m/*")], {}, "all pixels of all masks are 0"),
        (lambda f: (f / "m/3.png").unlink(), {}, r"index\.csv, line 5: no such file: .*m/3\.png"),
        (None, {"kind": "regression"}, "kind: masks are dense targets, got 'regression'"),
        (None, {"table": {"ignore": "mask"}}, "names neither targets .* nor masks"),
    ],
)  # fmt: skip
def test_masks_that_cannot_be_used_are_refused(masked, change, told, message):
    if change is not None:
        change(masked)
    with pytest.raises(UserError, match=message):
        raw(masked, **told)


def test_from_the_command_line_to_a_new_image(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.train(["--data", str(folder), "--method", "linear", "--output_dir", "run", "--device", "cpu"]) == 0
    save(tmp_path / "new.jpg", np.full((12, 16), 210))
    capsys.readouterr()
    predict.main(["run", "new.jpg", "-o", "out.csv"])
    assert "new.jpg: an image, read at 6 x 8 pixels, grey" in capsys.readouterr().out
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith("new.jpg,light,")
    predict.main(["run", str(folder / "test"), "-o", "out.csv"])
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "file,prediction,probability_dark,probability_light"
    assert [line.split(",")[0] for line in lines[1:]] == ["dark/0.png", "dark/1.png", "light/0.png", "light/1.png"]
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match=r"runs: holds no \.bmp"):
        predict.main(["run", "runs", "-o", "out.csv"])
