import numpy as np
import pytest
import torch
from PIL import Image

from crossmodal import sources
from crossmodal.errors import UserError
from crossmodal.sources import base


def test_available():
    assert set(sources.available()) == {"scipy_docs", "photographs", "digits"}


def test_every_modality_has_a_default(text_encoder, image_encoder):
    for encoder in (text_encoder, image_encoder):
        source = sources.load(encoder=encoder, num_tokens=4, limit=1)
        assert source.name == base.DEFAULTS[encoder.modality]
        assert source.modality == base.SOURCES[source.name].modality == encoder.modality


def test_scipy_docs(text_encoder):
    source = sources.load("scipy_docs", encoder=text_encoder, num_tokens=6)
    assert (source.name, source.modality) == ("scipy_docs", "text")
    assert source.inputs.dtype == source.labels.dtype == torch.int64
    assert source.inputs.shape == (len(source), 6)
    assert set(source.labels.tolist()) == set(range(10))
    assert source.fingerprint[:12] in source.description


def test_digits(image_encoder):
    source = sources.load("digits", encoder=image_encoder)
    assert source.inputs.shape == (1797, 3, 6, 4)
    assert source.inputs.dtype == torch.float32
    assert source.labels[:3].tolist() == [0, 1, 2]
    assert "1797 images in 10 classes" in source.description
    assert "resized to 6 x 4" in source.description


def test_a_text_file_of_ones_own(tmp_path, text_encoder):
    path = tmp_path / "my.tsv"
    path.write_text("the cat\tanimal\nthe mat\tthing\non mat\tthing\n")
    source = sources.load(path, encoder=text_encoder, num_tokens=3)
    assert source.name == str(path)
    assert source.class_names == ("animal", "thing")
    assert source.labels.tolist() == [0, 1, 1]
    assert source.inputs.tolist() == [[4, 5, 4], [4, 8, 4], [7, 8, 7]]
    assert "short texts repeated; no line of names: the columns are text and label; sha256" in source.description


def test_a_folder_of_ones_own(tmp_path, image_encoder):
    for name in "ab":
        (tmp_path / "my" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((3, 3, 3), np.uint8)).save(tmp_path / "my" / name / "x.png")
    source = sources.load(tmp_path / "my", encoder=image_encoder)
    assert source.inputs.shape == (2, 3, 6, 4)
    assert source.labels.tolist() == [0, 1]


def test_limit_is_a_seeded_choice(text_encoder):
    def load(**options):
        return sources.load("scipy_docs", encoder=text_encoder, num_tokens=4, **options)

    first, again, other, whole = load(limit=5), load(limit=5), load(limit=5, seed=1), load()
    assert torch.bincount(first.labels).tolist() == [5] * 10
    assert len(first) == len(other) == 50
    assert torch.equal(first.labels, again.labels)
    assert first.fingerprint == again.fingerprint
    assert len({first.fingerprint, other.fingerprint, whole.fingerprint}) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "scipy_dosc",
            "source.name: unknown name 'scipy_dosc', did you mean 'scipy_docs'.*no such file or folder either",
        ),
        ("none.csv", "unknown name 'none.csv'.*no such file or folder either"),
        ("digits", "source.name: 'digits' is of modality image, but the encoder takes text"),
        (
            __file__,
            r"expected a text file \(\.csv, \.tsv\), text features \(\.npy\) or a folder .*, got .*test_base\.py",
        ),
    ],
)
def test_what_cannot_be(text_encoder, name, message):
    with pytest.raises(UserError, match=message):
        sources.load(name, encoder=text_encoder, num_tokens=4)
