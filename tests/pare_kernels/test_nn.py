import pytest
import torch

from pare_kernels import PatchGate, PatchReplace, gate_scores, patch_replace

pytestmark = pytest.mark.usefixtures("device")


def test_gate_scores_tokens_and_starts_like_a_linear_layer():
    gate = PatchGate(16)
    tokens = torch.randn(2, 5, 16)
    assert torch.equal(gate(tokens), gate_scores(tokens, gate.weight, gate.bias))
    assert gate.weight.shape == (1, 16)
    assert gate.bias.shape == (1,)
    assert gate.weight.abs().max() <= 0.25
    assert PatchGate(16, bias=False).bias is None
    assert repr(gate) == "PatchGate(dim=16, bias=True)"
    assert PatchGate(4, dtype=torch.float64).weight.dtype == torch.float64


def test_module_calls_the_function_with_its_options():
    options = {"tau": 0.5, "noise_scale": 0.3, "replace": "highest", "pairing": "score", "exact_steps": None}
    module = PatchReplace(8, **options)
    target, source = torch.randn(2, 6, 8), torch.randn(2, 7, 8)
    expected = patch_replace(target, source, module.gate.weight, module.gate.bias, k=3, seed=1, **options)
    result = module(target, source, k=3, seed=1)
    assert torch.equal(result.mixed, expected.mixed)
    result.mixed.sin().sum().backward()
    assert module.gate.weight.grad.abs().sum() > 0
    assert "tau=0.5" in repr(module)
    assert "replace='highest'" in repr(module)


def test_gate_can_be_shared_and_saved():
    gate = PatchGate(8)
    module = PatchReplace(gate)
    assert module.gate is gate
    other = PatchReplace(8)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.gate.weight, gate.weight)


@pytest.mark.parametrize(
    "option",
    [
        {"tau": 0.0},
        {"selection": "best"},
        {"straight_through": "yes"},
        {"selection": "random", "straight_through": True},
    ],
)
def test_wrong_options_are_refused_at_construction(option):
    with pytest.raises((TypeError, ValueError), match=f"^{list(option)[-1]} must be"):
        PatchReplace(8, **option)
