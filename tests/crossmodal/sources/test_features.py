"""Features of texts as files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crossmodal import sources
from crossmodal.errors import UserError
from crossmodal.models import encoders


@pytest.fixture
def xs(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "text_xs_32.npy", rng.standard_normal((6, 5, 16)).astype(np.float32))
    np.save(tmp_path / "text_ys_32.npy", np.array([7, 0, 2, 7, 0, 2]))
    return tmp_path / "text_xs_32.npy"


def test_features_are_tokens_as_they_are(xs, tiny_bert):
    encoder = encoders.load(tiny_bert)
    source = sources.load(xs, encoder=encoder)
    assert (source.modality, source.class_names) == ("text", ("0", "2", "7"))
    assert source.labels.tolist() == [2, 0, 1, 2, 0, 1]
    assert encoder.embed_source(source.inputs).numpy() == pytest.approx(np.load(xs))
    assert "6 texts in 3 classes (0, 2, 7), features of 5 tokens each" in source.description
    assert len(sources.load(xs, encoder=encoder, limit=1)) == 3


def test_features_of_a_text_file_are_those_its_own_texts_have_in_training(tmp_path, tiny_bert):
    """What the encoder's embedding makes of texts, written in the public format, is the same source."""
    encoder = encoders.load(tiny_bert)
    (tmp_path / "my.csv").write_text("text,label\na cat,0\na dog,0\na ship,1\n")
    made = sources.load(tmp_path / "my.csv", encoder=encoder, num_tokens=4)
    np.save(tmp_path / "xs", encoder.embed_source(made.inputs).numpy())
    (tmp_path / "xs.npy").rename(tmp_path / "text_xs.npy")
    np.save(tmp_path / "text_ys.npy", made.labels.numpy())
    read = sources.load(tmp_path / "text_xs.npy", encoder=encoder)
    assert torch.equal(encoder.embed_source(read.inputs), encoder.embed_source(made.inputs))
    assert torch.equal(read.labels, made.labels)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        (
            "text_xs_32.npy",
            np.zeros((6, 16)),
            r"expected floats of shape \(n, tokens, width\), got float64 of shape \(6, 16\)",
        ),
        ("text_xs_32.npy", np.zeros((6, 5, 12)), "features are 12 wide, but the encoder's tokens 16"),
        ("text_xs_32.npy", np.full((6, 5, 16), np.nan), "holds NaN or infinity"),
        (
            "text_ys_32.npy",
            np.zeros(5, int),
            r"expected whole numbers of shape \(6,\), from 0 on, got int64 of shape \(5,\)",
        ),
        ("text_ys_32.npy", np.arange(6) - 1, "expected whole numbers"),
        ("text_ys_32.npy", np.zeros(6, int), "at least two classes"),
        ("text_ys_32.npy", np.array([{}] * 6), "never unpickled"),
        ("text_ys_32.npy", None, r"no labels beside .*expected text_ys_32\.npy"),
    ],
)
def test_features_that_are_wrong(xs, tiny_bert, name, content, match):
    path = xs.with_name(name)
    path.unlink() if content is None else np.save(path, content, allow_pickle=True)
    with pytest.raises(UserError, match=match):
        sources.load(xs, encoder=encoders.load(tiny_bert))


def test_a_file_of_another_name(tmp_path, text_encoder):
    np.save(tmp_path / "my.npy", np.zeros(3))
    with pytest.raises(UserError, match="a file with _xs in its name"):
        sources.load(tmp_path / "my.npy", encoder=text_encoder)
