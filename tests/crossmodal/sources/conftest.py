"""Encoders as the sources see them, and a cache folder of each test's own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

WORDS = ["<unk>", "<s>", "</s>", "<pad>", "the", "cat", "sat", "on", "mat"]


@pytest.fixture
def text_encoder():
    """One token per word; the tokenizer adds <s> and </s> unless told not to."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    return SimpleNamespace(modality="text", tokenizer=fast)


@pytest.fixture
def image_encoder():
    return SimpleNamespace(modality="image", image_size=(6, 4), image_mean=(0.5, 0.25, 0.0), image_std=(0.5, 0.25, 1.0))


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("PARE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"
