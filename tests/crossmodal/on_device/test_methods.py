"""Training on a device, which is simulated: no tensor is left behind on the CPU."""

from __future__ import annotations

import math

import pytest
import torch
from accelerate import Accelerator

from crossmodal import methods, parsing, run
from tests.crossmodal import runs
from tests.crossmodal.test_walk import settings
from tests.simulated_device import OnDevice, simulated


@pytest.fixture
def device(monkeypatch):
    """The device that a run takes."""
    with simulated() as device:
        monkeypatch.setattr(Accelerator, "device", property(lambda self: device))
        yield device


def test_tensors_of_two_devices_do_not_meet(device):
    there, here = torch.ones(2, 3, device=device), torch.ones(2, 3)
    assert torch.tensor([1], device=device).device == there.device == device
    for meet in (torch.add, torch.sub, torch.nn.functional.mse_loss, lambda x, y: torch.cat([x, y])):
        with pytest.raises(RuntimeError, match=r"simulated:0 and of the CPU meet"):
            meet(there, here)
    assert (there[torch.tensor([0])] + torch.tensor(1.0)).cpu().tolist() == [[2.0] * 3]
    with pytest.raises(RuntimeError, match=r"simulated:0 and of the CPU meet"):
        here[torch.tensor([0], device=device)]
    layer = torch.nn.Linear(3, 1).to(device)
    layer(there).sum().backward()
    assert layer.weight.grad.device == device


KINDS = [("classification", 1), ("dense", 2)]


@pytest.mark.parametrize(
    ("kind", "ndim"),
    [*KINDS, *(pytest.param(kind, 2, marks=pytest.mark.slow) for kind in ("regression", "multilabel"))],
)
@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_trains_there(tmp_path, tiny_bert, device, method, kind, ndim):
    values = settings(tmp_path, tiny_bert, method, kind, ndim) | {"device": "auto", "pictures": "png"}
    if methods.reason_against(method, run.load_task(parsing.from_dict(values))):
        pytest.skip("unsuited, which test_walk looks at")
    before = OnDevice.made
    assert math.isfinite(run.train(parsing.from_dict(values))["test"])
    assert OnDevice.made > before


@pytest.mark.parametrize("distance", ["mmd", "l2"])
def test_orca_by_other_distances(tmp_path, tiny_bert, device, distance):
    values = settings(tmp_path, tiny_bert, "orca", "classification", 1)
    run.train(parsing.from_dict(values | {"orca": {"alignment": distance, "epochs": 1}}))


def test_pictures_of_series_that_an_image_encoder_sees(tmp_path, tiny_vit, device):
    values = runs.settings(tmp_path, tiny_vit, epochs=1, device="auto", pictures="png", model={"layers": 1})
    values["source"] = {"name": "photographs", "limit": 22}
    run.train(parsing.from_dict(values))
    assert (tmp_path / "run" / "mixing.png").is_file()
