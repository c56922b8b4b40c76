import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import crossmodal
from crossmodal.errors import UserError
from crossmodal.files import digest
from crossmodal.kinds import KINDS
from crossmodal.models import base, encoders
from crossmodal.models.finetuned import FineTuned

SHAPES = {"tiny_bert": (2, 21), "tiny_roberta": (1, 20), "tiny_swin": (2, 13, 17), "tiny_vit": (1, 16, 16)}


@pytest.fixture
def make_model(request):
    def make(
        fixture,
        kind,
        *,
        outputs=3,
        input_shape=None,
        output_shape=None,
        patch_size=None,
        **options,
    ):
        encoder = encoders.load(request.getfixturevalue(fixture), **options)
        input_shape = input_shape or SHAPES[fixture]
        encoder.attach(input_shape, patch_size)
        if kind == "dense" and output_shape is None:
            output_shape = (outputs, *input_shape[1:])
        return FineTuned(encoder, kind, outputs, output_shape)

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("fixture", "input_shape", "patch_size"),
    [
        ("tiny_bert", (2, 21), 4),  # padded
        ("tiny_roberta", (1, 20), 5),
        ("tiny_bert", (3, 9, 14), (2, 3)),  # image through a text encoder, padded
        ("tiny_swin", (2, 13, 17), None),  # resized
        ("tiny_vit", (1, 16, 16), None),
        ("tiny_vit", (2, 21), None),  # drawn
    ],
)
def test_every_kind_in_both_dimensions(make_model, kind, fixture, input_shape, patch_size):
    model = make_model(fixture, kind, input_shape=input_shape, patch_size=patch_size)
    out = model(torch.randn(4, *input_shape))
    assert out.shape == ((4, 3, *input_shape[1:]) if kind == "dense" else (4, 3))
    out.square().mean().backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []  # nothing is trained that the outputs do not depend on


@pytest.mark.parametrize(
    ("fixture", "kind"),
    [("tiny_bert", "classification"), ("tiny_bert", "dense"), ("tiny_swin", "dense"), ("tiny_vit", "classification")],
)
def test_a_few_steps_lower_the_loss(make_model, fixture, kind):
    model = make_model(fixture, kind, outputs=2, pretrained=False).train()
    x = torch.randn(8, *SHAPES[fixture])
    y = torch.randint(2, (8,)) if kind == "classification" else x.cumsum(-1) / math.sqrt(x.shape[-1])
    if kind == "dense":
        y = y[:, :1].expand(-1, 2, *(-1,) * (y.ndim - 2))
    loss = F.cross_entropy if kind == "classification" else F.mse_loss
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < 0.8 * losses[0]


def test_forward_is_the_chain_of_its_parts(make_model):
    model = make_model("tiny_swin", "dense").eval()
    x = torch.randn(2, *SHAPES["tiny_swin"])
    assert model(x).equal(model.predict_from(model.body(model.embed(x))))


@pytest.mark.parametrize("fixture", SHAPES)
def test_parameter_groups_part_pretrained_from_new(make_model, fixture):
    model = make_model(fixture, "classification")
    groups = model.parameter_groups()
    names = {id(p): name for name, p in model.named_parameters()}
    new = {names[id(p)] for p in groups.new}
    embedding, *layers = ({names[id(p)] for p in group} for group in groups.encoder)
    everything = [names[id(p)] for group in (*groups.encoder, groups.new) for p in group]
    assert sorted(everything) == sorted(n for n in names.values() if not n.startswith("encoder.source_embedder."))
    assert all(name.startswith(("encoder.embedder.", "encoder.prefix")) for name in embedding)
    assert ("encoder.prefix" in embedding) == (fixture == "tiny_vit")
    for number, layer in enumerate(model.encoder.layers()):
        assert {names[id(p)] for p in layer.parameters()} <= layers[number]
    assert all(name.startswith("encoder.model.") for layer in layers for name in layer)
    # All of an image encoder's embedder is copied; a text encoder's is new, though two of its parts start as copies.
    of_embedder = {names[id(p)] for p in model.encoder.embedder.parameters()}
    assert of_embedder & new == (of_embedder if "bert" in fixture else set())
    assert all(name.startswith("head.") for name in new - of_embedder)
    model.encoder.model.requires_grad_(False)
    assert not any(model.parameter_groups().encoder[1:])


@pytest.mark.parametrize("fixture", SHAPES)
def test_with_random_weights_the_whole_embedder_is_new(request, fixture):
    encoder = encoders.load(request.getfixturevalue(fixture), pretrained=False)
    encoder.attach(SHAPES[fixture])
    groups = FineTuned(encoder, "classification", 3).parameter_groups()
    assert {id(p) for p in encoder.embedder.parameters()} <= {id(p) for p in groups.new}


def test_swin_merges_go_with_the_layer_before_them(make_model):
    model = make_model("tiny_swin", "classification")
    names = {id(p): name for name, p in model.named_parameters()}
    layers = [{names[id(p)] for p in group} for group in model.parameter_groups().encoder[1:]]
    assert [any(".downsample." in name for name in layer) for layer in layers] == [False, True, False, False]
    assert "encoder.model.layernorm.weight" in layers[3]


def test_parameters_are_counted_without_the_frozen_source_embedding(make_model):
    model = make_model("tiny_bert", "classification", patch_size=3)
    layer = 4 * (16 * 16 + 16) + 2 * 16 * 24 + 24 + 16 + 4 * 16
    embedder = 2 * 3 * 16 + 16 + 2 * 16 + 7 * 16
    total = 3 * layer + embedder + (16 * 3 + 3)
    assert model.count_parameters() == model.count_parameters(trainable=True) == total
    model.encoder.model.requires_grad_(False)
    assert model.count_parameters() == total
    assert model.count_parameters(trainable=True) == total - 3 * layer


def test_double_precision_runs_through(make_model):
    model = make_model("tiny_vit", "dense").double()
    assert model(torch.randn(2, *SHAPES["tiny_vit"], dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("fixture", SHAPES)
def test_autocast_runs_through(make_model, fixture):
    model = make_model(fixture, "dense").train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(torch.randn(2, *SHAPES[fixture]))
    out.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_heads_and_task_must_fit(make_model):
    with pytest.raises(ValueError, match="kind must be one of"):
        make_model("tiny_bert", "ranking")
    with pytest.raises(ValueError, match="must start with num_outputs=3"):
        make_model("tiny_bert", "dense", output_shape=(2, 21))
    with pytest.raises(ValueError, match="num_outputs must be at least 1, got 0"):
        make_model("tiny_bert", "regression", outputs=0)


# Files ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fixture", SHAPES)
def test_a_saved_model_predicts_the_same(make_model, fixture, kind, tmp_path):
    model = make_model(fixture, kind).eval()
    model.save(tmp_path / "run")
    state = torch.random.get_rng_state()
    loaded = base.load(tmp_path / "run")
    assert torch.random.get_rng_state().equal(state)
    x = torch.randn(3, *SHAPES[fixture])
    assert loaded(x).equal(model(x))
    assert not loaded.training
    assert (loaded.task_kind, loaded.num_outputs) == (kind, 3)
    with pytest.raises(RuntimeError, match="cannot be embedded"):
        loaded.embed_source(torch.zeros(1, 2, dtype=torch.int64))


def test_a_run_folder_needs_no_checkpoint_in_another_process(make_model, tmp_path, make_checkpoint):
    model = make_model("tiny_bert", "classification", layers=2).eval()
    model.encoder.name = str(tmp_path / "gone")
    model.save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"model.json", "model.safetensors"}
    x = torch.linspace(-1, 1, 42).view(1, 2, 21)
    root = Path(crossmodal.__file__).parents[1]
    code = (
        f"import sys; sys.path[:0] = {[str(root), str(root.parent)]}\n"
        "import torch; from crossmodal.models import base, finetuned\n"
        f"torch.set_num_threads(1); model = base.load({str(tmp_path)!r})\n"
        "print(*model(torch.linspace(-1, 1, 42).view(1, 2, 21))[0].tolist())"
    )
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    torch.testing.assert_close(torch.tensor([float(v) for v in result.stdout.split()]), model(x)[0])


def test_the_source_embedding_is_not_saved(make_model, tmp_path):
    model = make_model("tiny_bert", "classification")
    model.save(tmp_path)
    assert not any(
        "source_embedder" in key or "word_embeddings" in key for key in load_file(tmp_path / "model.safetensors")
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_precision_is_kept(make_model, tmp_path, dtype):
    model = make_model("tiny_bert", "regression").to(dtype).eval()
    model.save(tmp_path)
    x = torch.randn(2, 2, 21, dtype=dtype)
    loaded = base.load(tmp_path)
    assert loaded(x).dtype == dtype
    assert loaded(x).equal(model(x))


def test_saving_over_an_older_model_replaces_it(make_model, tmp_path):
    make_model("tiny_bert", "regression").save(tmp_path)
    model = make_model("tiny_vit", "dense").eval()
    model.save(tmp_path)
    x = torch.randn(1, *SHAPES["tiny_vit"])
    assert base.load(tmp_path)(x).equal(model(x))


@pytest.fixture
def saved(make_model, tmp_path):
    make_model("tiny_bert", "classification").save(tmp_path)
    return tmp_path


def rewrite(folder, change):
    """Change the description of a saved model."""
    file = folder / "model.json"
    description = json.loads(file.read_text())
    change(description)
    file.write_text(json.dumps(description))


def rewrite_weights(folder, change):
    """Change the tensors of a saved model and let the description vouch for them."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    rewrite(folder, lambda description: description.update(weights_sha256=digest(file)))


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(UserError, match=rf"{name} is missing"):
        base.load(saved)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_truncated_file_is_named(saved, name):
    file = saved / name
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        base.load(saved)


def test_weights_that_are_no_safetensors_file_are_refused(saved):
    file = saved / "model.safetensors"
    torch.save({"encoder": torch.zeros(1)}, file)
    rewrite(saved, lambda description: description.update(weights_sha256=digest(file)))
    with pytest.raises(ValueError, match=r"model\.safetensors is not a readable safetensors file"):
        base.load(saved)


def test_weights_of_another_run_are_refused(saved, make_model):
    other = saved / "other"
    make_model("tiny_bert", "classification").save(other)
    (other / "model.safetensors").replace(saved / "model.safetensors")
    with pytest.raises(ValueError, match="does not belong to"):
        base.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: tensors.update({"head.linear.weight": torch.zeros(2, 16)}),
            r"head\.linear\.weight: .*\[2, 16\]",
        ),
        (lambda tensors: tensors.pop("head.linear.weight"), r"head\.linear\.weight$"),
        (lambda tensors: tensors.update(surprise=torch.zeros(1)), "surprise$"),
    ],
    ids=["of another shape", "missing", "too many"],
)
def test_tensors_that_do_not_fit_are_named(saved, change, message):
    rewrite_weights(saved, change)
    with pytest.raises(UserError, match=r"model\.safetensors does not fit .*model\.json: .*" + message):
        base.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "format: expected one of 2, got 1"),
        ({"model": "os.system"}, "model: expected one of .*, got 'os.system'"),
        ({"dtype": "int8"}, "dtype: expected one of"),
        *(({key: None}, f"{key}: expected .*, got None") for key in ("weights_sha256", "model", "dtype", "spec")),
        ({"spec": {}}, "does not describe a model: .*'encoder'"),
        ({"spec": []}, "does not describe a model"),
        ({"task_kind": "ranking"}, "kind must be one of"),
        ({"num_outputs": "three"}, "does not describe a model"),
        ({"encoder": {"name": "x"}}, "lacks the key 'config'"),
        ({"surprise": 1}, "does not describe a model: .*'surprise'"),
    ],
)
def test_a_wrong_value_is_named(saved, change, message):
    outer = change.keys() <= {"format", "weights_sha256", "model", "dtype", "spec"}
    rewrite(saved, lambda description: (description if outer else description["spec"]).update(change))
    with pytest.raises(UserError, match=message):
        base.load(saved)


def test_a_description_cannot_name_code_or_a_backend(saved):
    """A run folder may come from a stranger: what it says must not make transformers fetch anything."""
    rewrite(
        saved,
        lambda description: description["spec"]["encoder"]["config"].update(
            attn_implementation="stranger/kernel", auto_map={"AutoModel": "stranger/code--model.Model"}
        ),
    )
    model = base.load(saved)
    assert model.encoder.config._attn_implementation == "sdpa"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fixture", SHAPES)
def test_a_model_on_the_gpu_agrees_with_the_cpu(make_model, fixture, tmp_path):
    model = make_model(fixture, "dense").eval()
    model.save(tmp_path)
    x = torch.randn(2, *SHAPES[fixture])
    loaded = base.load(tmp_path, device="cuda")
    torch.testing.assert_close(loaded(x.cuda()).cpu(), model(x), atol=1e-3, rtol=1e-3)
    moved = model.cuda()
    moved.encoder.attach(SHAPES[fixture])
    assert moved.encoder.embedder.projection.weight.is_cuda
