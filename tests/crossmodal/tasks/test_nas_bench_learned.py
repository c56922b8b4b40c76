"""The miniatures of NAS-Bench-360's tasks can be learned."""

from __future__ import annotations

import pytest
import torch
from transformers import SwinConfig, SwinModel

from crossmodal import miniature, parsing, run

# How, in a minute at most. The encoder of psicov knows nothing yet: its first layers learn as fast as the last, and its first
# gradient is clipped, which is huge since a LayerNorm divides by next to nothing where all that is around a protein is zero.
LEARNED = {
    "cifar100": {"method": "knn"},
    "spherical": {"method": "knn"},
    "satellite": {"method": "linear"},
    "deepsea": {"method": "linear"},
    "fsd50k": {"method": "linear"},
    "ninapro": {"method": "tuned_cnn", "tuned_cnn.trials": 1, "epochs": 6},
    "ecg": {
        "method": "nft",
        "encoder": "minilm",
        "model.layers": 3,
        "epochs": 3,
        "optimizer.lr": 1e-4,
        "optimizer.new_lr": 1e-3,
        "metric": "accuracy",
    },
    "cosmic": {"method": "unet", "epochs": 2, "batch_size": 2},
    "darcy_flow": {"method": "unet", "epochs": 3, "batch_size": 2},
    "psicov": {
        "method": "nft",
        "epochs": 6,
        "accumulate": 1,
        "optimizer.lr": 1e-3,
        "optimizer.new_lr": 1e-3,
        "optimizer.layer_decay": 1,
        "optimizer.clip": 1,
        "lr_schedule.warmup": 0.05,
        "lr_schedule.floor": 0,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("task", LEARNED)
def test_a_miniature_is_learned(task, tmp_path):
    """Better than the most frequent class or the mean: the 95 % interval of the difference, sample by sample, is above zero."""
    miniature.make(task, tmp_path / "data")
    words = {"task": task, "data_dir": tmp_path / "data", "output_dir": tmp_path / "run", "device": "cpu", "threads": 1}
    words |= LEARNED[task]
    if task == "psicov":
        sizes = {"embed_dim": 32, "depths": (2, 2), "num_heads": (2, 4), "window_size": 7}
        torch.manual_seed(0)
        SwinModel(SwinConfig(image_size=224, **sizes), add_pooling_layer=False).save_pretrained(tmp_path / "encoder")
        words["encoder"] = tmp_path / "encoder"
    found = run.train(parsing.parse([f"--{key}={value}" for key, value in words.items()]))
    floor = found["verdict"]["others"]["mean"]
    assert floor["interval"][0] > 0, found["verdict"]["sentence"]
