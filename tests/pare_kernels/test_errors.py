"""Bad input: each message names the argument, what it was and what was expected."""

import numpy as np
import pytest
import torch

from pare_kernels import PatchGate, ReplaceSchedule, gate_scores, gumbel_topk, patch_replace, reference

TARGET, SOURCE, WEIGHT = torch.randn(2, 6, 4), torch.randn(2, 5, 4), torch.randn(4)
GOOD = {"target": TARGET, "source": SOURCE, "gate_weight": WEIGHT, "k": 3}

BAD = [
    ({"target": TARGET[0]}, ValueError, r"target must have shape \(batch, patches, features\), got shape \(6, 4\)"),
    ({"target": TARGET.int()}, TypeError, "target must be float32, bfloat16, float16 or float64, got torch.int32"),
    ({"target": TARGET.to_sparse()}, TypeError, "target must be a dense .strided. tensor, got layout torch.sparse_coo"),
    ({"target": [[1.0]]}, TypeError, "target must be a torch.Tensor, got list"),
    ({"source": SOURCE.double()}, TypeError, "source must have target's dtype torch.float32, got torch.float64"),
    ({"source": SOURCE[:1]}, ValueError, r"source must have shape \(2, patches, 4\).* got \(1, 5, 4\)"),
    ({"source": SOURCE[..., :3]}, ValueError, r"source must have shape \(2, patches, 4\).* got \(2, 5, 3\)"),
    ({"source": SOURCE.to("meta")}, ValueError, "source must be on DEVICE like target, but is on meta"),
    ({"gate_weight": torch.randn(3)}, ValueError, r"gate_weight must have shape \(4,\) or \(1, 4\).* got \(3,\)"),
    ({"gate_weight": torch.randn(4, 1)}, ValueError, r"gate_weight must have shape .* got \(4, 1\)"),
    ({"gate_weight": WEIGHT.long()}, TypeError, "gate_weight must be float32"),
    ({"gate_weight": WEIGHT.to("meta")}, ValueError, "gate_weight must be on DEVICE"),
    ({"gate_bias": torch.randn(2)}, ValueError, r"gate_bias must be one number.* got shape \(2,\)"),
    ({"gate_bias": 0.5}, TypeError, "gate_bias must be a torch.Tensor, got float"),
    ({"k": -1}, ValueError, r"k must be an int between 0 and 5 \(6 target and 5 source patches\), got -1"),
    ({"k": 6}, ValueError, r"k must be an int between 0 and 5 \(6 target and 5 source patches\), got 6"),
    ({"k": 2.0}, TypeError, r"k must be an int between 0 and 5 \(6 target and 5 source patches\), got float"),
    ({"k": True}, TypeError, r"k must be an int between 0 and 5 \(6 target and 5 source patches\), got bool"),
    ({"k": np.bool_(True)}, TypeError, r"k must be an int between 0 and 5 \(6 target and 5 source patches\), got bool"),
    (
        {"k": torch.tensor(True)},
        TypeError,
        r"k must be an int between 0 and 5 \(6 target and 5 source patches\), got Tensor",
    ),
    (
        {"k": np.float64(2.0)},
        TypeError,
        r"k must be an int between 0 and 5 \(6 target and 5 source patches\), got float64",
    ),
    ({"k": np.int64(6)}, ValueError, r"k must be an int between 0 and 5 \(6 target and 5 source patches\), got 6"),
    ({"exact_steps": np.bool_(True)}, TypeError, "exact_steps must be an int >= 0, or None for all steps, got bool"),
    ({"seed": np.bool_(True)}, TypeError, "seed must be an int of 64 bits or an int64 tensor of one element, got bool"),
    ({"tau": 0.0}, ValueError, "tau must be finite and >= 1e-06, got 0.0"),
    ({"tau": 1e-30}, ValueError, "tau must be finite and >= 1e-06, got 1e-30"),
    ({"tau": float("nan")}, ValueError, "tau must be finite and >= 1e-06, got nan"),
    ({"tau": float("inf")}, ValueError, "tau must be finite and >= 1e-06, got inf"),
    ({"tau": "hot"}, TypeError, "tau must be a number, got str"),
    ({"noise_scale": -1.0}, ValueError, "noise_scale must be finite and >= 0, got -1.0"),
    ({"selection": "best"}, ValueError, "selection must be one of 'gumbel', 'topk', 'random', got 'best'"),
    ({"selection": ["topk"]}, ValueError, r"selection must be one of 'gumbel', 'topk', 'random', got \['topk'\]"),
    ({"tau": True}, TypeError, "tau must be a number, got bool"),
    ({"replace": "worst"}, ValueError, "replace must be one of 'lowest', 'highest', got 'worst'"),
    ({"pairing": None}, ValueError, "pairing must be one of 'position', 'score', got None"),
    ({"exact_steps": -2}, ValueError, "exact_steps must be an int >= 0, or None for all steps, got -2"),
    ({"exact_steps": 1.5}, TypeError, "exact_steps must be an int >= 0, or None for all steps, got float"),
    (
        {"selection": "topk", "seed": "x"},
        TypeError,
        "seed must be an int of 64 bits or an int64 tensor of one element, got str",
    ),
    ({"selection": "topk", "generator": 5}, TypeError, "generator must be a torch.Generator or None, got int"),
    ({"seed": 1.0}, TypeError, "seed must be an int of 64 bits or an int64 tensor of one element, got float"),
    (
        {"seed": 2**64},
        ValueError,
        "seed must be an int of 64 bits or an int64 tensor of one element, got 18446744073709551616",
    ),
    (
        {"seed": torch.tensor([1, 2])},
        ValueError,
        r"seed must be an int of 64 bits or an int64 tensor of one element, got torch.int64 of shape \(2,\)",
    ),
    ({"seed": 1, "generator": torch.Generator()}, ValueError, "seed and generator must not both be given"),
    ({"generator": 3}, TypeError, "generator must be a torch.Generator or None, got int"),
    ({"noise": torch.randn(2, 6)}, TypeError, r"noise must be a pair \(noise_target, noise_source\), got Tensor"),
    (
        {"noise": (torch.randn(2, 5), torch.randn(2, 5))},
        ValueError,
        r"noise\[0\] \(target\) must have shape \(2, 6\), got \(2, 5\)",
    ),
    (
        {"noise": (torch.randn(2, 6), torch.randn(2, 6))},
        ValueError,
        r"noise\[1\] \(source\) must have shape \(2, 5\), got \(2, 6\)",
    ),
    (
        {"noise": (torch.randn(2, 6), torch.randn(2, 5)), "seed": 1},
        ValueError,
        "noise must not be given together with seed",
    ),
    ({"first_row": -1}, ValueError, r"first_row must be an int in \[0, 2\^62\), got -1"),
    ({"first_row": 2**63}, ValueError, r"first_row must be an int in \[0, 2\^62\), got 9223372036854775808"),
    ({"first_row": 1.0, "selection": "topk"}, TypeError, r"first_row must be an int in \[0, 2\^62\), got float"),
    ({"straight_through": 1}, TypeError, "straight_through must be True, False or None, got int"),
    (
        {"straight_through": True, "selection": "random"},
        ValueError,
        "straight_through must be False or None with selection='random'",
    ),
]


def to_device(value, device):
    """Tensors, and tuples of them, on the device; what lies on "meta" stays there, to be on the wrong one."""
    if isinstance(value, tuple):
        return tuple(to_device(part, device) for part in value)
    return value.to(device) if isinstance(value, torch.Tensor) and value.device.type == "cpu" else value


@pytest.mark.parametrize(
    ("change", "error", "message"), BAD, ids=lambda value: "-".join(value) if isinstance(value, dict) else ""
)
@pytest.mark.parametrize("operator", [patch_replace, reference.patch_replace], ids=["operator", "reference"])
def test_patch_replace_names_the_argument(operator, change, error, message, device):
    call = {name: to_device(value, device) for name, value in (GOOD | change).items()}
    with pytest.raises(
        error, match=message.replace("DEVICE", str(call["target"].device) if "DEVICE" in message else "")
    ):
        operator(**call)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_refused():
    nested = torch.nested.nested_tensor([TARGET[0], TARGET[1]])
    with pytest.raises(TypeError, match=r"target must be a dense .strided. tensor, got a nested tensor"):
        patch_replace(nested, SOURCE, WEIGHT, k=3)


def test_the_other_entry_points_name_the_argument(device):
    with pytest.raises(ValueError, match="tokens must have shape"):
        gate_scores(TARGET[0].to(device), WEIGHT.to(device))
    with pytest.raises(ValueError, match="dim must be an int >= 1, got 0"):
        PatchGate(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 7}, r"k must be an int between 0 and 6 \(patches per row\), got 7"),
        ({"scores": torch.tensor(1.0)}, "scores must have shape"),
        ({"noise": torch.rand(2, 5)}, r"noise must have shape \(2, 6\), got \(2, 5\)"),
        ({"noise": torch.rand(2, 6), "seed": 1}, "noise must not be given together"),
        ({"stream": -1}, r"stream must be an int in \[0, 2\^32\), got -1"),
        ({"first_row": -1}, r"first_row must be an int in \[0, 2\^62\), got -1"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_gumbel_topk_names_the_argument(change, message, device):
    call = {name: to_device(value, device) for name, value in ({"scores": torch.rand(2, 6), "k": 1} | change).items()}
    with pytest.raises(ValueError, match=message):
        gumbel_topk(**call)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"kind": "cosine"},
            ValueError,
            "kind must be one of 'constant', 'linear', 'exponential', 'piecewise', got 'cosine'",
        ),
        ({"start": 1.5}, ValueError, r"start as a float is a share of the patches and must lie in \[0, 1\], got 1.5"),
        ({"end": -1}, ValueError, "end must be >= 0 patches, got -1"),
        ({"end": "0"}, TypeError, "end must be an int .patches. or a float .share., got str"),
        ({"steps": 1}, ValueError, "steps must be an int >= 2, got 1"),
        ({"steps": True}, TypeError, "steps must be an int >= 2, got bool"),
        ({"start": np.bool_(True)}, TypeError, "start must be an int .patches. or a float .share., got bool"),
    ],
)
def test_schedule_names_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        ReplaceSchedule(**arguments)


def test_schedule_checks_its_call():
    with pytest.raises(ValueError, match=r"progress must lie in \[0, 1\], got 1.1"):
        ReplaceSchedule()(1.1, 10)
    for wrong in (-1, 2.0, True):
        with pytest.raises((TypeError, ValueError), match=r"num_patches must be an int >= 0, got (-1|float|bool)"):
            ReplaceSchedule()(0.5, wrong)
