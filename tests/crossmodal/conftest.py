"""Tiny checkpoints with random weights, saved to disk once per session: what a pretrained model is to the other tests."""

from __future__ import annotations

import dataclasses
import string

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModel,
    BertConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    SwinConfig,
    ViTConfig,
)

from crossmodal.tasks import pdebench
from tests.crossmodal.runs import fresh_accelerator

SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # RoBERTa's order: its pad id is 1
CHARACTERS = string.ascii_letters + string.digits + string.punctuation
VOCABULARY = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *CHARACTERS])}


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    """What accelerate knows of a run, once per process, ends with the test."""
    yield
    fresh_accelerator()


@pytest.fixture(autouse=True, scope="session")
def _few_solutions(tmp_path_factory):
    """What PDE tasks generate where there are no files is tiny, and goes with the session."""
    folder = tmp_path_factory.mktemp("pde")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pdebench, "folder", lambda: folder)
        for name, entry in pdebench.ENTRIES.items():
            patch.setitem(pdebench.ENTRIES, name, dataclasses.replace(entry, samples=20, resolution=16))
        yield


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token per printable ASCII character; blanks separate words."""
    tokenizer = Tokenizer(models.BPE(vocab=VOCABULARY, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = ("bos_token", "pad_token", "eos_token", "unk_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict(zip(names, SPECIAL_TOKENS, strict=True)))


def save_checkpoint(config: PreTrainedConfig, folder, *, tokenizer: bool = False) -> str:
    """Save a model with random weights as a checkpoint; returns the folder as a string.

    Every parameter is drawn anew from a normal distribution, because LayerNorms and biases that start at one and zero
    would let a test pass that copies nothing.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    if tokenizer:
        tiny_tokenizer().save_pretrained(folder)
    return str(folder)


TEXT_SIZES = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> str:
    """BERT: 3 layers, width 16, 64 positions, one token per character."""
    config = BertConfig(**TEXT_SIZES, max_position_embeddings=64, pad_token_id=VOCABULARY["<pad>"])
    return save_checkpoint(config, tmp_path_factory.mktemp("tiny_bert"), tokenizer=True)


@pytest.fixture(scope="session")
def tiny_roberta(tmp_path_factory) -> str:
    """RoBERTa: 3 layers, width 16, 64 positions beside the padding row and the one before it."""
    config = RobertaConfig(**TEXT_SIZES, max_position_embeddings=66, pad_token_id=1, type_vocab_size=1)
    return save_checkpoint(config, tmp_path_factory.mktemp("tiny_roberta"), tokenizer=True)


@pytest.fixture(scope="session")
def tiny_swin(tmp_path_factory) -> str:
    """Swin: 16 x 16 images, patch 2, window 4, two stages: 64 tokens of width 8, 16 features of width 16."""
    config = SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[1, 2], window_size=4)
    return save_checkpoint(config, tmp_path_factory.mktemp("tiny_swin"))


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory) -> str:
    """ViT: 16 x 16 images, patch 4, 3 layers: 16 tokens of width 16 and the class token."""
    sizes = {key: value for key, value in TEXT_SIZES.items() if key != "vocab_size"}
    config = ViTConfig(**sizes, image_size=16, patch_size=4)
    return save_checkpoint(config, tmp_path_factory.mktemp("tiny_vit"))


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory):
    """Saves a checkpoint of any transformers configuration: ``make_checkpoint(config, tokenizer=False) -> folder``."""

    def make(config: PreTrainedConfig, *, tokenizer: bool = False) -> str:
        return save_checkpoint(config, tmp_path_factory.mktemp(f"tiny_{config.model_type}"), tokenizer=tokenizer)

    return make
