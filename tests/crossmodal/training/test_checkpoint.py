from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest
import torch

from crossmodal import files
from crossmodal.training import checkpoint
from crossmodal.training.checkpoint import CheckpointError, Checkpoints


def save(checkpoints: Checkpoints, step: int):
    weights = {"w": torch.full((3,), float(step))}
    return checkpoints.save(step, weights, {"step": step, "moments": [torch.ones(2) * step]}, {"w": torch.zeros(3)})


def test_round_trip_with_random_numbers(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.load() is None
    path = save(checkpoints, 4)
    expected = (torch.rand(3), np.random.rand(3), random.random())  # noqa: NPY002
    weights, state, best, found = checkpoints.load()
    assert found == path == tmp_path / "c" / "step-00000004"
    assert weights["w"].tolist() == [4, 4, 4]
    assert best["w"].tolist() == [0, 0, 0]
    assert state["step"] == 4
    assert state["moments"][0].tolist() == [4, 4]
    again = (torch.rand(3), np.random.rand(3), random.random())  # noqa: NPY002
    assert torch.equal(expected[0], again[0])
    assert (expected[1] == again[1]).all()
    assert expected[2] == again[2]


def test_only_the_newest_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3, 12):
        save(checkpoints, step)
    assert [path.name for path in checkpoints.list()] == ["step-00000003", "step-00000012"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000012"]
    save(checkpoints, 12)
    assert len(checkpoints.list()) == 2
    checkpoints.clear()
    assert not tmp_path.exists()


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing", "manifest"])
@pytest.mark.parametrize("name", ["model.safetensors", "state.pt"])
def test_damage_is_seen_and_the_one_before_is_taken(tmp_path, damage, name):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    file = save(checkpoints, 2) / name
    content = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(content[:-1])
    elif damage == "changed":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "missing":
        file.unlink()
    else:
        (file.parent / "manifest.json").write_text("{")
    with pytest.warns(UserWarning, match="manifest" if damage == "manifest" else name):
        _, state, _, _ = checkpoints.load()
    assert state["step"] == 1
    shutil.rmtree(tmp_path / "step-00000001")
    with (
        pytest.warns(UserWarning, match="trying the checkpoint before it"),
        pytest.raises(CheckpointError, match=r"no checkpoint can be read.*step-00000002"),
    ):
        checkpoints.load()


def test_content_that_is_no_checkpoint(tmp_path):
    """Right by its manifest, and yet not readable: written by something else."""
    checkpoints = Checkpoints(tmp_path)
    path = save(checkpoints, 1)
    (path / "state.pt").write_bytes(b"something else")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["state.pt"] = {"bytes": 14, "sha256": files.digest(path / "state.pt")}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.warns(UserWarning, match="step-00000001"), pytest.raises(CheckpointError, match="cannot be read"):
        checkpoints.load()


def test_an_unfinished_write_is_not_a_checkpoint(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        save(checkpoints, 2)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    (tmp_path / ".writing-step-00000007").mkdir()  # left by kill -9
    assert checkpoints.load()[1]["step"] == 1
    save(checkpoints, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000003"]
