"""The cost of a step, by hand."""

from __future__ import annotations

import os
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks import nas_bench_360
from benchmarks.nas_bench_360 import Cost, document, saved_bytes
from benchmarks.records import Provenance

COST = Cost("ninapro", "swin-base", 3136, 1000, 0, 2, 16, 60, 4e12, 1.5, 3 * 2**30, 2**30, 2**28)


def test_projections_by_hand():
    """3297 samples x 60 epochs x 2 TFLOP at 0.4 x 989 TFLOP/s; eight GPUs are worth 7.2."""
    assert COST.training_flop == pytest.approx(395.64e15)
    assert COST.hours() == pytest.approx(395.64e15 / 395.6e12 / 3600)
    assert COST.hours(8) == pytest.approx(COST.hours() / 7.2)
    assert COST.paper_memory == 2**30 + 4000 + 8 * 2**28
    text = document([COST, replace(COST, task="ecg")], Provenance.here(torch.device("cpu")), 1)
    assert "| `ninapro` | swin-base | 3136 | 0.0 | 2 | 4 | 1.5 | 4.0 | 16 | 3.0 |" in text
    assert "| `ninapro` | 3,297 | 60 | 396 | 0.28 | 0.04 |" in text


def test_what_a_forward_pass_keeps():
    """The input of each layer that learns, and what the activation needs; parameters are not counted."""
    network = nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, 5))
    x = torch.randn(3, 10)
    assert saved_bytes(network, lambda: network(x).sum()) == 4 * (3 * 10 + 3 * 20)


def test_a_step_of_a_task_at_the_size_of_its_samples(tmp_path, tiny_roberta_folder):
    sources = nas_bench_360.write_sources(tmp_path / "sources", 16, 4)
    found = nas_bench_360.measure("satellite", tiny_roberta_folder, sources, 2, tmp_path)
    assert (found.tokens, found.batch, found.paper_batch, found.epochs) == (46, 2, 64, 60)
    weights = 4 * (found.trained + found.frozen)
    # AdamW: two moments of what learns, and a step count for each parameter.
    assert weights + 8 * found.trained < found.state < weights + 8 * found.trained + 4 * 200
    assert found.saved > 0
    # Matrix products of one layer of width 16 and its neighbours, thrice, of two passes over two samples of 46 tokens.
    assert found.flop > 2 * 2 * 46 * 3 * 2 * (4 * 16 * 16 + 2 * 16 * 24)


@pytest.fixture
def tiny_roberta_folder(tmp_path):
    from transformers import RobertaConfig, RobertaModel

    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "vocab_size": 20,
    }
    model = RobertaModel(RobertaConfig(**sizes, max_position_embeddings=66, type_vocab_size=1), add_pooling_layer=False)
    model.save_pretrained(tmp_path / "roberta")
    return tmp_path / "roberta"


def test_options(capsys):
    for arguments, said in (
        (["--tasks", "ecg,cifar10"], "unknown task 'cifar10'"),
        (["--batch", "0"], "at least 1, got 0"),
    ):
        with pytest.raises(SystemExit):
            nas_bench_360.main(arguments)
        assert said in capsys.readouterr().err


def test_what_was_measured_is_kept_until_the_page_is_whole(tmp_path, monkeypatch, capsys):
    """A task whose process is killed costs the others nothing, and no page mixes two settings."""
    page, asked, deadly = tmp_path / "page.md", [], {"ecg"}

    class Alone:
        """In the place of a process for each task."""

        def __init__(self, *_):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def submit(self, function, name, batch, threads):
            asked.append(name)
            result = Future()
            if name in deadly:
                result.set_exception(BrokenProcessPool())
            else:
                result.set_result(replace(COST, task=name, batch=batch))
            return result

    monkeypatch.setattr(nas_bench_360, "ProcessPoolExecutor", Alone)
    monkeypatch.setattr("benchmarks.records.commit_of", lambda folder: "0123456789ab")
    command = ["--tasks", "ninapro,ecg,cosmic", "-o", str(page)]
    assert nas_bench_360.main(command) == 1
    assert "ecg: its process was killed" in capsys.readouterr().err
    assert not page.exists()
    assert nas_bench_360.main([*command, "--batch", "1"]) == 1  # what was measured with two is not taken
    deadly.clear()
    assert nas_bench_360.main(command) == 0
    assert asked == ["ninapro", "ecg", "ninapro", "ecg", "ecg", "cosmic"]
    assert page.read_text().count("| swin-base |") == 3
    assert os.listdir(tmp_path) == ["page.md"]
