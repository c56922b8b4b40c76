"""A data set three times as large as the memory that the process may take."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.crossmodal import runs

MIB = 2**20
ALLOWED = 768 * MIB  # beyond what the interpreter and its libraries have taken when the limit is set

LIMITED = """
import resource, sys

import psutil
import torch

from crossmodal import cli, methods, parsing, run
from crossmodal.methods import _patch_replacement

torch.set_num_threads(1)
taken = psutil.Process().memory_info().data
resource.setrlimit(resource.RLIMIT_DATA, (taken + {allowed}, taken + {allowed}))
sys.exit(cli.train(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_run_on_three_times_the_memory_it_is_allowed(tmp_path, tiny_bert):
    """uint8 series of 64 Ki steps, mapped from an .npy file: statistics over all of them, training on some, evaluation."""
    length, train, test = 2**16, 37_000, 200
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        x = np.lib.format.open_memmap(folder / f"x_{part}.npy", "w+", np.uint8, (count, 1, length))
        y = np.arange(count) % 2
        x[:64, 0] = 100 * y[:64, None] + rng.integers(0, 50, (64, length))  # the rest of the file has no bytes: zeros
        x.flush()
        np.save(folder / f"y_{part}.npy", y)
    assert train * length > 3 * ALLOWED
    program = tmp_path / "limited.py"
    program.write_text(LIMITED.format(allowed=ALLOWED))
    options = {
        "task": "arrays",
        "data": folder,
        "method": "nft",
        "encoder": tiny_bert,
        "epochs": 1,
        "batch_size": 64,
        "split.train_size": 256,
        "model.layers": 1,
        "model.patch_size": 2048,
        "output_dir": tmp_path / "run",
        "threads": 1,
    }
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    output = runs.finish(runs.script(program, *words), seconds=400)
    (folder / "x_train.npy").unlink()
    assert "weights of epoch 1 of 1" in output
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["samples"]["test"] == test
    assert results["input_shape"] == [1, length]
